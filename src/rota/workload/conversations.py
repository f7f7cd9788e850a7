"""How requests of a fitted workload continue earlier ones, and so which leading tokens they share.

A conversation opens with a prompt; after each turn it goes on with a probability that depends on the prompt's length and on
whether the turn was the first. The next prompt either keeps the whole previous one and grows, or keeps only part of it (a
shortened history). All conversations begin with the same `system` runs of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.workload.prefix import ragged
from rota.workload.quantiles import LEVELS, interpolate, normal_cdf, significant
from rota.workload.trace import Floats, Ints


class Drawn(NamedTuple):
    """Columns of a trace; times in seconds, not yet on ticks."""

    arrival: Floats
    prompt: Ints
    output: Ints
    hash_ids: Ints
    hash_start: Ints


class _Turn(NamedTuple):
    arrival: Floats
    prompt: Ints
    output: Ints
    ids: Ints
    runs: Ints


@dataclass(frozen=True, slots=True)
class Conversations:
    """Fitted conversations; k is the number of strata of prompt lengths.

    Parameters
    ----------
    block : int
        Tokens per hash run.
    system : int
        Leading runs that all conversations share.
    longest : int
        Longest recorded prompt, tokens; none grows beyond it.
    continues : float64 (2, k)
        Probability of another turn after a first and after a later one, by stratum.
    keeps : float64 (k,)
        Probability that the next prompt keeps the whole previous one.
    growth : float64 (k, len(LEVELS))
        Quantiles of the tokens by which such a prompt exceeds the previous prompt and output together (may be negative).
    kept_share : float64 (len(LEVELS),)
        Otherwise: quantiles of the share of the previous prompt's runs, beyond the system's, that is kept,
    resized : float64 (k, len(LEVELS))
        and of the ratio of the next prompt to the previous one.
    pause : float64 (len(LEVELS),)
        Quantiles of seconds from one turn's arrival to the next one's.
    correlation : float
        Between normal scores of the output lengths (within their strata) of successive turns.
    """

    block: int
    system: int
    longest: int
    continues: Floats
    keeps: Floats
    growth: Floats
    kept_share: Floats
    resized: Floats
    pause: Floats
    correlation: float

    def tables(self, k: int) -> dict[str, tuple[Floats, tuple[int, ...]]]:
        """Every table with the shape it must have."""
        m = len(LEVELS)
        shapes = {
            "continues": (2, k), "keeps": (k,), "growth": (k, m), "kept_share": (m,), "resized": (k, m), "pause": (m,),
        }  # fmt: skip
        return {name: (getattr(self, name), shape) for name, shape in shapes.items()}

    def draw(
        self, rng: np.random.Generator, arrival: Floats, prompt: Ints, stratum: Callable[[Ints], Ints],
        outputs: Callable[[Ints, Floats], Ints],
    ) -> Drawn:  # fmt: skip
        """As many requests as openings are given (some of the last openings are then left out), by arrival.

        Parameters
        ----------
        rng : numpy.random.Generator
        arrival, prompt : arrays (n,)
            Of the conversations' first requests.
        stratum : callable
            Index of the stratum of each prompt length.
        outputs : callable
            Output tokens from prompt lengths and probabilities.
        """
        n = len(arrival)
        score = rng.standard_normal(n)
        runs = -(-prompt // self.block)
        row, at = ragged(runs)
        next_id = self.system + len(row)
        ids = np.where(at < self.system, at, self.system + np.arange(len(row)))
        turn = _Turn(arrival, prompt, outputs(prompt, normal_cdf(score)), ids, runs)
        turns, first, end = [turn], True, float(arrival[-1])
        while len(turn.arrival):
            place = stratum(turn.prompt)
            more = rng.random(len(place)) < self.continues[0 if first else 1][place]
            when = turn.arrival + interpolate(self.pause[None], 0, rng.random(len(place)))
            more &= when <= end
            score = self.correlation * score + np.sqrt(1 - self.correlation**2) * rng.standard_normal(len(score))
            score, place, first = score[more], place[more], False
            turn = self._next(rng, _pick(turn, more), when[more], place, outputs, score, next_id)
            next_id += int(turn.runs.sum())
            turns.append(turn)
        return _in_order(turns, n)

    def _next(
        self, rng: np.random.Generator, last: _Turn, when: Floats, place: Ints, outputs: Callable[[Ints, Floats], Ints],
        score: Floats, next_id: int,
    ) -> _Turn:  # fmt: skip
        m = len(when)
        whole = rng.random(m) < self.keeps[place]
        grown = last.prompt + last.output + interpolate(self.growth, place, rng.random(m))
        resized = last.prompt * interpolate(self.resized, place, rng.random(m))
        beyond = np.maximum(0, last.prompt // self.block - self.system)
        share = np.where(whole, 1.0, interpolate(self.kept_share[None], 0, rng.random(m)))
        shared = np.minimum(self.system + np.floor(share * beyond + 1e-9).astype(np.int64), last.runs)
        prompt = np.minimum(np.rint(np.where(whole, grown, resized)).astype(np.int64), self.longest)
        prompt = np.maximum(prompt, shared * self.block + 1)
        runs = -(-prompt // self.block)
        row, at = ragged(runs)
        begin = (np.cumsum(last.runs) - last.runs)[row]
        old = at < shared[row]
        fresh = np.where(at < self.system, at, next_id + np.arange(len(row)))
        ids = np.where(old, last.ids[np.minimum(begin + at, len(last.ids) - 1)], fresh) if len(row) else at
        return _Turn(when, prompt, outputs(prompt, normal_cdf(score)), ids, runs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return {f.name: significant(getattr(self, f.name), 4) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Conversations:
        """The inverse of `to_dict`."""
        given: dict[str, Any] = {f.name: values[f.name] for f in fields(cls)}
        for name, value in given.items():
            given[name] = np.array(value, np.float64) if isinstance(value, list) else value
        return cls(**given)


def _pick(turn: _Turn, some: NDArray[np.bool_]) -> _Turn:
    ids = turn.ids[np.repeat(some, turn.runs)]
    return _Turn(turn.arrival[some], turn.prompt[some], turn.output[some], ids, turn.runs[some])


def _in_order(turns: list[_Turn], n: int) -> Drawn:
    """The first `n` requests of all turns by arrival."""
    arrival, prompt, output, ids, runs = (np.concatenate(column) for column in zip(*turns, strict=True))
    order = np.argsort(arrival, kind="stable")[:n]
    start = (np.cumsum(runs) - runs)[order]
    row, at = ragged(runs[order])
    _, dense = np.unique(ids[start[row] + at], return_inverse=True)
    hash_start = np.concatenate([[0], np.cumsum(runs[order])])
    return Drawn(arrival[order], prompt[order], output[order], dense.astype(np.int64), hash_start)
