"""Distributions as tables of quantiles: drawn from by interpolation, small enough to ship, and no row of any trace is in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rota.workload.trace import Floats, Ints

_TAIL = np.array([0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01])
#: Probabilities of a table's entries: steps of 1/40, and finer ones towards each end, where lengths and gaps have their tails.
LEVELS: Floats = np.concatenate([[0.0], _TAIL, np.arange(1, 40) / 40, 1 - _TAIL[::-1], [1.0]])

_Z = np.linspace(-6, 6, 4001)
_PHI = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in _Z])


def table(sample: NDArray[np.generic]) -> Floats:
    """Quantiles of a sample at `LEVELS`."""
    return np.asarray(np.quantile(np.asarray(sample, np.float64), LEVELS))


def interpolate(tables: Floats, which: Ints | int, u: Floats) -> Floats:
    """Value at probability `u` in row `which` of `tables` (k, len(LEVELS)), for many of them at once."""
    at = np.clip(np.searchsorted(LEVELS, u, side="right") - 1, 0, len(LEVELS) - 2)
    weight = (u - LEVELS[at]) / (LEVELS[at + 1] - LEVELS[at])
    return np.asarray(tables[which, at] * (1 - weight) + tables[which, at + 1] * weight)


def normal_cdf(z: Floats) -> Floats:
    """Standard normal distribution function, to 1e-6."""
    return np.asarray(np.interp(z, _Z, _PHI))


def normal_scores(sample: NDArray[np.generic]) -> Floats:
    """What the sample would be if it were standard normal: quantiles of its ranks."""
    return np.asarray(np.interp((ranks(sample) + 0.5) / len(sample), _PHI, _Z))


def ranks(sample: NDArray[np.generic]) -> Ints:
    """Position of every element in sorted order; ties in order of appearance."""
    found = np.empty(len(sample), np.int64)
    found[np.argsort(sample, kind="stable")] = np.arange(len(sample))
    return found


def spread_ties(values: Ints) -> Floats:
    """Whole numbers made continuous: the k equal ones spread evenly over [value - 1/2, value + 1/2]; rounding undoes it."""
    order = np.argsort(values, kind="stable")
    _, first, count = np.unique(values[order], return_index=True, return_counts=True)
    within = np.arange(len(values)) - np.repeat(first, count)
    found = np.empty(len(values))
    found[order] = values[order] - 0.5 + (within + 0.5) / np.repeat(count, count)
    return found


def significant(value: Any, digits: int) -> Any:
    """Arrays as nested lists of numbers with so many digits, whole ones without a point; anything else as it is."""
    if isinstance(value, np.ndarray):
        return [significant(x, digits) for x in value] if value.ndim > 1 else [_short(float(x), digits) for x in value]
    return _short(value, digits) if isinstance(value, float) else value


def _short(x: float, digits: int) -> float | int:
    x = float(f"{x:.{digits}g}")
    return int(x) if x == int(x) else x
