import pytest

from rota.errors import InputError
from rota.results.comparison import Comparison, implied_slo
from rota.results.slo import SLO

from .fifo import fifo_run


def replicated(**options):
    return [fifo_run(150, seed=seed, **options) for seed in range(4)]


def test_the_faster_policy_wins_on_goodput_when_loaded():
    comparison = Comparison.of({"slow": replicated(pace=0.04), "fast": replicated(pace=0.02)}, SLO.parse("e2e=5"))
    assert comparison.winners() == (["fast"], "goodput")
    assert comparison.replications == 4
    assert comparison.mid("fast", "goodput") > comparison.mid("slow", "goodput")


def test_equal_goodput_is_decided_by_the_tail_of_token_gaps():
    runs = {"stalls": replicated(rate=0.1, stall=0.3), "steady": replicated(rate=0.1)}
    assert Comparison.of(runs, SLO.parse("e2e=1000")).winners() == (["steady"], "tbt_p99")


def test_a_job_is_decided_by_its_time_alone():
    runs = {"soon": replicated(pace=0.03, stall=0.5, rate=0.1), "late": replicated(pace=0.02, rate=0.1)}
    for run in runs["late"]:
        run.finish[-1] += 500
    assert Comparison.of(runs).winners()[0] == ["late"]
    job = Comparison.of(runs, offline=True)
    assert job.winners() == (["soon"], "makespan")
    assert "makespan" in job.headlines


def test_identical_policies_tie_on_everything():
    comparison = Comparison.of({"a": replicated(), "b": replicated()})
    assert comparison.winners() == (["a", "b"], "")
    assert comparison.versus("a", "b", "ttft_p99").tie
    assert comparison.best("e2e_p50") == ["a", "b"]


def test_an_objective_on_percentiles_comes_first():
    runs = {"stalls": replicated(rate=0.1, stall=0.3), "steady": replicated(rate=0.1, prefill=2e-4)}
    assert Comparison.of(runs, SLO.parse("p99 tbt=0.1")).winners() == (["steady"], "slo_met")


def test_implied_limits_follow_the_best_policy():
    slo = implied_slo({"a": replicated(pace=0.02, rate=0.1), "b": replicated(pace=0.05, rate=0.1)})
    assert dict(slo.limits) == {"ttft": 2.0, "tbt": 0.1}
    assert not Comparison.of({"a": replicated()}).slo_given


def test_nothing_to_compare_is_said():
    with pytest.raises(InputError, match="nothing to compare"):
        Comparison.of({})
    with pytest.raises(InputError, match="same seeds"):
        Comparison.of({"a": replicated(), "b": replicated()[:2]})
