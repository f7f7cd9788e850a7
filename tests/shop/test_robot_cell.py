"""Robot cells: closed forms of cyclic schedules, the checker on every run, bounds that no rule passes, and CP-SAT's optimum."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.contracts.shop import Budget, Schedule
from rota.errors import InputError
from rota.mechanisms.shop.cell import simulate_cell
from rota.mechanisms.shop.cell_log import CellRun
from rota.mechanisms.shop.checker import check
from rota.policies.dispatch.cell import cell_rule_names, make_cell_rule
from rota.policies.solvers.registry import make_solver
from rota.studies.robot_cell import best_by_rules, check_cell, compare_cells, run_cell, summary
from rota.workload.shop.cell import Cell, Robot, Stage, everywhere, least_ticks, work_times
from rota.workload.shop.cell_problem import in_order, plan_problem

seeds = st.integers(0, 10**6)


def serial(ticks: Sequence[int], move: int, handling: int, turn: int = 0, arms: int = 1, sheets: int = 20) -> Cell:
    """One station per stage, everything equally far from everything else."""
    stages = tuple(Stage(f"s{k}", p) for k, p in enumerate(ticks, 1))
    positions = ("port", *(stage.name for stage in stages))
    return Cell(stages, everywhere(positions, move), handling, handling, turn, (Robot(arms=arms),), sheets)


def random_cell(rng: random.Random, *, robots: int = 2, sheets: int = 9) -> Cell:
    """Stations on a line, some of them parallel or with several places, some with limits on the stay."""
    stages = []
    for k in range(rng.randint(1, 4)):
        stations = tuple(f"s{k}.{i}" for i in range(rng.randint(1, 2)))
        stages.append(Stage(f"s{k}", rng.randint(0, 40), stations, rng.randint(1, 2), rng.choice([None, rng.randint(0, 10)])))
    unload = rng.choice(["port", "out"])
    positions = dict.fromkeys(("port", *(name for stage in stages for name in stage.stations), unload))
    at = {name: rng.randint(0, 10) for name in positions}
    move = {(a, b): abs(at[a] - at[b]) for a in at for b in at if a != b}
    crew = tuple(Robot(f"r{k}", rng.randint(1, 2)) for k in range(rng.randint(1, robots)))
    return Cell(tuple(stages), move, rng.randint(1, 4), rng.randint(1, 4), rng.randint(0, 3), crew, sheets, unload=unload)


def rules_for(cell: Cell) -> list[str]:
    two_arms = any(robot.arms == 2 for robot in cell.robots)
    return [name for name in cell_rule_names() if name != "swap" or two_arms]


def gaps(run: CellRun) -> set[int]:
    """Ticks between sheets once the cell has filled, and before it empties."""
    out = run.out
    middle = out[len(out) // 2 : -8]
    return {b - a for a, b in pairwise(middle)}


@st.composite
def serial_cells(draw: st.DrawFn, arms: int) -> Cell:
    """Times in a coarse unit: where two resources are nearly as busy, it takes many sheets until the busier one sets the pace."""
    unit = draw(st.integers(1, 9))
    p = [unit * ticks for ticks in draw(st.lists(st.integers(0, 20), min_size=2, max_size=6))]
    move, h, turn = (unit * draw(st.integers(least, 4)) for least in (0, 1, 0))
    return serial(p, move, h, turn, arms, sheets=120)


@settings(max_examples=60, deadline=None)
@given(serial_cells(arms=1))
def test_pull_has_the_cycle_of_the_backward_sequence_to_the_tick(cell: Cell) -> None:
    n, h, move = len(cell.stages), cell.pick, cell.ticks("s1", "s2")
    longest = max(stage.ticks for stage in cell.stages)
    assert gaps(simulate_cell(cell, make_cell_rule("pull"))) == {max((n + 1) * (2 * h + 2 * move), longest + 4 * h + 3 * move)}


@settings(max_examples=60, deadline=None)
@given(serial_cells(arms=2))
def test_swap_has_the_cycle_of_the_swap_sequence_to_the_tick(cell: Cell) -> None:
    n, h, move = len(cell.stages), cell.pick, cell.ticks("s1", "s2")
    longest = max(stage.ticks for stage in cell.stages)
    assert gaps(simulate_cell(cell, make_cell_rule("swap"))) == {max((n + 1) * (2 * h + cell.turn + move), longest + 2 * h + cell.turn)}


def test_sheet_by_sheet_by_hand() -> None:
    run = simulate_cell(serial([10, 20], move=3, handling=2, sheets=2), make_cell_rule("pull"))
    seen = [(one.kind, one.sheet, one.station, one.start, one.end) for one in run.log]
    assert seen == [
        ("pick", 0, "port", 0, 2), ("place", 0, "s1", 5, 7),
        ("pick", 0, "s1", 17, 19), ("place", 0, "s2", 22, 24), ("pick", 1, "port", 27, 29), ("place", 1, "s1", 32, 34),
        ("pick", 0, "s2", 44, 46), ("place", 0, "port", 49, 51), ("pick", 1, "s1", 54, 56), ("place", 1, "s2", 59, 61),
        ("pick", 1, "s2", 81, 83), ("place", 1, "port", 86, 88),
    ]  # fmt: skip


@given(seeds)
def test_every_run_passes_the_checker_and_is_no_faster_than_its_busiest_resource(seed: int) -> None:
    rng = random.Random(seed)
    cell = random_cell(rng)
    work = work_times(cell, seed, 0.1)
    for name in rules_for(cell):
        result = run_cell(cell, make_cell_rule(name, seed), work)
        assert result.ok, (name, result.report.violations[0])
        assert len(result.run.out) == cell.sheets
        assert result.run.makespan >= cell.sheets * least_ticks(cell, work) - 1e-9
        limits = {k: stage.residency for k, stage in enumerate(cell.stages, 1) if stage.residency is not None}
        placed = {(one.sheet, one.stage): one.end for one in result.run.log if one.kind == "place"}
        stays = [
            one.start - placed[one.sheet, one.stage] - work[one.sheet][one.stage - 1] - limits[one.stage]
            for one in result.run.log
            if one.kind == "pick" and one.stage in limits
        ]
        assert sorted(found.by for found in result.overstays) == sorted(over for over in stays if over > 0)


@settings(max_examples=60)
@given(seeds)
def test_robots_that_reach_only_parts_of_a_cell_bring_all_sheets_out(seed: int) -> None:
    rng = random.Random(seed)
    cell = random_cell(rng, robots=3)
    some = [tuple(name for name in cell.positions if rng.random() < 0.8) for _ in cell.robots]
    try:
        cell = replace(cell, robots=tuple(replace(robot, at="", reach=reach) for robot, reach in zip(cell.robots, some, strict=True)))
    except InputError:
        return  # some station is out of reach
    for name in cell_rule_names():
        if name != "swap":  # which may get stuck there
            assert run_cell(cell, make_cell_rule(name, seed)).ok


@given(seeds)
def test_a_log_with_one_time_or_place_changed_does_not_pass(seed: int) -> None:
    rng = random.Random(seed)
    cell = random_cell(rng, sheets=4)
    cell = replace(cell, stages=tuple(replace(stage, residency=None) for stage in cell.stages))
    run = run_cell(cell, make_cell_rule("pull")).run
    k = rng.randrange(len(run.log))
    one = run.log[k]
    if one.kind == "place" and one.stage <= len(cell.stages):
        changed = one._replace(start=one.start - 1, end=one.end - 1)  # before the robot can be there
    elif one.kind == "pick" and one.stage:
        changed = one._replace(start=one.start - 1 - rng.randrange(3))
        done = max(other.end for other in run.log if (other.kind, other.sheet, other.stage) == ("place", one.sheet, one.stage))
        if changed.start >= done + cell.stages[one.stage - 1].ticks:
            return
    else:
        changed = one._replace(start=-1)
    log = (*run.log[:k], changed, *run.log[k + 1 :])
    assert not check_cell(cell, replace(run, log=log))[2].ok


def test_stations_arms_and_turns_are_kept_by_the_check() -> None:
    cell = serial([10, 10], move=2, handling=2, turn=5, arms=2, sheets=3)
    run = run_cell(cell, make_cell_rule("swap")).run
    at = next(k for k, one in enumerate(run.log) if one.swap and one.kind == "place")

    def kinds(log: Sequence[object]) -> set[str]:
        return {found.kind for found in check_cell(cell, replace(run, log=tuple(log)))[2].violations}

    sooner = run.log[at]._replace(start=run.log[at].start - 1, end=run.log[at].end - 1)
    assert "min_lag" in kinds([*run.log[:at], sooner, *run.log[at + 1 :]])
    one_arm = replace(cell, robots=(Robot(arms=1),))
    assert {found.kind for found in check_cell(one_arm, run)[2].violations} >= {"capacity"}
    slower = replace(cell, move=everywhere(cell.positions, 3))
    assert {found.kind for found in check_cell(slower, run)[2].violations} >= {"setup"}
    by_another = [one._replace(robot="other") if k == at else one for k, one in enumerate(run.log)]
    with pytest.raises(InputError, match="other places sheet 2 at s1, which it did not pick"):
        check_cell(replace(cell, robots=(*cell.robots, Robot("other"))), replace(run, log=tuple(by_another)))
    longer = replace(cell, stages=(Stage("s1", 10), Stage("s2", 11)))
    assert not check_cell(longer, run)[2].ok


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_no_rule_beats_the_optimum_of_cp_sat(seed: int) -> None:
    pytest.importorskip("ortools")
    rng = random.Random(seed)
    cell = random_cell(rng, robots=1, sheets=rng.randint(2, 4))
    stages = tuple(replace(stage, stations=stage.stations[: rng.randint(1, 2)], residency=None) for stage in cell.stages[:3])
    cell = replace(cell, stages=stages, move=everywhere(cell.positions, rng.randint(0, 9)), turn=0, robots=(Robot(arms=cell.robots[0].arms),))
    problem = plan_problem(cell)
    results = [run_cell(cell, make_cell_rule(name, seed)) for name in rules_for(cell)]
    best = min(results, key=lambda one: one.run.makespan)
    outcome = make_solver("cp-sat").solve(problem, Budget(20, workers=1), best_by_rules(cell))
    assert outcome.schedule is not None and outcome.objective is not None and outcome.bound is not None
    assert check(problem, outcome.schedule, objective=outcome.objective).ok
    for one in results:
        plan = Schedule(in_order(cell, one.schedule.start), {})
        assert check(problem, plan, objective=(one.run.makespan,)).ok, one.rule  # what a rule does is a schedule of the plan
    assert outcome.bound[0] is not None and outcome.bound[0] <= best.run.makespan
    assert outcome.objective[0] <= best.run.makespan


@pytest.mark.parametrize(("ticks", "sheets", "optimum", "pull"), [([60, 30, 30], 8, 748, 748), ([5, 5, 5], 5, 266, 278)])
def test_pull_is_optimal_where_a_station_is_the_bottleneck_and_not_where_the_robot_is(
    ticks: list[int], sheets: int, optimum: int, pull: int
) -> None:
    pytest.importorskip("ortools")
    cell = serial(ticks, move=4, handling=3, sheets=sheets)
    found = run_cell(cell, make_cell_rule("pull"))
    assert found.run.makespan == pull
    outcome = make_solver("cp-sat").solve(plan_problem(cell), Budget(60, workers=1), found.schedule)
    assert (outcome.status, outcome.objective) == ("optimal", (optimum,))


def test_rules_do_not_see_how_long_work_will_take() -> None:
    cell = serial([30, 30, 30], move=4, handling=2, sheets=12)
    work = work_times(cell, 3, 0.1)
    for name in rules_for(cell):
        before = simulate_cell(cell, make_cell_rule(name), work).log
        placed = next(one.end for one in before if (one.kind, one.sheet, one.stage) == ("place", 6, 2))
        other = [list(row) for row in work]
        other[6][1] += 40
        after = simulate_cell(cell, make_cell_rule(name), other).log
        until = placed + work[6][1]
        assert [one for one in before if one.start < until] == [one for one in after if one.start < until]
        assert before != after


def test_luck_is_the_same_for_all_rules() -> None:
    cell = serial([100, 50], move=3, handling=2)
    work = work_times(cell, 5, 0.1)
    assert work == work_times(cell, 5, 0.1) != work_times(cell, 6, 0.1)
    assert all(90 <= row[0] <= 110 and 45 <= row[1] <= 55 for row in work)
    assert work_times(cell) == [[100, 50]] * cell.sheets
    results = compare_cells(cell, [lambda seed, name=name: make_cell_rule(name, seed) for name in ("pull", "random")], range(3), 0.1)
    rows = summary(results)
    assert [(row["rule"], row["runs"]) for row in rows] == [("pull", 3), ("random", 3)]
    assert rows[0]["makespan"] == sum(one.run.makespan for one in results[:3]) / 3


def test_two_robots_hand_over_in_a_buffer_and_are_faster_than_one() -> None:
    stages = (Stage("a", 4), Stage("buffer", 0, places=2), Stage("b", 4))
    move = everywhere(("in", "a", "buffer", "b", "out"), 5)
    crew = (Robot("left", reach=("in", "a", "buffer")), Robot("right", at="out", reach=("buffer", "b", "out")))
    two = Cell(stages, move, 2, 2, robots=crew, load="in", unload="out")
    one = replace(two, robots=(Robot(),))
    for name in rules_for(two):
        ran = run_cell(two, make_cell_rule(name))
        assert ran.ok
        assert {handling.robot for handling in ran.run.log if handling.station in ("in", "a")} == {"left"}
        assert ran.run.makespan < run_cell(one, make_cell_rule(name)).run.makespan
