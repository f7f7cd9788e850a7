"""Which policy is best on this trace and this deployment: all of them, on the same replications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Protocol

from rota.cost.engine import EngineSpec
from rota.errors import InputError
from rota.results.comparison import Comparison
from rota.results.run import Run
from rota.results.slo import SLO
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
    policy_of,
    run_task,
    traces,
)
from rota.workload.trace import Trace


class HasEngine(Protocol):
    """What a study needs of a deployment (`rota.cost.deployment.Deployment` is one)."""

    def engine(self, max_step_tokens: int) -> EngineSpec:
        """The engine for policies that put up to so many tokens into a step (0: no limit)."""


def compare(
    trace: TraceSource,
    deployment: HasEngine,
    policies: Sequence[PolicySource],
    *,
    replicas: int = 1,
    router: str = "round-robin",
    seeds: int = 1,
    seed: int = 0,
    cost_error: bool = True,
    slo: SLO | None = None,
    warmup: float = 0.0,
    offline: bool = False,
    jobs: int | Pool = 1,
    progress: Progress | None = None,
    describe: Callable[[Trace], Mapping[str, object]] | None = None,
    conditions: Mapping[str, object] | None = None,
) -> Comparison:
    """Run every policy on the same requests, and the same again for each replication.

    Parameters
    ----------
    trace : Trace, or a function from a seed to one
        A trace is replayed as it is in every replication; a function is asked for seeds ``seed``, ``seed + 1``, ...
    deployment : Deployment
    policies : sequence of str or BatchPolicy
        As in ``"sarathi"`` or ``"sarathi:max_num_batched_tokens=256"``.
    replicas, router, seed
        As in `simulate`.
    seeds : int
        Replications. The first is nominal; bands need at least 2, and settle from about 5.
    cost_error : bool
        Scale the costs of replications after the first by draws from their stated error.
    slo : SLO, optional
        Without one, limits are derived from the runs (`rota.results.comparison.implied_slo`).
    warmup : float
        Share of the first requests to leave out of latencies.
    offline : bool
        Judge by the time of the whole trace, as of a job, instead of latencies.
    jobs : int, or a pool
        Processes, or what runs tasks elsewhere. Scripts that use more than one need the usual ``if __name__ == "__main__":`` around their work.
    progress : callable, optional
        Called with (runs done, all runs, label of the last).
    describe : callable, optional
        Makes the facts about the trace that reports show.
    conditions : dict, optional
        Further conditions for reports.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If an option makes no sense.
    Interrupted
        On Ctrl-C; `partial` is a `Comparison` of the policies that had finished at least one replication, or None.
    """
    labels = labels_of(policies)
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, not {seeds}")
    inputs = traces(trace, seeds, seed)
    engines = engines_of(policies, deployment)
    draws = cost_draws(engines[0].tables.error, seeds, seed) if cost_error else [CostDraw()] * seeds
    tasks = [
        Task(inputs[i], policy, draws[i].apply(engine), replicas, router, seed + i)
        for i in range(seeds)
        for policy, engine in zip(policies, engines, strict=True)
    ]
    runs: dict[str, dict[int, Run]] = {label: {} for label in labels}

    def result() -> Comparison | None:
        facts = dict(describe(inputs[0])) if describe else {}
        return _comparison(runs, seeds, slo, warmup, offline, facts, dict(conditions or {}), cost_error)

    try:
        done = 0
        with closing(in_parallel(run_task, tasks, jobs)) as stream:
            for index, run in stream:
                replication, which = divmod(index, len(labels))
                runs[labels[which]][replication] = run
                done += 1
                if progress:
                    progress(done, len(tasks), labels[which])
    except KeyboardInterrupt:
        raise Interrupted(result()) from None
    finished = result()
    assert finished is not None
    return finished


def engines_of(policies: Sequence[PolicySource], deployment: HasEngine) -> list[EngineSpec]:
    """The engine for each policy, made once per step size."""
    known: dict[int, EngineSpec] = {}
    engines = []
    for policy in policies:
        tokens = policy_of(policy).max_step_tokens
        if tokens not in known:
            known[tokens] = deployment.engine(tokens)
        engines.append(known[tokens])
    return engines


def _comparison(
    runs: Mapping[str, Mapping[int, Run]], seeds: int, slo: SLO | None, warmup: float, offline: bool, facts: dict[str, object],
    conditions: dict[str, object], cost_error: bool,
) -> Comparison | None:  # fmt: skip
    """What the finished runs say. Policies are compared on the replications that all of them have."""
    started = [label for label, own in runs.items() if 0 in own]
    if not started:
        return None
    common = 0
    while all(common in runs[label] for label in started):
        common += 1
    conditions["replications"] = common
    conditions["cost error in replications"] = bool(cost_error and common > 1)
    if common < seeds or len(started) < len(runs):
        missing = ", ".join(label for label in runs if label not in started)
        unfinished = f"; not finished: {missing}" if missing else ""
        conditions["incomplete"] = f"stopped after {common} of {seeds} replications{unfinished}"
    kept = {label: [runs[label][i] for i in range(common)] for label in started}
    return Comparison.of(kept, slo, warmup=warmup, trace=facts, conditions=conditions, offline=offline)
