"""The glass robots study: cells as busy as asked for, and the verdicts of a quick run."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rota.studies.reproduce.claim import NEEDS_TRAINING, REPRODUCED, Options
from rota.studies.reproduce.glass_robots import Task, rules, run, run_small, run_task
from rota.studies.reproduce.robot_cells import BOTTLENECKS, HANDLING, TURN, Drawn, drawn, robot_work, station_work


@pytest.mark.parametrize("arms", [1, 2])
@pytest.mark.parametrize(("name", "ratio"), list(BOTTLENECKS.items()))
def test_cells_are_as_busy_as_asked_for(arms: int, name: str, ratio: float) -> None:
    cell = drawn(Drawn(4, False, arms, name), seed=3)
    assert cell == drawn(Drawn(4, False, arms, name), seed=3) != drawn(Drawn(4, False, arms, name), seed=4)
    chain = ["port", *(stage.stations[0] for stage in cell.stages), "port"]
    move = sum(cell.ticks(a, b) for a, b in pairwise(chain)) / (len(chain) - 1)
    station = station_work(max(stage.ticks for stage in cell.stages), move, HANDLING, TURN, arms)
    assert station / robot_work(4, move, HANDLING, TURN, arms) == pytest.approx(ratio, abs=0.01)
    assert [len(stage.stations) for stage in drawn(Drawn(4, True, arms, name), 0).stages] == [1, 2, 1, 2]


def test_a_cell_is_run_under_all_rules_that_its_robot_has_the_arms_for() -> None:
    for arms in (1, 2):
        found = run_task(Task(Drawn(3, True, arms, "alternating"), 1, 0.1))
        assert list(found) == rules(arms)
        assert all(one.checked for one in found.values())
        assert ("swap" in found) == (arms == 2)


def test_small_cells_are_proven() -> None:
    pytest.importorskip("ortools")
    one = run_small((Drawn(3, False, 1, "robot"), 4, 0))
    assert one.value == one.bound <= min(one.spans.values())


def test_verdicts_of_a_quick_run() -> None:
    pytest.importorskip("ortools")
    report = run(Options(seeds=1, quick=True))
    verdicts = [finding.verdict for finding in report.findings]
    assert verdicts[:6] == [NEEDS_TRAINING, NEEDS_TRAINING, REPRODUCED, REPRODUCED, REPRODUCED, REPRODUCED]
    assert [len(table.rows) for table in report.tables] == [12, 24, 3]
