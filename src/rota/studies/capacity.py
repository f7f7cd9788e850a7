"""How much load a deployment carries under each policy: the highest request rate that still meets an objective, by bisection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rota.cost.engine import EngineSpec
from rota.errors import InputError
from rota.results.bands import Band, band
from rota.results.run import Run
from rota.results.slo import SLO
from rota.studies.compare import HasEngine, engines_of
from rota.studies.replicate import (
    CostDraw,
    Interrupted,
    PolicySource,
    Pool,
    Progress,
    Task,
    TraceSource,
    cost_draws,
    in_parallel,
    labels_of,
    traces,
)
from rota.workload.trace import Trace
from rota.workload.transform import at_rate, mean_rate

if TYPE_CHECKING:
    import polars

#: Capacity is known when the lowest rate that fails is this close above the highest that holds.
TOLERANCE = 0.025
#: Doublings or halvings of the first rate before the search for a bracket gives up.
MOST_DOUBLINGS = 12


@dataclass(frozen=True, slots=True)
class Probe:
    """One simulated rate (requests/s), whether the objective held there, and on what it was judged (seconds, or a share)."""

    rate: float
    met: bool
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one policy carries.

    Attributes
    ----------
    policy : str
    rate : float
        Highest rate found to meet the objective, requests/s; 0 if none did, infinity if even all requests at once do.
    fails_at : float
        Lowest rate found not to meet it; infinity if none.
    broken_by : str
        The part of the objective that was most exceeded at `fails_at`.
    band : Band
        5-95% band of `rate` over replications.
    trail : tuple of Probe
        What was tried in the nominal replication, in order.
    """

    policy: str
    rate: float
    fails_at: float
    broken_by: str
    band: Band
    trail: tuple[Probe, ...]


@dataclass(frozen=True, slots=True)
class CapacityResult:
    """Capacities of several policies under one objective, in the order asked."""

    slo: SLO
    rows: list[Capacity]
    incomplete: str = ""

    def frame(self) -> polars.DataFrame:
        """One row per policy."""
        from rota.results.frame import rows_frame

        return rows_frame(
            {"policy": r.policy, "rate": r.rate, "low": r.band.low, "high": r.band.high, "fails_at": r.fails_at,
             "broken_by": r.broken_by, "probes": len(r.trail)} for r in self.rows
        )  # fmt: skip

    def trail_frame(self) -> polars.DataFrame:
        """One row per simulated rate of the nominal replication."""
        from rota.results.frame import rows_frame

        return rows_frame({"policy": r.policy, "rate": p.rate, "met": p.met, **p.figures} for r in self.rows for p in r.trail)


def capacity(
    trace: TraceSource,
    deployment: HasEngine,
    policies: Sequence[PolicySource],
    slo: SLO,
    *,
    replicas: int = 1,
    router: str = "round-robin",
    seeds: int = 1,
    seed: int = 0,
    cost_error: bool = True,
    start: float | None = None,
    tolerance: float = TOLERANCE,
    jobs: int | Pool = 1,
    progress: Progress | None = None,
) -> CapacityResult:
    """Find each policy's capacity on the lengths and the arrival pattern of a trace.

    The rate is doubled or halved from `start` until one rate holds and one fails, then the gap is halved (geometrically) down to
    `tolerance`. Arrivals keep their pattern and lengths their order, so policies and rates are compared on the same requests.
    A finite trace can carry a rate for its duration that it could not carry for ever; more requests make the figure stricter.

    Parameters
    ----------
    slo : SLO
        For Sarathi-Serve's: ``SLO.parse("p99 tbt=0.1, p50 queueing=2")``.
    start : float, optional
        First rate to try, requests/s; default: the trace's own.
    tolerance : float
        Relative width at which to stop.
    trace, deployment, policies, replicas, router, seeds, seed, cost_error, jobs, progress
        As in `rota.studies.compare.compare`.

    Returns
    -------
    CapacityResult

    Raises
    ------
    InputError
        If an option makes no sense, or the trace has no rate to change.
    Interrupted
        On Ctrl-C; `partial` is a `CapacityResult` of the policies whose nominal search had finished, or None.
    """
    labels = labels_of(policies)
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, not {seeds}")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must be between 0 and 1, not {tolerance:g}; 0.025 is usual")
    if start is not None and not 0 < start < math.inf:
        raise InputError(f"the first rate to try must be positive, not {start:g}")
    inputs = traces(trace, seeds, seed)
    at_rate(inputs[0], 1.0)  # refuses a trace without a rate before any work
    first = start or mean_rate(inputs[0])
    engines = engines_of(policies, deployment)
    draws = cost_draws(engines[0].tables.error, seeds, seed) if cost_error else [CostDraw()] * seeds
    searches = [
        Search(inputs[i], policy, draws[i].apply(engine), slo, first, tolerance, replicas, router, seed + i)
        for i in range(seeds)
        for policy, engine in zip(policies, engines, strict=True)
    ]
    trails: dict[str, dict[int, tuple[Probe, ...]]] = {label: {} for label in labels}
    try:
        done = 0
        with closing(in_parallel(run_search, searches, jobs)) as stream:
            for index, trail in stream:
                replication, which = divmod(index, len(labels))
                trails[labels[which]][replication] = trail
                done += 1
                if progress:
                    progress(done, len(searches), labels[which])
    except KeyboardInterrupt:
        kept = [_row(label, own, slo) for label, own in trails.items() if 0 in own]
        partial = CapacityResult(slo, kept, f"stopped after {done} of {len(searches)} searches")
        raise Interrupted(partial if kept else None) from None
    return CapacityResult(slo, [_row(label, own, slo) for label, own in trails.items()])


