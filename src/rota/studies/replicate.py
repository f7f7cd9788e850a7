"""Replications: the same question asked several times, with what is uncertain drawn anew, over all cores.

Replication 0 is nominal: the stated seed, costs as tabulated. In each further one a generated workload is drawn with another seed
and the costs are scaled by a draw from their stated error. All policies see the same draws, so their differences are paired.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from rota.contracts.serving import BatchPolicy
from rota.cost.engine import EngineSpec
from rota.errors import InputError, RotaError
from rota.results.run import Run
from rota.workload.trace import Trace

#: A trace, or what makes one from a seed.
TraceSource = Trace | Callable[[int], Trace]
PolicySource = str | BatchPolicy
#: Called with (tasks done, all tasks, label of the last one).
Progress = Callable[[int, int, str], None]
#: Relative error taken for a part of the cost whose source states none.
UNSTATED_ERROR = 0.10

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CostDraw:
    """Factors on linear, attention and host times (see `StepTables.scaled`); all 1 for the nominal costs."""

    linear: float = 1.0
    attention: float = 1.0
    cpu: float = 1.0

    def apply(self, engine: EngineSpec) -> EngineSpec:
        """The engine with its costs scaled."""
        if self == NOMINAL:
            return engine
        return replace(engine, tables=engine.tables.scaled(self.linear, self.attention, self.cpu))


NOMINAL = CostDraw()


def cost_draws(error: dict[str, float], n: int, seed: int = 0) -> list[CostDraw]:
    """`n` cost draws, the first nominal.

    A factor is log-normal with median 1, and so wide that its mean absolute deviation from 1 is the stated mean relative error:
    ``sigma = error * sqrt(pi / 2)``. One factor scales all operations of a kind at once, as if their errors were the same; this
    overstates rather than understates the effect of independent errors.

    Parameters
    ----------
    error : dict of str to float
        `StepTables.error`: relative errors by what was checked. The largest one whose name contains ``linear``, ``attention``
        or ``cpu`` counts for that kind; without one, the largest of those that name no kind, or `UNSTATED_ERROR`.
    """
    widths = [_stated(error, kind) * math.sqrt(math.pi / 2) for kind in ("linear", "attention", "cpu")]
    factors = np.exp(np.random.default_rng([seed, 0xC057]).standard_normal((max(0, n - 1), 3)) * widths)
    return [NOMINAL, *(CostDraw(*map(float, row)) for row in factors)][:n]


def _stated(error: dict[str, float], kind: str) -> float:
    kinds = ("linear", "attention", "cpu")
    own = [value for name, value in error.items() if kind in name.lower() and math.isfinite(value)]
    general = [value for name, value in error.items() if not any(k in name.lower() for k in kinds) and math.isfinite(value)]
    return max(own or general or [UNSTATED_ERROR])


def traces(source: TraceSource, n: int, seed: int = 0) -> list[Trace]:
    """`n` traces: draws with seeds ``seed .. seed + n - 1``, or the same recorded trace every time."""
    return [source] * n if isinstance(source, Trace) else [source(seed + i) for i in range(n)]


def policy_of(source: PolicySource) -> BatchPolicy:
    """The policy that `source` names, or `source` itself."""
    if isinstance(source, str):
        from rota.policies.registry import parse_policy

        return parse_policy(source)
    return source


def labels_of(policies: Sequence[PolicySource]) -> list[str]:
    """How policies are called in results: as written.

    Raises
    ------
    InputError
        If there is none, or one twice.
    """
    labels = [p if isinstance(p, str) else p.name for p in policies]
    if not labels:
        raise InputError("no policy given; name at least one, such as sarathi (rota policies lists all)")
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise InputError(f"policy {label!r} is given twice; keep one, or give them different options")
    return labels


@dataclass(frozen=True, slots=True)
class Task:
    """One simulation, ready to be sent to another process."""

    trace: Trace
    policy: PolicySource
    engine: EngineSpec
    replicas: int = 1
    router: str = "round-robin"
    seed: int = 0
    log: bool = False

    def run(self) -> Run:
        """Simulate it."""
        from rota.mechanisms.simulator import simulate

        policy = policy_of(self.policy)
        return simulate(self.trace, policy, self.engine, replicas=self.replicas, router=self.router, seed=self.seed, log=self.log)


def run_task(task: Task) -> Run:
    """`Task.run` as a function, for `in_parallel`."""
    return task.run()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a study; `partial` holds what had finished, in the form that the study returns, or None if nothing had."""

    def __init__(self, partial: Any = None) -> None:
        super().__init__("interrupted")
        self.partial = partial


def in_parallel(function: Callable[[T], R], items: Sequence[T], jobs: int = 1) -> Generator[tuple[int, R], None, None]:
    """Yield ``(index, function(item))`` as they finish, from `jobs` processes (in this one, in order, if `jobs` is 1).

    Raises
    ------
    RotaError
        As the function raised it. Whatever is still running then, or when the caller stops early, is ended.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, not {jobs}")
    if jobs == 1 or len(items) < 2:
        for i, item in enumerate(items):
            yield i, function(item)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(items)), mp_context=_context(), initializer=_ignore_interrupt)
    finished = False
    try:
        waiting: dict[Future[R | RotaError], int] = {pool.submit(_guarded, function, item): i for i, item in enumerate(items)}
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=waiting.__getitem__):
                result = future.result()
                if isinstance(result, RotaError):
                    raise result
                yield waiting.pop(future), result
        finished = True
    except BrokenProcessPool:
        raise RotaError("a worker process died, probably for lack of memory; use fewer jobs or limit the trace") from None
    finally:
        pool.shutdown(wait=finished, cancel_futures=True)
        if not finished:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()


def _guarded(function: Callable[[T], R], item: T) -> R | RotaError:
    """Errors come back as plain ones: an exception with its own constructor does not survive pickling."""
    try:
        return function(item)
    except RotaError as error:
        return type(error)(str(error)) if type(error).__init__ is Exception.__init__ else RotaError(str(error))


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _context() -> multiprocessing.context.BaseContext:
    """Fork from a clean server where there is one: cheaper than fresh interpreters, and safe beside threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rota.mechanisms.simulator", "rota.policies.registry"])
    return context
