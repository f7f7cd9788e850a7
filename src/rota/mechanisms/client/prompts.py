"""Prompts of the lengths that a trace has, with prefixes in common where the trace has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rota.workload.trace import Trace

#: Words that are one token, with the space before them, in most vocabularies.
WORDS = tuple("the of and to in is for that it on with as are this be from at or an have not by you but they was which we all one can will".split())  # noqa: SIM905
Prompt = list[int] | str


def token_prompts(trace: Trace, vocab: int, seed: int) -> Callable[[int], Prompt]:
    """For a request's row, random token ids, as many as its prompt has; from the middle of the vocabulary, where no special tokens are."""
    low, high = vocab // 8, max(vocab // 8 + 1, vocab - vocab // 8)

    def prompt(row: int) -> list[int]:
        return [int(token) for token in _numbers(trace, row, low, high, seed)]

    return prompt


def text_prompts(trace: Trace, seed: int) -> Callable[[int], Prompt]:
    """For a request's row, as many short English words as its prompt has tokens; how many tokens those are, the server says."""

    def prompt(row: int) -> str:
        return " ".join(WORDS[i] for i in _numbers(trace, row, 0, len(WORDS), seed))

    return prompt


def _numbers(trace: Trace, row: int, low: int, high: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Random numbers, one for each prompt token; equal where the trace says that the content is."""
    n = int(trace.prompt[row])
    if trace.hash_ids is None or trace.hash_start is None:
        return np.random.default_rng((seed, 0, row)).integers(low, high, n)
    ids = trace.hash_ids[trace.hash_start[row] : trace.hash_start[row + 1]]
    runs = [np.random.default_rng((seed, 1, int(i) & ((1 << 63) - 1))).integers(low, high, trace.hash_block) for i in ids]
    known = np.concatenate(runs) if runs else np.empty(0, dtype=np.int64)
    rest = np.random.default_rng((seed, 0, row)).integers(low, high, max(0, n - len(known)))
    return np.concatenate([known[:n], rest])
