"""An engine whose model is a rule: the real scheduling, blocks and text, with tokens that follow from the prompt alone."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rota.mechanisms.engine import Choice, Engine
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.sequences import Seq
from rota.mechanisms.server.chat import ChatTemplate
from rota.mechanisms.server.front import Front, Limits
from rota.models.bpe import BEGIN, CHAT_TEMPLATE, END, SPECIALS
from rota.policies.registry import parse_policy

MODEL = "scripted"


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, after the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


class ScriptedRunner:
    """Answers a prompt with letters drawn from its checksum.

    Parameters
    ----------
    tokenizer : Tokenizer
    seconds : float
        What a step takes.
    max_len : int
    ends_after : int
        Tokens of an answer before its end.

    Attributes
    ----------
    may_run : threading.Event
        Steps wait for it.
    fault : Exception or None
        Raised by the next step.
    """

    n_layers = 2

    def __init__(self, tokenizer: Tokenizer, seconds: float = 0.0, max_len: int = 2048, ends_after: int = 1 << 20) -> None:
        self.max_len, self._ends_after = max_len, ends_after
        self.vocab = tokenizer.get_vocab_size()
        self.end_tokens = frozenset({tokenizer.token_to_id(END)})
        self._letters = [tokenizer.token_to_id(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
        self.seconds = seconds
        self.may_run = threading.Event()
        self.may_run.set()
        self.fault: Exception | None = None

    def allocate(self, blocks: int, block_size: int) -> None:
        pass

    def forget(self, seq: Seq) -> None:
        pass

    def run(self, rows: Sequence[Row], tables: object) -> list[Choice]:
        self.may_run.wait()
        if self.fault is not None:
            raise self.fault
        if self.seconds:
            time.sleep(self.seconds)
        return [self._choice(row.seq) for row in rows if row.emits]

    def _choice(self, seq: Seq) -> Choice:
        token = self.answer(seq.tokens[: seq.n_prompt], seq.n_generated)
        wanted = seq.params.logprobs
        if wanted is None:
            return Choice(token)
        return Choice(token, -0.25, tuple((self._letters[i], -1.0 - i) for i in range(wanted)))

    def answer(self, prompt: Sequence[int], number: int) -> int:
        """Token `number` of the answer to a prompt."""
        if number >= self._ends_after:
            return min(self.end_tokens)
        return self._letters[zlib.crc32(repr((tuple(prompt), number)).encode()) % 26]


def scripted_front(
    *, seconds: float = 0.0, blocks: int = 4096, policy: str = "vllm-v1", limits: Limits | None = None, template: bool = True,
    max_len: int = 2048, ends_after: int = 1 << 20,
) -> Front:  # fmt: skip
    """A front on such an engine."""
    tokenizer = byte_tokenizer()
    engine = Engine(ScriptedRunner(tokenizer, seconds, max_len, ends_after), parse_policy(policy), blocks=blocks, tokenizer=tokenizer)
    chat = ChatTemplate(CHAT_TEMPLATE, {"bos_token": BEGIN, "eos_token": END}) if template else None
    return Front(engine, tokenizer, chat, MODEL, limits)


def expected(front: Front, prompt: Sequence[int], n: int) -> str:
    """The text that a prompt of token ids is answered with."""
    runner = front.engine.runner
    assert isinstance(runner, ScriptedRunner)
    return str(front.tokenizer.decode([runner.answer(prompt, i) for i in range(n)]))
