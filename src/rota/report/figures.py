"""The charts of an HTML report as plain data: titles, axes and series of points, which ``assets/page.js`` hands to Plotly.

Points are thinned here, not in the browser: a distribution becomes at most 400 quantiles, a timeline 200 bins, a scatter 1,500
requests per policy, so that a page on a million requests is as light as one on a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from rota.results.comparison import Comparison
from rota.results.latency import e2e, gap_bins, ttft
from rota.results.metrics import describe
from rota.results.programs import completion
from rota.results.run import Floats, Ints, Run

QUANTILES, BINS, DOTS = 400, 200, 1500


class Series(TypedDict, total=False):
    """Points of one policy. `name` is the policy's label; `mode` is Plotly's; `text` are labels of points."""

    name: str
    x: list[float | None]
    y: list[float | None]
    mode: str
    text: list[str]


class Figure(TypedDict):
    """One chart: `group` is the section of the page, `log` the axes with a logarithmic scale, `lines` marks on x."""

    id: str
    group: str
    title: str
    note: str
    x: str
    y: str
    log: str
    series: list[Series]
    lines: list[tuple[float, str]]


def figures(comparison: Comparison) -> list[Figure]:
    """All charts for which the comparison holds data, in page order."""
    charts = [
        *_latency_charts(comparison),
        _goodput_chart(comparison),
        *_timeline_charts(comparison),
        _scatter(comparison),
        *_frontier_charts(comparison),
    ]
    return [chart for chart in charts if any(series["x"] for series in chart["series"])]


def quantile_points(values: Floats) -> tuple[Floats, Floats]:
    """At most `QUANTILES` points (value, share of entries up to it); infinite entries count in shares only."""
    ordered = np.sort(values[~np.isnan(values)])
    n = len(ordered)
    if n == 0:
        return ordered, ordered
    # half of the points in the upper tenth, where percentiles that people ask for lie
    half = QUANTILES // 2
    ranks = np.unique(np.concatenate([np.linspace(0, 0.9, half), np.linspace(0.9, 1, half)]) * (n - 1)).astype(np.int64)
    ranks = np.unique(ranks)
    finite = np.isfinite(ordered[ranks])
    return ordered[ranks][finite], (ranks[finite] + 1) / n


def gap_points(histogram: Ints) -> tuple[Floats, Floats]:
    """As `quantile_points`, for token gaps in a histogram."""
    filled = np.flatnonzero(histogram)
    if len(filled) == 0:
        return np.zeros(0), np.zeros(0)
    share = np.cumsum(histogram[filled]) / histogram.sum()
    if len(filled) > QUANTILES:
        keep = np.searchsorted(share, np.linspace(share[0], 1, QUANTILES) - 1e-12)
        keep = np.unique(np.clip(keep, 0, len(filled) - 1))
        filled, share = filled[keep], share[keep]
    return gap_bins()[filled], share


def _latency_charts(comparison: Comparison) -> list[Figure]:
    limits = dict(comparison.slo.limits) | {t.metric: t.limit for t in comparison.slo.targets}
    charts = []
    for metric, column, title, unit in (
        ("ttft", ttft, "Time to first token (TTFT)", 1e3),
        ("tbt", None, "Time between tokens (TBT)", 1e3),
        ("e2e", e2e, "End to end", 1.0),
        ("jct", completion, "Job completion time (JCT) of programs", 1.0),
    ):
        if metric == "jct" and not any(run.program is not None for runs in comparison.runs.values() for run in runs):
            continue
        series: list[Series] = []
        for label, runs in comparison.runs.items():
            if column is None:
                x, y = gap_points(np.sum([run.tbt_histogram for run in runs], axis=0))
            else:
                x, y = quantile_points(np.concatenate([column(run) for run in runs]))
            # a distribution starts at 0: the first point stands on the axis
            x, y = np.concatenate([x[:1], x]), np.concatenate([y[:1] * 0, y])
            series.append(_points(label, np.maximum(x, 1e-6) * unit, y * 100))
        lines = [(limits[metric] * unit, "SLO")] if metric in limits else []
        x_title = f"{'milliseconds' if unit > 1 else 'seconds'} (log)"
        what = {"tbt": "token gaps", "jct": "programs"}.get(metric, "requests")
        charts.append(_chart(f"cdf-{metric}", "Latency", title, x_title, f"% of {what}", series, log="x", lines=lines))
    return charts


def _goodput_chart(comparison: Comparison) -> Figure:
    series = []
    for label, runs in comparison.runs.items():
        ratio = np.concatenate([comparison.slo.worst_ratio(run) for run in runs])
        x, y = quantile_points(ratio)
        inside = (x > 0.01) & (x < 100)  # beyond, nobody asks
        # the attained rate: share of requests kept times the rate at which requests were completed
        span = sum(s["makespan"] for s in comparison.summaries[label]) / len(runs)
        rate = sum(s["requests"] for s in comparison.summaries[label]) / len(runs) / span if span > 0 else 0.0
        series.append(_points(label, x[inside], y[inside] * rate))
    note = "All limits of the objective tightened (left) or relaxed (right) by the same factor."
    return _chart(
        "goodput",
        "Goodput",
        "Goodput as the objective varies",
        "limits multiplied by (log)",
        "requests/s within limits",
        series,
        log="x",
        note=note,
        lines=[(1.0, "as given")],
    )


def _timeline_charts(comparison: Comparison) -> list[Figure]:
    charts = []
    for name, title, unit, scale in (
        ("decode", "Batch: sequences decoding", "sequences", 1.0),
        ("prefill", "Prefill", "prompt tokens/s", 1.0),
        ("kv", "KV cache in use", "% of blocks", 100.0),
        ("waiting", "Queue", "requests waiting", 1.0),
    ):
        series = []
        for label, runs in comparison.runs.items():
            x, y = thinned(runs[0], name)
            series.append(_points(label, x, y * scale))
        charts.append(_chart(f"time-{name}", "Over time", title, "seconds", unit, series))
    return charts


def thinned(run: Run, name: str) -> tuple[Floats, Floats]:
    """A timeline averaged into at most `BINS` bins, up to the last finish: times (s) and values."""
    times, values = run.timeline.get("time", np.zeros(0)), run.timeline.get(name, np.zeros(0))
    done = run.finish[np.isfinite(run.finish)]
    n = int(np.searchsorted(times, done.max(), side="right")) if len(done) and len(values) else 0
    if n == 0:
        return np.zeros(0), np.zeros(0)
    size = -(-n // BINS)
    starts = np.arange(0, n, size)
    means = np.add.reduceat(values[:n], starts) / np.diff(np.append(starts, n))
    return times[starts], means


def _scatter(comparison: Comparison) -> Figure:
    series = []
    for label, runs in comparison.runs.items():
        run = runs[0]
        rows = np.flatnonzero(np.isfinite(run.first_token))
        rows = rows[:: max(1, -(-len(rows) // DOTS))]
        points = _points(label, run.prompt[rows].astype(np.float64), np.maximum(ttft(run)[rows], 1e-6) * 1e3)
        points["mode"] = "markers"
        series.append(points)
    note = "One dot per request of the first replication; who waits: the long prompts, or everybody?"
    return _chart(
        "scatter", "Prompt length", "TTFT by prompt length", "prompt tokens (log)", "TTFT, ms (log)", series, log="xy", note=note
    )


def _frontier_charts(comparison: Comparison) -> list[Figure]:
    rows = comparison.frontier or []
    x_key, y_key = "tbt_p99", next((key for key in ("ttft_p99", "ttft_p50", "ttft_mean") if rows and key in rows[0]), "")
    series, swept = [], list[str]()
    for policy in dict.fromkeys(str(row.get("policy")) for row in rows):
        mine = [row for row in rows if str(row.get("policy")) == policy and x_key in row and y_key in row]
        points = _points(policy, _column(mine, x_key), _column(mine, y_key))
        points["mode"] = "lines+markers"
        points["text"] = [str(row.get("value", "")) for row in mine]
        names = dict.fromkeys(str(row["parameter"]) for row in mine if row.get("parameter"))
        swept += [f"{policy} by {name}" for name in names]
        series.append(points)
    x, y = describe(x_key), describe(y_key)
    note = f"Each point is one setting ({', '.join(swept)}); down and to the left is better."
    return [
        _chart(
            "frontier",
            "Frontier",
            "What a policy's parameter trades",
            f"{x.label}, {x.unit}",
            f"{y.label}, {y.unit}",
            series,
            log="xy",
            note=note,
        )
    ]


def _column(rows: Sequence[Mapping[str, object]], key: str) -> Floats:
    values = [row[key] for row in rows]
    return np.array([float(v) if isinstance(v, int | float) else np.nan for v in values]) * describe(key).scale


def _points(name: str, x: Floats, y: Floats) -> Series:
    return {"name": name, "x": _rounded(x), "y": _rounded(y), "mode": "lines"}


def _rounded(values: Floats) -> list[float | None]:
    """Five significant digits are more than a screen shows and a third of the bytes; JSON has no NaN or infinity."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]


def _chart(
    id: str,
    group: str,
    title: str,
    x: str,
    y: str,
    series: list[Series],
    *,
    log: str = "",
    note: str = "",
    lines: list[tuple[float, str]] | None = None,
) -> Figure:
    return {
        "id": id,
        "group": group,
        "title": title,
        "note": note,
        "x": x,
        "y": y,
        "log": log,
        "series": series,
        "lines": lines or [],
    }
