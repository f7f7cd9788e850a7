"""A schedule as one HTML file with a Gantt chart in SVG: a lane per resource, a colour per job, breaks in grey, holds without work hatched.

It needs nothing else and works offline. Resources of several units get as many lanes as are ever in use at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from colorsys import hls_to_rgb
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from rota.contracts.shop import Event, Problem, Progress
from rota.files import write_text
from rota.mechanisms.shop.violations import Hold
from rota.studies.solve import Solved
from rota.workload.shop.form import objective_to

_LANE, _BAR, _LEFT, _WIDTH, _TOP = 22, 18, 90, 1060, 26
#: Characters of about this many units of width fit a bar.
_LETTER = 7
_ZOOM = """
const zoom = document.getElementById('zoom'), chart = document.getElementById('gantt');
zoom.addEventListener('input', () => { chart.style.width = zoom.value + '%'; });
for (const job of document.querySelectorAll('[data-job]')) job.addEventListener('click', () => {
  const same = document.querySelector('.picked') && job.classList.contains('picked');
  for (const bar of document.querySelectorAll('[data-job]')) {
    bar.classList.toggle('picked', !same && bar.dataset.job === job.dataset.job);
    bar.classList.toggle('faint', !same && bar.dataset.job !== job.dataset.job);
  }
});
"""
_STYLE = """
.scroll { padding: 8px; } #gantt { width: 100%; height: auto; display: block; }
#gantt text, #trace text { font: 11px var(--font); fill: var(--ink); } #gantt .axis, #trace .axis { fill: var(--muted); }
#gantt .grid, #trace .grid { stroke: var(--grid); } #gantt .shut { fill: var(--line); } #gantt text.name { pointer-events: none; fill: #111; }
#gantt rect[data-job] { cursor: pointer; stroke: var(--card); stroke-width: 0.6; } #gantt .faint { opacity: 0.15; }
#gantt .held { fill-opacity: 0.3; stroke-dasharray: 3 2; stroke: var(--muted); } #trace { width: 100%; height: auto; }
"""


def write_gantt(path: str | Path, solved: Solved) -> None:
    """Write the chart of a schedule to `path`, whole or not at all."""
    write_text(path, page(solved))


def page(solved: Solved) -> str:
    """The chart as HTML text."""
    assets = files("rota.report").joinpath("assets")
    title = f"{solved.problem.name}: {_headline(solved)}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{assets.joinpath('page.css').read_text(encoding='utf-8')}{_STYLE}</style>",
            f'</head>\n<body>\n<header><p class="eyebrow">rota solve</p><h1>{escape(title)}</h1>',
            *(f'<p class="note">{escape(line)}</p>' for line in _notes(solved)),
            "</header>\n<main>",
            "<h2>Schedule</h2>",
            '<p class="note">Click a bar to see its job alone. '
            '<label>Zoom <input id="zoom" type="range" min="100" max="2000" value="100"></label></p>',
            f'<div class="scroll">{_chart(solved)}</div>',
            *_trace(solved),
            f"</main>\n<footer>Rota {escape(_version())}</footer>\n<script>{_ZOOM}</script>\n</body>\n</html>\n",
        ]
    )


def _version() -> str:
    try:
        return version("rota")
    except PackageNotFoundError:
        return ""


def _headline(solved: Solved) -> str:
    outcome = solved.outcome
    if solved.problem.objective is None or outcome.objective is None:
        return "a feasible schedule"
    names = [objective_to([stage]) for stage in solved.problem.objective.stages]
    values = ", ".join(f"{name} {value:,}" for name, value in zip(names, outcome.objective, strict=True))
    if outcome.status == "optimal":
        return f"{values} (proven optimal)"
    return values if solved.gap is None else f"{values} (within {solved.gap:.1%} of the bound)"


def _notes(solved: Solved) -> Iterator[str]:
    yield f"{len(solved.problem.tasks):,} tasks, {len(solved.problem.resources):,} resources; {solved.outcome.solver}, {solved.wall_s:.1f} s."
    report = solved.report
    if report is not None and report.ok:
        yield "Checked independently: every constraint holds and the objective is as claimed."
    elif report is not None:
        yield f"NOT FEASIBLE: {'; '.join(map(str, report.violations[:5]))}"


def colours(problem: Problem) -> dict[str, str]:
    """A colour for each task: that of its job, or where there are no jobs, its own; neighbours in number differ in hue."""
    job_of = {name: j for j, job in enumerate(problem.jobs) for name in job.tasks}
    number = {task.id: job_of.get(task.id, len(problem.jobs) + i) for i, task in enumerate(problem.tasks)}
    return {name: _colour(k) for name, k in number.items()}


def _colour(k: int) -> str:
    # the golden angle keeps numbers near each other far apart in hue
    red, green, blue = hls_to_rgb(k * 0.381966 % 1, 0.62 + 0.08 * (k % 3), 0.55 + 0.2 * (k % 2))
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def lanes(holds: list[Hold]) -> list[tuple[int, Hold]]:
    """For each hold the lowest lane that is free then; a hold of several units takes one lane."""
    until: list[int] = []
    placed = []
    for hold in sorted(holds):
        lane = next((i for i, end in enumerate(until) if end <= hold.start), len(until))
        until[lane : lane + 1] = [hold.end]
        placed.append((lane, hold))
    return placed


def _chart(solved: Solved) -> str:
    report, problem = solved.report, solved.problem
    assert report is not None
    end = max([1, *report.times.values(), *(hold.end for held in report.holds.values() for hold in held)])
    scale = _WIDTH / end
    colour = colours(problem)
    job_of = {name: job.id for job in problem.jobs for name in job.tasks}
    parts: list[str] = []
    y = _TOP
    for resource in problem.resources:
        placed = lanes(report.holds.get(resource.id, []))
        if not placed:
            continue
        height = _LANE * (1 + max(lane for lane, _ in placed))
        parts += [f'<rect class="shut" x="{_LEFT + a * scale:.2f}" y="{y}" width="{(b - a) * scale:.2f}" height="{height}"/>'
                  for a, b in _closed(resource.calendar, end)]  # fmt: skip
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(resource.id)}</text>')
        for lane, hold in placed:
            works_until = min(hold.end, report.times[Event(hold.task, "end")])
            job = job_of.get(hold.task, hold.task)
            parts += _bar(hold, works_until, y + lane * _LANE, scale, colour[hold.task], job)
        y += height + 4
    grid = []
    for at in _ticks(end):
        x = _LEFT + at * scale
        grid.append(f'<line class="grid" x1="{x:.2f}" x2="{x:.2f}" y1="{_TOP - 6}" y2="{y}"/>')
        grid.append(f'<text class="axis" x="{x:.2f}" y="14" text-anchor="middle">{at:,}</text>')
    size = f"0 0 {_LEFT + _WIDTH + 30} {y + 8}"
    return f'<svg id="gantt" viewBox="{size}" role="img" aria-label="Gantt chart">{"".join(grid)}{"".join(parts)}</svg>'


def _closed(calendar: tuple[tuple[int, int], ...], end: int) -> Iterator[tuple[int, int]]:
    for k, (at, units) in enumerate(calendar):
        until = calendar[k + 1][0] if k + 1 < len(calendar) else end
        if units == 0 and at < end:
            yield at, min(until, end)


def _bar(hold: Hold, works_until: int, y: int, scale: float, colour: str, job: str) -> Iterator[str]:
    label = escape(hold.task)
    units = f", {hold.amount} units" if hold.amount > 1 else ""
    for kind, a, b in (("works", hold.start, works_until), ("held", works_until, hold.end)):
        if b > a:
            words = f"{label}: {'held' if kind == 'held' else 'works'} from {a:,} to {b:,}{units}"
            x, width = _LEFT + a * scale, (b - a) * scale
            yield (
                f'<rect class="{kind}" data-job="{escape(job)}" x="{x:.2f}" y="{y + 2}" width="{width:.2f}" height="{_BAR}" fill="{colour}">'
                f"<title>{words}</title></rect>"
            )
            if kind == "works" and width > _LETTER * len(hold.task):
                yield f'<text class="name" x="{x + width / 2:.2f}" y="{y + 15}" text-anchor="middle">{label}</text>'


def _ticks(end: int, about: int = 10) -> list[int]:
    step = 1
    while end / step > about:
        # 1, 2, 5, 10, 20, 50, ...
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(0, end + 1, step))


def _trace(solved: Solved) -> Iterator[str]:
    """Value and bound of the first stage over time."""
    points = [point for point in solved.outcome.trace if point.stage == 0]
    values = [number for point in points for number in (point.objective, point.bound) if number is not None]
    if len(points) < 2 or not values:
        return
    low, high = min(values), max(values)
    last = max(points[-1].wall_s, 1e-3)
    yield '<h2>Search</h2><p class="note">Best schedule (solid) and proven bound (dashed) of the first objective over seconds.</p>'
    yield f'<div class="scroll"><svg id="trace" viewBox="0 0 {_LEFT + _WIDTH + 30} 190" role="img" aria-label="Value and bound over time">'
    for at in (low, high):
        y = 20 + 140 * (high - at) / max(high - low, 1)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{at:,}</text>'
    for name, dash, colour in (("objective", "", "var(--series-0)"), ("bound", ' stroke-dasharray="5 4"', "var(--series-1)")):
        line = _steps(points, name, low, high, last)
        yield f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    yield f'<text class="axis" x="{_LEFT}" y="182">0 s</text>'
    yield f'<text class="axis" x="{_LEFT + _WIDTH}" y="182" text-anchor="end">{last:.1f} s</text></svg></div>'


def _steps(points: list[Progress], name: str, low: int, high: int, last: float) -> str:
    path = ""
    for point in points:
        value = getattr(point, name)
        if value is not None:
            x, y = _LEFT + _WIDTH * point.wall_s / last, 20 + 140 * (high - value) / max(high - low, 1)
            path += f"M{x:.1f} {y:.1f}" if not path else f"H{x:.1f}V{y:.1f}"
    return path + f"H{_LEFT + _WIDTH}" if path else ""
