"""`rota reproduce`: published claims, checked by experiment."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rota.cli.options import Jobs, Json, cores
from rota.cli.output import check_outputs, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.studies.reproduce.claim import Reference, Report

_PAGE = "docs/claims.md"
_RECORD = "src/rota/studies/reproduce/recorded.json"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("reproduce")(reproduce)


def reproduce(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CLAIM]...", help="Claims to check; see --list.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every claim.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the claims and how they stood when last recorded.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", help="Replications with other seeds.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the requests.")] = False,
    data: Annotated[str | None, typer.Option("--data", metavar="DIR", help="Published data, for the claims that take some.")] = None,
    record: Annotated[bool, typer.Option("--record", help=f"In a checkout: write {_PAGE} and what --list shows; other claims stay.")] = False,
    json: Json = False,
    jobs: Jobs = None,
) -> None:
    """Run the experiment behind a published claim and print claimed against measured, with a verdict.

    Example: rota reproduce layered-prefill

    Example: rota reproduce smtt --data published/
    """
    from rota.studies.reproduce import STUDIES, Options, study

    if listing:
        _list(json)
        return
    if every and names:
        raise InputError("name claims or say --all, not both")
    if not every and not names:
        raise InputError(f"name a claim to check ({', '.join(STUDIES)}), or say --all or --list")
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {seeds}")
    chosen = list(STUDIES.values()) if every else [study(name) for name in names or []]
    if data is not None:
        _check_data(data, [one.reference for one in chosen if one.reference is not None])
    if record:
        check_outputs(page=_PAGE, record=_RECORD)

    from rota.report.progress import ProgressBars

    reports = []
    with ProgressBars(quiet=json) as bars:
        for one in chosen:
            bar = bars.task(one.name)
            options = Options(seeds=seeds, jobs=cores(jobs), quick=quick, data=data, progress=lambda done, total, _, bar=bar: bar(done, total))  # type: ignore[misc]
            reports.append(one.run(options))
    if json:
        print_json([report.as_dict() for report in reports])
    else:
        for report in reports:
            _show(report)
    if record:
        from rota.files import write_text
        from rota.report.claims import claims_page

        page, states = Path(_PAGE), Path(_RECORD)
        write_text(page, claims_page(reports, page.read_text(encoding="utf-8") if page.is_file() else ""))
        new = {r.name: {"verdict": r.verdict, "findings": {f.claim: f"{f.verdict}: {f.measured}" for f in r.findings}} for r in reports}
        known = (json_text.loads(states.read_text(encoding="utf-8")) if states.is_file() else {}) | new
        write_text(states, json_text.dumps({name: known[name] for name in STUDIES if name in known}, indent=2) + "\n")


def _check_data(data: str, taken: Sequence[Reference]) -> None:
    """Raise where a folder is given in vain."""
    if not taken:
        raise InputError(f"--data {data}: none of these claims takes data; leave it out")
    if not any(reference.find(data) for reference in taken):
        wanted = ", ".join(reference.file for reference in taken)
        raise InputError(f"--data {data}: holds none of {wanted}; give the folder with it, or one above")


def _recorded() -> dict[str, Any]:
    file = files("rota.studies.reproduce") / "recorded.json"
    found: dict[str, Any] = json_text.loads(file.read_text()) if file.is_file() else {}
    return found


def _list(json: bool) -> None:
    from rota.studies.reproduce import STUDIES

    recorded = _recorded()
    rows = [
        {"claim": s.name, "state": recorded.get(s.name, {}).get("verdict", "not run"), "what": s.title, "source": s.source} for s in STUDIES.values()
    ]
    if json:
        print_json([row | {"findings": recorded.get(str(row["claim"]), {}).get("findings", {})} for row in rows])
    else:
        print_rows(rows)


def _show(report: Report) -> None:
    typer.echo(f"\n{report.name}: {report.verdict.upper()} ({report.seconds:.0f} s)")
    for key, value in report.conditions.items():
        typer.echo(f"  {key}: {value}")
    for f in report.findings:
        typer.echo(f"\n  {f.claim}\n    conditions  {f.conditions}\n    claimed     {f.claimed}\n    measured    {f.measured}"
                   f"\n    verdict     {f.verdict}" + (f" ({f.why})" if f.why else ""))  # fmt: skip
    for table in report.tables:
        typer.echo(f"\n{table.title}")
        print_rows(table.rows)
