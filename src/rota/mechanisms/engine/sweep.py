"""Measures a runner on purpose: steps of every kind and size, on sequences that nobody has asked for, several times over.

What a step computes does not depend on what its tokens are, so contexts need not be computed before they are read. Every round measures
all steps once, in another order, so that a slow moment of the machine does not fall on one step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.cost.step_samples import StepSample
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.runner import Runner
from rota.mechanisms.engine.sequences import Seq

#: Steps of shapes that are in no grid, to check a fit on.
RANDOM = 40


class Step(NamedTuple):
    """A step to measure: contexts of its decodes (the new token included), its chunks as (cached, new), whether these emit, and the layers that
    the chunks pass, one range after the other."""

    decodes: tuple[int, ...]
    chunks: tuple[tuple[int, int], ...] = ()
    emits: bool = False
    cuts: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that it computes."""
        return len(self.decodes) + sum(n for _, n in self.chunks)


class Sweep:
    """The steps of a calibration, and the means to run them.

    Parameters
    ----------
    runner : Runner
    blocks, block_size, max_len : int
        Of its KV cache, which is overwritten.
    clock : callable
        Seconds, such as `time.perf_counter`.
    most_tokens, most_seqs : int
        Largest chunk and largest number of sequences.
    seed : int
        Of orders and of random shapes.
    """

    def __init__(
        self, runner: Runner, *, blocks: int, block_size: int, max_len: int, clock: Callable[[], float], most_tokens: int, most_seqs: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self._runner, self._blocks, self._size, self._clock = runner, blocks, block_size, clock
        self._longest = min(max_len, blocks * block_size)
        self._tokens, self._seqs = min(most_tokens, self._longest), min(most_seqs, blocks)
        self._seed = seed
        self._places = np.random.default_rng((seed, 1 << 22)).permutation(blocks).astype(np.int32)
        self.grid = [step for step in dict.fromkeys(self._grid()) if self._fits(step)]
        self.random = [step for step in dict.fromkeys(self._random()) if self._fits(step)]

    def warm_up(self) -> None:
        """Compute every number of tokens and of answers once: libraries prepare a matrix product when they first see its size (of many tokens,
        that of every sixteenth)."""
        table = np.arange(self._longest // self._size, dtype=np.int32)[None]
        for n in (*range(1, min(257, self._tokens + 1)), *range(272, self._tokens + 1, 16)):
            seq = _nobody(n, 0)
            self._runner.run([Row(seq, 0, n, (0, 1), self._runner.n_layers == 1, False)], table)
            self._runner.forget(seq)
        for n in range(1, self._seqs + 1):
            self.measure(Step((1,) * n))

    def affordable(self, seconds: float) -> int:
        """The largest chunk, a power of two times 16, whose step takes at most so long; found by trying."""
        n = 16
        while n * 2 <= self._tokens:
            if min(self.measure(Step((), ((0, n),)))[0].seconds for _ in range(2)) > seconds / 2:
                break
            n *= 2
        return n

    def round(self, number: int) -> list[tuple[bool, Step]]:
        """All steps in the order of a round, and whether each is one to check a fit on."""
        steps = [(False, step) for step in self.grid] + [(True, step) for step in self.random]
        return [steps[i] for i in np.random.default_rng((self._seed, number)).permutation(len(steps)).tolist()]

    def measure(self, step: Step) -> list[StepSample]:
        """Run a step once: a sample for each range of its layers."""
        depth, slot = self._runner.n_layers, 0
        seqs = []
        tables = np.zeros((max(1, len(step.decodes) + len(step.chunks)), self._longest // self._size + 2), np.int32)
        at = 0
        for total in (*step.decodes, *(past + new for past, new in step.chunks)):
            need = self._count(total)
            tables[slot, :need] = self._places[at : at + need]  # as in an engine that has served for a while: a sequence's blocks lie anywhere
            seqs.append(_nobody(total, slot))
            at, slot = at + need, slot + 1
        n = len(step.decodes)
        decodes = [Row(seq, total - 1, 1, (0, depth), True, True) for seq, total in zip(seqs[:n], step.decodes, strict=True)]
        samples = []
        for low, high in pairwise((0, *step.cuts, depth)) if step.chunks else [(0, 0)]:
            emits = step.emits and high == depth
            chunks = [Row(seq, past, new, (low, high), emits, False) for seq, (past, new) in zip(seqs[n:], step.chunks, strict=True)]
            samples.append(self._timed(decodes + chunks, tables, step, (low, high), len(chunks) if emits else 0))
        return samples

    def _timed(
        self, rows: Sequence[Row], tables: NDArray[np.int32], step: Step, layers: tuple[int, int], emitted: int
    ) -> StepSample:
        began = self._clock()
        self._runner.run(rows, tables)
        seconds = max(self._clock() - began, 1e-9)
        return StepSample(len(step.decodes), sum(step.decodes), step.chunks, layers, emitted, seconds, math.nan)

    def _grid(self) -> Iterator[Step]:
        chunk, longest, depth = self._tokens, self._longest, self._runner.n_layers
        pasts = [0, *_ladder(longest - 1, 4, 64)]
        sizes = self._sizes(chunk)
        for n in sizes:
            yield Step((), ((0, n),), emits=True)
        for n in sizes[-16:]:  # a policy may compute more at once than the largest chunk
            yield Step((), ((0, n), (0, n)))
        for n in (1, *_ladder(chunk, 2, 8)):
            for past in pasts[1:]:
                if n * (n + 2 * past) <= 4 * chunk * chunk:  # what grows with the square would take all the time
                    yield Step((), ((past, n),))
        batches = (1, *_ladder(self._seqs, 2, 2))
        for n in self._sizes(self._seqs):
            for context in _ladder(longest, 4, 16):
                yield Step((context,) * n)
        for n in batches:
            for emits in (False, True):  # the head alone is the difference
                yield Step((), ((0, 8),) * n, emits)
        for n in batches[1::2]:
            for new in _ladder(chunk, 4, 16):
                yield Step((min(128, longest),) * n, ((0, new),), emits=True)
                yield Step((min(128, longest),) * n, ((min(256, longest - new), new),))
        for cut in {1, depth // 2} - {0, depth}:
            for new in sizes[len(sizes) % 2 :: 2]:
                for n in (0, *batches[2::3]):
                    yield Step((min(128, longest),) * n, ((0, new),), True, (cut,))

    def _sizes(self, most: int) -> list[int]:
        """All up to 8, then every power of two and three sizes between it and the next, drawn: products of matrices are fastest for round ones."""
        draw = np.random.default_rng((self._seed, 1 << 23))
        found = set(range(1, 9))
        for size in _ladder(most, 2, 8):
            found |= {size, *(size + size * part // 3 + int(draw.integers(1, max(2, size // 3))) for part in range(3))}
        return [size for size in sorted(found) if size <= most]

    def _random(self) -> Iterator[Step]:
        draw = np.random.default_rng((self._seed, 1 << 20))
        depth = self._runner.n_layers
        for i in range(RANDOM):
            decodes = [_size(draw, 2, self._longest) for _ in range(_size(draw, 1, self._seqs))] if i % 4 != 1 else []
            chunks: list[tuple[int, int]] = []
            left = _size(draw, 1, self._tokens)
            while left > 0 and i % 4 and len(chunks) < 8:
                new = min(left, _size(draw, 1, self._tokens))
                chunks.append((int(draw.integers(2)) * _size(draw, 1, max(1, min(self._longest - new, 2 * self._tokens))), new))
                left -= new
            cuts = (int(draw.integers(1, depth)),) if i % 4 == 3 and depth > 1 else ()
            yield Step(tuple(decodes), tuple(chunks), bool(draw.integers(2)), cuts)

    def _fits(self, step: Step) -> bool:
        totals = (*step.decodes, *(past + new for past, new in step.chunks))
        return max(totals) <= self._longest and sum(map(self._count, totals)) <= self._blocks and len(totals) <= 2 * self._seqs

    def _count(self, tokens: int) -> int:
        return -(-tokens // self._size)


def _ladder(most: int, factor: int, first: int) -> list[int]:
    """`first`, then ever `factor` times more, up to `most`, and that."""
    steps = list(accumulate(range(64), lambda size, _: size * factor, initial=first))
    return sorted({size for size in steps if size < most} | {most} if most >= 1 else set())


def _size(draw: np.random.Generator, low: int, high: int) -> int:
    """Small sizes as likely as large ones."""
    return int(np.exp(draw.uniform(np.log(low), np.log(max(low, high) + 0.5))))


def _nobody(total: int, slot: int) -> Seq:
    seq = Seq(-1 - slot, [0] * total, 0.0, 1, SamplingParams(max_tokens=1, temperature=0.0))
    seq.slot = slot
    return seq
