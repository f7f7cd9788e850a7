"""``python -m rota.warmup``: compile what Numba will need, once at install, so that the first command does not wait for it.

Runs a few requests through every policy, interpreted and compiled, alone and behind a router, and small shops through every solver.
Numba keeps the machine code beside the sources.
"""

from __future__ import annotations

import numpy as np


def warm_up() -> int:
    """Compile the kernels of the simulator and of all policies; returns how many policies ran."""
    from rota.cost.engine import EngineSpec
    from rota.cost.tables import StepTables
    from rota.errors import UnsupportedPolicy
    from rota.mechanisms.simulator import simulate
    from rota.policies.registry import make_policy, policy_names
    from rota.studies.dispatch import warm_up as shop_simulator
    from rota.workload.trace import Trace

    shop_simulator()
    n = 8
    length = np.full(n, 40, dtype=np.int64)
    ids = np.tile(np.arange(3, dtype=np.int64), n)
    trace = Trace(
        np.arange(n, dtype=np.float64) / 100, length, length, hash_ids=ids, hash_start=np.arange(0, 3 * n + 1, 3), hash_block=16, name="warm-up"
    )
    tables = StepTables(layer=np.linspace(0, 1e-3, 64), head=np.linspace(0, 1e-4, 64), n_layers=16, decode_byte_s=1e-9, cpu=1e-3)
    # room for a few requests only, so that preemption is compiled too
    engine = EngineSpec(tables, blocks=24, max_len=128, host_blocks=60)
    names = policy_names()
    at_once = trace.with_columns(arrival=np.zeros(n))
    for name in names:
        for compiled in (True, False):
            for replicas, router in ((1, "round-robin"), (2, "least-outstanding")):
                try:
                    policy = make_policy(name)
                    work = at_once if hasattr(policy, "prepare") else trace
                    simulate(work, policy, engine, replicas=replicas, router=router, compiled=compiled, log=True)
                except UnsupportedPolicy:
                    continue
    return len(names)


def warm_up_shops() -> int:
    """Compile the kernels of the solvers of shops, projects and single machines; returns how many solvers ran."""
    from rota.contracts.shop import Budget
    from rota.errors import UnsupportedPolicy
    from rota.mechanisms.shop.propagation import Propagation
    from rota.policies.dispatch.ordering import make_ordering
    from rota.policies.solvers.registry import make_solver, solver_names
    from rota.workload.shop.build import due_jobs, job_shop, project, single_machine

    rng = np.random.default_rng(0)
    jobs = [list(zip(rng.permutation(6).tolist(), rng.integers(1, 10, 6).tolist(), strict=True)) for _ in range(6)]
    problems = [
        job_shop(jobs, 6),
        job_shop(jobs, 6, blocking="swap"),
        project([[(3, [1])], [(2, [2])], [(4, [1])]], [2], [], [(0, 2)], first=0),
        single_machine(due_jobs([1, 2, 3, 4]), [3, 1, 4, 2]),
    ]
    for name in solver_names():
        for problem in problems:
            try:
                make_solver(name).solve(problem, Budget(0.1, 1))
            except UnsupportedPolicy:
                continue
    Propagation(problems[0]).run(make_ordering("FIFO"))
    return len(solver_names())


if __name__ == "__main__":
    import time

    began = time.perf_counter()
    print(f"rota: kernels of {warm_up()} policies and {warm_up_shops()} solvers ready after {time.perf_counter() - began:.1f} s")
