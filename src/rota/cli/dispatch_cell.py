"""`rota dispatch` on a robot cell: rules for its robots, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from rota.cli.output import print_json, print_rows
from rota.errors import InputError
from rota.policies.dispatch.cell import cell_rule_names, make_cell_rule
from rota.report.gantt import write_gantt
from rota.studies.robot_cell import compare_cells, summary
from rota.workload.shop.cell import Cell, least_ticks
from rota.workload.shop.write import write_rows

WRONG = 3


def dispatch_cell(
    cell: Cell, rule: str | None, noise: float, seeds: Sequence[int], *, out: str | None, html: str | None, json: bool
) -> int:
    """Run and compare rules, by default all that the robots have the arms for; the exit status."""
    arms = max(robot.arms for robot in cell.robots)
    names = [name.strip() for name in rule.split(",")] if rule else [n for n in cell_rule_names() if make_cell_rule(n).arms <= arms]
    for name in names:
        make_cell_rule(name)
    if (out or html) and len(names) * len(seeds) > 1:
        raise InputError("--out and --html are for one run; name one --rule and leave --seeds at 1")
    results = compare_cells(cell, [lambda seed, name=name: make_cell_rule(name, seed) for name in names], seeds, noise)  # type: ignore[misc]
    if out:
        solved = results[0].solved()
        write_rows(solved.rows(), out, solved.record())
    if html:
        write_gantt(html, results[0].solved())
    rows = summary(results)
    bad = [one for one in results if not one.ok]
    if json:
        print_json({"cell": cell.name, "least_ticks": least_ticks(cell), "runs": [one.record() for one in results], "rules": rows})
    else:
        print_rows(rows)
        typer.echo(f"no rule gets below {least_ticks(cell):.4g} ticks per sheet: so long a stage is busy with each, or all robots together are")
        typer.echo(f"checked independently: {len(results) - len(bad)} of {len(results)} runs keep everything but limits on the stay (overstays)")
        for one in bad[:10]:
            typer.echo(f"  {one.rule}, seed {one.seed}: {one.report.violations[0]}")
    return WRONG if bad else 0
