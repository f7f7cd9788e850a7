"""`rota solve` as people use it: what it prints, writes and returns, and what it says to bad input."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
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


def test_it_solves_checks_and_says_so(ft06: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", ft06, "--blocking", "swap"]) == 0
    said = capsys.readouterr()
    assert "ft06: 36 tasks, 6 resources, 6 jobs; portfolio of iterated-greedy, cp-sat" in said.out
    assert "makespan 63" in said.out
    assert "proven" in said.out
    assert "checked independently: every constraint holds" in said.out
    assert said.err.splitlines()[-1].split()[1:4] == ["63", "63", "0.00%"]


def test_it_writes_what_it_found(ft06: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, page = tmp_path / "s.csv", tmp_path / "g.html"
    assert run(["solve", ft06, "--json", "--out", str(table), "--html", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["value"], found["bound"], found["gap"], found["checked"]) == ("optimal", [55], [55], 0.0, True)
    assert max(row["end"] for row in found["schedule"]) == 55
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["task"] for row in rows] == [row["task"] for row in found["schedule"]]
    assert "<svg" in page.read_text()
    assert "makespan 55 (proven optimal)" in page.read_text()


def test_objectives_and_tables_of_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(
        "job,duration,due\n"
        + "".join(
            f"{k},{p},{d}\n" for k, (p, d) in enumerate(zip([10, 11, 10, 10, 11, 10], [15, 11, 13, 11, 12, 11], strict=True))
        )
    )
    assert run(["solve", str(jobs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == [141]
    assert run(["solve", str(jobs), "--json", "--objective", "tardy-jobs,total-completion"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == [5, 213]


def test_a_problem_without_schedules_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    tasks = [{"id": name, "duration": 3, "uses": ["m"], "latest_end": 5} for name in "ab"]
    path.write_text(json.dumps({"tasks": tasks, "resources": ["m"]}))
    assert run(["solve", str(path)]) == 1
    assert "infeasible: it is proven that there is no schedule" in capsys.readouterr().out


BAD = {
    "cyclic precedence": ('{"tasks": [{"id": "a", "duration": 1}, {"id": "b", "duration": 1}], "precedence": [["a", "b"], ["b", "a"]]}',
                          [], "precedence is cyclic: a -> b -> a"),
    "negative duration": ("2 1\n0 3\n0 -4\n", [], "file.txt:3: duration -4 is negative"),
    "no resource can hold": ('{"tasks": [{"id": "a", "duration": 1, "uses": [{"resource": "m", "amount": 2}]}], "resources": ["m"]}',
                             [], "no resource can hold task a"),
    "cut off": ("3 2\n0 3 1 4\n1 3 0 4\n", [], "file.txt:3: expected 3 rows of operations"),
    "table without durations": ("job,processing,due\na,5,7\n", [], ":1: a table of jobs needs a column duration (or "),
    "unknown format": ("once upon a time\n", [], "none of the formats that are known"),
    "infeasible windows": ('{"tasks": [{"id": "a", "duration": 9, "latest_end": 5}]}', [], "a takes 9"),
    "unknown objective": ("1 1\n0 3\n", ["--objective", "speed"], "the objective names speed; it must be one of makespan"),
    "unknown blocking": ("1 1\n0 3\n", ["--blocking", "yes"], "blocking must be one of none, swap, no-swap, no-wait"),
    "unknown solver": ("1 1\n0 3\n", ["--solver", "cpsat"], "did you mean cp-sat?"),
    "no time": ("1 1\n0 3\n", ["--time-limit", "0"], "the time limit must be a positive number of seconds, not 0"),
    "unknown kind of output": ("1 1\n0 3\n", ["--out", "x.xlsx"], "a schedule is written as .json or .csv"),
    "due dates missing": ("1 1\n0 3\n", ["--objective", "total-tardiness"], "no job has a due date"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_status_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, options, message = BAD[case]
    path = tmp_path / "file.txt"
    path.write_text(text)
    assert run(["solve", str(path), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_ctrl_c_keeps_the_best_schedule_checked(tmp_path: Path) -> None:
    rng = random.Random(0)
    path, table = tmp_path / "big.txt", tmp_path / "s.json"
    path.write_text(texts.classic(texts.random_jobs(rng, 30, 15), 15))
    command = [sys.executable, "-m", "rota", "solve", str(path), "--time-limit", "100", "--out", str(table)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.split()[1:2] not in ([], ["-"], ["value"]):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after" in out
    assert "checked independently: every constraint holds" in out
    found = json.loads(table.read_text())
    assert found["interrupted"]
    assert len(found["schedule"]) == 450
