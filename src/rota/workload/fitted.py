"""A workload as fitted distributions: some hundred numbers that stand for a recorded trace and yield any number of requests.

Lengths: a table of prompt quantiles, and one of output quantiles for each stratum of prompt lengths, so that the dependence
between the two may have any shape. Arrivals: `rota.workload.arrivals`. Shared prefixes: `rota.workload.conversations`.
Fitting is in `rota.workload.fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rota.errors import InputError
from rota.workload.arrivals import Arrivals
from rota.workload.conversations import Conversations
from rota.workload.quantiles import LEVELS, interpolate, significant
from rota.workload.trace import Floats, Ints, Trace

FORMAT = "rota-workload-1"


class FitRow(NamedTuple):
    """One line of a fit's error: a statistic of the recorded trace and of what is drawn from the fit.

    For a KS distance `real` and `fitted` are NaN and `error` is the distance; else `error` is relative to `real`, or, where
    `real` is a share, a correlation or a variation, the difference.
    """

    quantity: str
    statistic: str
    real: float
    fitted: float
    error: float


@dataclass(frozen=True, slots=True)
class FittedWorkload:
    """Distributions that stand for a recorded trace.

    Parameters
    ----------
    name, source, licence : str
        `source` and `licence` are those of the recorded trace.
    requests : int
        Requests of the recorded trace, and how many are drawn unless told otherwise.
    prompt : float64 (len(LEVELS),)
        Quantiles of prompt tokens: of all requests, or, with `conversations`, of their opening ones.
    strata : float64 (k - 1,)
        Prompt lengths that part the strata.
    output : float64 (k, len(LEVELS))
        Quantiles of output tokens in each stratum.
    arrivals : Arrivals
        Of requests, or of conversations.
    conversations : Conversations or None
        How requests continue earlier ones; None where the trace does not tell.
    errors : tuple of FitRow
        Measured when it was fitted.
    """

    name: str
    source: str
    licence: str
    requests: int
    prompt: Floats
    strata: Floats
    output: Floats
    arrivals: Arrivals
    conversations: Conversations | None = None
    errors: tuple[FitRow, ...] = ()

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        """Prompt and output tokens of `n` independent requests (with conversations: opening ones)."""
        prompt = whole(interpolate(self.prompt[None], 0, rng.random(n)))
        return prompt, self.outputs(prompt, rng.random(n))

    def outputs(self, prompt: Ints, u: Floats) -> Ints:
        """Output tokens at probability `u` among requests with such prompts."""
        return whole(interpolate(self.output, self.stratum(prompt), u))

    def stratum(self, prompt: Ints) -> Ints:
        """Index of the stratum of each prompt length."""
        return np.searchsorted(self.strata, prompt, side="right").astype(np.int64)

    def generate(self, n: int | None = None, seed: int = 0) -> Trace:
        """Draw a trace of `n` requests.

        Parameters
        ----------
        n : int, optional
            Default: as many as were recorded. Beyond the recorded time the slow changes of the arrival rate repeat.
        seed : int

        Returns
        -------
        Trace
            The first request arrives at 0 s.

        Raises
        ------
        InputError
            If `n` is below 1 or `seed` is negative.
        """
        n = self.requests if n is None else n
        if n < 1:
            raise InputError(f"{self.name}: the number of requests must be at least 1, not {n}")
        if seed < 0:
            raise InputError(f"seed must not be negative ({seed})")
        rng = np.random.default_rng(seed)
        source = f"drawn from distributions fitted to {self.source}" if self.source else "drawn from fitted distributions"
        arrival = self.arrivals.draw(rng, n)
        prompt, output = self.draw(rng, n)
        if self.conversations is None:
            return Trace(arrival=self.arrivals.ticked(arrival), prompt=prompt, output=output, name=self.name, source=source)
        drawn = self.conversations.draw(rng, arrival, prompt, self.stratum, self.outputs)
        return Trace(
            arrival=self.arrivals.ticked(drawn.arrival), prompt=drawn.prompt, output=drawn.output, hash_ids=drawn.hash_ids,
            hash_start=drawn.hash_start, hash_block=self.conversations.block, name=self.name, source=source,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for a JSON file."""
        return {
            "format": FORMAT,
            "name": self.name,
            "source": self.source,
            "licence": self.licence,
            "requests": self.requests,
            "prompt": significant(self.prompt, 6),
            "strata": significant(self.strata, 6),
            "output": significant(self.output, 5),
            "arrivals": self.arrivals.to_dict(),
            "conversations": self.conversations.to_dict() if self.conversations else None,
            "errors": [[r.quantity, r.statistic, *(_number(x) for x in r[2:])] for r in self.errors],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> FittedWorkload:
        """The inverse of `to_dict`; `where` names the file in errors.

        Raises
        ------
        InputError
            If something is missing or has the wrong shape.
        """
        if values.get("format") != FORMAT:
            raise InputError(f"{where}: is not a fitted workload of this version of Rota; make one with rota workload fit")
        try:
            found = cls(
                name=str(values["name"]),
                source=str(values["source"]),
                licence=str(values["licence"]),
                requests=int(values["requests"]),
                prompt=np.array(values["prompt"], np.float64),
                strata=np.array(values["strata"], np.float64),
                output=np.array(values["output"], np.float64),
                arrivals=Arrivals.from_dict(values["arrivals"]),
                conversations=Conversations.from_dict(values["conversations"]) if values["conversations"] else None,
                errors=tuple(FitRow(q, s, *(np.nan if x is None else float(x) for x in row)) for q, s, *row in values["errors"]),
            )
        except KeyError as missing:
            raise InputError(f"{where}: {missing} is missing; fit the workload again with rota workload fit") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {error}; fit the workload again with rota workload fit") from None
        found.check(where)
        return found

    def check(self, where: str) -> None:
        """Raise `InputError` unless every table has its shape and rises."""
        k = len(self.strata) + 1
        tables = {"prompt": (self.prompt, (len(LEVELS),)), "output": (self.output, (k, len(LEVELS)))}
        tables["arrivals gaps"] = (self.arrivals.gaps, (len(LEVELS),))
        if self.conversations is not None:
            tables |= self.conversations.tables(k)
        for name, (values, shape) in tables.items():
            if values.shape != shape:
                raise InputError(f"{where}: {name} has shape {values.shape}, expected {shape}; fit the workload again")
            if not np.all(np.isfinite(values)) or (shape[-1] == len(LEVELS) and np.any(np.diff(values) < 0)):
                raise InputError(f"{where}: quantiles of {name} must be finite and rising; fit the workload again")
        times = self.arrivals
        positive = min(self.requests, times.duration, times.rate, times.memory, times.gaps.min(), times.profile.sum()) > 0
        if not positive or times.profile.ndim != 1 or times.profile.min() < 0 or times.tick < 0 or not 0 <= times.correlation < 1:
            raise InputError(f"{where}: requests, duration, rate, profile and gaps must be positive; fit the workload again")


def whole(values: Floats) -> Ints:
    """Token counts: whole and at least 1."""
    return np.maximum(1, np.rint(values)).astype(np.int64)


def _number(x: float) -> float | None:
    return None if np.isnan(x) else float(f"{x:.6g}")
