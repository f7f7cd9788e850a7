"""How far does a planner hold out as constraints are added? Planted projects, any planner, and the independent checker's verdict.

A planner is a solver, or a language model that gets the problem as text. Feasibility is all that counts. The log has a line with the
settings and a line per problem and planner, written as soon as it is known, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from rota.contracts.shop import Budget, Problem, Schedule, Solver
from rota.errors import InputError
from rota.mechanisms.endpoint import Endpoint, NoAnswer
from rota.mechanisms.shop.checker import check
from rota.studies.row_log import RowLog
from rota.workload.shop.planted import Planted, Shape, ramp
from rota.workload.shop.prose import describe, read_answer

#: What the checker's kinds are called here.
CLASSES = {
    "min_lag": "precedence", "capacity": "capacity", "break": "downtime", "window": "windows", "exclusive": "pairs", "task": "left out",
}  # fmt: skip
NOTHING = "no schedule"
#: The breakpoint is the first level with a smaller share of feasible schedules.
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """A planner's schedule, None if it has none; and what it said, for the record."""

    schedule: Schedule | None
    said: str = ""


class Planner(Protocol):
    """Whoever is examined."""

    @property
    def name(self) -> str: ...

    def plan(self, problem: Problem, seed: int) -> Plan:
        """Its schedule for the problem; `seed` draws what is random in it."""


@dataclass(frozen=True, slots=True)
class BySolver:
    """A solver as a planner, with one core and `limit_s` seconds per problem."""

    solver: Solver
    limit_s: float = 10.0

    @property
    def name(self) -> str:
        """The solver's."""
        return self.solver.name

    def plan(self, problem: Problem, seed: int) -> Plan:
        """What the solver finds."""
        outcome = self.solver.solve(problem, Budget(self.limit_s, workers=1, seed=seed))
        if outcome.interrupted:
            raise KeyboardInterrupt
        return Plan(outcome.schedule, "" if outcome.schedule else outcome.status)


@dataclass(frozen=True, slots=True)
class ByText:
    """A language model as a planner."""

    endpoint: Endpoint

    @property
    def name(self) -> str:
        """The model's."""
        return self.endpoint.model

    def plan(self, problem: Problem, seed: int) -> Plan:
        """What is read out of the model's answer; no answer is no schedule."""
        try:
            said = self.endpoint.ask(describe(problem))
        except NoAnswer as reason:
            return Plan(None, str(reason))
        starts = read_answer(said, [task.id for task in problem.tasks])
        return Plan(Schedule(starts, {}) if starts else None, said)


@dataclass(frozen=True, slots=True)
class Exam:
    """Which problems: every level of every set of axes, for seeds 0, 1, ...

    Parameters
    ----------
    shape : Shape
    levels : tuple of int
    axes : tuple of tuples of str
        Sets of axes, each examined by itself; () is precedence and capacities alone.
    seeds : int
    """

    shape: Shape = field(default_factory=Shape)
    levels: tuple[int, ...] = (5, 10, 15, 20, 25)
    axes: tuple[tuple[str, ...], ...] = ((), ("downtime", "windows", "pairs"))
    seeds: int = 20

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"there must be at least 1 seed, not {self.seeds}")
        if len(set(self.levels)) < len(self.levels) or len(set(self.axes)) < len(self.axes):
            raise InputError("a level or a set of axes is named twice")

    def problems(self) -> Iterator[tuple[str, int, Planted]]:
        """Axes, seed and problem, seed by seed, so that a run cut short has all levels of the seeds it has."""
        for seed in range(self.seeds):
            for axes in self.axes:
                for planted in ramp(self.shape, axes, self.levels, seed):
                    yield axes_name(axes), seed, planted

    @property
    def count(self) -> int:
        """How many problems there are."""
        return len(self.levels) * len(self.axes) * self.seeds


def axes_name(axes: Sequence[str]) -> str:
    """How a set of axes is shown."""
    return "+".join(axes) or "none"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One planner on one problem.

    Parameters
    ----------
    planner, axes : str
    level, seed : int
    feasible : bool
    errors : mapping of class to int
        Violations by class; ``no schedule`` where there is none.
    wall_s : float
    said : str
        A language model's answer, or why there is no schedule.
    """

    planner: str
    axes: str
    level: int
    seed: int
    feasible: bool
    errors: Mapping[str, int]
    wall_s: float
    said: str = ""

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What it is the verdict of."""
        return self.planner, self.axes, self.level, self.seed


