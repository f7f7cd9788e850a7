"""How far the simulator is from the engine, on this machine: three policies on a mixed trace at three loads.

    python benchmarks/fidelity.py MODEL_DIR [--requests 300] [--clock cpu|wall] [--turn SECONDS] [--json FILE]

One thread. Time is CPU time unless --clock wall: what other programs take of the machine does not count, though they share its caches and
its memory. A machine with other work is also faster now and slower then; so calibration and runs take turns of a quarter of a second, and
all see the same machine on average. --turn 0 lets one follow the other, as on an idle machine. Before anything is measured, steps of every
number of tokens are computed once, and oneDNN is told to keep what it prepares for each. A step ratio is what the steps of a run took over
what the costs say of these very steps. Bars: median error of mean and P90 of TTFT, TBT and E2E within 10%, the worst within 20%, and
policies that differ by more than 5% ranked as measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rota.cost.measured import Measured
from rota.cost.step_samples import SampleFile
from rota.cost.steps import StepFit, fit_steps
from rota.mechanisms.engine.calibrate import CLOCKS, open_engine, sweep_of, turns
from rota.mechanisms.engine.log import Entry
from rota.policies.registry import parse_policy
from rota.studies.fidelity import METRICS, Measurement, predicted, ranking
from rota.workload import load_trace
from rota.workload.trace import Trace

# oneDNN keeps 1024 matrix products ready, five for every number of tokens; a mixed trace soon needs more, and every miss takes milliseconds.
# More of them take 0.6 MB each, which is why this is no default of the engine.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

POLICIES = ("sarathi:max_num_batched_tokens=256", "vllm-v1", "layered")
#: Share of the rate at which the engine is busy all the time.
LOADS = (0.4, 0.65, 0.85)
STATS = ("mean", "p90")
MEDIAN, WORST = 0.10, 0.20
#: Short chats and long documents: heavy tails.
TRACE = "poisson:rate={rate:.4g},prompt=100/400,output=20/60,max_total=1024"
#: A calibration takes about so much longer than a run; its turns are longer by as much, so that it ends when they end.
LONGER = 3.0
CHUNK, ROUNDS, KV_BYTES = 1024, 5, 192 << 20


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


def calibration(settings: dict[str, Any], watch: Stopwatch, rounds: int) -> tuple[Iterator[Any], Callable[[], StepFit]]:
    """The steps of a calibration, and what comes of them."""
    log: list[Entry] = []
    engine = open_engine(settings, parse_policy(POLICIES[0]), log, watch)
    kept = SampleFile(None, {})
    steps = turns(engine, log, kept, clock=settings["clock"], rounds=rounds, budget=1e9, most_tokens=CHUNK, seed=0)
    return steps, lambda: fit_steps(kept.fitted, kept.held_out, engine.core.limits.n_layers)


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
    parser.add_argument("--turn", type=float, default=0.25)
    parser.add_argument("--json")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "model_dir": options.model, "device": "cpu", "threads": 1, "dtype": "float32", "weight_format": "plain", "kv_bytes": KV_BYTES,
        "block_size": 16, "max_model_len": None, "clock": options.clock,
    }  # fmt: skip
    source = CLOCKS[options.clock]
    sweep_of(open_engine(settings, parse_policy(POLICIES[0]), []), options.clock, CHUNK).warm_up()
    watch = Stopwatch(source)
    rough, fit = calibration(settings, watch, 1)  # to know what a load is
    take_turns([(watch, rough, 1.0)], 0.0)
    full = capacity(costs_of(settings, fit()), options.requests)
    traces = {load: load_trace(TRACE.format(rate=load * full), limit=options.requests, seed=2) for load in LOADS}
    print(f"busy all the time at {full:.1f} requests/s; {options.requests} requests a run; {options.clock} time", flush=True)
    watch = Stopwatch(source)
    steps, fit = calibration(settings, watch, ROUNDS)
    work = [(watch, steps, LONGER)]
    runs: dict[tuple[float, str], Measurement] = {}
    for load, trace in traces.items():
        for policy in POLICIES:
            watch = Stopwatch(source)
            runs[load, policy] = Measurement(settings, trace, policy, source=watch)
            work.append((watch, runs[load, policy].drive.steps(), 1.0))
    gc.freeze()
    take_turns(work, options.turn)
    costs = costs_of(settings, fit())
    for check in costs.fit.checks:
        print(f"calibration: {check.kind} steps, {check.steps} held out, error {check.error:.1%}, p90 {check.p90:.1%}")
    return report(costs, traces, runs, options.json)


def report(costs: Measured, traces: dict[float, Trace], runs: dict[tuple[float, str], Measurement], path: str | None) -> int:
    """Print what was found, and whether it meets the bars."""
    errors: list[float] = []
    rows, pairs_all, right_all = [], 0, 0
    for load, trace in traces.items():
        pairs = [runs[load, policy].pair(costs, predicted(costs, trace, policy)) for policy in POLICIES]
        for pair in pairs:
            cells = pair.cells(METRICS, STATS)
            errors += [abs(cell.error) for cell in cells[:-1]]
            rows.append({
                "load": load, "policy": pair.policy, "step_ratio": pair.step_ratio,
                "cells": {cell.metric: [cell.predicted, cell.measured, cell.error] for cell in cells},
            })  # fmt: skip
            shown = "  ".join(f"{c.metric} {c.measured * 1e3:,.1f} ms {c.error:+.1%}" for c in cells[:-1])
            print(f"load {load:.2f} {pair.policy.partition(':')[0]:8} steps {pair.step_ratio:.3f}x  {shown}  tokens/s {cells[-1].error:+.1%}")
        found = ranking(pairs, METRICS, STATS)
        pairs_all, right_all = pairs_all + found.pairs, right_all + found.right
        print(f"load {load:.2f} ranking: {found.right} of {found.pairs} pairs that differ by more than 5% are in the right order")
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
