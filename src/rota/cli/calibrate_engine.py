"""`rota calibrate MODEL_DIR`: measures an engine, or takes its log, and writes its costs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rota.cli.options import cores, split_policies
from rota.cli.output import print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rota.cost.measured import Measured
    from rota.cost.step_samples import StepSample

INTERRUPTED = 130
GIB = 1 << 30
#: Bytes of a number in the KV cache.
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for (the options of `rota.cli.calibrate`)."""

    folder: Path
    logs: list[str]
    output: str | None
    device: str
    policy: str
    clock: str
    threads: int | None
    dtype: str
    weight_format: str
    kv_cache_dtype: str
    kv_cache_memory: float
    block_size: int
    max_model_len: int | None
    rounds: int
    budget: float
    max_chunk: int
    seed: int
    json: bool

    def check(self) -> None:
        """Find what makes no sense before a model is loaded."""
        if not (self.folder / "config.json").is_file():
            what = "has no config.json" if self.folder.is_dir() else "is no model directory"
            raise InputError(f"{self.folder}: {what}; give that of a Hugging Face model, or make one: rota make-model {self.folder}")
        if len(split_policies([self.policy])) != 1:
            raise InputError("--policy names several policies; an engine runs one")
        for option in ("rounds", "budget", "max_chunk", "block_size", "kv_cache_memory"):
            if not 0 < getattr(self, option) < 1 << 40:
                raise InputError(f"--{option.replace('_', '-')} must be positive, not {getattr(self, option):g}")
        if self.max_chunk < 16:
            raise InputError(f"--max-chunk must be at least 16, not {self.max_chunk}")
        if self.seed < 0:
            raise InputError(f"--seed must not be negative ({self.seed})")

    def conditions(self, device: str) -> dict[str, Any]:
        """What decides what is measured."""
        return {
            "model_dir": str(self.folder.resolve()), "device": device, "threads": self.threads or cores(None), "dtype": self.dtype,
            "weight_format": self.weight_format, "kv_cache_dtype": self.kv_cache_dtype, "kv_bytes": int(self.kv_cache_memory * GIB),
            "block_size": self.block_size, "max_model_len": self.max_model_len, "clock": self.clock, "policy": self.policy,
            "seed": self.seed, "machine": _machine(),
            "versions": {name: _version(name) for name in ("rota", "torch", "numba")},
        }  # fmt: skip


def run(plan: Plan) -> None:
    """Measure (or read), fit, write, tell."""
    plan.check()
    if plan.logs:
        found, complete = _from_logs(plan), True
    else:
        found, complete = _measure(plan)
    if plan.output is not None:
        found.write(plan.output)
    _tell(plan, found, complete)
    if not complete:
        raise typer.Exit(INTERRUPTED)


def _measure(plan: Plan) -> tuple[Measured, bool]:
    """What an engine of this machine costs, and whether that was not broken off."""
    from rota.cost.step_samples import SampleFile
    from rota.mechanisms.engine.calibrate import measure, open_engine
    from rota.mechanisms.engine.heap import settled_heap
    from rota.mechanisms.engine.loading import device_of
    from rota.mechanisms.engine.log import Entry
    from rota.policies.registry import parse_policy
    from rota.report.progress import ProgressBars

    where = plan.conditions(device_of(plan.device))
    log: list[Entry] = []
    path = None if plan.output is None else Path(f"{plan.output}.partial")
    with SampleFile(path, where) as kept:  # before the model is loaded: it may be another measurement's
        engine = open_engine(where, parse_policy(plan.policy), log)
        if kept.count and not plan.json:
            typer.echo(f"{path}: going on after {kept.count:,} measurements", err=True)
        complete = True
        with settled_heap(), ProgressBars(quiet=plan.json) as bars:
            try:
                measure(
                    engine, log, kept, clock=plan.clock, rounds=plan.rounds, budget=plan.budget, most_tokens=plan.max_chunk, seed=plan.seed,
                    progress=bars.task("steps"),
                )  # fmt: skip
            except KeyboardInterrupt:
                complete = False
        limits = engine.core.limits
        sizes = {"blocks": limits.blocks, "block_size": limits.block_size, "max_len": engine.max_len}
        try:
            found = _fitted(plan, kept.fitted, kept.held_out, limits.n_layers, sizes, where)
        except InputError as error:
            if complete:
                raise
            more = f"; run the command again to go on after {kept.count:,} measurements" if path else ""
            raise InputError(f"stopped too early: {error}{more}") from None
        if complete:
            kept.remove()
    return found, complete


def _from_logs(plan: Plan) -> Measured:
    """What the engine of these logs cost."""
    from rota.catalog import load_model
    from rota.mechanisms.engine.calibrate import split
    from rota.mechanisms.engine.loading import chosen_dtypes
    from rota.mechanisms.engine.log import read_log
    from rota.mechanisms.engine.step_times import samples_of

    shape = load_model(plan.folder / "config.json")
    device = "cpu" if plan.device == "auto" else plan.device
    where = plan.conditions(device) | {"logs": [str(Path(log).resolve()) for log in plan.logs]}
    samples = [sample for log in plan.logs for sample in samples_of(read_log(Path(log)))]
    _, kept = chosen_dtypes(plan.dtype, plan.kv_cache_dtype, plan.weight_format, device)
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * BYTES[kept]
    sizes = {
        "blocks": where["kv_bytes"] // (per_token * plan.block_size), "block_size": plan.block_size,
        "max_len": min(shape.max_len, plan.max_model_len or shape.max_len),
    }  # fmt: skip
    return _fitted(plan, *split(samples, plan.seed), shape.layers, sizes, where)


def _fitted(
    plan: Plan, fitted: Sequence[StepSample], held_out: Sequence[StepSample], n_layers: int, sizes: dict[str, int], where: dict[str, Any]
) -> Measured:
    from rota.cost.measured import Measured
    from rota.cost.steps import fit_steps

    return Measured(plan.folder.resolve().name, fit_steps(fitted, held_out, n_layers), **sizes, conditions=where)


def _tell(plan: Plan, found: Measured, complete: bool) -> None:
    fit = found.fit
    if plan.json:
        print_json({
            "model": found.model, "source": "measured", "checks": [check._asdict() for check in fit.checks], "rates": fit.rates,
            "conditions": found.conditions, "complete": complete, "path": plan.output,
        })  # fmt: skip
        return
    typer.echo(f"{found.label}, {found.clock} time" + ("" if complete else "; stopped before all was measured"))
    print_rows([
        {"steps": check.kind, "held out": check.steps, "mean error": f"{check.error:.1%}", "p90": f"{check.p90:.1%}"} for check in fit.checks
    ])  # fmt: skip
    if not fit.checks:
        typer.echo("No step was held out, so nobody knows how far off this is; measure longer")
    per_step = f"{fit.rates['cpu'] * 1e6:,.0f} us a step and {fit.rates['cpu_per_seq'] * 1e6:,.0f} us a sequence beside the layers"
    typer.echo(f"A layer of one token {fit.layer[0] * 1e6:,.0f} us, of {fit.knots[-1]:,} {fit.layer[-1] * 1e6:,.0f} us; {per_step}")
    if plan.output is not None:
        again = "" if complete else f"; the same command goes on from {plan.output}.partial"
        typer.echo(f"Costs: {plan.output} (use with --costs {plan.output}){again}")


def _machine() -> str:
    """The processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
