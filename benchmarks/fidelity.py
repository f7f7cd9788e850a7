"""How far the simulator is from the engine, on this machine: three policies on a mixed trace at three loads.

    python benchmarks/fidelity.py MODEL_DIR [--costs FILE] [--requests 300] [--json FILE]

Without costs the engine is measured first (as rota calibrate does). One thread; time is CPU time unless --clock wall, so that other
programs on the machine do not count: what is measured then is the engine alone, nearly as it would be on an idle machine (caches and
memory are shared all the same). A step ratio says what the steps of a run took over what the costs say of these very steps.
The bars: median error of mean and P90 of TTFT, TBT and E2E within 10%, the worst within 20%, and policies ranked as measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rota.cli.main import run as rota
from rota.cost.measured import Measured, read_costs
from rota.studies.fidelity import METRICS, Pair, measure, predicted, ranking, settings_of
from rota.workload import load_trace

POLICIES = ("sarathi:max_num_batched_tokens=256", "vllm-v1", "layered")
#: Share of the rate at which the engine is busy all the time.
LOADS = (0.4, 0.65, 0.9)
STATS = ("mean", "p90")
#: Steps of up to so many tokens are computed once before anything is measured, as if the engine had been up for a while.
WARM = 320
MEDIAN, WORST = 0.10, 0.20
#: Short chats and long documents: heavy tails.
MIX = "prompt=100/400,output=20/60,max_total=1024"


def capacity(costs: Measured, n: int, text: str) -> float:
    """Requests per second when all arrive at once, in the simulator under the first policy."""
    job = load_trace(text.format(rate=1e6), limit=n, seed=1)
    found = predicted(costs, job, POLICIES[0])
    return n / float(found.finish.max() - found.arrival.min())


def main() -> int:
    """Run the study; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--costs")
    parser.add_argument("--clock", default="cpu", choices=("cpu", "wall"))
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--trace", default="poisson:rate={rate}," + MIX)
    parser.add_argument("--json")
    options = parser.parse_args()
    path = options.costs
    if path is None:
        path = str(Path(tempfile.mkdtemp()) / "costs.json")
        asked = ["calibrate", options.model, "--clock", options.clock, "--threads", "1", "--max-chunk", "1024", "-o", path]
        if rota(asked):
            return 2
    costs = read_costs(path)
    warm = WARM
    settings = settings_of(Path(options.model), costs, None, 1)
    full = capacity(costs, options.requests, options.trace)
    print(f"{costs.label}, {costs.clock} time; busy all the time at {full:.1f} requests/s; {options.requests} requests a run")
    errors: list[float] = []
    rows, pairs_all, right_all = [], 0, 0
    for load in LOADS:
        trace = load_trace(options.trace.format(rate=f"{load * full:.4g}"), limit=options.requests, seed=2)
        pairs = []
        for policy in POLICIES:
            began = time.monotonic()
            measured, ratio = measure(settings, trace, policy, costs=costs, warm_up=warm)
            warm = 0
            pair = Pair(policy, predicted(costs, trace, policy), measured, ratio)
            pairs.append(pair)
            cells = pair.cells(METRICS, STATS)
            errors += [abs(cell.error) for cell in cells[:-1]]
            rows.append({
                "load": load, "policy": policy, "step ratio": ratio, "seconds": time.monotonic() - began,
                "cells": {cell.metric: [cell.predicted, cell.measured, cell.error] for cell in cells},
            })  # fmt: skip
            shown = "  ".join(f"{c.metric} {c.measured * 1e3:,.1f} ms {c.error:+.1%}" for c in cells[:-1])
            print(f"load {load:.2f} {policy.partition(':')[0]:8} steps {ratio:.3f}x  {shown}  tokens/s {cells[-1].error:+.1%}", flush=True)
        found = ranking(pairs, METRICS, STATS)
        pairs_all, right_all = pairs_all + found.pairs, right_all + found.right
        print(f"load {load:.2f} ranking: {found.right} of {found.pairs} pairs that differ by more than 5% are in the right order", flush=True)
    median, worst = statistics.median(errors), max(errors)
    met = median <= MEDIAN and worst <= WORST and right_all == pairs_all
    print(f"{len(errors)} cells: median error {median:.1%} (bar {MEDIAN:.0%}), worst {worst:.1%} (bar {WORST:.0%}), "
          f"ranking {right_all} of {pairs_all}: {'met' if met else 'missed'}")  # fmt: skip
    if options.json:
        Path(options.json).write_text(json.dumps({
            "costs": costs.label, "clock": costs.clock, "capacity": full, "rows": rows, "median": median, "worst": worst,
            "pairs": pairs_all, "right": right_all,
        }, indent=1) + "\n")  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
