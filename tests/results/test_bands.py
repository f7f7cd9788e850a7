import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.results.bands import band, bands, best, versus


def test_from_twenty_on_a_band_is_the_empirical_percentiles():
    values = np.random.default_rng(1).lognormal(0, 1, 41)
    got = band(values)
    assert (got.low, got.high) == pytest.approx(np.exp(np.percentile(np.log(values), [5, 95])))
    assert got.mid == pytest.approx(np.exp(np.log(values).mean()))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 19])
def test_small_samples_cover_the_next_replication_nine_times_in_ten(n):
    rng = np.random.default_rng(n)
    draws = rng.lognormal(-2, 0.3, (4000, n + 1))
    inside = 0
    for row in draws:
        got = band(row[:n])
        inside += got.low <= row[n] <= got.high
    assert inside / 4000 == pytest.approx(0.9, abs=0.02)


@example([0.0] + [1.0] * 20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_share_stays_in_its_interval(values):
    got = band(values, share=True)
    assert 0 <= got.low <= got.high <= 1
    assert got.low * (1 - 1e-9) <= got.mid <= got.high * (1 + 1e-9)


def test_missing_and_infinite_values():
    assert band([np.nan, np.nan]).n == 0
    assert np.isnan(band([]).mid)
    assert band([2.0, np.nan, 2.0]) == (2.0, 2.0, 2.0, 2)
    assert band([1.0, 2.0, np.inf]) == (2.0, 1.0, np.inf, 3)


def test_pairing_finds_a_small_but_constant_difference():
    # arrivals differ a lot between seeds, the policies by 5% in each: unpaired bands overlap, the paired ratio does not reach 1
    load = np.random.default_rng(0).lognormal(0, 0.5, 8)
    noise = np.random.default_rng(1).normal(1, 0.005, 8)
    fast, slow = ([{"ttft_p99": v} for v in x] for x in (load, load * 1.05 * noise))
    assert bands(fast)["ttft_p99"].high > bands(slow)["ttft_p99"].low
    verdict = versus(fast, slow, "ttft_p99")
    assert not verdict.tie
    assert verdict.first_wins
    assert verdict.ratio.mid == pytest.approx(1 / 1.05, rel=0.01)


def test_a_difference_inside_its_band_is_a_tie():
    rng = np.random.default_rng(2)
    first, second = ([{"goodput": v} for v in rng.lognormal(0, 0.1, 6)] for _ in range(2))
    verdict = versus(first, second, "goodput")
    assert verdict.tie
    assert not verdict.first_wins


def test_direction_follows_the_metric():
    low, high = [{"goodput": 1.0, "ttft_p50": 1.0, "kv_mean": 0.1}], [{"goodput": 2.0, "ttft_p50": 2.0, "kv_mean": 0.2}]
    assert versus(high, low, "goodput").first_wins
    assert versus(low, high, "ttft_p50").first_wins
    assert not versus(low, high, "kv_mean").first_wins


def test_without_replications_two_percent_is_a_tie():
    one = [{"ttft_p50": 1.0}]
    assert versus(one, [{"ttft_p50": 1.019}], "ttft_p50").tie
    assert not versus(one, [{"ttft_p50": 1.03}], "ttft_p50").tie


def test_zero_against_zero_is_a_tie_and_against_something_is_not():
    none, some = [{"preemptions": 0.0}] * 3, [{"preemptions": 4.0}, {"preemptions": 5.0}, {"preemptions": 6.0}]
    assert versus(none, none, "preemptions").tie
    assert versus(none, some, "preemptions").first_wins
    assert not versus(some, none, "preemptions").tie
    assert not versus(some, none, "preemptions").first_wins


def test_best_names_the_leader_then_its_ties():
    rows = {"a": [{"ttft_p50": 2.0}], "b": [{"ttft_p50": 1.0}], "c": [{"ttft_p50": 1.01}], "d": [{"ttft_p50": float("nan")}]}
    assert best(rows, "ttft_p50") == ["b", "c"]
    assert best(rows, "ttft_p50", ["a"]) == ["a"]
    assert best(rows, "e2e_p50") == []


def test_unequal_replications_cannot_be_paired():
    with pytest.raises(InputError, match="same seeds"):
        versus([{}], [{}, {}], "goodput")