@dataclass(frozen=True, slots=True)
class Search:
    """One capacity search, ready to be sent to another process."""

    trace: Trace
    policy: PolicySource
    engine: EngineSpec
    slo: SLO
    start: float
    tolerance: float
    replicas: int
    router: str
    seed: int

    def probe(self, rate: float) -> Probe:
        """Simulate one rate."""
        run = Task(at_rate(self.trace, rate), self.policy, self.engine, self.replicas, self.router, self.seed).run()
        return Probe(rate, self.slo.holds(run), figures(run, self.slo))

    def run(self) -> tuple[Probe, ...]:
        """Bracket, then bisect."""
        trail = [self.probe(self.start)]
        factor = 2.0 if trail[0].met else 0.5
        while trail[-1].met == trail[0].met and len(trail) <= MOST_DOUBLINGS:
            trail.append(self.probe(trail[-1].rate * factor))
        low, high = bracket(trail)
        while low > 0 and high < math.inf and high > low * (1 + self.tolerance):
            trail.append(self.probe(math.sqrt(low * high)))
            low, high = bracket(trail)
        return tuple(trail)


def run_search(search: Search) -> tuple[Probe, ...]:
    """`Search.run` as a function, for `in_parallel`."""
    return search.run()


def bracket(trail: Sequence[Probe]) -> tuple[float, float]:
    """Highest rate that held below the lowest one that failed, and that one; 0 and infinity where there is none."""
    high = min((p.rate for p in trail if not p.met), default=math.inf)
    return max((p.rate for p in trail if p.met and p.rate < high), default=0.0), high


def figures(run: Run, slo: SLO) -> dict[str, float]:
    """On what an objective is judged: its percentiles (seconds) or, without targets, the share of requests within its limits."""
    if slo.targets:
        return {f"p{t.q:g} {t.metric}": t.measured(run) for t in slo.targets}
    return {"attainment": float(slo.kept(run).mean())}


def _row(label: str, trails: dict[int, tuple[Probe, ...]], slo: SLO) -> Capacity:
    low, high = _found(trails[0])
    spread = band([_found(trail)[0] for trail in trails.values()])
    failing = next((p for p in trails[0] if p.rate == high), None)
    return Capacity(label, low, high, _worst(failing, slo) if failing else "", spread, trails[0])


def _found(trail: Sequence[Probe]) -> tuple[float, float]:
    low, high = bracket(trail)
    return (math.inf, math.inf) if high == math.inf else (low, high)


def _worst(probe: Probe, slo: SLO) -> str:
    """The part of the objective that the probe exceeded most."""
    if not slo.targets:
        return "attainment"
    limits = {f"p{t.q:g} {t.metric}": t.limit for t in slo.targets}
    excess = {name: probe.figures[name] / limit for name, limit in limits.items() if probe.figures[name] == probe.figures[name]}
    return max(excess, key=excess.__getitem__, default="nothing finished")
