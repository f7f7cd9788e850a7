"""Dispatch rules in blocking job shops with swaps, as mean % over the best known makespan: `python benchmarks/shop_blocking_rules.py FOLDER`.

FOLDER has classic.jsonl and bounds_blocking_swap_makespan.csv; la01 to la40 are run, at several probabilities that an operation is
interrupted for U(1, 99) ticks. RANDOM is asked operation by operation and runs interpreted, so it has one seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rota.policies.dispatch.online import make_rule, rule_names
from rota.studies.dispatch import run_rule
from rota.workload.shop.load import load_problem
from rota.workload.shop.realization import draw
from rota.workload.shop.sets import read_bounds


def main() -> None:
    """One row per rule, one column per probability."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--probabilities", type=float, nargs="+", default=[0.0, 0.05, 0.1, 0.2])
    given = options.parse_args()
    best = read_bounds(given.folder / "bounds_blocking_swap_makespan.csv")
    problems = [load_problem(f"{given.folder / 'classic.jsonl'}#la{k:02d}", blocking="swap") for k in range(1, 41)]
    print("| rule |" + "".join(f" {p:g} |" for p in given.probabilities) + " rotations |")
    for name in [rule for rule in rule_names() if rule != "EDD"]:
        cells, rotations = [], []
        for probability in given.probabilities:
            seeds = range(1 if not probability or name == "RANDOM" else given.seeds)
            over = []
            for problem in problems:
                known = best[problem.name].ub
                assert known is not None
                for seed in seeds:
                    run = run_rule(problem, make_rule(name, seed), draw(problem, seed, interruptions=probability))
                    over.append(100 * (run.makespan / known - 1))
                    rotations.append(run.rotations)
            cells.append(f" {np.mean(over):.1f} |")
        print(f"| {name} |" + "".join(cells) + f" {np.mean(rotations):.0f} |", flush=True)


if __name__ == "__main__":
    main()
