"""The Gantt chart: one bar per hold, lanes without overlap, and nothing from a name gets out of its element."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from itertools import pairwise

from rota.contracts.shop import Event, Job, Lag, Mode, Outcome, Problem, Progress, Resource, Schedule, Task, Use
from rota.mechanisms.shop.checker import check
from rota.mechanisms.shop.violations import Hold
from rota.report.gantt import lanes, page
from rota.studies.solve import Solved


def solved(problem: Problem, schedule: Schedule) -> Solved:
    trace = (Progress(0.1, 9, 2), Progress(0.5, 7, 6))
    return Solved(problem, Outcome("feasible", schedule, (7,), (6,), trace, "mine"), check(problem, schedule), 1.0)


def example() -> Solved:
    tasks = (
        Task("a", (Mode(2, (Use("m", until=Event("b", "start")),)),)),
        Task("b", (Mode(1, (Use("n"),)),)),
        Task("<c>", (Mode(2, (Use("m"),)),)),
    )
    problem = Problem(
        tasks, (Resource("m", calendar=((9, 0), (11, 1))), Resource("n")), (Lag(Event("a", "end"), Event("b", "start")),), (Job("j&", ("a", "b")),)
    )  # fmt: skip
    return solved(problem, Schedule({"a": 0, "b": 5, "<c>": 5}, {}))


def test_work_and_waiting_are_drawn_apart() -> None:
    text = page(example())
    assert text.count('class="works"') == 3
    assert text.count('class="held"') == 1
    assert "a: works from 0 to 2" in text
    assert "a: held from 2 to 5" in text
    assert "Checked independently" in text
    assert "makespan 7 (within 14.3% of the bound)" in text


def test_names_cannot_break_out() -> None:
    class Elements(HTMLParser):
        seen: set[str]

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.seen.add(tag)

    parser = Elements()
    parser.seen = set()
    parser.feed(page(example()))
    assert "c" not in parser.seen
    assert "http" not in re.sub(r"<title>.*?</title>", "", page(example()))


def test_violations_are_shown() -> None:
    tasks = (Task("a", (Mode(2, (Use("m"),)),)), Task("b", (Mode(2, (Use("m"),)),)))
    assert "NOT FEASIBLE: capacity: m at 1 (by 1)" in page(
        solved(Problem(tasks, (Resource("m"),)), Schedule({"a": 0, "b": 1}, {}))
    )


def test_lanes_hold_one_at_a_time_and_no_more_than_needed() -> None:
    rng = random.Random(0)
    holds = []
    for k in range(200):
        start = rng.randint(0, 300)
        holds.append(Hold(start, start + rng.randint(1, 30), 1, f"t{k}", Event(f"t{k}", "end")))
    placed = lanes(holds)
    for lane in {lane for lane, _ in placed}:
        mine = sorted(hold for at, hold in placed if at == lane)
        assert all(a.end <= b.start for a, b in pairwise(mine))
    most = max(sum(hold.start <= tick < hold.end for hold in holds) for tick in range(330))
    assert 1 + max(lane for lane, _ in placed) == most
