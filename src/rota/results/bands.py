"""From replications (seeds, draws of the cost error) to 5-95% bands, and from two policies' bands to a winner or a tie.

A band answers: where will one more replication fall, nine times in ten? From 20 replications on it is their 5th to 95th
percentile. With fewer, percentiles of so small a sample would be too narrow, so it is the two-sided 90% prediction interval of
Student's t, on the logarithm of quantities that are positive. Policies are compared on the *ratio* within each replication, where
both saw the same arrivals and the same cost error, so what they have in common cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.results.metrics import HIGHER, describe
from rota.results.run import Floats
from rota.results.summary import Summary

#: 95% quantile of Student's t for 1, 2, ... 18 degrees of freedom.
_T95 = (
    6.314,
    2.920,
    2.353,
    2.132,
    2.015,
    1.943,
    1.895,
    1.860,
    1.833,
    1.812,
    1.796,
    1.782,
    1.771,
    1.761,
    1.753,
    1.746,
    1.740,
    1.734,
)
_ENOUGH = 20
#: Without replications a ratio this close to 1 counts as a tie: no band can be known, and no cost model is better than that.
SINGLE_RUN_TOLERANCE = 0.02


class Band(NamedTuple):
    """Middle (geometric mean if positive, else mean) and the 5% and 95% ends of a figure over `n` replications."""

    mid: float
    low: float
    high: float
    n: int


class Verdict(NamedTuple):
    """Two policies on one metric.

    Attributes
    ----------
    metric : str
    ratio : Band
        First policy's value over the second's, paired by replication.
    tie : bool
        The band of the ratio includes 1.
    first_wins : bool
        Whether the first policy is better (False in a tie and where the metric has no better side).
    """

    metric: str
    ratio: Band
    tie: bool
    first_wins: bool


def band(values: Sequence[float] | Floats, *, share: bool = False) -> Band:
    """The 5-95% band of a figure over replications; NaN values are left out, infinite ones count only in the ends.

    Parameters
    ----------
    values : sequence of float
        One per replication.
    share : bool
        The figure lies in 0-1, so the band may not leave that interval.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    n = len(array)
    if n == 0:
        return Band(float("nan"), float("nan"), float("nan"), 0)
    if not np.isfinite(array).all() or n == 1 or (array == array[0]).all():
        return Band(float(np.median(array)), float(array.min()), float(array.max()), n)
    positive = bool((array > 0).all())
    scaled = np.log(array) if positive else array
    mid = float(scaled.mean())
    if n >= _ENOUGH:
        low, high = (float(end) for end in np.percentile(scaled, [5, 95]))
        low, high = min(low, mid), max(high, mid)  # one far outlier can draw the mean out of the percentiles
    else:
        half = _T95[n - 2] * float(scaled.std(ddof=1)) * np.sqrt(1 + 1 / n)
        low, high = mid - half, mid + half
    if positive:
        with np.errstate(over="ignore"):
            mid, low, high = (float(np.exp(end)) for end in (mid, low, high))
    elif (array >= 0).all():
        low = max(low, 0.0)
    if share:
        high = min(high, 1.0)
    return Band(mid, low, high, n)


def bands(summaries: Sequence[Summary]) -> dict[str, Band]:
    """A band for every figure of one policy's replications."""
    if not summaries:
        return {}
    return {key: band([s.get(key, float("nan")) for s in summaries], share=describe(key).share) for key in summaries[0]}


def versus(first: Sequence[Summary], second: Sequence[Summary], metric: str) -> Verdict:
    """Compare two policies on one metric, replication by replication.

    Raises
    ------
    InputError
        If the two have different numbers of replications, so they cannot be paired.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} replications cannot be paired; run both policies with the same seeds")
    a, b = (np.array([s.get(metric, float("nan")) for s in side]) for side in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where((a == b) & ~np.isnan(a), 1.0, a / b)
    ratio = band(ratios)
    low, high = ratio.low, ratio.high
    if ratio.n == 1:
        low, high = low * (1 - SINGLE_RUN_TOLERANCE), high * (1 + SINGLE_RUN_TOLERANCE)
    tie = ratio.n == 0 or low <= 1 <= high
    better = describe(metric).better
    wins = not tie and better != 0 and ((ratio.mid > 1) == (better == HIGHER))
    return Verdict(metric, ratio, tie, wins)


def best(summaries: Mapping[str, Sequence[Summary]], metric: str, among: Sequence[str] | None = None) -> list[str]:
    """The policy with the best middle value of `metric`, followed by those that tie with it, in the order given.

    Policies without a value are left out; the list is empty if none has one.
    """
    labels = list(among if among is not None else summaries)
    sign = 1 if describe(metric).better == HIGHER else -1
    middles = {label: band([s.get(metric, float("nan")) for s in summaries[label]]).mid for label in labels}
    known = [label for label in labels if middles[label] == middles[label]]
    if not known:
        return []
    leader = max(known, key=lambda label: sign * middles[label])
    rest = [x for x in known if x != leader and versus(summaries[leader], summaries[x], metric).tie]
    return [leader, *rest]
