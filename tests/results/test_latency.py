import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.results.latency import gap_histogram, gap_percentile, gap_time_beyond, percentile
from rota.results.run import TBT_BINS, TBT_MIN, TBT_STEP

GAPS = st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=60)


@given(GAPS, st.floats(0, 100))
def test_histogram_percentile_is_within_a_bin_of_the_exact_one(gaps, q):
    exact = np.percentile(gaps, q)
    assert gap_percentile(gap_histogram(np.array(gaps)), q) == pytest.approx(exact, rel=TBT_STEP - 1)


@given(GAPS)
def test_every_gap_is_counted_once_in_the_bin_that_holds_it(gaps):
    histogram = gap_histogram(np.array(gaps))
    assert histogram.sum() == len(gaps)
    assert len(histogram) == TBT_BINS
    low = TBT_MIN * TBT_STEP ** np.flatnonzero(histogram)
    assert low[0] <= min(gaps) * (1 + 1e-9)
    assert low[-1] * TBT_STEP >= max(gaps) * (1 - 1e-9)


def test_gaps_outside_the_range_go_to_the_outermost_bins():
    histogram = gap_histogram(np.array([0.0, 1e-9, 1e9]))
    assert histogram[0] == 2
    assert histogram[-1] == 1


def test_time_beyond_weighs_gaps_by_their_length():
    histogram = gap_histogram(np.array([0.1] * 9 + [0.9]))
    assert gap_time_beyond(histogram, 0.5) == pytest.approx(0.5, rel=0.004)
    assert gap_time_beyond(histogram, 1.0) == 0.0
    assert gap_time_beyond(histogram, 0.01) == 1.0


def test_nothing_measured_is_nan_not_zero():
    empty = np.zeros(TBT_BINS, dtype=np.int64)
    assert np.isnan(gap_percentile(empty, 50))
    assert np.isnan(gap_time_beyond(empty, 1.0))
    assert np.isnan(percentile(np.array([np.nan]), 50))


def test_percentile_out_of_range_is_refused():
    with pytest.raises(InputError, match="outside 0-100"):
        gap_percentile(gap_histogram(np.array([1.0])), 101)
