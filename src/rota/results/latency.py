"""Latencies of a run, as columns and as percentiles.

The per-request columns are differences of recorded times, in seconds, NaN where a request never got that far. Token gaps (TBT)
are not kept one by one but counted in logarithmic bins 0.2% wide, so a percentile of them is off by at most that.
"""

from __future__ import annotations

import numpy as np

from rota.errors import InputError
from rota.results.run import TBT_BINS, TBT_MIN, TBT_STEP, Floats, Ints, Run


def queueing(run: Run) -> Floats:
    """Arrival until first scheduled, seconds per request."""
    return run.first_scheduled - run.arrival


def ttft(run: Run) -> Floats:
    """Time to first token: arrival until first token, seconds per request."""
    return run.first_token - run.arrival


def e2e(run: Run) -> Floats:
    """Arrival until last token, seconds per request."""
    return run.finish - run.arrival


def tpot(run: Run) -> Floats:
    """Time per output token after the first, seconds per request; NaN for one-token outputs."""
    gaps = (run.output - 1).astype(np.float64)
    gaps[gaps < 1] = np.nan
    return (run.finish - run.first_token) / gaps


def max_tbt(run: Run) -> Floats:
    """Largest gap between two tokens, seconds per request; NaN for one-token outputs and unfinished requests."""
    return np.where((run.output > 1) & np.isfinite(run.finish), run.max_tbt, np.nan)


#: What `column` and service-level objectives can name; "tbt" of one request is its largest gap.
COLUMNS = {"ttft": ttft, "tbt": max_tbt, "tpot": tpot, "e2e": e2e, "queueing": queueing}


def percentile(values: Floats, q: float) -> float:
    """The `q`-th percentile (0-100, linear interpolation) of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, q)) if finite.size else float("nan")


def gap_bins() -> Floats:
    """Geometric middle of every histogram bin, seconds."""
    middles: Floats = np.exp(np.log(TBT_MIN) + np.log(TBT_STEP) * (np.arange(TBT_BINS) + 0.5)).astype(np.float64)
    return middles


def gap_histogram(gaps: Floats) -> Ints:
    """Counts of token gaps (seconds) in the bins of `Run.tbt_histogram`; gaps outside its range go to the outermost bins."""
    gaps = np.maximum(np.asarray(gaps, dtype=np.float64), TBT_MIN)
    bins = np.floor(np.log(gaps / TBT_MIN) / np.log(TBT_STEP)).astype(np.int64)
    return np.bincount(np.clip(bins, 0, TBT_BINS - 1), minlength=TBT_BINS).astype(np.int64)


def gap_percentile(histogram: Ints, q: float) -> float:
    """The `q`-th percentile (0-100) of the token gaps in a histogram, seconds.

    Ranks interpolate as `numpy.percentile` does; each of the two order statistics is known to within its bin, so the result
    is within 0.1% (half a bin) of the percentile of the gaps themselves. NaN for an empty histogram.
    """
    if not 0 <= q <= 100:
        raise InputError(f"percentile {q:g} is outside 0-100; give a number such as 99")
    counts = np.cumsum(histogram)
    if len(counts) == 0 or counts[-1] == 0:
        return float("nan")
    rank = q / 100 * (float(counts[-1]) - 1)
    low, high = np.searchsorted(counts, [np.floor(rank), np.ceil(rank)], side="right")
    middle = TBT_MIN * TBT_STEP ** (np.array([low, high]) + 0.5)
    return float(middle[0] + (rank - np.floor(rank)) * (middle[1] - middle[0]))


def gap_time_beyond(histogram: Ints, limit: float) -> float:
    """Share of all token-to-token time that passed in gaps longer than `limit` seconds (0-1); NaN without gaps.

    This is the share of their decoding time that requests spent stalled, when `limit` is what a gap should be.
    """
    middles = gap_bins()
    time = middles * histogram
    total = float(time.sum())
    return float(time[middles > limit].sum() / total) if total > 0 else float("nan")
