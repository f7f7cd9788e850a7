"""What a problem refuses when it is made, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from rota.contracts.shop import Budget, Event, Job, Lag, Mode, Objective, Problem, Resource, Task, Use
from rota.errors import InfeasibleProblem, InputError

M = Resource("m")


def task(name: str, ticks: int = 2, **more: Any) -> Task:
    return Task(name, (Mode(ticks, (Use("m"),)),), **more)


def after(a: str, b: str, least: int | None = 0, most: int | None = None) -> Lag:
    return Lag(Event(a, "end"), Event(b, "start"), least, most)


A, B, C = task("a"), task("b"), task("c")
HELD = Task("a", (Mode(2, (Use("m", until=Event("b", "start")),)),))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(tasks=()), "p: there are no tasks"),
        (dict(tasks=(A, A)), "p: task a is defined 2 times; ids must differ"),
        (dict(tasks=(task(""),)), "p: task id '' must be a text that is not empty"),
        (dict(tasks=(task("a", -2),)), "p: the duration of task a is -2; it must be at least 0"),
        (dict(tasks=(task("a", 2.5),)), "p: the duration of task a is 2.5; times and amounts are whole numbers"),  # type: ignore[arg-type]
        (dict(tasks=(task("a", True),)), "p: the duration of task a is True"),
        (dict(tasks=(Task("a", ()),)), "p: task a has no mode"),
        (dict(tasks=(A,), resources=()), "p: task a uses resource m, which does not exist"),
        (dict(tasks=(Task("a", (Mode(1, (Use("m", 0),)),)),)), "p: the amount of m that task a uses is 0; it must be at least 1"),
        (dict(tasks=(Task("a", (Mode(1, (Use("m"), Use("m"))),)),)), "p: task a uses m twice in one mode"),
        (dict(tasks=(A,), resources=(Resource("m", -1),)), "p: the capacity of resource m is -1"),
        (
            dict(tasks=(A,), resources=(Resource("m", calendar=((3, 0), (3, 1))),)),
            "p: the calendar of resource m is not ascending at tick 3",
        ),
        (
            dict(tasks=(A,), resources=(Resource("m", calendar=((3, 2),)),)),
            "has 2 units from tick 3 on, more than its capacity 1",
        ),
        (dict(tasks=(A,), resources=(Resource("m", 2, setup={("x", "y"): 1}),)), "p: resource m has setups and capacity 2"),
        (
            dict(tasks=(A,), resources=(Resource("m", setup={("x", "y"): 1}),)),
            "p: task a uses m, which has setups; give the task a family",
        ),
        (
            dict(tasks=(task("a", 0, family="x"),), resources=(Resource("m", setup={("x", "y"): 1}),)),
            "its duration must be at least 1",
        ),
        (dict(tasks=(A, B), lags=(after("a", "z"),)), "p: the lag from a to z names task z, which does not exist"),
        (dict(tasks=(A, B), lags=(after("a", "b", None),)), "p: the lag from a to b has neither min nor max"),
        (dict(tasks=(A,), jobs=(Job("j", ()),)), "p: job j has no tasks"),
        (dict(tasks=(A,), jobs=(Job("j", ("a",)), Job("k", ("a",)))), "p: task a is in 2 jobs"),
        (dict(tasks=(A,), exclusive=(frozenset("a"),)), r"p: the exclusive set \{a\} needs at least two tasks"),
        (dict(tasks=(A,), objective=Objective.of("makspan")), "p: the objective names makspan; it must be one of makespan, "),
        (
            dict(tasks=(A,), objective=Objective.of("total_completion")),
            "p: the objective is total_completion, but there are no jobs",
        ),
        (dict(tasks=(A,), jobs=(Job("j", ("a",)),), objective=Objective.of("tardy_jobs")), "but no job has a due date"),
        (dict(tasks=(A,), objective=Objective.of("consumable:m")), "there is no such consumable resource"),
        (dict(tasks=(HELD, B)), "p: a holds m until b starts, but no lag keeps that from coming first; add a lag from a to b"),
    ],
)
def test_bad_parts_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Problem(**{"resources": (M,), "name": "p", **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(tasks=(Task("a", (Mode(2, (Use("m", 2),)), Mode(3, (Use("m", 5),)))),)),
         r"no resource can hold task a: it in every mode needs more .*2 of m, which has 1"),
        (dict(tasks=(A, B, C), lags=(after("a", "b"), after("b", "c"), after("c", "a"))),
         "precedence is cyclic: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)"),
        (dict(tasks=(task("a", latest_end=1),)), r"no times can satisfy all of: .*a takes 2.*a ends by 1.* \(by 1\)"),
        (dict(tasks=(A, B), lags=(after("a", "b", 3), after("a", "b", None, 2))),
         "b starts at least 3 after a ends; b starts at most 2 after a ends|at most 2.*at least 3"),
        (dict(tasks=(A, B), lags=(after("a", "b"),), jobs=(Job("j", ("a", "b"), 4, 7),)), r"job j is released at 4.*|.*job j must be complete by 7"),
    ],
)  # fmt: skip
def test_contradictions_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InfeasibleProblem, match=message):
        Problem(**{"resources": (M,), "name": "p", **given})


def test_a_cycle_that_adds_up_to_nothing_is_no_contradiction() -> None:
    together = (Lag(Event("a", "start"), Event("b", "start")), Lag(Event("b", "start"), Event("a", "start")))
    assert "lags" in Problem((A, B), (Resource("m", 2),), together).features


@pytest.mark.parametrize(("ticks", "setup"), [
    ((0, 0), None), ((0, 1), None), ((1, 0), None), ((1, 1), None), ((1, 0), {("f", "f"): 1}), ((1, 1), {("f", "f"): 1}),
])  # fmt: skip
@pytest.mark.parametrize("least", [0, -1])
def test_a_hold_until_the_end_of_what_follows(ticks: tuple[int, int], setup: dict[tuple[str, str], int] | None, least: int) -> None:
    """A machine with setups cannot be held for no time; a lag of -1 lets what follows begin, and perhaps end, before."""
    tasks = (Task("a", (Mode(ticks[0], (Use("m", until=Event("b", "end")),)),), family="f"), Task("b", (Mode(ticks[1]),)))
    given = dict(tasks=tasks, resources=(Resource("m", setup=setup),), lags=(after("a", "b", least),))
    if sum(ticks) + least >= (setup is not None):
        assert "until" in Problem(**given).features  # type: ignore[arg-type]
    else:
        with pytest.raises(InputError, match="a holds m until b ends, but no lag keeps that from coming first"):
            Problem(**given)  # type: ignore[arg-type]


def test_the_horizon_leaves_room_for_everything() -> None:
    lags = (after("a", "b", 4), Lag(Event("b", "end"), Event("c", "start"), None, -3))
    jobs = (Job("j", ("a",), release_date=5),)
    problem = Problem((A, B, C), (Resource("m", calendar=((7, 0), (9, 1))),), lags, jobs)
    assert problem.horizon == 9 + 6 + 4 + 3


def test_features_are_what_a_solver_must_do() -> None:
    plain = Problem((A, B), (M,), (after("a", "b"),))
    assert plain.features == {"makespan"}
    assert Problem((HELD, B), (M,), (after("a", "b"),), swap=False, objective=None).features == {"until", "no_swap"}
    rich = Problem((A,), (M,), jobs=(Job("j", ("a",), deadline=9, due_date=3),), objective=Objective.of("tardy_jobs", "makespan"))
    assert rich.features == {"deadline", "tardy_jobs", "makespan", "lexicographic"}


@pytest.mark.parametrize("given", [dict(wall_s=0), dict(wall_s=float("nan")), dict(workers=-1), dict(rel_gap=1.0), dict(seed=-1)])
def test_budgets_make_sense(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Budget(**given)
