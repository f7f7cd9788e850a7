"""The Flover study: its bookkeeping against direct counts, and the verdicts of a quick run."""

import numpy as np
import pytest

from rota.cost.deployment import Deployment
from rota.studies.reproduce.claim import NOT, REPRODUCED, Options
from rota.studies.reproduce.flover import LONGEST, PROMPT, _cell, _layout, run


@pytest.fixture(scope="module")
def deployment():
    return Deployment("gpt-j-6b", "a100-40g", max_model_len=LONGEST)


def test_nothing_is_gained_where_requests_never_meet(deployment):
    cell = _cell(deployment, deployment.engine(), 3, 20.0, np.full(3, LONGEST - PROMPT))
    for name in cell.makespan:
        assert cell.factor(name) == pytest.approx(1, rel=1e-3)


def test_requests_that_never_meet_leave_no_holes(deployment):
    layout = _layout(deployment, deployment.engine(), 3, 20.0, np.array([300, 100, 200]))
    assert (layout.copies, layout.copying, layout.dead_rows, layout.computing) == (0, 0, 0, 0)


def test_a_request_that_leaves_in_the_middle_leaves_one_hole(deployment):
    layout = _layout(deployment, deployment.engine(), 3, 0.0, np.array([400, 100, 400]))
    assert layout.copies == 1
    assert layout.copying == pytest.approx(2 * LONGEST * 2 * 28 * 16 * 256 * 2 / 1555e9)
    dead, live = 300, 400 + 100 + 400  # tokens from 100 on have a dead row beside two live ones
    assert layout.dead_rows == pytest.approx(dead / (dead + live), abs=0.01)


def test_verdicts_of_a_quick_run():
    report = run(Options(seeds=1, quick=True))
    verdicts = {finding.claim: finding.verdict for finding in report.findings}
    assert verdicts["GPT-J 6B: many times faster than FasterTransformer"] == REPRODUCED
    assert verdicts["LLaMA-13B: many times faster than FasterTransformer"] == REPRODUCED
    assert verdicts["The same factors against a baseline that batches"] == NOT
