"""How far the simulator is from the engine, on this machine: three policies on a mixed trace at three loads.

    python benchmarks/fidelity.py MODEL_DIR [--requests 300] [--repeats 3] [--seed 2] [--clock cpu|wall] [--turn SECONDS] [--json FILE]

One thread. Time is CPU time unless --clock wall: what other programs take of the machine does not count, though they share its caches and
its memory. A machine with other work is also faster now and slower then; so calibration and runs take turns of a quarter of a second, and
all see the same machine on average. --turn 0 lets one follow the other, as on an idle machine. Every run is made several times, and what was
measured is the median: a moment in which the machine stands still delays all requests that wait, which no cost of a step foresees. Before
anything is measured, steps of every number of tokens are computed once, and oneDNN is told to keep what it prepares for each. A step ratio is
what the steps of a run took over what the costs say of these very steps. Bars: median error of mean and P90 of TTFT, TBT and E2E within 10%,
the worst within 20%, and policies that differ by more than 5% in every repetition ranked as measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rota.cost.measured import Measured
from rota.cost.step_samples import SampleFile
from rota.cost.steps import StepFit, fit_steps
from rota.mechanisms.engine.calibrate import CLOCKS, open_engine, sweep_of, turns
from rota.mechanisms.engine.heap import settled_heap
from rota.mechanisms.engine.log import Entry
from rota.policies.registry import parse_policy
from rota.results.run import Run
from rota.studies.fidelity import METRICS, Cell, Measurement, cells, predicted, ranking, step_ratio
from rota.workload import load_trace
from rota.workload.trace import Trace

# oneDNN keeps 1024 matrix products ready, five for every number of tokens; a mixed trace soon needs more, and every miss takes milliseconds.
# More of them take 0.6 MB each, which is why this is no default of the engine.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

POLICIES = ("sarathi:max_num_batched_tokens=256", "vllm-v1", "layered")
#: Share of the rate at which the engine is busy all the time.
LOADS = (0.4, 0.65, 0.85)
STATS = ("mean", "p90")
Key = tuple[float, str]  # load and policy
MEDIAN, WORST = 0.10, 0.20
#: Short chats and long documents: heavy tails.
TRACE = "poisson:rate={rate:.4g},prompt=100/400,output=20/60,max_total=1024"
#: Rounds of the calibration beside each repetition of the runs. They take about so much longer than a run; their turns are longer by as much,
#: so that they end when the runs end.
ROUNDS, LONGER = 2, 2.2
CHUNK, WARM, KV_BYTES = 1024, 2048, 192 << 20


class Stopwatch:
    """Seconds of one of several that take turns."""

    def __init__(self, source: Callable[[], float]) -> None:
        self._source, self._total, self._since = source, 0.0, -1.0

    def __call__(self) -> float:
        return self._total + (self._source() - self._since if self._since >= 0 else 0.0)

    def go_on(self) -> None:
        self._since = self._source()

    def stop(self) -> None:
        self._total, self._since = self(), -1.0


def take_turns(work: list[tuple[Stopwatch, Iterator[Any], float]], turn: float) -> None:
    """Run all to their ends, each so many seconds at a time, times its own factor."""
    while work:
        for watch, steps, factor in list(work):
            watch.go_on()
            until = watch() + turn * factor
            for _ in steps:
                if turn and watch() > until:
                    break
            else:
                work.remove((watch, steps, factor))
            watch.stop()


class Calibration:
    """A calibration that goes on for so many rounds at a time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.watch = Stopwatch(CLOCKS[settings["clock"]])
        self._clock, self._log, self._rounds, self._kept = settings["clock"], [], 0, SampleFile(None, {})
        self._engine = open_engine(settings, parse_policy(POLICIES[0]), self._log, self.watch)

    def steps(self, rounds: int) -> Iterator[Any]:
        """The steps of more rounds."""
        self._rounds += rounds
        return turns(self._engine, self._log, self._kept, clock=self._clock, rounds=self._rounds, budget=1e9, most_tokens=CHUNK, seed=0)

    def fit(self) -> StepFit:
        """What all rounds say."""
        return fit_steps(self._kept.fitted, self._kept.held_out, self._engine.core.limits.n_layers)


def costs_of(settings: dict[str, Any], fit: StepFit) -> Measured:
    """A deployment of these costs."""
    engine = open_engine(settings, parse_policy(POLICIES[0]), [])
    limits = engine.core.limits
    return Measured(Path(settings["model_dir"]).name, fit, limits.blocks, limits.block_size, engine.max_len, settings)


