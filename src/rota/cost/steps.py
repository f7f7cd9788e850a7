"""Fits `StepTables` to measured steps of one engine, and says how far off they are on steps that were not fitted.

Unknown are the points of two piecewise linear tables (a layer by tokens, the output head by tokens emitted), attention's few rates, and
what every step and every sequence costs besides. All are positive; the fit is that of kernel profiles (`rota.cost.fit.least_squares`):
logarithms, robust against single wrong rows. That finds what is usual; as steps vary more upwards than downwards, and delays follow from
their mean, all costs are then raised by as much as the mean lies above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.cost.fit import least_squares
from rota.cost.step_samples import StepSample
from rota.cost.tables import StepTables
from rota.errors import InputError

Floats = NDArray[np.float64]

#: Fewest steps worth a fit.
FEWEST = 20
#: More samples than this are thinned out evenly: they would not change the result.
MOST = 4000
#: Rates of attention and of what is beside the layers, in the order in which they are fitted.
RATES = ("decode_floor", "decode_byte_s", "prefill_floor", "prefill_flop_s", "prefill_byte_s", "cpu", "cpu_per_seq")
#: Parts of the time of a step that each of `RATES` is taken for before the fit.
STARTS = (0.003, 0.03, 0.2)
#: Each knot of a table is at least so many times the one before.
SPREAD = 2**0.24
#: A step that took so many times what it should was disturbed by something that is no part of serving.
DISTURBED = 2.0
_LOWEST, _HIGHEST = 1e-13, 1e3  # seconds, of anything


class Check(NamedTuple):
    """Mean and 90th percentile of the relative error on so many steps of one kind that the fit had not seen."""

    kind: str
    steps: int
    error: float
    p90: float


@dataclass(frozen=True, slots=True)
class StepFit:
    """What a fit has found.

    Parameters
    ----------
    knots : int64 (k,)
        Tokens at the points of `layer`; between them it is linear, and beyond the last it goes on.
    layer : float64 (k,)
        Seconds of a layer for so many tokens.
    head_knots : int64 (h,)
    head : float64 (h,)
        Seconds of the output head and of choosing tokens, for so many emitted ones.
    rates : dict of str to float
        `RATES`, as `StepTables` has them.
    n_layers : int
    checks : tuple of Check
    """

    knots: NDArray[np.int64]
    layer: Floats
    head_knots: NDArray[np.int64]
    head: Floats
    rates: dict[str, float]
    n_layers: int
    checks: tuple[Check, ...] = ()

    def tables(self, source: str = "measured") -> StepTables:
        """The costs of steps as the simulator takes them."""
        error = dict(("steps (hold-out)", check.error) for check in self.checks if check.kind == "all")
        tables = StepTables(
            layer=_table(self.knots, self.layer), head=_table(self.head_knots, self.head), n_layers=self.n_layers, source=source, error=error
        )
        rates: dict[str, Any] = dict(self.rates)
        return replace(tables, **rates)


def fit_steps(fitted: Sequence[StepSample], held_out: Sequence[StepSample], n_layers: int) -> StepFit:
    """Costs of the steps of an engine.

    Parameters
    ----------
    fitted, held_out : sequence of StepSample
        What is fitted, and what it is checked on.
    n_layers : int
        Of the model.

    Raises
    ------
    InputError
        If there are too few steps to fit.
    """
    single, around = [s for s in fitted if s.seconds == s.seconds], [s for s in fitted if s.around == s.around]
    fitted = merged(single)
    if len(fitted) < FEWEST:
        raise InputError(f"{len(fitted)} different steps are too few to fit costs to; measure at least {FEWEST}")
    design = _Design(_thinned(fitted), n_layers)
    x = design.solve()
    found = design.fit(x * _above(design.fit(x), _thinned(single)))
    extra = _around(around)
    found.rates["cpu"] += extra[0]
    found.rates["cpu_per_seq"] += extra[1]
    return replace(found, checks=tuple(_checks(found, held_out, extra)))


def merged(samples: Iterable[StepSample]) -> list[StepSample]:
    """One sample for every shape of step, with the mean of its times: delays follow from that. Disturbed ones are left out."""
    groups: dict[tuple[object, ...], list[StepSample]] = {}
    for sample in samples:
        groups.setdefault(sample[:5], []).append(sample)
    found = []
    for group in groups.values():
        times = np.array([s.seconds for s in group])
        usual = times[times < DISTURBED * np.median(times)]
        found.append(group[0]._replace(seconds=float(usual.mean()), around=_median([s.around for s in group])))
    return found


class _Design:
    """Samples as the rows of a model that is linear in all but attention's two rates.

    Of a table, parameters are its first value and what each knot adds: more tokens never take less time.
    """

    def __init__(self, samples: Sequence[StepSample], n_layers: int) -> None:
        self._n_layers = n_layers
        self.seconds = np.array([s.seconds for s in samples])
        decodes = np.array([s.decodes for s in samples], np.float64)
        new = np.array([s.new for s in samples], np.float64)
        chunks = np.array([len(s.chunks) for s in samples], np.float64)
        span = np.array([s.layers[1] - s.layers[0] for s in samples], np.float64)
        emitted = decodes + np.array([s.emitted for s in samples])
        self.area = np.array([sum(n * p + n * (n + 1) / 2 for p, n in s.chunks) for s in samples])
        self.moved = np.array([float(sum(p + n for p, n in s.chunks)) for s in samples])
        self.span = span
        alone = np.where(chunks > 0, n_layers - span, n_layers)
        self.knots, self.head_knots = _knots(np.concatenate([decodes + new, decodes])), _knots(emitted)
        layer = span[:, None] * _steps(self.knots, decodes + new) + alone[:, None] * _steps(self.knots, decodes)
        context = np.array([s.context for s in samples], np.float64)
        rest = [n_layers * (decodes > 0), n_layers * context, span, np.ones_like(span), decodes + chunks]
        self.linear = np.concatenate([layer, _steps(self.head_knots, emitted), np.stack(rest, axis=1)], axis=1)

    def predict(self, x: Floats) -> Floats:
        """Seconds of the samples under such parameters (the order of `RATES` behind the tables)."""
        n = len(x) - len(RATES)
        linear = np.concatenate([x[: n + 3], x[n + 5 :]])
        return np.asarray(self.linear @ linear + self.span * np.hypot(x[n + 3] * self.area, x[n + 4] * self.moved))

    def fit(self, x: Floats) -> StepFit:
        """What such parameters say."""
        layers, heads = len(self.knots), len(self.head_knots)
        layer, head = x[:layers].cumsum(), x[layers : layers + heads].cumsum()
        rates = dict(zip(RATES, (float(v) for v in x[layers + heads :]), strict=True))
        return StepFit(self.knots, layer, self.head_knots, head, rates, self._n_layers)

    def solve(self) -> Floats:
        """The parameters that fit best, of several beginnings: a rate that has become almost nothing on the way finds no way back."""
        found = [self._solve(share) for share in STARTS]
        return min(found, key=lambda x: float(np.abs(np.log(self.predict(x) / self.seconds)).mean()))

    def _solve(self, share: float) -> Floats:
        added = [np.diff(knots, prepend=0) for knots in (self.knots, self.head_knots)]
        start = np.concatenate([self._slope() * added[0], 1e-6 * added[1], self._rates(share)])
        bounds = [(np.log(_LOWEST), np.log(_HIGHEST))] * len(start)
        x = least_squares(lambda x: self.predict(np.exp(x)), self.seconds, np.log(start).tolist(), bounds)
        return np.asarray(np.exp(x))

    def _slope(self) -> float:
        """Seconds per token and layer, if all were spent on that."""
        weight = self.linear[:, : len(self.knots)] @ np.diff(self.knots, prepend=0)
        return float(np.median(self.seconds / np.maximum(weight, 1.0)))

    def _rates(self, part: float) -> list[float]:
        """A beginning for `RATES`: such a part of the time each."""
        share = part * float(np.median(self.seconds))
        context = max(1.0, float(self.linear[:, -4].max()))
        area, moved = max(1.0, float((self.span * self.area).max())), max(1.0, float((self.span * self.moved).max()))
        layers = max(1.0, float(self.linear[:, -5].max()))
        return [share / layers, share / context, share / layers, share / area, share / moved, share, 0.1 * share]


def _above(found: StepFit, samples: Sequence[StepSample]) -> float:
    """Mean of what steps took over what a fit says of them, disturbed ones left out."""
    ratios = np.array([s.seconds / predict(found, s) for s in samples])
    return float(ratios[ratios < DISTURBED].mean())


def _around(samples: Sequence[StepSample]) -> tuple[float, float]:
    """What a step costs beside its computation: seconds per step, and per sequence in it; zeros where nothing is known."""
    if len(samples) < FEWEST:
        return 0.0, 0.0
    sequences = np.array([s.decodes + len(s.chunks) for s in samples], np.float64)
    seconds = np.maximum([s.around for s in samples], 1e-9)
    bounds = [(np.log(_LOWEST), np.log(_HIGHEST))] * 2
    start = np.log([float(np.median(seconds)), 0.1 * float(np.median(seconds / sequences))]).tolist()
    x = np.exp(least_squares(lambda x: np.exp(x[0]) + np.exp(x[1]) * sequences, seconds, start, bounds))
    return float(x[0]), float(x[1])


def _checks(found: StepFit, samples: Sequence[StepSample], extra: tuple[float, float]) -> list[Check]:
    """Errors on samples, by kind and over all. Where what is around a step was not measured, it is not predicted."""
    by_kind: dict[str, list[float]] = {}
    usable = [s for s in samples if s.seconds == s.seconds]
    for sample in merged(usable):
        sequences = sample.decodes + len(sample.chunks)
        beside = extra[0] + extra[1] * sequences
        predicted = predict(found, sample) - beside
        measured = sample.seconds
        if sample.around == sample.around:
            predicted, measured = predicted + beside, measured + sample.around
        error = abs(predicted / measured - 1)
        for kind in (sample.kind, "all"):
            by_kind.setdefault(kind, []).append(error)
    order = ("prefill", "decode", "mixed", "layers", "all")
    return [
        Check(kind, len(e), float(np.mean(e)), float(np.quantile(e, 0.9))) for kind in order if (e := by_kind.get(kind))
    ]


def predict(found: StepFit, sample: StepSample) -> float:
    """Seconds of a step and of what is around it."""
    r, layers = found.rates, found.n_layers
    span = sample.layers[1] - sample.layers[0]
    area = sum(n * p + n * (n + 1) / 2 for p, n in sample.chunks)
    moved = sum(p + n for p, n in sample.chunks)
    decode = r["decode_floor"] + r["decode_byte_s"] * sample.context if sample.decodes else 0.0
    prefill = r["prefill_floor"] + float(np.hypot(r["prefill_flop_s"] * area, r["prefill_byte_s"] * moved)) if sample.chunks else 0.0
    full, alone = (_value(found.knots, found.layer, n) for n in (sample.decodes + sample.new, sample.decodes))
    seconds = span * (full + decode + prefill) + (layers - span) * (alone + decode)
    seconds += _value(found.head_knots, found.head, sample.decodes + sample.emitted)
    return seconds + r["cpu"] + r["cpu_per_seq"] * (sample.decodes + len(sample.chunks))


def _knots(counts: Floats) -> NDArray[np.int64]:
    """Counts that were measured, about four to an octave, the largest among them: a knot where nothing was measured could lie anywhere."""
    present = np.unique(counts[counts > 0]).astype(np.int64).tolist()
    kept = [1]
    for count in present:
        if count >= SPREAD * kept[-1]:
            kept.append(count)
    if len(kept) > 2 and kept[-1] < present[-1]:
        kept[-1] = present[-1]  # beyond the last two, costs go on along their line
    return np.array(kept if len(kept) > 1 else [1, 2], np.int64)


def _hats(knots: NDArray[np.int64], counts: Floats) -> Floats:
    """Weights of the knots at each count, (counts, knots): linear between two, none for 0, the last slope beyond the end."""
    right = np.clip(np.searchsorted(knots, counts), 1, len(knots) - 1)
    low, high = knots[right - 1], knots[right]
    share = (counts - low) / (high - low)
    rows = np.arange(len(counts))
    weights = np.zeros((len(counts), len(knots)))
    weights[rows, right - 1], weights[rows, right] = 1 - share, share
    weights[counts <= 0] = 0.0
    return weights


def _steps(knots: NDArray[np.int64], counts: Floats) -> Floats:
    """The same weights for what each knot adds to the one before."""
    return _hats(knots, counts)[:, ::-1].cumsum(axis=1)[:, ::-1]


def _value(knots: NDArray[np.int64], values: Floats, count: int) -> float:
    return float(_hats(knots, np.array([float(count)]))[0] @ values)


def _table(knots: NDArray[np.int64], values: Floats) -> Floats:
    """A value for every count from 0 on; one beyond the last knot, so that the last slope goes on."""
    counts = np.arange(int(knots[-1]) + 2, dtype=np.float64)
    return np.asarray(_hats(knots, counts) @ values)


def _thinned(samples: list[StepSample]) -> list[StepSample]:
    return samples if len(samples) <= MOST else [samples[i] for i in np.linspace(0, len(samples) - 1, MOST).astype(int)]


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.median(known)) if known else float("nan")
