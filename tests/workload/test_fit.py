"""Fitted workloads: recovery of known laws, the shipped ones against their real traces, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.arrivals import slow_noise
from rota.workload.builtin import builtin_names, fitted, fitted_names, generate, read_fitted, write_fitted
from rota.workload.fit import fit, fit_error, ks_distance, rank_correlation
from rota.workload.fitted import FitRow
from rota.workload.generators import closed_loop, gamma
from rota.workload.lengths import Independent, Spread
from rota.workload.prefix import reuse
from rota.workload.quantiles import LEVELS, interpolate, normal_cdf, spread_ties, table
from rota.workload.trace import Trace
from tests.workload.traces import assert_same

REAL = {
    "azure-conv": "azure_llm_2023_conv.csv",
    "azure-code": "azure_llm_2023_code.csv",
    "mooncake-conv": "mooncake_conversation.jsonl",
}
LENGTHS = Independent(Spread.lognormal(500, 3000), Spread.lognormal(100, 400))


def by_name(rows: list[FitRow] | tuple[FitRow, ...]) -> dict[tuple[str, str], FitRow]:
    return {(row.quantity, row.statistic): row for row in rows}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300))
def test_spreading_ties_is_undone_by_rounding(values: list[int]) -> None:
    whole = np.array(values)
    spread = spread_ties(whole)
    assert np.array_equal(np.rint(spread), whole)
    assert len(np.unique(spread)) == len(whole)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_interpolation_is_between_the_quantiles(values: list[float], u: float) -> None:
    quantiles = table(np.array(values))
    found = float(interpolate(quantiles[None], 0, np.array([u]))[0])
    assert found == pytest.approx(np.interp(u, LEVELS, quantiles), rel=1e-9, abs=1e-6)


def test_normal_distribution_function() -> None:
    z = np.array([-1.959964, 0.0, 1.281552, 3.0])
    np.testing.assert_allclose(normal_cdf(z), [0.025, 0.5, 0.9, 0.9986501], atol=1e-6)


def test_ks_distance_is_the_largest_gap() -> None:
    a, b = np.array([1, 2, 2, 3]), np.array([2, 3, 3, 9, 9])
    at = np.unique(np.concatenate([a, b]))
    brute = max(abs(np.mean(a <= x) - np.mean(b <= x)) for x in at)
    assert ks_distance(a, b) == pytest.approx(brute)
    assert ks_distance(a, a) == 0


@pytest.mark.parametrize("cv", [0.6, 1.0, 2.5])
def test_a_known_renewal_process_is_recovered(cv: float) -> None:
    real = gamma(20_000, 3.0, cv, lengths=LENGTHS, seed=1)
    found = fit(real, errors=False)
    again = found.generate(60_000, seed=7)
    gaps = np.diff(again.arrival)
    assert 1 / gaps.mean() == pytest.approx(3.0, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)
    assert found.arrivals.correlation < 0.05
    assert ks_distance(real.prompt, again.prompt) < 0.02
    assert ks_distance(real.output, again.output) < 0.02


@pytest.mark.parametrize("memory", [0.5, 3.0, 60.0])
def test_slow_noise_is_normal_and_correlated_as_stated(memory: float) -> None:
    found = slow_noise(np.random.default_rng(0), 400_000, memory)
    assert len(found) == 400_000
    assert found.mean() == pytest.approx(0, abs=0.05)
    assert found.std() == pytest.approx(1, abs=0.03)
    for lag in (1, 2, 40):
        assert np.mean(found[lag:] * found[:-lag]) == pytest.approx(np.exp(-lag / memory), abs=0.04)


def test_clusters_of_short_gaps_are_recovered() -> None:
    rng = np.random.default_rng(1)
    n, correlation, memory = 60_000, 0.4, 30.0
    score = np.sqrt(correlation) * slow_noise(rng, n, memory) + np.sqrt(1 - correlation) * rng.standard_normal(n)
    prompt, output = LENGTHS.draw(rng, n)
    real = Trace(np.cumsum(np.exp(score)), prompt, output)
    found = fit(real, errors=False)
    assert found.arrivals.correlation == pytest.approx(correlation, abs=0.06)
    assert found.arrivals.memory == pytest.approx(memory, rel=0.3)
    again = np.log(np.diff(found.generate(n, seed=5).arrival))
    for lag in (1, 10, 40):
        assert np.corrcoef(again[lag:], again[:-lag])[0, 1] == pytest.approx(correlation * np.exp(-lag / memory), abs=0.05)


def test_a_slow_change_of_rate_is_recovered() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(np.concatenate([rng.uniform(0, 1000, 2000), rng.uniform(1000, 2000, 8000)]))
    prompt, output = LENGTHS.draw(rng, len(times))
    again = fit(Trace(times, prompt, output), errors=False).generate(20_000)
    # beyond the recorded time the profile repeats
    counts = np.histogram(again.arrival, 4, (0, 4000))[0]
    np.testing.assert_allclose(counts / 1000, [2, 8, 2, 8], rtol=0.06)


def test_a_dependence_that_no_correlation_shows_is_recovered() -> None:
    rng = np.random.default_rng(0)
    prompt = rng.integers(1, 1001, 20_000)
    output = np.where(np.abs(prompt - 500) < 250, 300, 20) + rng.integers(0, 10, 20_000)
    real = Trace(np.arange(20_000.0), prompt, output)
    again = fit(real, errors=False).generate()
    middle = np.abs(again.prompt - 500) < 190
    assert again.output[middle].mean() == pytest.approx(304.5, rel=0.02)
    assert again.output[np.abs(again.prompt - 500) > 310].mean() == pytest.approx(24.5, rel=0.05)
    assert abs(rank_correlation(again)) < 0.03


def conversations(n: int, goes_on: float, seed: int) -> Trace:
    """Openings at 2/s of 1,000 tokens; each turn adds 300 tokens to prompt plus output (100) after 10 s; one common run of 64."""
    rng = np.random.default_rng(seed)
    start = np.cumsum(rng.exponential(0.5, n))
    turns = rng.geometric(1 - goes_on, n)
    rows = [(start[c] + 10 * k, c, k) for c in range(n) for k in range(turns[c])]
    rows.sort()
    prompt = np.array([1000 + 400 * k for _, _, k in rows])
    ids, starts = [], [0]
    for (_, c, _), p in zip(rows, prompt, strict=True):
        runs = int(-(-p // 64))
        # the last, partial run of a prompt is its own: the next turn has more tokens there
        ids += [0, *(1 + c * 10_000 + i for i in range(1, runs - 1)), -1 - len(starts)]
        starts.append(starts[-1] + runs)
    arrival = np.array([t for t, _, _ in rows])
    return Trace(arrival, prompt, np.full(len(rows), 100), hash_ids=np.array(ids), hash_start=np.array(starts), hash_block=64)


def test_known_conversations_are_recovered() -> None:
    real = conversations(3000, 0.6, seed=0)
    found = fit(real)
    told = found.conversations
    assert told is not None
    assert told.system == 1
    assert told.continues.mean() == pytest.approx(0.6, abs=0.03)
    assert told.keeps.min() == 1
    np.testing.assert_allclose(told.pause, 10, atol=1e-6)
    assert np.abs(told.growth - 300).max() < 1e-9
    rows = by_name(found.errors)
    assert abs(rows["prefix cache", "ideal hit ratio"].error) < 0.02
    assert rows["prompt", "KS distance"].error < 0.03


@pytest.mark.parametrize("name", list(REAL))
def test_shipped_fits_meet_their_target(name: str) -> None:
    rows = by_name(fitted(name).errors)
    for quantity in ("prompt", "output"):
        assert rows[quantity, "KS distance"].error < 0.03
        assert abs(rows[quantity, "mean"].error) < 0.02
    assert rows["gap", "KS distance"].error < 0.03
    assert abs(rows["gap", "mean"].error) < 0.02
    assert abs(rows["prompt, output", "rank correlation"].error) < 0.03
    assert abs(rows["prefix cache", "ideal hit ratio"].error) < 0.02


@pytest.mark.parametrize("name", list(REAL))
def test_shipped_fits_are_what_fitting_the_real_trace_gives(shared: Path, tmp_path: Path, name: str) -> None:
    real = load_trace(shared / "data" / "llm" / REAL[name])
    known = fitted(name)
    again = fit(real, name, known.source, known.licence)
    found = json.loads(write_fitted(again, tmp_path / "again.json").read_text())
    shipped = known.to_dict()
    for key in ("name", "source", "licence", "requests", "prompt", "strata", "output", "arrivals", "conversations"):
        assert _near(found[key], json.loads(json.dumps(shipped[key]))), key
    measured = by_name(fit_error(known, real))
    for key, row in by_name(known.errors).items():
        assert measured[key].error == pytest.approx(row.error, abs=2e-3), key


def _near(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_near(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(_near(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b or (isinstance(a, int | float) and a == pytest.approx(b, rel=1e-3, abs=1e-3)))


@pytest.mark.parametrize("name", list(REAL))
def test_what_is_shipped_is_far_too_small_to_hold_the_trace(shared: Path, name: str) -> None:
    size = len(json.dumps(fitted(name).to_dict(), separators=(",", ":")))
    assert size < 20_000
    assert size < (shared / "data" / "llm" / REAL[name]).stat().st_size / 20


@pytest.mark.parametrize("name", builtin_names())
@pytest.mark.parametrize("n", [1, 2, 50, 3000])
def test_any_number_of_requests(name: str, n: int) -> None:
    trace = generate(name, n, seed=n)
    assert len(trace) == n
    assert_same(trace, generate(name, n, seed=n))
    if n == 3000:
        assert not np.array_equal(trace.prompt, generate(name, n, seed=1).prompt)
    if trace.hash_ids is not None:
        assert trace.hash_start is not None
        assert np.all(np.diff(trace.hash_start) * trace.hash_block >= trace.prompt)


def test_mean_rate_does_not_wander_between_seeds() -> None:
    rates = [2999 / np.ptp(generate("azure-code", 3000, seed).arrival) for seed in range(10)]
    assert np.std(rates) / np.mean(rates) < 0.05


def test_conversations_go_on_in_what_is_drawn() -> None:
    trace = generate("mooncake-conv", 5000, seed=3)
    shared, latest = reuse(trace)
    (later,) = np.nonzero(shared > 1)
    assert len(later) / 5000 == pytest.approx(0.35, abs=0.05)
    assert np.all(trace.arrival[later] >= trace.arrival[latest[later]])
    assert np.all(shared[1:] >= 1)


def test_files_round_trip(tmp_path: Path) -> None:
    real = gamma(2000, 3.0, 1.5, lengths=LENGTHS)
    path = write_fitted(fit(real, "mine", "somewhere", "CC0"), tmp_path / "mine.json")
    again = read_fitted(path)
    assert (again.name, again.source, again.licence) == ("mine", "somewhere", "CC0")
    trace = load_trace(path, limit=500, seed=2)
    assert len(trace) == 500
    assert_same(trace, again.generate(500, 2))
    for damage, message in (
        (lambda v: v.pop("prompt"), "'prompt' is missing"),
        (lambda v: v.update(format="x"), "not a fitted workload"),
        (lambda v: v["prompt"].pop(), "prompt has shape"),
        (lambda v: v["prompt"].reverse(), "must be finite and rising"),
        (lambda v: v["arrivals"].update(duration=0), "must be positive"),
        (lambda v: v.update(requests="many"), "invalid literal"),
        (lambda v: v.update(arrivals=None), "subscriptable"),
    ):
        values = json.loads(path.read_text())
        damage(values)
        (tmp_path / "bad.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match=message):
            load_trace(tmp_path / "bad.json")
    for text, message in (("{", "not valid JSON"), ("[]", "not a fitted workload")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load_trace(tmp_path / "bad.json")
    with pytest.raises(InputError, match="rename the file"):
        write_fitted(again, tmp_path / "mine.toml")


def test_what_cannot_be_fitted_is_refused() -> None:
    few = gamma(20, lengths=LENGTHS)
    with pytest.raises(InputError, match="too few"):
        fit(few)
    with pytest.raises(InputError, match="all requests arrive at once"):
        fit(gamma(200, lengths=LENGTHS).with_columns(arrival=np.zeros(200)))
    with pytest.raises(InputError, match="requests that follow others"):
        fit(closed_loop(200, lengths=LENGTHS))
    with pytest.raises(InputError, match="unknown fitted workload"):
        fitted("arxiv-like")
    assert fitted_names() == list(REAL)
