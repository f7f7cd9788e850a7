"""How far the simulator is from an engine on this machine: the same trace, policy, memory and measured costs on both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from rota.catalog import load_model
from rota.cost.measured import Measured
from rota.cost.steps import predict
from rota.errors import InputError
from rota.mechanisms.client.prompts import token_prompts
from rota.mechanisms.engine.calibrate import open_engine
from rota.mechanisms.engine.drive import Drive, check_lengths
from rota.mechanisms.engine.log import Entry
from rota.mechanisms.engine.step_times import samples_of
from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from rota.results.run import Run
from rota.results.summary import summarise
from rota.workload.trace import Trace

METRICS = ("ttft", "tbt", "e2e")
STATS = ("mean", "p50", "p90", "p99")
THROUGHPUT = "output_throughput"
#: Policies whose measured figures differ by less than this share are not ranked: another run may order them otherwise.
TIE = 0.05


class Cell(NamedTuple):
    """One figure, as simulated and as measured; seconds, or tokens/s for `THROUGHPUT`."""

    metric: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1 if self.measured else math.nan


@dataclass(frozen=True, slots=True)
class Pair:
    """A policy on a trace, simulated and measured.

    Parameters
    ----------
    policy : str
    predicted, measured : Run
    step_ratio : float
        Time that the engine's steps took in all, over what the costs say of these very steps: how far the costs are off, or the machine is
        from what it was. What is left of an error beside it is the simulator's.
    """

    policy: str
    predicted: Run
    measured: Run
    step_ratio: float

    def cells(self, metrics: Sequence[str] = METRICS, stats: Sequence[str] = STATS) -> list[Cell]:
        """Figures side by side."""
        return cells(self.predicted, self.measured, metrics, stats)


def cells(predicted: Run, measured: Run, metrics: Sequence[str] = METRICS, stats: Sequence[str] = STATS) -> list[Cell]:
    """Figures of two runs of one trace side by side, throughput last."""
    mine, theirs = summarise(predicted), summarise(measured)
    names = [f"{metric}_{stat}" for metric in metrics for stat in stats] + [THROUGHPUT]
    return [Cell(name, mine[name], theirs[name]) for name in names]


def settings_of(folder: Path | None, costs: Measured | None, clock: str | None, threads: int) -> dict[str, Any]:
    """The conditions for an engine: those under which `costs` were measured, or the usual ones."""
    if costs is None:
        from rota.mechanisms.engine.loading import device_of

        return {
            "model_dir": str(folder), "device": device_of("auto"), "threads": threads, "dtype": "auto", "weight_format": "plain",
            "kv_bytes": 1 << 30, "block_size": 16, "max_model_len": None, "clock": clock or "wall",
        }  # fmt: skip
    if clock not in (None, costs.clock):
        raise InputError(f"--clock {clock} does not go with costs of {costs.clock} time; leave it out, or calibrate with --clock {clock}")
    missing = {"model_dir", "device", "threads", "dtype", "weight_format", "kv_bytes", "block_size", "max_model_len"} - set(costs.conditions)
    if missing:
        raise InputError(f"the costs do not say {', '.join(sorted(missing))} of the engine; calibrate again")
    if folder is not None and load_model(folder / "config.json").layers != costs.fit.n_layers:
        raise InputError(f"{folder}: has other layers than the {costs.fit.n_layers} of the model that the costs are of; calibrate it")
    return costs.conditions | {"clock": costs.clock} | ({} if folder is None else {"model_dir": str(folder)})


class Measurement:
    """A trace on its way through an engine of this process.

    Parameters
    ----------
    settings : mapping
        See `settings_of`.
    trace : Trace
    policy : str
    seed : int
        Of the tokens.
    source : callable, optional
        Seconds, instead of the clock that the settings name.

    Raises
    ------
    InputError, UnsupportedPolicy
        If the model cannot be loaded, or the policy or the trace are not for this engine.
    """

    def __init__(
        self, settings: Mapping[str, Any], trace: Trace, policy: str, *, seed: int = 0, source: Callable[[], float] | None = None
    ) -> None:
        self.log: list[Entry] = []
        self.engine = open_engine(settings, parse_policy(policy), self.log, source)
        check_lengths(self.engine, trace)
        tokens = token_prompts(trace, self.engine.runner.vocab, seed)
        self.drive = Drive(self.engine, trace, lambda row: [int(token) for token in tokens(row)])
        self._policy, self._name = policy, Path(settings["model_dir"]).resolve().name
        self._meta = {"source": "measured", "seed": seed, "replicas": 1, "complete": True} | {
            key: settings[key] for key in ("clock", "device", "dtype", "threads")
        }

    def run(self) -> Run:
        """What was measured."""
        return self.drive.measured(self._policy, f"{self._name} in this process", self._meta, self.log)

    def pair(self, costs: Measured, predicted: Run) -> Pair:
        """Beside what was predicted."""
        return Pair(self._policy, predicted, self.run(), step_ratio(self.log, costs))


def predicted(costs: Measured, trace: Trace, policy: str, seed: int = 0) -> Run:
    """The same in the simulator."""
    chosen = parse_policy(policy)
    return replace(simulate(trace, chosen, costs.engine(chosen.max_step_tokens), seed=seed), policy=policy)


def step_ratio(log: Sequence[Entry], costs: Measured) -> float:
    """Seconds that the steps of a log took, over those that the costs say of them."""
    known = [sample for sample in samples_of(log) if sample.around == sample.around]
    if not known:
        return math.nan
    return sum(s.seconds + s.around for s in known) / sum(predict(costs.fit, s) for s in known)


class Ranking(NamedTuple):
    """Pairs of policies that differ in a measured figure, and those of them that the simulator orders alike."""

    pairs: int
    right: int


def ranking(sides: Sequence[Sequence[Sequence[Cell]]]) -> Ranking:
    """How well the simulator ranks the policies of one load over all figures but throughput: for each policy the cells of every repetition.

    A pair counts where all repetitions differ by more than `TIE`, and in the same direction.
    """
    found = [
        [{cell.metric: cell for cell in cells if cell.metric != THROUGHPUT} for cells in repetitions] for repetitions in sides
    ]  # fmt: skip
    total = right = 0
    for first, second in combinations(found, 2):
        for name in first[0]:
            apart = [a[name].measured / b[name].measured - 1 for a, b in zip(first, second, strict=True)]
            if min(apart) > TIE or max(apart) < -TIE:
                total += 1
                right += (first[0][name].predicted > second[0][name].predicted) == (apart[0] > 0)
    return Ranking(total, right)
