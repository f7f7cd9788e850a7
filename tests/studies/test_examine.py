"""Planners examined: verdicts, a model behind a scripted server, going on after a kill."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rota.cli.main import run
from rota.contracts.shop import Problem, Schedule
from rota.errors import InputError
from rota.mechanisms.endpoint import Endpoint, NoAnswer
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.forgetful import Forgetful
from rota.policies.solvers.orders import ORDERS, InOrder
from rota.studies.examine import BySolver, ByText, Exam, Log, Plan, Verdict, examine, judge, summary
from rota.workload.shop.planted import AXES, Shape, ramp
from rota.workload.shop.prose import answer_json, describe
from tests.shop.chat_server import chat_server, completion

SMALL = Exam(levels=(5, 20), axes=((), AXES), seeds=3)
#: From the text of a problem to its planted schedule, as a perfect model would have it.
KEYS = {describe(planted.problem): planted.certificate for _, _, planted in SMALL.problems()}


class Cheat:
    """Knows the planted schedules, but for those it spoils."""

    name = "cheat"

    def __init__(self, interrupt_after: int = 10**6) -> None:
        self.asked, self._left = 0, interrupt_after

    def plan(self, problem: Problem, seed: int) -> Plan:
        if self.asked == self._left:
            raise KeyboardInterrupt
        self.asked += 1
        return Plan(Schedule(KEYS[describe(problem)], {}))


def test_one_violation_of_each_class_is_named() -> None:
    (planted,) = ramp(Shape(share=1), AXES, (20,), 7)
    problem, start = planted.problem, dict(planted.certificate)
    assert judge(problem, Schedule(start, {})) == {}
    assert judge(problem, None) == {"no schedule": 1}
    ends = {task.id: start[task.id] + task.modes[0].duration for task in problem.tasks}
    task = problem.tasks[0]
    narrow = replace(task, earliest_start=start[task.id] + 1, latest_end=None)
    assert judge(replace(problem, tasks=(narrow, *problem.tasks[1:])), Schedule(start, {})) == {"windows": 1}
    with_gap = next(lag for lag in problem.lags if start[lag.b.task] == max(ends[x.a.task] for x in problem.lags if x.b == lag.b))
    late = replace(with_gap, min=start[with_gap.b.task] - ends[with_gap.a.task] + 1)
    assert judge(replace(problem, lags=(late,)), Schedule(start, {})) == {"precedence": 1}
    both = next(
        frozenset((a.id, b.id)) for a in problem.tasks for b in problem.tasks
        if a.id < b.id and start[a.id] < ends[b.id] and start[b.id] < ends[a.id]
    )  # fmt: skip
    assert judge(replace(problem, exclusive=(both,)), Schedule(start, {})) == {"pairs": 1}
    used = next(r for r in problem.resources if any(use.resource == r.id for use in task.modes[0].uses))
    down = replace(used, calendar=((start[task.id], 0), (start[task.id] + 1, used.capacity)))
    changed = tuple(down if r.id == used.id else r for r in problem.resources)
    alone = replace(problem, tasks=(task,), lags=(), exclusive=(), resources=changed)
    assert judge(alone, Schedule({task.id: start[task.id]}, {})) == {"downtime": 1}
    amount = next(use.amount for use in task.modes[0].uses if use.resource == used.id)
    twin = replace(task, id="twin", earliest_start=0, latest_end=None)
    pair = replace(problem, tasks=(task, twin), lags=(), exclusive=(), resources=(replace(used, calendar=(), capacity=2 * amount - 1),
                   *(replace(r, calendar=(), capacity=99) for r in problem.resources if r.id != used.id)))  # fmt: skip
    at = start[task.id]
    assert judge(pair, Schedule({task.id: at, "twin": at}, {})) == {"capacity": 1}
    assert judge(pair, Schedule({task.id: at}, {})) == {"left out": 1}


def test_cp_sat_solves_every_problem_and_rules_those_without_axes() -> None:
    exam = Exam(levels=(0, 10, 25), axes=((), ("windows",), AXES), seeds=2)
    rows = {(row["planner"], row["axes"]): row for row in summary(examine([BySolver(CpSat())], exam))}
    assert all(row["wauc"] == 1 and row["breakpoint"] is None for row in rows.values())
    rules = [BySolver(InOrder(order)) for order in ORDERS]
    verdicts = examine(rules, Exam(levels=(0, 10, 25), axes=((), ("downtime",), ("downtime", "pairs")), seeds=4))
    assert all(verdict.feasible for verdict in verdicts)


def test_one_who_forgets_nothing_is_exact_and_one_who_forgets_all_is_not() -> None:
    exact, blank = (summary(examine([BySolver(Forgetful(error))], SMALL)) for error in (0.0, 1.0))
    assert [row["wauc"] for row in exact] == [1, 1]
    assert [row["wauc"] for row in blank] == [0, 0]


def test_summary_by_hand() -> None:
    shares = {1: (True, True), 2: (True, False), 4: (False, False)}
    verdicts = [
        Verdict("p", "none", level, seed, good, {} if good else {"capacity": 2}, 1.0)
        for level, both in shares.items() for seed, good in enumerate(both)
    ]  # fmt: skip
    (row,) = summary(verdicts)
    assert row["feasible"] == {1: 1.0, 2: 0.5, 4: 0.0}
    assert row["wauc"] == pytest.approx((1 * 1 + 2 * 0.5) / 7)
    assert row["breakpoint"] == 4
    assert row["errors"] == {"capacity": 1.0}


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_model_behind_an_endpoint(jobs: int) -> None:
    def model(body: dict[str, object]) -> tuple[int, dict[str, str], bytes]:
        text = body["messages"][0]["content"]  # type: ignore[index]
        starts = dict(KEYS[text])
        if "out of service" in text or "at the same time" in text:  # it can do the plain problems only
            starts["T1"] += 500
        return completion(f"Here you go:\n```json\n{answer_json(starts.items())}\n```")

    with chat_server(model) as (url, seen):
        verdicts = examine([ByText(Endpoint(url, "tiny", key="secret"))], SMALL, jobs=jobs)
    assert len(verdicts) == len(seen) == SMALL.count
    assert {verdict.feasible for verdict in verdicts if verdict.axes == "none"} == {True}
    assert {verdict.feasible for verdict in verdicts if verdict.axes != "none"} == {False}
    assert all(request["authorization"] == "Bearer secret" and request["model"] == "tiny" for request in seen)
    assert all(request["path"] == "/v1/chat/completions" and request["temperature"] == 0 for request in seen)
    assert "secret" not in repr(Endpoint(url, "tiny", key="secret"))


@pytest.mark.parametrize("said", ["I am sorry, I cannot.", "", '{"T1": "soon"}'])
def test_an_answer_without_a_schedule_is_none(said: str) -> None:
    with chat_server(lambda body: completion(said)) as (url, _):
        verdicts = examine([ByText(Endpoint(url, "mute"))], Exam(levels=(5,), axes=((),), seeds=1))
    assert [verdict.errors for verdict in verdicts] == [{"no schedule": 1}]
    assert verdicts[0].said == said


def test_a_busy_server_is_asked_again_as_it_says() -> None:
    replies = [(429, {"Retry-After": "0"}, b"busy"), (503, {}, b"down"), completion("hello")]
    with chat_server(lambda body: replies.pop(0)) as (url, seen):
        assert Endpoint(url, "m", pauses=(9.0, 0.0)).ask("hi") == "hello"
    assert len(seen) == 3


def test_what_cannot_be_cured_is_one_line() -> None:
    with chat_server(lambda body: (401, {}, b"no such key")) as (url, seen), pytest.raises(InputError, match="401 .*no such key"):
        Endpoint(url, "m").ask("hi")
    assert len(seen) == 1
    with chat_server(lambda body: (500, {}, b"")) as (url, seen), pytest.raises(InputError, match="500"):
        Endpoint(url, "m", pauses=(0.0,)).ask("hi")
    assert len(seen) == 2
    with pytest.raises(InputError, match="cannot be reached"):
        Endpoint(url, "m").ask("hi")
    with pytest.raises(InputError, match="is not an address"):
        Endpoint("localhost:8000", "m")


def test_a_slow_or_odd_server_gives_no_answer() -> None:
    def slow(body: object) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.5)
        return completion("late")

    with chat_server(slow) as (url, _), pytest.raises(NoAnswer, match=r"within 0\.1 s"):
        Endpoint(url, "m", timeout_s=0.1).ask("hi")
    for odd in (b"<html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}'):
        with chat_server(lambda body, odd=odd: (200, {}, odd)) as (url, _), pytest.raises(NoAnswer):  # type: ignore[misc]
            Endpoint(url, "m").ask("hi")


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file, settings = tmp_path / "exam.jsonl", {"levels": [5, 20]}
    first = Cheat(interrupt_after=5)
    with pytest.raises(KeyboardInterrupt):
        examine([first], SMALL, Log.open(file, settings))
    with file.open("a") as log:
        log.write('{"planner": "cheat", "ax')  # killed while it wrote
    second = Cheat()
    verdicts = examine([second], SMALL, Log.open(file, settings))
    assert (first.asked, second.asked) == (5, SMALL.count - 5)
    assert len({verdict.key for verdict in verdicts}) == len(verdicts) == SMALL.count
    assert all(verdict.feasible for verdict in verdicts)
    with pytest.raises(InputError, match="other settings"):
        Log.open(file, {"levels": [5]})
    (tmp_path / "other.jsonl").write_text("task,start\n")
    with pytest.raises(InputError, match="not a log of rota examine"):
        Log.open(tmp_path / "other.jsonl", settings)


def test_an_interrupt_keeps_the_answers_under_way() -> None:
    log = Log.open(None, {})
    with pytest.raises(KeyboardInterrupt):
        examine([Cheat(interrupt_after=6)], SMALL, log, jobs=3)
    assert len(log.rows) == 6


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--levels", "5,10", "--seeds", "2"]
    log = str(tmp_path / "exam.jsonl")
    assert run(["examine", "index,latest-end", *few, "--json", "--out", log]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["feasible"] for row in found["summary"] if row["axes"] == "none"] == [{"5": 1.0, "10": 1.0}] * 2
    assert run(["examine", "index,latest-end", *few, "--out", log]) == 0
    assert "WAUC" in capsys.readouterr().out
    assert run(["examine", "index", "--prompt", "--vocabulary", "migration"]) == 0
    assert "forklift: 6 units" in capsys.readouterr().out
    with chat_server(lambda body: completion("no")) as (url, seen):
        assert run(["examine", url, "--model", "m", *few, "--axes", "none", "--jobs", "2"]) == 0
    assert len(seen) == 4
    assert "no schedule 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "there is no solver 'nobody'"),
        (["index", "--levels", "a"], "--levels a"),
        (["index", "--levels", "5,5"], "named twice"),
        (["index", "--levels", "900"], "no more than"),
        (["index", "--axes", "weather"], "no axis 'weather'"),
        (["index", "--seeds", "0"], "at least 1 seed"),
        (["index,index"], "named twice"),
        (["index", "--jobs", "0"], "--jobs"),
        (["index", "--out", "exam.csv"], ".jsonl"),
        (["http://localhost:1/v1"], "--model"),
        (["http://localhost:1/v1", "--model", "m"], "cannot be reached"),
        (["forgetful:often"], "probability"),
        (["forgetful:2"], "probability"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["examine", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
