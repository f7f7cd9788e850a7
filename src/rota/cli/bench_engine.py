"""`rota bench --engine` and `--compare-sim`: the engine without a server, and what the simulator says of the same trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rota.cli.options import Workload, cores
from rota.cli.output import check_outputs, invocation, print_json, print_rows
from rota.cli.simulate import print_run
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.results.run import Run
    from rota.results.slo import SLO
    from rota.studies.fidelity import Cell, Pair
    from rota.workload.trace import Trace

INTERRUPTED = 130
#: Steps of up to so many tokens are computed once before an engine is measured, as if it had been up for a while.
WARM = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """What `rota bench` was asked for, as far as it concerns an engine in this process."""

    setup: Workload
    folder: str
    policies: list[str]
    costs: str | None
    clock: str | None
    drop_long: bool
    slo: SLO | None
    warmup: float
    html: str | None
    json: bool


def run(asked: Asked) -> dict[str, Run]:
    """Measure every policy on the engine, one after the other, and tell; the runs by label, for export."""
    from rota.cost.measured import read_costs
    from rota.mechanisms.engine.calibrate import sweep_of
    from rota.mechanisms.engine.heap import settled_heap
    from rota.report.progress import ProgressBars
    from rota.studies.fidelity import Measurement, predicted, settings_of

    check_outputs(html=asked.html)
    folder = Path(asked.folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: is no model directory; give that of a Hugging Face model, or make one: rota make-model {folder}")
    costs = None if asked.costs is None else read_costs(asked.costs)
    settings = settings_of(folder, costs, asked.clock, cores(None))
    trace = asked.setup.load()
    if asked.drop_long:
        from rota.catalog import load_model
        from rota.workload.transform import within

        trace = within(trace, costs.max_len if costs else load_model(folder / "config.json").max_len)
    pairs: list[Pair] = []
    runs: dict[str, Run] = {}
    interrupted = False
    with ProgressBars(quiet=asked.json) as bars:
        for policy in asked.policies:
            try:
                found = Measurement(settings, trace, policy, seed=asked.setup.seed)
                if not runs:
                    sweep_of(found.engine, settings["clock"], WARM).warm_up()
                with settled_heap():
                    found.drive.run(bars.task(policy))
            except KeyboardInterrupt:
                interrupted = True
                break
            runs[policy] = found.run()
            if costs is not None:
                pairs.append(found.pair(costs, predicted(costs, trace, policy, asked.setup.seed)))
    if not runs:
        raise KeyboardInterrupt
    _tell(asked, runs, pairs)
    if asked.html:
        _report(asked, runs, pairs, settings)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    return runs


def prediction(path: str, trace: Trace, policy: str, seed: int) -> Run:
    """The run that the simulator makes of the trace that a server was measured on."""
    from rota.cost.measured import read_costs
    from rota.studies.fidelity import predicted

    return predicted(read_costs(path), trace, policy, seed)


def cell_rows(cells: Sequence[Cell]) -> list[dict[str, object]]:
    """Figures side by side, for people."""
    rows: list[dict[str, object]] = []
    for cell in cells:
        scale, unit = (1.0, "tokens/s") if "throughput" in cell.metric else (1e3, "ms")
        name = "throughput" if "throughput" in cell.metric else cell.metric.replace("_", " ").upper().replace("MEAN", "mean")
        rows.append({
            "figure": name, "unit": unit, "predicted": f"{cell.predicted * scale:,.1f}", "measured": f"{cell.measured * scale:,.1f}",
            "error": f"{cell.error:+.1%}",
        })  # fmt: skip
    return rows


def cell_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The same, for programs."""
    return [{"metric": c.metric, "predicted": c.predicted, "measured": c.measured, "error": c.error} for c in cells]


def _tell(asked: Asked, runs: Mapping[str, Run], pairs: Sequence[Pair]) -> None:
    from rota.results.summary import summarise

    figures = {label: summarise(run, asked.slo, warmup=asked.warmup) for label, run in runs.items()}
    by_policy = {pair.policy: pair for pair in pairs}
    if asked.json:
        print_json({
            "runs": [
                {
                    "policy": label, "trace": run.trace, "deployment": run.deployment, "figures": figures[label], "totals": run.totals,
                    "conditions": run.meta,
                }
                | ({} if label not in by_policy else {
                    "comparison": cell_json(by_policy[label].cells()), "step_ratio": by_policy[label].step_ratio,
                })
                for label, run in runs.items()
            ],
        })  # fmt: skip
        return
    for label, run in runs.items():
        print_run(run, figures[label], f"{label}, measured in {run.meta['clock']} time")
        if label in by_policy:
            pair = by_policy[label]
            print_rows(cell_rows(pair.cells()))
            typer.echo(f"The engine's steps took {pair.step_ratio:.3f} times what the costs say of these very steps")


def _report(asked: Asked, runs: Mapping[str, Run], pairs: Sequence[Pair], settings: Mapping[str, Any]) -> None:
    """Measured runs and predicted ones in one page."""
    from rota.report.html import write_html
    from rota.results.comparison import Comparison

    shown = {f"{label} (measured)": [run] for label, run in runs.items()}
    shown |= {f"{pair.policy} (predicted)": [pair.predicted] for pair in pairs}
    conditions = {"command": invocation(), "engine": {key: str(value) for key, value in settings.items()}}
    write_html(asked.html or "", Comparison.of(shown, asked.slo, warmup=asked.warmup, conditions=conditions))
    if not asked.json:
        typer.echo(f"Report: {Path(asked.html or '').resolve()}")
