import numpy as np
import pytest

from rota.errors import InputError
from rota.results.slo import SLO, Target
from rota.results.summary import summarise

from .fifo import fifo_run


def test_request_limits():
    assert SLO.parse("ttft=2, tbt=100ms").limits == (("ttft", 2.0), ("tbt", 0.1))
    assert SLO.parse("latency<=10,attain=95%") == SLO((("e2e", 10.0),), (), 0.95)
    assert SLO.parse("TTFT < 1.5 s").limits == (("ttft", 1.5),)


def test_percentiles():
    assert SLO.parse("p99 tbt<=0.1 and p50 queueing=2").targets == (Target("tbt", 99, 0.1), Target("queueing", 50, 2.0))
    both = SLO.parse("ttft=2,itl=0.1,p99.9")
    assert both.limits == (("ttft", 2.0), ("tbt", 0.1))
    assert both.targets == (Target("ttft", 99.9, 2.0), Target("tbt", 99.9, 0.1))


@pytest.mark.parametrize("text", ["ttft=2, tbt=0.1, attain=0.95", "p99 tbt=0.1, p50 queueing=2", "ttft=0.25, p90 e2e=12"])
def test_text_round_trip(text):
    assert SLO.parse(str(SLO.parse(text))) == SLO.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty SLO item"),
        ("ttft=2,,tbt=1", "empty SLO item"),
        ("ttft", "cannot be read"),
        ("speed=3", "unknown SLO metric 'speed'"),
        ("ttft=fast", "'fast' is not a positive number"),
        ("ttft=-1", "not a positive number"),
        ("ttft=5%", "not a positive number"),
        ("attain=100ms,ttft=1", "give a share"),
        ("ttft=0", "not a positive number"),
        ("ttft=nan", "not a positive number"),
        ("p100 ttft=1", "percentile 100"),
        ("p0,ttft=1", "percentile 0"),
        ("p99", "names a percentile but no limit"),
        ("ttft=1,ttft=2", "limits ttft twice"),
        ("ttft=1,attain=120%", "attain=1.2"),
        ("attain=0.9", "has no limit"),
    ],
)
def test_bad_text_is_refused_with_the_reason(text, message):
    with pytest.raises(InputError, match=message) as caught:
        SLO.parse(text)
    assert "\n" not in str(caught.value)


def test_percentile_targets_agree_with_the_summary():
    run = fifo_run(200, stall=0.3)
    figures = summarise(run)
    for metric in ("ttft", "e2e", "tpot", "queueing", "tbt"):
        for q in (50, 99):
            assert Target(metric, q, 1.0).measured(run) == pytest.approx(figures[f"{metric}_p{q}"], abs=1e-15)


def test_attainment_decides_without_percentiles():
    run = fifo_run(100)
    limit = float(np.percentile(run.finish - run.arrival, 80, method="inverted_cdf"))
    assert SLO.parse(f"e2e={limit},attain=0.8").holds(run)
    assert not SLO.parse(f"e2e={limit},attain=0.81").holds(run)


def test_worst_ratio_is_the_factor_by_which_limits_must_grow():
    run = fifo_run(150, stall=0.4)
    slo = SLO.parse("ttft=0.7,tbt=0.05,e2e=3")
    ratio = slo.worst_ratio(run)
    for factor in (0.5, 1.0, 3.0, 20.0):
        wider = SLO(tuple((metric, limit * factor) for metric, limit in slo.limits))
        assert np.array_equal(wider.kept(run), ratio <= factor)
    run.rejected[0] = True
    assert slo.worst_ratio(run)[0] == np.inf


def test_no_gap_at_all_is_no_violation():
    run = fifo_run(5)
    run.output[:] = 1
    run.tbt_histogram[:] = 0
    assert SLO.parse("p99 tbt=0.001").holds(run)
    assert SLO.parse("tbt=0.001").kept(run).all()
