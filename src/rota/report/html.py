"""A comparison as one HTML file that needs nothing else: styles, script, data and Plotly are inside, so it works offline and in
mail.

The page goes from the answer to its grounds: verdict, reasons, headline figures with their bands, all figures, distributions,
what happened over time, and the conditions under which all this holds. Everything that came from a user is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from rota.errors import RotaError
from rota.files import write_text
from rota.report.explain import explain, price, spoken, verdict
from rota.report.figures import Figure, figures
from rota.report.terminal import band_text, useful_columns
from rota.results.comparison import Comparison
from rota.results.metrics import HIGHER, describe, number, shown

_GROUP_NOTES = {
    "Latency": "Share of requests (or token gaps) at or below a latency, all replications together. Further left is better.",
    "Over time": "The first replication, from the first arrival to the last finish.",
}


def write_html(path: str | Path, comparison: Comparison) -> None:
    """Write the report of `comparison` to `path`, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_text(path, page(comparison))


def page(comparison: Comparison) -> str:
    """The report as HTML text (about 5 MB, nearly all of it Plotly)."""
    charts = figures(comparison)
    assets = files("rota.report").joinpath("assets")
    data = {"policies": _policies(comparison), "figures": charts}
    body = [
        _header(comparison),
        "<main>",
        _strips(comparison),
        _table(comparison),
        _charts(comparison, charts),
        _conditions(comparison),
        "</main>",
        f"<footer>Rota {escape(_version('rota'))}. Simulated, not measured: read the errors of the cost model above.</footer>",
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(_title(comparison))}</title>",
            f"<style>{assets.joinpath('page.css').read_text(encoding='utf-8')}</style>",
            "</head>\n<body>",
            *body,
            f'<script type="application/json" id="report-data">{script_json(data)}</script>',
            f"<script>{_plotly()}</script>",
            f"<script>{assets.joinpath('page.js').read_text(encoding='utf-8')}</script>",
            "</body>\n</html>\n",
        ]
    )