def judge(problem: Problem, schedule: Schedule | None) -> dict[str, int]:
    """Violations by class; {} if the schedule is feasible."""
    if schedule is None:
        return {NOTHING: 1}
    return dict(Counter(CLASSES.get(violation.kind, violation.kind) for violation in check(problem, schedule).violations))


class Log(RowLog[Verdict]):
    """The verdicts so far."""

    row, study = Verdict, "rota examine"


def examine(
    planners: Sequence[Planner], exam: Exam, log: Log | None = None, *, jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Verdict]:  # fmt: skip
    """Examine all planners on all problems; verdicts that the log has already are not made again.

    Parameters
    ----------
    planners : sequence of Planner
    exam : Exam
    log : Log, optional
    jobs : int
        Problems that are under way at the same time; more than 1 pays off for models behind an endpoint.
    progress : callable, optional
        Called with (verdicts, all).

    Raises
    ------
    InputError
        If two planners have the same name, or an endpoint fails for good; finished verdicts are in the log.
    KeyboardInterrupt
        On Ctrl-C, after the answers under way have come in.
    """
    names = [planner.name for planner in planners]
    if len(set(names)) < len(names):
        raise InputError(f"a planner is named twice: {', '.join(names)}")
    log = Log.open(None, {}) if log is None else log
    done = {verdict.key for verdict in log.rows}
    count, total = 0, exam.count * len(planners)

    def one(planner: Planner, axes: str, seed: int, planted: Planted) -> Verdict:
        began = time.perf_counter()
        plan = planner.plan(planted.problem, seed)
        wall = round(time.perf_counter() - began, 3)
        errors = judge(planted.problem, plan.schedule)
        return Verdict(planner.name, axes, planted.level, seed, not errors, errors, wall, plan.said)

    def keep(verdict: Verdict) -> None:
        nonlocal count
        log.add(verdict)
        count += 1
        if progress is not None:
            progress(count, total)

    tasks = []
    for axes, seed, planted in exam.problems():
        tasks += [(planner, axes, seed, planted) for planner in planners if (planner.name, axes, planted.level, seed) not in done]
    count = total - len(tasks)
    if jobs == 1:
        for task in tasks:
            keep(one(*task))
    else:
        _in_threads(tasks, one, keep, jobs)
    return log.rows


def _in_threads(tasks: list[Any], one: Callable[..., Verdict], keep: Callable[[Verdict], None], jobs: int) -> None:
    """Run `one` on all tasks; on any failure those under way are still kept, as answers may have been paid for."""
    waiting: set[Future[Verdict]] = set()
    todo = iter(tasks)
    failure: BaseException | None = None
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            while failure is None and len(waiting) < jobs and (task := next(todo, None)) is not None:
                waiting.add(pool.submit(one, *task))
            if not waiting:
                break
            try:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as interrupt:
                if failure is not None:
                    raise
                failure = interrupt
                continue
            for future in ready:
                error = future.exception()
                if error is None:
                    keep(future.result())
                else:
                    failure = failure or error
    if failure is not None:
        raise failure


def summary(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """A row per planner and axes: share feasible at each level, WAUC, breakpoint, violations per problem by class.

    WAUC is the mean of the shares weighted by level (of level 0, by nothing); the breakpoint is the first level below `THRESHOLD`.
    """
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.planner, verdict.axes), []).append(verdict)
    rows = []
    for (planner, axes), group in groups.items():
        shares = {level: share_feasible([v for v in group if v.level == level]) for level in sorted({v.level for v in group})}
        errors: Counter[str] = Counter()
        for verdict in group:
            errors.update(verdict.errors)
        weight = sum(shares)
        rows.append(
            {
                "planner": planner,
                "axes": axes,
                "problems": len(group),
                "feasible": shares,
                "wauc": sum(level * share for level, share in shares.items()) / weight if weight else None,
                "breakpoint": next((level for level, share in shares.items() if share < THRESHOLD), None),
                "errors": {name: number / len(group) for name, number in errors.most_common()},
                "seconds": sum(verdict.wall_s for verdict in group) / len(group),
            }
        )
    return rows


def share_feasible(verdicts: Sequence[Verdict]) -> float:
    """Of some verdicts."""
    return sum(verdict.feasible for verdict in verdicts) / len(verdicts)
