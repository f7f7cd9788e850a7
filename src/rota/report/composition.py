"""The composition study for people: a heat map of all combinations on each workload, and what each decision is worth.

On a terminal and as a self-contained page. The map's colour is the share of requests within the objective, so that a row or column
that is dark throughout is a decision that pays whatever else is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rota.files import write_text
from rota.report.explain import spoken
from rota.results.metrics import shown
from rota.studies.composition import DECISIONS, SCORE, Choice, Combinations, Effect

#: What a decision must be worth, in points, to be called worth it.
LEAST = 1.0


def verdict(name: str, found: Combinations) -> str:
    """The best combination, and how it compares with the plainest of the best batching and with vLLM v1 as it comes."""
    best, *ties = found.best
    text = f"{name}, {found.rate:.3g} requests/s ({found.load:.0%} of what the engine carries): {said(best)} is best, with"
    text += f" {found.score(best):.0%} of the requests within the objective"
    if ties:
        text += f" ({len(ties)} other combination{'s' if len(ties) > 1 else ''} tie)"
    usual = Choice("vllm-v1", "fcfs", "aggressive", "lru")
    if usual in found.choices and usual != best:
        text += f"; vLLM v1 as it comes: {found.score(usual):.0%}"
    return text + "."


def said(choice: Choice) -> str:
    """A combination in words, without what is plain."""
    parts = [choice.batching, choice.order]
    if choice.admission != "aggressive":
        parts.append(f"{choice.admission} admission")
    if choice.retention != "none":
        parts.append(f"{choice.retention} retention")
    return " + ".join(parts)


def worth(effect: Effect) -> str:
    """One option's worth as a sentence."""
    where = f"better in {effect.better}, worse in {effect.worse} of {effect.contexts} combinations"
    return (
        f"{effect.decision} {effect.option} against {effect.against}: {effect.mean:+.1f} points on average "
        f"({effect.low:+.1f} to {effect.high:+.1f}), {where}"
    )


def print_composition(found: Mapping[str, Combinations], console: Console | None = None) -> None:
    """Verdict, heat map and effects of every workload."""
    console = console or Console()
    for name, one in found.items():
        console.print(Text(verdict(name, one), style="bold"))
        console.print(Text(f"Objective: {one.comparison.slo}; share of requests within it, %; * best, = tie with it", style="dim"))
        console.print(_grid(one))
        for effect in sorted(one.effects(), key=lambda e: -abs(e.mean)):
            console.print(Text(f"  {worth(effect)}", style="" if abs(effect.mean) >= LEAST else "dim"))
        console.print()


def _axes(found: Combinations) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Rows (batching, retention) and columns (order, admission) of the map."""
    rows = [(b, r) for b in found.options("batching") for r in found.options("retention")]
    return rows, [(o, a) for o in found.options("order") for a in found.options("admission")]


def _mark(found: Combinations, choice: Choice) -> str:
    best = found.best
    return "*" if choice == best[0] else "=" if choice in best else ""


def _grid(found: Combinations) -> Table:
    rows, columns = _axes(found)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("batching", no_wrap=True)
    table.add_column("retention", no_wrap=True)
    for order, admission in columns:
        table.add_column(f"{order}\n{admission}".replace("-", "-\n"), justify="right", overflow="fold")
    for batching, retention in rows:
        cells = []
        for order, admission in columns:
            choice = Choice(batching, order, admission, retention)
            score = found.score(choice)
            dark = int(40 + 120 * (1 - score))
            style = f"black on rgb({dark},{200 if score > 0.05 else 170},{dark})" if score > 0.5 else f"rgb({200 + int(50 * score)},170,90)"
            cells.append(Text(f"{100 * score:.1f}{_mark(found, choice) or ' '}", style=style))
        table.add_row(batching, retention, *cells)
    return table


def write_page(path: str | Path, found: Mapping[str, Combinations], command: str = "") -> None:
    """Write the page, whole or not at all. Raises `InputError` if the file cannot be written."""
    write_text(path, page(found, command))


def page(found: Mapping[str, Combinations], command: str = "") -> str:
    """The study as a self-contained HTML page."""
    css = files("rota.report").joinpath("assets", "page.css").read_text(encoding="utf-8")
    run = next(iter(found.values())).comparison
    engine = next(iter(run.runs.values()))[0].deployment
    sections = "".join(_section(name, one) for name, one in found.items())
    again = f'<div class="card wide"><h3>This page again</h3><pre>{escape(command)}</pre></div>' if command else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What pays on {escape(engine)}</title><style>{css}{_CSS}</style></head><body><header>"
        f'<p class="eyebrow">{escape(engine)} · {len(found)} workloads · {run.replications} replications</p>'
        "<h1>Which combination of batching, order, admission and retention wins</h1>"
        '<p class="note">Each cell is the share of requests within the objective, in percent; darker is better, ★ is best, = ties with it.'
        f"</p></header><main>{sections}{again}</main></body></html>\n"
    )


_CSS = """
.heat td { text-align: right; font-variant-numeric: tabular-nums; min-width: 74px; }
.heat th { white-space: nowrap; text-align: left; }
"""


def _section(name: str, found: Combinations) -> str:
    rows, columns = _axes(found)
    heads = "".join(f'<th scope="col">{escape(order)}<small>{escape(admission)}</small></th>' for order, admission in columns)
    body = ""
    for batching, retention in rows:
        cells = "".join(_cell(found, Choice(batching, order, admission, retention)) for order, admission in columns)
        body += f'<tr><th scope="row">{escape(batching)}<small>{escape(retention)}</small></th>{cells}</tr>'
    effects = sorted(found.effects(), key=lambda e: (DECISIONS.index(e.decision), -e.mean))
    lines = "".join(
        f'<tr><th scope="row">{escape(e.option)}<small>{escape(e.decision)}, against {escape(e.against)}</small></th><td>{e.mean:+.1f}</td>'
        f"<td>{e.low:+.1f} to {e.high:+.1f}</td><td>{e.better}</td><td>{e.worse}</td><td>{e.contexts}</td></tr>"
        for e in effects
    )
    return (
        f"<h2>{escape(name)}</h2><p>{escape(verdict(name, found))}</p>"
        f'<p class="note">Objective: {escape(spoken(found.comparison.slo))}.</p>'
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        '<h3>What each decision is worth, in points</h3><div class="scroll"><table><thead><tr><th></th><th>mean</th><th>range</th>'
        f"<th>better in</th><th>worse in</th><th>of</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cell(found: Combinations, choice: Choice) -> str:
    score = found.score(choice)
    mark = {"*": "★ ", "=": "= ", "": ""}[_mark(found, choice)]
    figures = {m: shown(m, found.comparison.mid(choice.policy, m)) for m in ("goodput", "ttft_p99", "tbt_p99", "preemptions_per_request")}
    tip = f"{said(choice)}: " + ", ".join(f"{name} {value}" for name, value in figures.items())
    ink = "#fff" if score > 0.6 else "inherit"
    return (
        f'<td style="background:color-mix(in srgb, var(--accent) {100 * score**1.5:.0f}%, transparent);color:{ink}" title="{escape(tip)}">'
        f"{mark}{escape(shown(SCORE, score, unit=False))}</td>"
    )
