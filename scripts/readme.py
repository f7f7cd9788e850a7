"""Remake the picture and the table of the README from the demo: ``python scripts/readme.py``.

The picture is a plain SVG, drawn here, of every policy's latency distributions; the table has the headline figures and bands.
"""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path

import numpy as np

from rota.cli.compare import study
from rota.cli.demo import DEMO
from rota.cli.options import cores, split_policies
from rota.files import write_text
from rota.report.explain import verdict
from rota.report.terminal import band_text
from rota.results.comparison import Comparison
from rota.results.latency import gap_bins, ttft
from rota.results.metrics import describe, shown

ROOT = Path(__file__).resolve().parent.parent
# Okabe and Ito's colours, told apart by nearly everybody
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a0522d")
METRICS = ("goodput", "ttft_p50", "ttft_p99", "tbt_p99", "e2e_p50")
WIDTH, HEIGHT, LEFT, TOP, GAP = 980, 420, 60, 84, 96


def table(found: Comparison) -> str:
    """The headline figures in Markdown, with bands."""
    heads = [f"{describe(m).label} ({describe(m).unit})" for m in METRICS]
    lines = ["| policy | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(METRICS)]
    winners, _ = found.winners()
    for label in found.labels:
        cells = []
        for metric in METRICS:
            known = found.bands[label][metric]
            cells.append(f"{shown(metric, known.mid, unit=False)} <sub>{band_text(metric, known)}</sub>")
        name = f"**{label}**" if label in winners else label
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(found: Comparison) -> str:
    """Cumulative shares of TTFT and TBT, a line per policy, on logarithmic time."""
    runs = {label: found.runs[label][0] for label in found.labels}
    waits = {label: _cumulative(ttft(run)) for label, run in runs.items()}
    gaps = {label: _counted(run.tbt_histogram) for label, run in runs.items()}
    first = next(iter(runs.values()))
    panel = (WIDTH - LEFT - GAP - 20) / 2
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif"',
        ' font-size="13">',
        "<style>text{fill:#24292f}.grid{stroke:#8884;stroke-width:1}.axis{fill:#57606a}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{fill:#9da7b1}}</style>",
        f'<text x="{LEFT}" y="24" font-size="17" font-weight="600">{escape(f"{first.trace} on {first.deployment}")}</text>',
        *_legend(list(runs)),
        *_panel(LEFT, panel, "time to first token (TTFT)", waits),
        *_panel(LEFT + panel + GAP, panel, "time between tokens (TBT)", gaps),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


Curve = tuple[np.ndarray, np.ndarray]


def _cumulative(values: np.ndarray) -> Curve:
    values = np.sort(values[np.isfinite(values)])
    return np.quantile(values, np.linspace(0, 1, 201)), np.linspace(0, 1, 201)


def _counted(histogram: np.ndarray) -> Curve:
    share = np.cumsum(histogram) / max(1, histogram.sum())
    keep = np.unique(np.searchsorted(share, np.linspace(0.0005, 0.9999, 400)).clip(0, len(share) - 1))
    return gap_bins()[keep], share[keep]


def _legend(labels: list[str]) -> list[str]:
    out, x = [], float(LEFT)
    for label, colour in zip(labels, COLOURS * 3, strict=False):
        out.append(f'<rect x="{x:.0f}" y="40" width="14" height="4" fill="{colour}"/>')
        out.append(f'<text x="{x + 19:.0f}" y="47">{escape(label)}</text>')
        x += 19 + 7.4 * len(label) + 22
    return out


def _panel(x: float, width: float, title: str, curves: dict[str, Curve]) -> list[str]:
    height = HEIGHT - TOP - 46
    low = math.floor(math.log10(min(np.quantile(c[0], 0.005) for c in curves.values())))
    high = math.ceil(math.log10(max(c[0].max() for c in curves.values())))

    def at(seconds: float, share: float) -> tuple[float, float]:
        return x + width * (math.log10(max(seconds, 10**low)) - low) / (high - low), TOP + height * (1 - share)

    out = [f'<text x="{x:.0f}" y="{TOP - 12}" font-weight="600">{title}</text>']
    for power in range(low, high + 1):
        px, _ = at(10.0**power, 0)
        out.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{TOP + height}"/>')
        out.append(f'<text class="axis" x="{px:.1f}" y="{TOP + height + 18}" text-anchor="middle">{_seconds(power)}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, py = at(10.0**low, share)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x + width:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>')
        out.append(f'<text class="axis" x="{x - 6:.1f}" y="{py + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for (seconds, share), colour in zip(curves.values(), COLOURS * 3, strict=False):
        points = " ".join("{:.1f},{:.1f}".format(*at(float(s), float(y))) for s, y in zip(seconds, share, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
    return out


def _seconds(power: int) -> str:
    return f"{10**power} s" if power >= 0 else f"{10 ** (power + 3):g} ms"


def main() -> None:
    """Run the demo and write both."""
    found = study(DEMO, split_policies(None), seeds=5, slo=None, warmup=0.0, sweep=None, jobs=cores(None), quiet=False)
    write_text(ROOT / "docs" / "report.svg", picture(found))
    readme = ROOT / "README.md"
    made = f"<!-- table: begin (make readme) -->\n{table(found)}\n\n{verdict(found)}\n<!-- table: end -->"
    text = re.sub(r"<!-- table: begin.*?<!-- table: end -->", lambda _: made, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    write_text(readme, text)


if __name__ == "__main__":
    main()
