"""Tables of solvers over instances: what is counted, what is called wrong, and going on after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rota.cli.main import run
from rota.contracts.shop import Budget, Outcome, Problem, Schedule
from rota.errors import InputError, UnsupportedPolicy
from rota.studies.solve_table import Log, Row, cases, run_table, summary
from rota.workload.shop.load import load_problem
from rota.workload.shop.sets import Bounds
from tests.shop import texts
from tests.shop.test_cpsat import FT06

BUDGET = Budget(10, 1)


class Serial:
    """One task after the other, with a claim that may be off."""

    def __init__(self, name: str = "serial", boast: int = 0) -> None:
        self.name, self.boast, self.asked = name, boast, 0

    def capabilities(self) -> frozenset[str]:
        return frozenset({"makespan"})

    def solve(self, problem: Problem, budget: Budget, hint: object = None, on_progress: object = None) -> Outcome:
        self.asked += 1
        now, start = 0, {}
        for task in problem.tasks:
            start[task.id] = now
            now += task.modes[0].duration
        return Outcome(
            "optimal" if self.boast < 0 else "feasible", Schedule(start, {}), (now + min(0, self.boast),), (0,), solver=self.name
        )


class Choosy(Serial):
    """Refuses everything."""

    def solve(self, problem: Problem, budget: Budget, hint: object = None, on_progress: object = None) -> Outcome:
        raise UnsupportedPolicy(f"{self.name} cannot handle makespan of {problem.name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "instances"
    home.mkdir()
    for k in range(2, 5):
        (home / f"f{k}.txt").write_text(texts.classic(FT06[:k], 6))
    return home


def test_a_table_over_a_folder(folder: Path) -> None:
    (folder / "odd.txt").write_text("no instance at all")
    found = cases(folder)
    rows = run_table(
        found, [Serial(), Choosy("choosy")], load_problem, BUDGET, Log.open(None, {}), {"f2": Bounds(10, 40, "open")}
    )
    assert [Path(row.instance).name for row in rows[::2]] == ["f2.txt", "f3.txt", "f4.txt", "odd.txt"]
    assert [row.status for row in rows] == ["feasible", "refused"] * 3 + ["unreadable"] * 2
    assert (rows[0].value, rows[0].ub) == (26 + 47, 40)
    assert "odd.txt" in rows[-1].note
    line = next(line for line in summary(rows) if line["solver"] == "serial")
    assert (line["solved"], line["best"], line["mean gap"]) == (3, 2, pytest.approx((73 / 40 - 1) / 3))


def test_what_contradicts_the_checker_or_what_is_published_is_wrong(folder: Path) -> None:
    one = [str(folder / "f2.txt")]

    def note(solver: Serial, bounds: Bounds) -> str:
        row = run_table(one, [solver], load_problem, BUDGET, Log.open(None, {}), {"f2": bounds})[0]
        assert (row.status == "wrong") == bool(row.note)
        return row.note

    assert note(Serial(), Bounds(10, 40, "open")) == ""
    assert "objective: claimed [72], is [73]" in note(Serial(boast=-1), Bounds(None, None, "open"))
    assert note(Serial(), Bounds(74, 80, "open")) == "73 is below the published lower bound 74"
    assert note(Serial(), Bounds(None, None, "infeasible")) == "has a schedule, but is published as infeasible"


def test_a_killed_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    found = cases(folder)
    first = Serial()
    whole = run_table(found, [first], load_problem, BUDGET, Log.open(path, {"time_limit": 10}))
    lines = path.read_text().splitlines(keepends=True)
    assert first.asked == 3
    path.write_text("".join(lines[:3]) + lines[3][:20])  # killed while it wrote the last row
    second = Serial()
    again = run_table(found, [second], load_problem, BUDGET, Log.open(path, {"time_limit": 10}))
    assert second.asked == 1
    assert [(row.instance, row.value) for row in again] == [(row.instance, row.value) for row in whole]
    assert len([Row(**json.loads(line)) for line in path.read_text().splitlines()[1:]]) == 3
    with pytest.raises(InputError, match="was made with other settings"):
        Log.open(path, {"time_limit": 20})
    (tmp_path / "other.jsonl").write_text("hello\n")
    with pytest.raises(InputError, match="is not a log"):
        Log.open(tmp_path / "other.jsonl", {})


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, bounds = tmp_path / "t.jsonl", tmp_path / "b.csv"
    bounds.write_text("name,lb,ub,status\nf2,47,47,optimal\n")
    command = ["solve", str(folder), "--rules", "--solver", "cp-sat", "-t", "20", "--out", str(out), "--bounds", str(bounds)]
    assert run([*command, "--sample", "2"]) == 0
    assert "2 " in capsys.readouterr().out.splitlines()[-2]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in found["rows"]] == ["optimal"] * 3
    assert found["summary"][0]["proven"] == 3
    assert run(["solve", str(folder / "f2.txt"), "--rules", "--blocking", "swap", "-t", "20"]) == 0
    said = capsys.readouterr().out
    assert "refused everything" in said
    assert "serial" in said.splitlines()[-2]
    bounds.write_text("name,lb,ub,status\nf2,99,99,optimal\n")
    out.unlink()
    assert run(command) == 3
    assert "WRONG: cp-sat on" in capsys.readouterr().out
    assert run(["solve", str(folder), "--rules", "--out", "x.csv"]) == 2
    assert run(["solve", str(folder / "f2.txt"), "--sample", "3"]) == 2


def test_ctrl_c_leaves_the_finished_rows(folder: Path, tmp_path: Path) -> None:
    class Stopped(Serial):
        """Interrupted on the second instance."""

        def solve(self, problem: Problem, budget: Budget, hint: object = None, on_progress: object = None) -> Outcome:
            return replace(super().solve(problem, budget), interrupted=self.asked > 1)

    path = tmp_path / "t.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_table(cases(folder), [Stopped()], load_problem, BUDGET, Log.open(path, {}))
    again = Serial()
    assert len(run_table(cases(folder), [again], load_problem, BUDGET, Log.open(path, {}))) == 3
    assert again.asked == 2


def test_samples_are_drawn_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps({"name": f"i{k}", "p": [1], "d": [1]}) + "\n" for k in range(30)))
    drawn = cases(path, 5, 1)
    assert len(drawn) == 5
    assert drawn == cases(path, 5, 1) != cases(path, 5, 2)
    assert drawn == sorted(drawn, key=lambda name: int(name.rpartition("#i")[2]))
    assert len(cases(path)) == 30
