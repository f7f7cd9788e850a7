"""The JobShopCPRL study: another program's figures per set, and the verdicts of a quick run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rota.mechanisms.shop.propagation import Propagation
from rota.policies.dispatch.ordering import make_ordering
from rota.studies.reproduce import JOB_SHOPS
from rota.studies.reproduce.claim import NEEDS_DATA, NEEDS_TRAINING, REPRODUCED, Options
from rota.studies.reproduce.job_shops import SIZES, drawn, published
from rota.studies.reproduce.jobshopcprl import NOTED, RULES, Task, run, run_task
from rota.workload.shop.build import job_shop
from rota.workload.shop.sets import read_bounds


@pytest.mark.parametrize("family", ["la", "orb", "swv", "yn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ta", "dmu"))])
def test_every_rule_to_a_tenth_on_the_published_sets(shared: Path, family: str) -> None:
    folder = Path(JOB_SHOPS.find(str(shared)) or "")
    best = read_bounds(folder / "bounds_makespan.csv")
    some = [one for one in published(folder / "classic.jsonl") if one.name.rstrip("0123456789") == family]
    count, noted = NOTED[family]
    assert len(some) == count
    for rule, percent in zip(RULES, noted, strict=False):
        over = []
        for one in some:
            ran = Propagation(job_shop(one.ops, one.machines)).run(make_ordering(rule))
            over.append(100 * (ran.makespan / (best[one.name].ub or 0) - 1))
        assert np.mean(over) == pytest.approx(percent, abs=0.11)


def test_more_runs_are_never_worse_and_no_makespan_is_below_the_load() -> None:
    one = drawn(1)[0]
    ran = run_task(Task(one, one.load, (0, 1), True))
    assert ran.checked
    assert ran.followed is not None
    found, followed, _ = ran.followed
    assert one.load <= found == followed <= min(ran.makespan.values())
    for eight, best in zip(ran.eight, ran.best, strict=True):
        assert one.load <= best <= eight <= ran.makespan["MWKR"]


def test_drawn_instances_have_the_sizes_of_lawrence() -> None:
    some = drawn(2, seed=1)
    assert [(len(one.ops), one.machines) for one in some[::2]] == list(SIZES)
    assert all(sorted(machine for machine, _ in job) == list(range(one.machines)) for one in some for job in one.ops)


def test_verdicts_of_a_quick_run_without_data() -> None:
    report = run(Options(seeds=1, quick=True))
    assert [finding.verdict for finding in report.findings] == [
        NEEDS_TRAINING, NEEDS_TRAINING, NEEDS_DATA, REPRODUCED, REPRODUCED, NEEDS_DATA,
    ]  # fmt: skip
    assert len(report.tables[0].rows) == len(SIZES)
