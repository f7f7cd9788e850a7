"""From a recorded trace to distributions, and how far those are from it.

`fit` is a pure function of the trace. What it estimates: the two lengths and their dependence, arrivals with bursts and slow
changes of rate, and, where the trace tells which leading tokens requests share, conversations.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError
from rota.workload.arrivals import Arrivals, mean_gap
from rota.workload.conversations import Conversations
from rota.workload.fitted import FitRow, FittedWorkload
from rota.workload.prefix import ideal_hit_ratio, reuse
from rota.workload.quantiles import normal_scores, spread_ties, table
from rota.workload.trace import Floats, Ints, Trace

#: Fewest requests that can be fitted, and fewest in a stratum of prompt lengths.
MIN_REQUESTS, MIN_STRATUM = 100, 250
MAX_STRATA, MAX_PROFILE = 16, 24
#: Runs of tokens that more than this share of requests begin with belong to a common system prompt.
SYSTEM_SHARE = 0.5


def fit(
    trace: Trace, name: str | None = None, source: str | None = None, licence: str = "", *, errors: bool = True
) -> FittedWorkload:
    """Fit distributions to a recorded trace.

    Parameters
    ----------
    trace : Trace
        At least 100 requests with arrival times of their own.
    name, source : str, optional
        Default: the trace's.
    licence : str
        Of the recorded trace.
    errors : bool
        Whether to draw from the fit and measure its error (see `fit_error`).

    Raises
    ------
    InputError
        If the trace is too short, arrives all at once, or has requests that follow others (they have no arrival time to fit).
    """
    n = len(trace)
    if n < MIN_REQUESTS:
        raise InputError(f"{trace.name}: {n} requests are too few to fit distributions to; give at least {MIN_REQUESTS}")
    if trace.after is not None:
        raise InputError(f"{trace.name}: requests that follow others (column after) cannot be fitted; use the generator instead")
    if not trace.arrival[-1] > trace.arrival[0]:
        raise InputError(f"{trace.name}: all requests arrive at once, so arrivals cannot be fitted; set a rate when loading it")
    strata = _strata(trace.prompt)
    place = np.searchsorted(strata, trace.prompt, side="right")
    output = np.stack([_lengths(trace.output[place == k]) for k in range(len(strata) + 1)])
    opening = np.ones(n, bool)
    conversations = None
    if trace.hash_ids is not None:
        parent, shared, system = _parents(trace)
        opening = parent < 0
        if n - opening.sum() >= MIN_REQUESTS:
            conversations = _conversations(trace, parent, shared, system, place, len(strata) + 1)
        else:
            opening[:] = True
    found = FittedWorkload(
        name=name or trace.name,
        source=trace.source if source is None else source,
        licence=licence,
        requests=n,
        prompt=_lengths(trace.prompt[opening]),
        strata=strata,
        output=output,
        arrivals=_arrivals(trace.arrival, opening),
        conversations=conversations,
    )
    # as a file holds it, so that the error is that of the file
    found = FittedWorkload.from_dict(found.to_dict(), found.name)
    return replace(found, errors=tuple(fit_error(found, trace))) if errors else found


def _lengths(sample: Ints) -> Floats:
    """Quantiles of whole numbers >= 1, such that rounding what is drawn gives back their shares."""
    return np.maximum(table(spread_ties(sample)), 0.5)


def _strata(prompt: Ints) -> Floats:
    k = int(np.clip(len(prompt) // MIN_STRATUM, 1, MAX_STRATA))
    edges = np.unique(np.ceil(np.quantile(prompt, np.arange(1, k) / k)))
    # an edge at the smallest length would leave the stratum below it empty
    return np.asarray(edges[edges > prompt.min()] - 0.5, np.float64)


def _tick(arrival: Floats) -> float:
    """Resolution of the recorded times where it is so coarse that many arrivals coincide; else 0."""
    gaps = np.diff(arrival)
    some = gaps[gaps > 0]
    if len(some) > 0.8 * len(gaps):
        return 0.0
    unit = float(f"{np.quantile(some, 0.05):.2g}")
    return unit if np.mean(np.abs(some / unit - np.rint(some / unit)) < 0.02) > 0.98 else 0.0


def _arrivals(arrival: Floats, opening: NDArray[np.bool_]) -> Arrivals:
    tick = _tick(arrival)
    free = arrival[opening] - arrival[0]
    if tick:
        # undo the rounding: arrivals of one tick lie anywhere in it
        free = np.sort(np.rint(free / tick) * tick + tick * np.random.default_rng(0).random(len(free)))
    free = free - free[0]
    n, duration = len(free), float(free[-1])
    gaps = np.diff(free)
    cv2 = float(gaps.var() / gaps.mean() ** 2)
    # So many parts that bursts alone would move the count of each by some 15%: finer ones would retell the recorded bursts.
    k = int(np.clip(n / (50 * max(cv2, 1e-3)), 1, MAX_PROFILE))
    counts = np.histogram(free, k, (0.0, duration))[0]
    found = Arrivals((n - 1) / duration, duration, counts / counts.mean(), np.ones(1), correlation=0.0, memory=1.0, tick=tick)
    gaps = np.diff(found.clock(free))
    gaps /= gaps.mean()
    quantiles = np.maximum(table(gaps), 1e-6)
    correlation, memory = _clustering(gaps)
    return replace(found, gaps=quantiles / mean_gap(quantiles), correlation=correlation, memory=memory)


def _clustering(gaps: Floats) -> tuple[float, float]:
    """Least-squares fit of ``correlation * exp(-l / memory)`` to the autocorrelation of the normal scores of gaps."""
    score = normal_scores(gaps)
    lags = np.arange(1, min(200, len(gaps) // 10) + 1)
    measured = np.array([np.mean(score[lag:] * score[:-lag]) for lag in lags]) / score.var()
    memories = np.geomspace(0.3, lags[-1] / 2, 40)
    shapes = np.exp(-lags / memories[:, None])
    heights = np.clip((shapes @ measured) / (shapes**2).sum(axis=1), 0.0, 0.95)
    best = int(np.argmin(((heights[:, None] * shapes - measured) ** 2).sum(axis=1)))
    return float(heights[best]), float(memories[best])


def _parents(trace: Trace) -> tuple[Ints, Ints, int]:
    """The request that each one continues (-1 for none), the runs it shares with it, and the runs that all share."""
    assert trace.hash_ids is not None
    assert trace.hash_start is not None
    n, system = len(trace), 0
    length = np.diff(trace.hash_start)
    while True:
        (long,) = np.nonzero(length > system)
        if len(long) <= SYSTEM_SHARE * n:
            break
        _, count = np.unique(trace.hash_ids[trace.hash_start[:-1][long] + system], return_counts=True)
        if count.max() <= SYSTEM_SHARE * n:
            break
        system += 1
    shared, latest = reuse(trace)
    return np.where(shared > system, latest, -1), shared, system


def _conversations(trace: Trace, parent: Ints, shared: Ints, system: int, place: Ints, k: int) -> Conversations:
    (child,) = np.nonzero(parent >= 0)
    mother = parent[child]
    pause = trace.arrival[child] - trace.arrival[mother]
    whole = shared[child] >= trace.prompt[mother] // trace.hash_block
    growth = (trace.prompt[child] - trace.prompt[mother] - trace.output[mother]).astype(np.float64)
    beyond = np.maximum(1, trace.prompt[mother] // trace.hash_block - system)
    share = np.clip((shared[child] - system) / beyond, 0.0, 1.0)
    resized = trace.prompt[child] / trace.prompt[mother]
    some = ~whole if (~whole).any() else whole
    score = np.zeros(len(trace))
    for s in range(k):
        score[place == s] = normal_scores(spread_ties(trace.output[place == s]))
    return Conversations(
        block=trace.hash_block,
        system=system,
        longest=int(trace.prompt.max()),
        continues=_continues(trace, parent, pause, place, k),
        keeps=np.array([_share(whole[place[mother] == s], whole) for s in range(k)]),
        growth=np.stack([_pooled(growth[whole & (place[mother] == s)], growth[whole]) for s in range(k)]),
        kept_share=table(share[some]),
        resized=np.stack([_pooled(resized[some & (place[mother] == s)], resized[some]) for s in range(k)]),
        pause=table(np.repeat(pause, _weights(trace, pause))),
        correlation=float(np.corrcoef(score[child], score[mother])[0, 1]),
    )


def _share(found: NDArray[np.bool_], pooled: NDArray[np.bool_]) -> float:
    return float(found.mean() if len(found) >= 30 else pooled.mean())


def _pooled(found: Floats, pooled: Floats) -> Floats:
    return table(found if len(found) >= 30 else pooled)


def _weights(trace: Trace, pause: Floats) -> Ints:
    """How often to count a pause: long ones are seen only where the record goes on for long enough."""
    span = trace.arrival[-1] - trace.arrival[0]
    weight: Ints = np.rint(10 * np.minimum(10.0, span / np.maximum(span - pause, 1e-9))).astype(np.int64)
    return weight


def _continues(trace: Trace, parent: Ints, pause: Floats, place: Ints, k: int) -> Floats:
    """Probability of another turn, corrected for the turns that come after the end of the record."""
    left = trace.arrival[-1] - trace.arrival
    every = np.sort(np.repeat(pause, _weights(trace, pause)))
    seen = np.searchsorted(every, left, side="right") / len(every)
    goes_on = np.zeros(len(trace), bool)
    goes_on[parent[parent >= 0]] = True
    found = np.zeros((2, k))
    for stage, of_stage in enumerate((parent < 0, parent >= 0)):
        overall = goes_on[of_stage].sum() / max(1e-9, seen[of_stage].sum())
        for s in range(k):
            chosen = of_stage & (place == s)
            expected = seen[chosen].sum()
            found[stage, s] = goes_on[chosen].sum() / expected if expected >= 30 else overall
    return np.clip(found, 0.0, 0.98)


def ks_distance(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Kolmogorov-Smirnov distance: the largest difference of two empirical distribution functions."""
    at = np.unique(np.concatenate([a, b]))
    here = np.searchsorted(np.sort(a), at, side="right") / len(a)
    there = np.searchsorted(np.sort(b), at, side="right") / len(b)
    return float(np.abs(here - there).max())


