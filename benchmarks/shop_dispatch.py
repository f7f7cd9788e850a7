"""Operations that the shop simulator dispatches per second: `python benchmarks/shop_dispatch.py`. Random job shops, every machine once per job."""

from __future__ import annotations

import argparse
import time

import numpy as np

from rota.mechanisms.shop.compiled import Columns, run_columns
from rota.mechanisms.shop.simulator import Simulator
from rota.policies.dispatch.online import make_rule
from rota.workload.shop.build import job_shop
from rota.workload.shop.realization import Realization


def shop(jobs: int, machines: int, blocking: bool, breakdowns: bool) -> Columns:
    """A random shop as arrays, durations 1 to 99; with `breakdowns`, machines are down a tenth of the time."""
    rng = np.random.default_rng(0)
    machine = np.concatenate([rng.permutation(machines) for _ in range(jobs)]).astype(np.int64)
    duration = rng.integers(1, 100, jobs * machines)
    stops = 5 * jobs * machines // 100 if breakdowns else 0
    begin = np.sort(rng.choice(100 * max(jobs, machines) // 50, (machines, stops // machines)), axis=1) * 50
    begin = begin + np.arange(begin.shape[1]) * 500
    down = np.stack([begin, begin + 50], axis=-1).reshape(-1, 2).astype(np.int64)
    first = np.arange(jobs + 1, dtype=np.int64) * machines
    return Columns(
        np.arange(jobs * machines), first, machine, duration, duration, np.zeros(jobs, np.int64), np.full(jobs, np.inf),
        np.arange(machines + 1, dtype=np.int64) * begin.shape[1], down, blocking, False,
    )  # fmt: skip


def main() -> None:
    """Best of three per case."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--largest", type=int, default=1000, help="jobs and machines of the largest shop")
    largest = options.parse_args().largest
    cases = [
        (100, 20, False, False), (100, 100, False, False), (largest, largest, False, False), (100, 100, False, True),
        (50, 20, True, False), (200, 100, True, False),
    ]  # fmt: skip
    for rule in ("FIFO", "MWKR"):
        for blocking in (False, True):
            run_columns(shop(3, 3, blocking, False), make_rule(rule))  # compiles
        for jobs, machines, blocking, breakdowns in cases:
            columns = shop(jobs, machines, blocking, breakdowns)
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                run_columns(columns, make_rule(rule))
                seconds.append(time.perf_counter() - began)
            kind = ("blocking " if blocking else "plain ") + ("with breakdowns" if breakdowns else "")
            speed = jobs * machines / min(seconds)
            print(f"compiled     {rule:5} {jobs:5} x {machines:<5} {kind:22} {speed:12,.0f} operations/s  {min(seconds):.3f} s")
    for blocking in ("none", "swap"):
        rng = np.random.default_rng(0)
        problem = job_shop([[(int(m), int(rng.integers(1, 100))) for m in rng.permutation(20)] for _ in range(50)], 20, blocking=blocking)
        simulator = Simulator(problem, Realization())
        began = time.perf_counter()
        simulator.run(make_rule("MWKR"))
        seconds = [time.perf_counter() - began]
        print(f"interpreted  MWKR     50 x 20    {blocking:22} {1000 / seconds[0]:12,.0f} operations/s  {seconds[0]:.3f} s")


if __name__ == "__main__":
    main()
