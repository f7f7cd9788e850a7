"""Programs: completion times and lost KV, by hand, and against a plain loop over random runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.report.explain import verdict
from rota.report.terminal import useful_columns
from rota.results.comparison import Comparison
from rota.results.frame import requests_frame
from rota.results.programs import later_turns, missed, programs
from rota.results.slo import SLO
from rota.results.summary import summarise
from tests.results.fifo import fifo_run


def with_programs(n=120, turns=4, **options):
    """Every `turns` requests in a row are a program whose every turn but the first missed its cache."""
    run = fifo_run(n, **options)
    run.program = np.arange(n) // turns
    run.meta["block_size"] = 16
    return run


def test_a_program_takes_from_its_first_arrival_to_its_last_finish():
    run = with_programs(8)
    run.program = np.array([5, 5, -1, 2, 5, 2, -1, 9])
    found = programs(run)
    assert found.number.tolist() == [2, 5, 9]
    assert found.turns.tolist() == [2, 3, 1]
    expected = [run.finish[5] - run.arrival[3], run.finish[4] - run.arrival[0], run.finish[7] - run.arrival[7]]
    np.testing.assert_allclose(found.completion, expected)
    row = summarise(run)
    assert (row["programs"], row["programs_finished"]) == (3, 3)
    assert row["jct_mean"] == pytest.approx(np.mean(expected))
    assert row["jct_p95"] == pytest.approx(np.percentile(expected, 95))


def test_a_program_with_an_unfinished_or_rejected_turn_has_no_completion_time():
    run = with_programs(12)
    run.finish[5], run.rejected[8] = np.nan, True
    assert np.isnan(programs(run).completion).tolist() == [False, True, True]
    assert summarise(run)["programs_finished"] == 1


def test_a_turn_misses_when_it_reuses_less_than_the_turn_before_left():
    run = with_programs(4)
    run.prompt[:], run.output[:] = [100, 130, 120, 200], [20, 40, 5, 1]
    # left behind: 119, 169 and 124 tokens, so 7, 10 and 7 blocks; the third prompt has room for 7 of the 10
    run.cached[:] = [0, 112, 112, 112]
    assert missed(run).tolist() == [False, False, False, False]
    assert later_turns(run) == 3
    run.cached[1:] = 96
    assert missed(run).tolist() == [False, True, True, True]
    run.first_scheduled[3] = np.nan
    assert (missed(run).sum(), later_turns(run)) == (2, 2)
    assert summarise(run)["missed_turns"] == 1.0


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=40), st.integers(0, 9))
def test_columns_agree_with_a_loop(numbers, seed):
    rng = np.random.default_rng(seed)
    run = with_programs(len(numbers), seed=seed)
    run.program = np.array(numbers)
    run.cached = rng.integers(0, 1 + run.prompt)
    run.rejected = rng.random(len(numbers)) < 0.1
    expected, last = np.zeros(len(numbers), bool), {}
    for i, number in enumerate(numbers):
        if number in last and number >= 0:
            left = run.prompt[last[number]] + run.output[last[number]] - 1
            expected[i] = run.cached[i] < min(left, run.prompt[i] - 1) // 16 * 16
        last[number] = i
    assert missed(run).tolist() == expected.tolist()
    found = programs(run)
    for number in set(numbers) - {-1}:
        rows = [i for i, x in enumerate(numbers) if x == number]
        took = max(run.finish[rows]) - min(run.arrival[rows]) if not run.rejected[rows].any() else np.nan
        np.testing.assert_allclose(found.completion[found.number.tolist().index(number)], took)


def test_completion_time_decides_where_there_are_programs():
    # the slow one has the longer first tokens, the jerky one the longer programs
    slow = [with_programs(seed=s, rate=0.1, prefill=1e-3) for s in range(4)]
    jerky = [with_programs(seed=s, rate=0.1, pace=0.5) for s in range(4)]
    for run in jerky:
        run.program = run.program[::-1].copy()
    found = Comparison.of({"jerky": jerky, "slow": slow})
    assert found.criteria[0] == "jct_mean"
    assert found.winners() == (["slow"], "jct_mean")
    assert "lower mean JCT than jerky" in verdict(found)
    assert {"jct_mean", "jct_p95", "missed_turns"} <= set(useful_columns(found))
    judged = Comparison.of({"jerky": jerky, "slow": slow}, SLO.parse("p99 tbt=1"))
    assert judged.criteria[:3] == ("slo_met", "goodput", "jct_mean")
    assert "missed" in requests_frame(slow[0]).columns


def test_runs_without_programs_say_nothing_of_them():
    run = fifo_run(20)
    assert programs(run) is None
    assert not any(key.startswith("jct") for key in summarise(run))
    assert "jct_mean" not in Comparison.of({"a": [run]}).criteria
