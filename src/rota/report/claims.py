"""Reproduced claims as a page: `docs/claims.md` is written by ``rota reproduce CLAIM... --record``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rota.studies.reproduce import STUDIES
from rota.studies.reproduce.claim import Report

#: In a page: the command over a claim, and the claim's row in the first table.
_COMMAND = re.compile(r"^`rota reproduce ([a-z-]+)`", re.MULTILINE)
_ROW = re.compile(r"^\| ([a-z-]+) \|.*\| ([a-z ]+) \|$", re.MULTILINE)


def claims_page(reports: Sequence[Report], before: str = "") -> str:
    """Markdown with every claim, its conditions, what was measured and the verdict.

    Parameters
    ----------
    reports : sequence of Report
    before : str
        The page as it was; its claims stay unless `reports` has them anew.
    """
    head, *old = before.split("\n## ")
    sections = {named[1]: text.strip() for text in old if (named := _COMMAND.search(text))}
    verdicts = {row[1]: row[2] for row in _ROW.finditer(head)}
    sections |= {report.name: _section(report) for report in reports}
    verdicts |= {report.name: report.verdict for report in reports}
    kept = [study for study in STUDIES.values() if study.name in sections]
    lines = [
        "# Claims, checked",
        "",
        "Written by `rota reproduce CLAIM... --record`; every figure below was printed by the command named over it.",
        "",
        *_table([{"claim": s.name, "what": s.title, "source": s.source, "verdict": verdicts.get(s.name, "")} for s in kept]),
        *(f"\n## {sections[study.name]}" for study in kept),
    ]
    return "\n".join(lines) + "\n"


def _section(report: Report) -> str:
    study = STUDIES[report.name]
    lines = [study.title, "", f"`rota reproduce {report.name}` - {study.source}.", ""]
    lines += [f"- {key}: {value}" for key, value in report.conditions.items()]
    if report.conditions:
        lines.append("")
    lines += _table([
        {"claim": f.claim, "conditions": f.conditions, "claimed": f.claimed, "measured here": f.measured, "verdict": f.verdict, "remark": f.why}
        for f in report.findings
    ])  # fmt: skip
    for table in report.tables:
        lines += ["", f"### {table.title}", "", *_table(table.rows)]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [_line(names), _line("---" for _ in names), *(_line(_cell(row.get(name, "")) for name in names) for row in rows)]


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
