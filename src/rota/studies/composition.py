"""Which combination of batching, order, admission and retention wins on a workload, and what each decision is worth.

Every combination runs on the same requests, at a stated share of the rate that the engine can carry when it never idles. The score is
the share of requests that keep the objective. What a decision is worth is the difference that changing it alone makes, in points of
that share, over all combinations of the other decisions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from rota.results.bands import band
from rota.results.comparison import Comparison
from rota.results.slo import SLO
from rota.studies.compare import HasEngine, compare
from rota.studies.replicate import Progress, TraceSource
from rota.workload.trace import Trace
from rota.workload.transform import faster, independent

#: Options of each decision, the plainest first; the differences are against that one. Token budgets are apart from the batching that
#: usually comes with them.
BATCHING = {
    "vllm-v1": "vllm-v1", "vllm-v1@512": "vllm-v1,max_num_batched_tokens=512", "sarathi@2048": "sarathi,max_num_batched_tokens=2048",
    "sarathi@512": "sarathi,max_num_batched_tokens=512", "vllm-v0": "vllm-v0", "orca-paged": "orca-paged",
}  # fmt: skip
ORDER = ("fcfs", "shortest-prompt")
ADMISSION = ("aggressive", "lightllm", "past-future")
RETENTION = ("none", "lru")
#: Programs have options of their own, and to keep the number of combinations in bounds fewer ways to batch.
PROGRAM_BATCHING, PROGRAM_RETENTION = ("vllm-v1", "sarathi@512"), ("lru", "ttl", "until-pressure")
DECISIONS = ("batching", "order", "admission", "retention")
#: Whose throughput without idling counts as what the engine can carry.
REFERENCE = "composed:batching=vllm-v1,order=fcfs,admission=aggressive,retention=lru"
SCORE = "slo_attainment"
#: What a request should keep where the user says nothing: what a person who waits for an answer bears.
OBJECTIVE = SLO.parse("ttft=5,tbt=0.3")
#: Share of the first requests that are left out: forecasts have to see outputs before they can foretell any.
WARMUP = 0.2


class Choice(NamedTuple):
    """One option of each decision."""

    batching: str
    order: str
    admission: str
    retention: str

    @property
    def policy(self) -> str:
        """As `rota.policies.registry.parse_policy` reads it."""
        victim = ",victim=latest-program" if self.order == "program" else ""
        batching = f"{BATCHING[self.batching]}{victim}"
        return f"composed:batching={batching},order={self.order},admission={self.admission},retention={self.retention}"


class Effect(NamedTuple):
    """What one option is worth against the plainest of its decision, in points of the share of requests within the objective.

    Attributes
    ----------
    decision, option, against : str
    mean, low, high : float
        Over all combinations of the other decisions; -100 to 100.
    better, worse, contexts : int
        Combinations in which the option is better, or worse, by more than the band; and all of them.
    """

    decision: str
    option: str
    against: str
    mean: float
    low: float
    high: float
    better: int
    worse: int
    contexts: int


@dataclass(frozen=True, slots=True)
class Combinations:
    """What the study found on one workload.

    Attributes
    ----------
    choices : list of Choice
    comparison : Comparison
        Its labels are the choices' policies.
    rate, load : float
        Requests per second, and that as a share of what the engine can carry.
    """

    choices: list[Choice]
    comparison: Comparison
    rate: float
    load: float

    def score(self, choice: Choice) -> float:
        """Share of requests within the objective."""
        return self.comparison.mid(choice.policy, SCORE)

    @property
    def best(self) -> list[Choice]:
        """The combination with the best score, then those that tie with it."""
        by_policy = {choice.policy: choice for choice in self.choices}
        return [by_policy[label] for label in self.comparison.best(SCORE)]

    def options(self, decision: str) -> list[str]:
        """What was tried, the plainest first."""
        return list(dict.fromkeys(getattr(choice, decision) for choice in self.choices))

    def effects(self) -> list[Effect]:
        """What every option is worth."""
        found = []
        for decision in DECISIONS:
            plainest, *others = self.options(decision)
            for option in others:
                found.append(self._effect(decision, option, plainest))
        return found

    def _effect(self, decision: str, option: str, against: str) -> Effect:
        points, better, worse = [], 0, 0
        for choice in self.choices:
            if getattr(choice, decision) != option:
                continue
            other = choice._replace(**{decision: against})
            ours, theirs = (self._scores(c) for c in (choice, other))
            difference = band(ours - theirs)
            points.append(100 * float(np.mean(ours - theirs)))
            better += int(difference.low > 0)
            worse += int(difference.high < 0)
        return Effect(decision, option, against, float(np.mean(points)), min(points), max(points), better, worse, len(points))

    def _scores(self, choice: Choice) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([row[SCORE] for row in self.comparison.summaries[choice.policy]])

    def rows(self) -> list[dict[str, object]]:
        """A row per combination."""
        figures = ("slo_attainment", "goodput", "ttft_p50", "ttft_p99", "tbt_p99", "e2e_mean", "preemptions_per_request", "prefix_hit_rate",
                   "jct_mean")  # fmt: skip
        best = self.best
        return [
            {**choice._asdict(), "best": choice in best, **{name: self.comparison.mid(choice.policy, name) for name in figures}}
            for choice in self.choices
        ]


def choices(trace: Trace) -> list[Choice]:
    """Combinations that make sense for a trace: fair queues need tenants, program order and KV held between turns programs."""
    tenants = trace.tenant is not None and len(np.unique(trace.tenant)) > 1
    programs = trace.program is not None and bool((trace.program >= 0).any())
    order = ORDER + (("vtc",) if tenants else ()) + (("program",) if programs else ())
    if programs:
        return [Choice(*options) for options in itertools.product(PROGRAM_BATCHING, order, ADMISSION[::2], PROGRAM_RETENTION)]
    return [Choice(*options) for options in itertools.product(BATCHING, order, ADMISSION, RETENTION)]


def declared(trace: Trace) -> Trace:
    """The trace with limits on outputs, as clients send them: the power of two above its longest output, if it declares none."""
    if trace.max_new is not None:
        return trace
    limit = 1 << (int(trace.output.max()) - 1).bit_length()
    return trace.with_columns(max_new=np.full(len(trace), limit))


def carried(trace: Trace, deployment: HasEngine) -> float:
    """Requests per second that the engine carries when it never idles, between the first tenth and the eighth of the finishes."""
    policy = parse_policy(REFERENCE)
    run = simulate(faster(trace, 1e6), policy, deployment.engine(policy.max_step_tokens))
    finish = np.sort(run.finish[np.isfinite(run.finish)])
    low, high = int(0.1 * len(finish)), int(0.8 * len(finish))
    if len(finish) < 20 or finish[high] <= finish[low]:
        raise InputError(f"{trace.name}: too few requests to tell what the engine can carry; give at least 20")
    return float((high - low) / (finish[high] - finish[low]))


def composition(
    workloads: Mapping[str, TraceSource], deployment: HasEngine, *, load: float = 0.8, seeds: int = 3, seed: int = 0, slo: SLO | None = None,
    jobs: int = 1, progress: Progress | None = None, conditions: Callable[[str, float], Mapping[str, object]] | None = None,
) -> dict[str, Combinations]:  # fmt: skip
    """Run all combinations on every workload.

    Parameters
    ----------
    workloads : dict of str to Trace or function
        As in `rota.studies.compare.compare`. Their rate is replaced.
    deployment : Deployment
    load : float
        Share of what the engine can carry (`carried`) at which requests arrive.
    slo : SLO, optional
        Default: `OBJECTIVE`.
    seeds, seed, jobs
        As in `compare`.
    progress : callable, optional
        Called with (runs done in this workload, runs of this workload, its name).
    conditions : callable, optional
        From a workload's name and rate to what reports should say of it.

    Raises
    ------
    InputError
        If `load` is not positive, or a trace is too short.
    """
    if not 0 < load < float("inf"):
        raise InputError(f"load must be a positive share of what the engine can carry, such as 0.9, not {load:g}")
    found = {}
    for name, source in workloads.items():
        first = declared(source if isinstance(source, Trace) else source(seed))
        most = carried(first, deployment)
        free = independent(first)
        span = float(free[-1] - free[0])
        if span <= 0:
            raise InputError(f"{name}: all requests arrive at once, so there is no load to set; give arrivals (--arrivals poisson --rate 1)")
        factor = load * most * span / len(first)

        def scaled(seed: int, source: TraceSource = source, factor: float = factor) -> Trace:
            return faster(declared(source if isinstance(source, Trace) else source(seed)), factor)

        tried = choices(first)
        comparison = compare(
            scaled(seed) if isinstance(source, Trace) else scaled, deployment, [choice.policy for choice in tried], seeds=seeds, seed=seed,
            slo=slo or OBJECTIVE, warmup=WARMUP, jobs=jobs, progress=partial(_told, progress, name) if progress else None,
            conditions=conditions(name, load * most) if conditions else None,
        )  # fmt: skip
        found[name] = Combinations(tried, comparison, load * most, load)
    return found


def _told(progress: Progress, name: str, done: int, total: int, label: str) -> None:
    progress(done, total, name)
