"""Replications: the same question asked several times, with what is uncertain drawn anew, over all cores.

Replication 0 is nominal: the stated seed, costs as tabulated. In each further one a generated workload is drawn with another seed
and the costs are scaled by a draw from their stated error. All policies see the same draws, so their differences are paired.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import numpy as np

from rota.contracts.serving import BatchPolicy
from rota.cost.engine import EngineSpec
from rota.errors import InputError, RotaError, portable
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


class Pool(Protocol):
    """What can run a study's tasks in place of processes here, such as `rota.mechanisms.adapters.ray_tasks.RayTasks`."""

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> Generator[tuple[int, R], None, None]:
        """As `in_parallel`."""


def in_parallel(function: Callable[[T], R], items: Sequence[T], jobs: int | Pool = 1) -> Generator[tuple[int, R], None, None]:
    """Yield ``(index, function(item))`` as they finish, from `jobs` processes (in this one, in order, if `jobs` is 1) or from a pool.

    Raises
    ------
    Exception
        As the function raised it (one that cannot be pickled as a plain `RotaError` or `RuntimeError` with its text).
        Whatever is still running then, or when the caller stops early, is ended.
    """
    if not isinstance(jobs, int):
        yield from jobs(function, items)
        return
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, not {jobs}")
    if jobs == 1 or len(items) < 2:
        for i, item in enumerate(items):
            yield i, function(item)
        return
    # One pipe per worker, read and written here alone: no queues, locks or threads that a killed worker could leave stuck.
    context = _context()
    workers: list[BaseProcess] = []
    working: dict[Any, int] = {}
    todo = iter(enumerate(items))
    try:
        for i, item in islice(todo, jobs):
            first = _start(context, function, workers)
            _send(first, item)
            working[first] = i
        while working:
            for pipe in wait(list(working)):
                done = working.pop(pipe)
                succeeded, result = _receive(pipe)
                if not succeeded:
                    raise result
                for i, item in islice(todo, 1):
                    _send(pipe, item)
                    working[pipe] = i
                yield done, result
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _start(context: BaseContext, function: Callable[[T], R], workers: list[BaseProcess]) -> Connection:
    """Start a worker, add it to `workers`, and return the pipe that takes its items and gives its results."""
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(function, theirs), daemon=True)  # type: ignore[attr-defined]
    worker.start()
    workers.append(worker)
    theirs.close()  # so that the worker's death is the end of the pipe
    return ours


def _send(pipe: Any, item: Any) -> None:
    with _worker_alive():
        pipe.send(item)


def _receive(pipe: Any) -> Any:
    with _worker_alive():
        return pipe.recv()


@contextmanager
def _worker_alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        raise RotaError("a worker process died, probably for lack of memory; use fewer jobs or limit the trace") from None


def _work(function: Callable[[T], R], pipe: Connection) -> None:
    """What a worker does until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            try:
                answer: tuple[bool, R | Exception] = True, function(item)
            except Exception as error:
                answer = False, portable(error)
            pipe.send(answer)


def _context() -> BaseContext:
    """Fork from a clean server where there is one: cheaper than fresh interpreters, and safe beside threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rota.mechanisms.simulator", "rota.policies.registry"])
    # A terminal sends Ctrl-C to all processes, and this one alone has to answer: the server, and so its workers, are born deaf to it.
    resource_tracker.ensure_running()  # first, as it would lift the block
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return context
