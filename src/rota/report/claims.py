"""Reproduced claims as a page: `docs/claims.md` is written by ``rota reproduce --all --record``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rota.studies.reproduce import STUDIES
from rota.studies.reproduce.claim import Report


def claims_page(reports: Sequence[Report]) -> str:
    """Markdown with every claim, its conditions, what was measured and the verdict."""
    lines = [
        "# Claims, checked",
        "",
        "Written by `rota reproduce --all --record`; every figure below was printed by the command named over it.",
        "",
        *_table([{"claim": r.name, "what": STUDIES[r.name].title, "source": STUDIES[r.name].source, "verdict": r.verdict} for r in reports]),
    ]
    for report in reports:
        lines += ["", f"## {STUDIES[report.name].title}", "", f"`rota reproduce {report.name}` - {STUDIES[report.name].source}.", ""]
        lines += [f"- {key}: {value}" for key, value in report.conditions.items()]
        if report.conditions:
            lines.append("")
        lines += _table([
            {"claim": f.claim, "conditions": f.conditions, "claimed": f.claimed, "measured here": f.measured, "verdict": f.verdict, "remark": f.why}
            for f in report.findings
        ])  # fmt: skip
        for table in report.tables:
            lines += ["", f"### {table.title}", "", *_table(table.rows)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [_line(names), _line("---" for _ in names), *(_line(_cell(row.get(name, "")) for name in names) for row in rows)]


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
