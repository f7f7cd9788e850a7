import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rota.report.figures import BINS, QUANTILES, figures, gap_points, quantile_points, thinned
from rota.results.latency import gap_histogram
from tests.results.fifo import fifo_run


@given(arrays(np.float64, st.integers(1, 1000), elements=st.floats(0.001, 100)))
def test_distribution_points_lie_on_the_empirical_distribution(values):
    x, y = quantile_points(values)
    assert len(x) <= QUANTILES
    assert x[-1] == values.max()
    assert y[-1] == 1
    for at, share in zip(x, y, strict=True):
        # among equal values any rank up to the last is right
        assert (values < at).mean() < share + 1e-12 <= (values <= at).mean() + 2e-12


def test_requests_that_never_finish_lower_the_curve():
    x, y = quantile_points(np.array([1.0, 2.0, np.inf, np.inf]))
    assert x.tolist() == [1.0, 2.0]
    assert y.tolist() == [0.25, 0.5]


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=300))
def test_gap_points_agree_with_the_gaps(gaps):
    x, y = gap_points(gap_histogram(np.array(gaps)))
    for at, share in zip(x, y, strict=True):
        assert share == pytest.approx(np.mean(np.array(gaps) <= at * 1.001001))
    assert y[-1] == 1


def test_many_gaps_are_thinned_without_losing_the_tail():
    x, y = gap_points(gap_histogram(np.random.default_rng(0).lognormal(-4, 1, 100_000)))
    assert len(x) <= QUANTILES
    assert y[-1] == 1


def test_thinning_a_timeline_keeps_its_mean():
    run = fifo_run(3000, rate=0.5)
    times, values = thinned(run, "waiting")
    assert len(times) <= BINS
    n = int((run.timeline["time"] <= run.finish.max()).sum())
    size = -(-n // BINS)
    whole = n // size
    assert values[:whole].mean() == pytest.approx(run.timeline["waiting"][: whole * size].mean())


def test_every_policy_is_in_every_chart(comparison):
    charts = figures(comparison)
    assert {"cdf-ttft", "cdf-tbt", "cdf-e2e", "goodput", "time-decode", "time-kv", "scatter", "frontier"} <= {
        c["id"] for c in charts
    }
    for chart in charts:
        expected = ["steady"] if chart["id"] == "frontier" else comparison.labels
        assert [series["name"] for series in chart["series"]] == expected
        for series in chart["series"]:
            assert len(series["x"]) == len(series["y"]) > 0


def test_goodput_curve_passes_through_the_goodput(comparison):
    [chart] = [c for c in figures(comparison) if c["id"] == "goodput"]
    [series] = [s for s in chart["series"] if s["name"] == "stalls <b>"]
    at_given = [y for x, y in zip(series["x"], series["y"], strict=True) if x <= 1][-1]
    goodput = np.mean([row["goodput"] for row in comparison.summaries["stalls <b>"]])
    assert at_given == pytest.approx(goodput, rel=0.05, abs=0.002)


def test_without_a_sweep_there_is_no_frontier(comparison):
    import dataclasses

    assert "frontier" not in {c["id"] for c in figures(dataclasses.replace(comparison, frontier=None))}
