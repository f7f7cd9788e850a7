"""Problems as text, and answers as people and models write them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload.shop.build import job_shop
from rota.workload.shop.planted import AXES, Shape, ramp
from rota.workload.shop.prose import describe, read_answer

TASKS = [f"T{i}" for i in range(1, 13)]
STYLES = {
    "json": lambda s: json.dumps(s),
    "fenced": lambda s: f"Sure! T1 starts at 99 in my draft.\n```json\n{json.dumps(s, indent=2)}\n```\nHope this helps.",
    "nested": lambda s: json.dumps({"makespan": 500, "schedule": s}),
    "records": lambda s: json.dumps([{"task": t, "start": v, "end": v + 3} for t, v in s.items()]),
    "start_time": lambda s: json.dumps({"tasks": [{"id": t.lower(), "start_time": str(v)} for t, v in s.items()]}),
    "objects": lambda s: json.dumps({t: {"start": v, "end": v + 3} for t, v in s.items()}),
    "intervals": lambda s: json.dumps({t: [v, v + 3] for t, v in s.items()}),
    "pairs": lambda s: json.dumps([[t, v] for t, v in s.items()]),
    "floats": lambda s: json.dumps({t: float(v) for t, v in s.items()}),
    "sloppy": lambda s: "{" + "".join(f"'{t}': {v}, // ok\n" for t, v in s.items()) + "}",
    "thinking": lambda s: "<think>maybe {\"T1\": 77, \"T2\": 78}</think>" + json.dumps(s),
    "corrected": lambda s: json.dumps(dict.fromkeys(s, 1000)) + "\nWait, that breaks a window.\n" + json.dumps(s),
    "markdown": lambda s: "| Task | Start | End |\n|---|---|---|\n" + "".join(f"| **{t}** | {v} | {v + 3} |\n" for t, v in s.items()),
    "ids last": lambda s: "| Duration | Start time | Task |\n|---|---|---|\n" + "".join(f"| 3 | {v} | {t} |\n" for t, v in s.items()),
    "csv": lambda s: "task,start\n" + "".join(f"{t},{v}\n" for t, v in s.items()),
    "colons": lambda s: "\n".join(f"- {t}: {v}" for t, v in s.items()),
    "arrows": lambda s: "\n".join(f"{t} -> [{v}, {v + 3})" for t, v in s.items()),
    "equals": lambda s: "; ".join(f"s[{t}] = {v}" for t, v in s.items()),
    "sentences": lambda s: " ".join(f"{t} starts at {v}." for t, v in s.items()),
    "bold": lambda s: "\n".join(f"**{t}**: start = {v}, ends {v + 3}" for t, v in s.items()),
    "scheduled": lambda s: "\n".join(f"Task {t} is scheduled to start at time {v} and takes 3 units." for t, v in s.items()),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
@given(starts=st.dictionaries(st.sampled_from(TASKS), st.integers(0, 400), min_size=2))
def test_every_style_is_read(style: str, starts: dict[str, int]) -> None:
    assert read_answer(STYLES[style](starts), TASKS) == starts


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    assert set(read_answer(text, TASKS)) <= set(TASKS)


@given(st.text(alphabet='T123 {}[]":,|-=\n startle.', max_size=80))
def test_no_text_that_looks_like_an_answer_breaks_it(text: str) -> None:
    assert set(read_answer(text, TASKS)) <= set(TASKS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do this.",
        "[[[[",
        '{"T1": 2.5}',
        '{"T1": null, "T99": 4}',
        '{"T1": true}',
        "T1 takes 5 units and T2 needs 3 of R1",
    ],
)
def test_nothing_is_made_up(text: str) -> None:
    assert read_answer(text, TASKS) == {}


def test_deep_nesting_is_no_crash() -> None:
    assert read_answer("[" * 3000 + '{"T1": 3}', TASKS) == {"T1": 3}


def test_a_name_that_is_part_of_another_is_not_it() -> None:
    assert read_answer("T11: 5\nT12: 6", TASKS) == {"T11": 5, "T12": 6}
    assert read_answer("XT1: 5, T1-b: 4", TASKS) == {}


@pytest.mark.parametrize("vocabulary", ["plain", "migration"])
def test_the_text_names_every_constraint(vocabulary: str) -> None:
    (planted,) = ramp(Shape(vocabulary=vocabulary), AXES, (12,), 5)
    problem, text = planted.problem, describe(planted.problem)
    for lag in problem.lags:
        assert f"{lag.b.task} may not start before {lag.a.task} has ended" in text
    for group in problem.exclusive:
        assert f"- {', '.join(sorted(group))}\n" in text
    for task in problem.tasks:
        line = next(line for line in text.splitlines() if line.startswith(f"- {task.id} takes"))
        assert f"takes {task.modes[0].duration} units" in line
        for use in task.modes[0].uses:
            assert f"{use.amount} of {use.resource}" in line
        assert (f"not start before {task.earliest_start}" in line) == (task.earliest_start > 0)
        assert ("must have ended by" in line) == (task.latest_end is not None)
        if task.latest_end is not None:
            assert f"ended by {task.latest_end}." in line
    for resource in problem.resources:
        if resource.calendar:
            (begin, _), (end, _) = resource.calendar
            assert f"{resource.id}: {resource.capacity} units; out of service during [{begin}, {end})" in text


def test_what_has_no_words_is_refused() -> None:
    with pytest.raises(InputError, match="makespan"):
        describe(job_shop([[(0, 3)]], 1))
