"""When requests arrive in a fitted workload: a renewal process with slow changes of its rate.

Gaps between arrivals are drawn from a table of quantiles (between them on a logarithmic scale), neighbouring ones correlated, on
a clock that runs with the rate profile: a piecewise constant rate over the recorded time, repeated beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rota.workload.quantiles import LEVELS, interpolate, ranks
from rota.workload.trace import Floats


def mean_gap(gaps: Floats) -> float:
    """Mean of what is drawn from a table of positive gaps."""
    low, high = gaps[:-1], gaps[1:]
    ratio = np.log(high / low)
    some = ratio > 1e-12
    means = np.where(some, (high - low) / np.where(some, ratio, 1.0), low)
    return float(np.sum(np.diff(LEVELS) * means))


def slow_noise(rng: np.random.Generator, n: int, memory: float) -> Floats:
    """Standard normal numbers correlated by ``exp(-l / memory)`` at distance l (a sampled Ornstein-Uhlenbeck process)."""
    decay = np.exp(-1.0 / memory)
    # within a row x_k = decay^k (x_0 + sum of noise / decay^k) in one go, so short that the powers keep their digits
    width = max(1, min(n, int(20 * memory)))
    rows = -(-n // width)
    powers = decay ** np.arange(1, width + 1)
    noise = np.sqrt(1 - decay**2) * rng.standard_normal((rows, width))
    found = np.cumsum(noise / powers, axis=1) * powers
    last = rng.standard_normal()
    for row in found:
        row += last * powers
        last = row[-1]
    return np.asarray(found.ravel()[:n])


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Fitted arrivals.

    Parameters
    ----------
    rate : float
        Mean rate over the recorded time, per second.
    duration : float
        Recorded time, seconds.
    profile : float64 (k,)
        Rate in each k-th part of the recorded time, relative to the mean; averages 1.
    gaps : float64 (len(LEVELS),)
        Quantiles of gaps on the clock of the profile, all positive, mean 1.
    correlation, memory : float
        Normal scores of gaps that are l gaps apart have the correlation ``correlation * exp(-l / memory)``: times of short gaps
        and times of long ones last for some `memory` gaps.
    tick : float
        Resolution of the recorded times, seconds; arrivals are put on it. 0 for none.
    """

    rate: float
    duration: float
    profile: Floats
    gaps: Floats
    correlation: float
    memory: float
    tick: float = 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """`n` arrival times, the first at 0 s, not yet on ticks.

        The gaps are stratified: one from each n-th part of their distribution. So even heavy tails leave the mean rate as it is.
        """
        score = np.sqrt(self.correlation) * slow_noise(rng, n, self.memory)
        score += np.sqrt(1 - self.correlation) * rng.standard_normal(n)
        u = (ranks(score) + rng.random(n)) / n
        clock = np.cumsum(np.exp(interpolate(np.log(self.gaps)[None], 0, u)))
        return self.times((clock - clock[0]) / self.rate)

    def clock(self, times: Floats) -> Floats:
        """Seconds on a clock that runs with the profile, for seconds on an ordinary one; within the recorded time."""
        edges, passed = self._edges()
        return np.interp(times, edges, passed)

    def times(self, clock: Floats) -> Floats:
        """The inverse of `clock`, repeated beyond the recorded time."""
        edges, passed = self._edges()
        period = np.floor(clock / self.duration)
        return np.asarray(period * self.duration + np.interp(clock - period * self.duration, passed, edges))

    def _edges(self) -> tuple[Floats, Floats]:
        k = len(self.profile)
        edges = np.linspace(0.0, self.duration, k + 1)
        passed = np.concatenate([[0.0], np.cumsum(self.profile)])
        return edges, passed * (self.duration / passed[-1])

    def ticked(self, times: Floats) -> Floats:
        """Times rounded down to the tick."""
        return np.floor(times / self.tick + 1e-9) * self.tick if self.tick else times

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return {
            "rate": float(f"{self.rate:.7g}"),
            "duration": round(self.duration, 3),
            "tick": self.tick,
            "correlation": round(self.correlation, 4),
            "memory": round(self.memory, 2),
            "profile": np.round(self.profile, 3).tolist(),
            "gaps": [float(f"{x:.5g}") for x in self.gaps],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Arrivals:
        """The inverse of `to_dict`."""
        return cls(
            rate=float(values["rate"]),
            duration=float(values["duration"]),
            profile=np.array(values["profile"], np.float64),
            gaps=np.array(values["gaps"], np.float64),
            correlation=float(values["correlation"]),
            memory=float(values["memory"]),
            tick=float(values["tick"]),
        )