def fit_error(fitted: FittedWorkload, real: Trace, draws: int = 8) -> list[FitRow]:
    """How far a fitted workload is from a recorded trace.

    Parameters
    ----------
    fitted : FittedWorkload
    real : Trace
    draws : int
        Traces of the recorded size that are drawn (seeds 0, 1, ...) and pooled.

    Returns
    -------
    list of FitRow
        For prompt, output and gap (seconds between arrivals): KS distance, mean, p50, p90 and p99; Spearman's correlation of
        prompt and output; coefficient of variation of arrivals per minute; hit ratio of an unlimited prefix cache.
    """
    drawn = [fitted.generate(len(real), seed) for seed in range(draws)]
    rows: list[FitRow] = []
    for quantity in ("prompt", "output", "gap"):
        a = _sample(real, quantity)
        b = np.concatenate([_sample(trace, quantity) for trace in drawn])
        if quantity == "gap" and fitted.arrivals.tick:
            # recorded ticks scatter by rounding; comparing them as drawn would see only that
            a, b = (np.rint(x / fitted.arrivals.tick) * fitted.arrivals.tick for x in (a, b))
        rows.append(FitRow(quantity, "KS distance", np.nan, np.nan, ks_distance(a, b)))
        for statistic, level in (("mean", None), ("p50", 50), ("p90", 90), ("p99", 99)):
            x, y = (float(v.mean() if level is None else np.percentile(v, level)) for v in (a, b))
            rows.append(FitRow(quantity, statistic, x, y, y / x - 1 if x else float(y != x)))
    pairs = (
        ("prompt, output", "rank correlation", rank_correlation),
        ("arrivals per minute", "variation", minute_variation),
        ("prefix cache", "ideal hit ratio", ideal_hit_ratio),
    )
    for quantity, statistic, measure in pairs:
        x, y = measure(real), float(np.mean([measure(trace) for trace in drawn]))
        rows.append(FitRow(quantity, statistic, x, y, y - x))
    return rows


def _sample(trace: Trace, quantity: str) -> Floats:
    if quantity == "gap":
        return np.diff(trace.arrival)
    return (trace.prompt if quantity == "prompt" else trace.output).astype(np.float64)


def rank_correlation(trace: Trace) -> float:
    """Spearman's correlation of prompt and output lengths; 0 where one of them does not vary."""
    a, b = (np.unique(column, return_inverse=True, return_counts=True)[1:] for column in (trace.prompt, trace.output))
    x, y = ((np.cumsum(count) - count / 2)[index] for index, count in (a, b))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else 0.0


def minute_variation(trace: Trace) -> float:
    """Standard deviation over mean of the number of arrivals in each whole minute; 0 for less than two."""
    minutes = int((trace.arrival[-1] - trace.arrival[0]) // 60)
    if minutes < 2:
        return 0.0
    counts = np.histogram(trace.arrival, minutes, (trace.arrival[0], trace.arrival[0] + 60.0 * minutes))[0]
    return float(counts.std() / counts.mean())
