"""The simplest engine there is: every step takes the same time, and a policy that serves one request at a time.

A request with G output tokens then takes exactly G steps, and a queue of them follows Lindley's recursion, by hand.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rota.contracts.serving import EngineView, Limits, StepPlan, Work
from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.workload.trace import Trace

STEP = 0.01


class OneAtATime:
    """First come, first served, one request in the engine."""

    requires: ClassVar[frozenset[str]] = frozenset()
    order = "fcfs"
    prefix_caching = False
    max_seqs = 1
    max_step_tokens = 0
    follows = False

    def __init__(self, name: str = "one", reject_above: int = 1 << 30) -> None:
        self.name = name
        self.reject_above = reject_above

    def start(self, limits: Limits) -> None:
        pass

    def plan(self, view: EngineView) -> StepPlan:
        if view.n_running == 0:
            for seq in view.waiting:
                if seq.n_prompt > self.reject_above:
                    return StepPlan((), False, (), (seq.sid,))
                return StepPlan((Work(seq.sid, seq.n_known),))
        return StepPlan()


class SteadyServer:
    """A deployment whose every step takes `STEP` seconds of host time."""

    def __init__(self, error: dict[str, float] | None = None) -> None:
        self.error = error or {}

    def engine(self, max_step_tokens: int) -> EngineSpec:
        tables = StepTables(layer=np.zeros(4), head=np.zeros(4), n_layers=1, cpu=STEP, error=self.error)
        return EngineSpec(tables, blocks=100_000, label="steady")


def steady_trace(n: int = 200, rate: float = 1.0, prompt: int = 8, output: int = 50) -> Trace:
    """Equal requests at equal distances."""
    return Trace(np.arange(n) / rate, np.full(n, prompt), np.full(n, output), name="steady")


def random_trace(seed: int, n: int = 60) -> Trace:
    """Poisson arrivals, lengths of all kinds."""
    rng = np.random.default_rng(seed)
    return Trace(np.cumsum(rng.exponential(1.0, n)), rng.integers(1, 50, n), rng.integers(1, 90, n), name="random")


def lindley(trace: Trace, step: float = STEP) -> np.ndarray:
    """Waiting times of requests served one after the other: W(i+1) = max(0, W(i) + S(i) - gap)."""
    waits = np.zeros(len(trace))
    for i in range(1, len(trace)):
        waits[i] = max(0.0, waits[i - 1] + step * trace.output[i - 1] - (trace.arrival[i] - trace.arrival[i - 1]))
    return waits