def script_json(value: object) -> str:
    """JSON that no content can break out of a script element with."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plotly() -> str:
    try:
        return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise RotaError("the HTML report needs Plotly's script; install it with: pip install plotly") from None


def _policies(comparison: Comparison) -> list[str]:
    swept = [str(row.get("policy")) for row in comparison.frontier or []]
    return list(dict.fromkeys([*comparison.labels, *swept]))


def _title(comparison: Comparison) -> str:
    run = comparison.runs[comparison.labels[0]][0]
    return f"{run.trace} on {run.deployment}: {len(comparison.labels)} batching policies"


def _header(comparison: Comparison) -> str:
    requests = len(comparison.runs[comparison.labels[0]][0].arrival)
    reps = comparison.replications
    facts = [_title(comparison), f"{requests:,} requests", f"{reps} replication{'s' if reps > 1 else ''}"]
    given = "" if comparison.slo_given else " (implied by the best policy; none was given)"
    reasons = "".join(f"<li>{escape(line)}</li>" for line in explain(comparison))
    return "\n".join(
        [
            "<header>",
            f'<p class="eyebrow">{escape(" · ".join(facts))}</p>',
            f"<h1>{_headline(verdict(comparison))}</h1>",
            f'<p class="price">{escape(price(comparison))}</p>' if price(comparison) else "",
            f'<div class="why"><h3>Why</h3><ul>{reasons}</ul></div>' if reasons else "",
            "" if comparison.offline else f'<p class="note">Goodput counts requests with {escape(spoken(comparison.slo))}{given}.</p>',
            "</header>",
        ]
    )


def _headline(text: str) -> str:
    """The verdict, with what stands in parentheses set smaller."""
    return re.sub(r"\(([^()]*)\)", r'<span class="detail">(\1)</span>', escape(text))


def _strips(comparison: Comparison) -> str:
    """Headline figures: a dot for each policy on a common scale, its band behind it."""
    cards = "".join(_strip(comparison, metric) for metric in comparison.headlines)
    caption = "Dots are middle values, bars 5-95% bands over replications; in bold the best and what ties with it."
    if comparison.replications == 1:
        caption = "One replication, so no bands; in bold the best and what is within 2% of it."
    return f'<h2>Headline figures</h2><p class="note">{caption}</p><div class="grid">{cards}</div>'


def _strip(comparison: Comparison, metric: str) -> str:
    known = {label: comparison.bands[label][metric] for label in comparison.labels if comparison.mid(label, metric) >= 0}
    ends = [end for band in known.values() for end in (band.low, band.high, band.mid) if end < float("inf")]
    top = max(ends, default=0.0)
    if top <= 0:
        return ""
    # a square-root scale keeps the small policies apart when one is far off
    skewed = top > 20 * max(min(band.mid for band in known.values()), 1e-12)
    ahead = comparison.best(metric)
    rows = []
    for label, band in known.items():
        left, mid, right = (100 * (min(end, top) / top) ** (0.5 if skewed else 1.0) for end in (band.low, band.mid, band.high))
        best = " best" if label in ahead else ""
        tip = f"{label}: {shown(metric, band.mid)}"
        span = ""
        if band.n > 1:
            tip += f", 5-95% band {band_text(metric, band)}"
            span = f'<i style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
        rows.append(
            f'<span class="name{best}">{escape(label).replace(":", ":<wbr>", 1)}</span>'
            f'<span class="track" style="{_colour(comparison, label)}" title="{escape(tip)}">'
            f'{span}<b style="left:{mid:.2f}%"></b></span>'
            f'<span class="value{best}">{escape(shown(metric, band.mid, unit=False))}</span>'
        )
    about = describe(metric)
    note = f"{about.unit}, {'higher' if about.better == HIGHER else 'lower'} is better{', square-root scale' if skewed else ''}"
    title = f'<h3>{escape(about.label)}</h3><p class="note">{note}</p>'
    return f'<div class="card">{title}<div class="strip">{"".join(rows)}</div></div>'


def _table(comparison: Comparison) -> str:
    winners, _ = comparison.winners()
    columns = useful_columns(comparison)
    head = "".join(f'<th scope="col">{escape(describe(m).label)}<small>{escape(describe(m).unit)}</small></th>' for m in columns)
    rows = []
    for label in comparison.labels:
        cells = "".join(_cell(comparison, label, metric) for metric in columns)
        style = ' class="winner"' if label in winners else ""
        rows.append(f'<tr{style}><th scope="row">{_swatch(comparison, label)}{escape(label)}</th>{cells}</tr>')
    note = "★ best of its column, = tie with it: the 5-95% band of the paired ratio includes 1. Small print: 5-95% bands."
    return (
        f'<h2>All policies</h2><p class="note">{note}</p>'
        f'<div class="scroll"><table><thead><tr><th scope="col">Policy</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(comparison: Comparison, label: str, metric: str) -> str:
    ahead = comparison.best(metric) if describe(metric).better and len(comparison.labels) > 1 else []
    mark = ("★" if label == ahead[0] else "=") if label in ahead else ""
    band = band_text(metric, comparison.bands[label][metric])
    style = ' class="best"' if mark == "★" else ""
    small = f"<small>{escape(band)}</small>" if band else ""
    value = escape(shown(metric, comparison.mid(label, metric), unit=False))
    return f'<td{style}><span class="mark">{mark}</span> {value}{small}</td>'


def _charts(comparison: Comparison, charts: list[Figure]) -> str:
    buttons = "".join(
        f'<button data-policy="{escape(label)}" aria-pressed="true">{_swatch(comparison, label)}{escape(label)}</button>'
        for label in _policies(comparison)
    )
    parts = [f'<div class="legend" role="group" aria-label="Policies shown in the charts">{buttons}</div>'] if charts else []
    for group in dict.fromkeys(chart["group"] for chart in charts):
        mine = [chart for chart in charts if chart["group"] == group]
        note = f'<p class="note">{_GROUP_NOTES[group]}</p>' if group in _GROUP_NOTES else ""
        # an odd one out takes the whole row
        cards = "".join(_chart(chart, wide=len(mine) % 2 == 1 and chart is mine[-1]) for chart in mine)
        parts.append(f'<h2>{escape(group)}</h2>{note}<div class="grid">{cards}</div>')
    return "\n".join(parts)


def _chart(chart: Figure, wide: bool) -> str:
    title = escape(chart["title"])
    note = f'<p class="note">{escape(chart["note"])}</p>' if chart["note"] else ""
    place = f'<div class="chart" id="{chart["id"]}" role="img" aria-label="{title}"></div>'
    return f'<figure class="card{" wide" if wide else ""}"><h3>{title}</h3>{note}{place}</figure>'


def _conditions(comparison: Comparison) -> str:
    """Everything needed to judge the figures and to get them again."""
    sections: dict[str, Mapping[str, object]] = {"Trace": comparison.trace}
    run: dict[str, object] = {"replications": comparison.replications, "objective": str(comparison.slo), "rota": _version("rota")}
    for key, value in comparison.conditions.items():
        if isinstance(value, Mapping):
            sections[key] = value
        elif key != "command":
            run[key] = value
    sections["Run"] = run
    cards = [f'<div class="card"><h3>{escape(title)}</h3>{_list(facts)}</div>' for title, facts in sections.items() if facts]
    command = comparison.conditions.get("command")
    if command:
        text = f'<pre id="command">{escape(str(command))}</pre><button data-copy="command">Copy command</button>'
        cards.insert(0, f'<div class="card wide"><h3>This report again</h3>{text}</div>')
    return f'<h2>Conditions</h2><p class="note">What these figures rest on.</p><div class="grid">{"".join(cards)}</div>'


def _list(facts: Mapping[str, object]) -> str:
    items = "".join(f"<dt>{escape(str(key))}</dt><dd>{_value(value)}</dd>" for key, value in facts.items())
    return f"<dl>{items}</dl>"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(key))}: {_value(part)}" for key, part in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(_value(part) for part in value) or "-"
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))


def _colour(comparison: Comparison, label: str) -> str:
    return f"--colour:var(--series-{_policies(comparison).index(label) % 8})"


def _swatch(comparison: Comparison, label: str) -> str:
    return f'<span class="swatch" style="{_colour(comparison, label)}"></span>'


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
