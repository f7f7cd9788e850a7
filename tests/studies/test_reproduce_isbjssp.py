"""The ISBJSSP study: another program's figures, both readings of work remaining, and the verdicts of a quick run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rota.policies.dispatch.online import Rule
from rota.studies.reproduce import JOB_SHOPS
from rota.studies.reproduce.claim import NEEDS_DATA, NEEDS_TRAINING, REPRODUCED, Options
from rota.studies.reproduce.isbjssp import LUCKS, NOTED, Held, Setting, Task, run, run_task
from rota.studies.reproduce.job_shops import drawn, published
from rota.workload.shop.sets import read_bounds


def test_what_is_held_counts_until_the_job_moves_on() -> None:
    duration, job = np.array([3, 5, 7, 2, 4]), np.array([0, 0, 0, 1, 1])
    due = np.full(5, np.inf)
    assert Held(Rule("LWKR")).numbers(duration, job, due).tolist() == [15, 15, 12, 6, 6]
    assert Held(Rule("MWKR")).numbers(duration, job, due).tolist() == [-15, -15, -12, -6, -6]


def test_every_rule_to_a_tenth_on_the_published_instances(shared: Path) -> None:
    folder = Path(JOB_SHOPS.find(str(shared)) or "")
    best = read_bounds(folder / "bounds_blocking_swap_makespan.csv")
    found = []
    for one in published(folder / "classic.jsonl", {f"la{k:02d}" for k in range(1, 41)}):
        found.append(run_task(Task(one, Setting(0, False, 0), (1,), best[one.name].ub or 0)))  # seed 1: not RANDOM
    for rule, percent in NOTED.items():
        read = f"{rule} held" if rule in ("MWKR", "LWKR") else rule
        assert np.mean([ran[read].over for ran in found]) == pytest.approx(percent, abs=0.06)


def test_luck_lengthens_and_lost_work_lengthens_more() -> None:
    [*_, one] = drawn(1)
    means = []
    for setting in (Setting(0, False, 0), Setting(0.2, False, 0), Setting(0.2, True, 0)):
        ran = run_task(Task(one, setting, tuple(range(LUCKS)), one.load))
        assert all(each.checked == each.runs for each in ran.values())
        means.append(np.mean([each.over for each in ran.values()]))
    assert means == sorted(means)


def test_verdicts_of_a_quick_run_without_data() -> None:
    report = run(Options(seeds=1, quick=True))
    verdicts = [finding.verdict for finding in report.findings]
    assert verdicts[:4] == [NEEDS_TRAINING, NEEDS_DATA, NEEDS_DATA, NEEDS_DATA]
    assert verdicts[4] == REPRODUCED
    assert len(report.tables[0].rows) == 10
    assert [row["machines"] for row in report.tables[2].rows] == [5, 10, 15]