def capacity(costs: Measured, n: int) -> float:
    """Requests per second when all arrive at once, in the simulator under the first policy."""
    job = load_trace(TRACE.format(rate=1e6), limit=n, seed=1)
    found = predicted(costs, job, POLICIES[0])
    return n / float(found.finish.max() - found.arrival.min())


def main() -> int:
    """Run the study; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clock", default="cpu", choices=("cpu", "wall"))
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=2, help="of the traces")
    parser.add_argument("--turn", type=float, default=0.25)
    parser.add_argument("--json")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "model_dir": options.model, "device": "cpu", "threads": 1, "dtype": "float32", "weight_format": "plain", "kv_bytes": KV_BYTES,
        "block_size": 16, "max_model_len": None, "clock": options.clock,
    }  # fmt: skip
    sweep_of(open_engine(settings, parse_policy(POLICIES[0]), []), options.clock, WARM).warm_up()
    rough = Calibration(settings)  # to know what a load is
    take_turns([(rough.watch, rough.steps(1), 1.0)], 0.0)
    full = capacity(costs_of(settings, rough.fit()), options.requests)
    traces = {load: load_trace(TRACE.format(rate=load * full), limit=options.requests, seed=options.seed) for load in LOADS}
    print(f"busy all the time at {full:.1f} requests/s; {options.requests} requests a run of trace {options.seed}; {options.clock} time", flush=True)
    calibration = Calibration(settings)
    found: dict[Key, list[tuple[Run, list[Entry]]]] = {(load, policy): [] for load in LOADS for policy in POLICIES}
    for number in range(options.repeats):
        watches = {key: Stopwatch(CLOCKS[options.clock]) for key in found}
        runs = {key: Measurement(settings, traces[key[0]], key[1], source=watch) for key, watch in watches.items()}
        work = [(watches[key], run.drive.steps(), 1.0) for key, run in runs.items()]
        with settled_heap():
            take_turns([(calibration.watch, calibration.steps(ROUNDS), LONGER), *work], options.turn)
        for key, run in runs.items():
            found[key].append((run.run(), run.log))
        print(f"{number + 1} of {options.repeats} repetitions", file=sys.stderr, flush=True)
    costs = costs_of(settings, calibration.fit())
    for check in costs.fit.checks:
        print(f"calibration: {check.kind} steps, {check.steps} held out, error {check.error:.1%}, p90 {check.p90:.1%}")
    return report(costs, traces, found, options.json)


def median_cells(cells: Sequence[Sequence[Cell]]) -> list[Cell]:
    """One prediction beside the median of what was measured."""
    return [Cell(same[0].metric, same[0].predicted, statistics.median(cell.measured for cell in same)) for same in zip(*cells, strict=True)]


def report(costs: Measured, traces: dict[float, Trace], found: Mapping[Key, Sequence[tuple[Run, list[Entry]]]], path: str | None) -> int:
    """Print what was found, and whether it meets the bars."""
    errors: list[float] = []
    rows, pairs_all, right_all = [], 0, 0
    for load, trace in traces.items():
        sides = []
        for policy in POLICIES:
            foreseen = predicted(costs, trace, policy)
            sides.append([cells(foreseen, run, METRICS, STATS) for run, _ in found[load, policy]])
            middle = median_cells(sides[-1])
            ratios = [step_ratio(log, costs) for _, log in found[load, policy]]
            errors += [abs(cell.error) for cell in middle[:-1]]
            rows.append({
                "load": load, "policy": policy, "step_ratios": ratios,
                "cells": {cell.metric: [cell.predicted, cell.measured, cell.error] for cell in middle},
            })  # fmt: skip
            shown = "  ".join(f"{c.metric} {c.measured * 1e3:,.1f} ms {c.error:+.1%}" for c in middle[:-1])
            steps = "/".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"load {load:.2f} {policy.partition(':')[0]:8} steps {steps}  {shown}  tokens/s {middle[-1].error:+.1%}")
        order = ranking(sides)
        pairs_all, right_all = pairs_all + order.pairs, right_all + order.right
        print(f"load {load:.2f} ranking: {order.right} of {order.pairs} pairs that differ by more than 5% in every repetition are in the right order")
    median, worst = statistics.median(errors), max(errors)
    met = median <= MEDIAN and worst <= WORST and right_all == pairs_all
    print(f"{len(errors)} cells: median error {median:.1%} (bar {MEDIAN:.0%}), worst {worst:.1%} (bar {WORST:.0%}), "
          f"ranking {right_all} of {pairs_all}: {'met' if met else 'missed'}")  # fmt: skip
    if path:
        content = {"rows": rows, "median": median, "worst": worst, "pairs": pairs_all, "right": right_all, "conditions": costs.conditions}
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
