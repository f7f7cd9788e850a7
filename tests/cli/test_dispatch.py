"""`rota dispatch` as people use it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rota.cli.main import run
from tests.shop import texts
from tests.shop.test_cpsat import FT06


@pytest.fixture
def ft06(tmp_path: Path) -> str:
    path = tmp_path / "ft06.txt"
    path.write_text(texts.classic(FT06, 6))
    return str(path)


def test_all_rules_side_by_side(ft06: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dispatch", ft06]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[2] for line in said.splitlines()[1:-1]}
    assert {name: rows[name] for name in ("FIFO", "SPT", "LPT", "MWKR", "MOR", "LWKR")} == {
        "FIFO": "65", "SPT": "88", "LPT": "77", "MWKR": "61", "MOR": "59", "LWKR": "83",
    }  # fmt: skip
    assert "9 of 9 realised schedules keep every constraint" in said


def test_luck_is_for_all_rules_and_json_has_every_run(ft06: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["dispatch", ft06, "--rule", "mwkr, MWKR,spt", "--noise", "0.3", "--breakdowns", "30:5", "--arrivals", "3", "--seeds", "4", "--json"]
    assert run([*given, "--blocking", "swap", "--interruptions", "0.1"]) == 0
    said = json.loads(capsys.readouterr().out)
    spans = [run["terms"]["makespan"] for run in said["runs"]]
    assert spans[:4] == spans[4:8] and len(set(spans[:4])) > 1
    assert all(run["checked"] for run in said["runs"])
    assert [row["rule"] for row in said["rules"]] == ["MWKR", "SPT"]
    assert said["rules"][1]["makespan"] == sum(spans[8:]) / 4


def test_it_writes_the_only_run(ft06: str, tmp_path: Path) -> None:
    table, page = tmp_path / "s.csv", tmp_path / "g.html"
    assert run(["dispatch", ft06, "--rule", "mor", "--breakdowns", "20:9", "--out", str(table), "--html", str(page)]) == 0
    with open(table, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 36 and max(int(row["end"]) for row in rows) > 59
    assert "<svg" in page.read_text() or "plotly" in page.read_text().lower()


def test_a_solver_that_plans_again(ft06: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ortools")
    assert run(["dispatch", ft06, "--rule", "rolling:cp-sat", "--time-limit", "10"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[3] == "55"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rule", "best"], "unknown dispatch rule 'best'; choose from FIFO"),
        (["--rule", "rolling:cpsat"], "did you mean cp-sat"),
        (["--breakdowns", "3"], "such as 500:50"),
        (["--breakdowns", "0:5"], "breakdowns need a mean time"),
        (["--noise", "1"], "noise must be in [0, 1)"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--out", "s.csv"], "are for one run"),
        (["--blocking", "no-wait"], "cannot handle max_lags of ft06"),
    ],
)
def test_bad_input_is_one_line(ft06: str, given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dispatch", ft06, *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.fixture
def cell(tmp_path: Path) -> str:
    path = tmp_path / "cell.json"
    form = {"name": "coater", "sheets": 6, "pick": 2, "place": 2, "move": 3, "robots": [{"name": "R1", "arms": 2}]}
    path.write_text(json.dumps(form | {"stages": [{"name": "coat", "ticks": 30, "residency": 0}, {"name": "bake", "ticks": 40}]}))
    return str(path)


def test_a_robot_cell(cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dispatch", cell]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:-2]] == ["pull", "push", "downstream", "longest-waiting", "nearest", "random", "swap"]
    assert "no rule gets below 44 ticks per sheet" in said[-2]
    assert "7 of 7 runs keep everything" in said[-1]
    table, page = tmp_path / "s.csv", tmp_path / "g.html"
    assert run(["dispatch", cell, "--rule", "swap", "--out", str(table), "--html", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    with open(table, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 6 * (3 + 3 + 2)
    assert max(int(row["end"]) for row in rows) == found["runs"][0]["makespan"] == found["rules"][0]["makespan"]
    assert found["runs"][0]["overstays"] == len(found["runs"][0]["violations"]) > 0
    assert ">R1&#x27;s arms<" in page.read_text()


def test_a_robot_cell_is_planned_too(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ortools")
    assert run(["solve", cell, "--time-limit", "30", "--solver", "cp-sat", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "optimal" and found["checked"]
    assert run(["dispatch", cell, "--json"]) == 0
    assert found["value"][0] <= min(row["best_makespan"] for row in json.loads(capsys.readouterr().out)["rules"])


def test_a_plan_begins_with_what_the_best_rule_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ortools")
    path = tmp_path / "long.json"
    path.write_text(json.dumps({"sheets": 30, "move": 2, "stages": [{"name": name, "ticks": 30} for name in ("a", "b", "c")]}))
    assert run(["dispatch", str(path), "--json"]) == 0
    best = min(row["best_makespan"] for row in json.loads(capsys.readouterr().out)["rules"])
    assert run(["solve", str(path), "--time-limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"][0] <= best


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rule", "mwkr"], "unknown rule for robots 'mwkr'; choose from pull"),
        (["--blocking", "swap"], "is a robot cell, which takes --rule, --noise"),
        (["--noise", "1"], "noise must be in [0, 1)"),
        (["--html", "g.html"], "are for one run"),
    ],
)
def test_what_a_robot_cell_does_not_take(cell: str, given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dispatch", cell, *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
