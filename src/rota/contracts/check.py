"""`check_policy` tells the author of a batching policy which promise it breaks.

It runs the policy through small random problems, with little memory, shared prefixes, priorities and pipelines, in a simulator
that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rota.contracts.serving import CAPABILITIES, BatchPolicy
from rota.cost.engine import EngineSpec
from rota.cost.host import HostCosts
from rota.cost.tables import StepTables
from rota.errors import PlanRejected, UnsupportedPolicy
from rota.workload.trace import Trace

_COLUMNS = ("first_scheduled", "first_token", "finish", "preemptions", "recomputed", "cached", "rejected")


def check_policy(policy: BatchPolicy, simulate: Callable[..., Any], *, seed: int = 0, problems: int = 20) -> None:
    """Drive a policy through random problems; returns if it keeps every rule in all of them.

    Parameters
    ----------
    policy : BatchPolicy
    simulate : callable
        `rota.mechanisms.simulator.simulate`, or anything that takes (trace, policy, engine, compress, compiled) and
        returns a `Run`.
    seed : int
        Of the problems.
    problems : int
        How many.

    Raises
    ------
    PlanRejected
        With the broken rule: ``attributes``, I1 to I9 as in `rota.contracts.serving`, ``served`` (a request was left behind),
        ``repeat`` (asking before every step gives other results than the plan's repetition) or ``twin`` (the compiled twin
        decides otherwise).
    """
    _check_attributes(policy)
    ran = 0
    for number in range(problems):
        rng = np.random.default_rng((seed, number))
        trace, engine = _problem(rng, policy)
        where = f"policy {policy.name}, problem {number} of seed {seed}"
        try:
            stepwise = simulate(trace, policy, engine, compress=False, compiled=False)
        except UnsupportedPolicy:
            continue
        except PlanRejected as error:
            raise PlanRejected(error.rule, f"{where}: {error}") from error
        ran += 1
        left = np.flatnonzero(~stepwise.rejected & np.isnan(stepwise.finish))
        if len(left):
            raise PlanRejected("served", f"{where}: request {left[0]} neither finished nor was rejected")
        _compare(stepwise, simulate(trace, policy, engine, compiled=False), "repeat", where)
        if hasattr(policy, "twin"):
            _compare(stepwise, simulate(trace, policy, engine), "twin", where)
    if not ran:
        raise PlanRejected("attributes", f"no problem could be run: the simulator lacks one of {sorted(policy.requires)}")


def _check_attributes(policy: object) -> None:
    faults = []
    if not isinstance(policy, BatchPolicy):
        faults.append("name, requires, order, prefix_caching, max_seqs, max_step_tokens, start and plan must all be there")
    else:
        if unknown := sorted(set(policy.requires) - CAPABILITIES):
            faults.append(f"requires names {', '.join(unknown)}, but the capabilities are {', '.join(sorted(CAPABILITIES))}")
        if policy.order not in ("fcfs", "priority"):
            faults.append(f"order must be 'fcfs' or 'priority', not {policy.order!r}")
        if policy.max_seqs < 1 or policy.max_step_tokens < 0:
            faults.append("max_seqs must be at least 1 and max_step_tokens at least 0")
    if faults:
        raise PlanRejected("attributes", f"{type(policy).__name__}: {'; '.join(faults)}")


def _problem(rng: np.random.Generator, policy: BatchPolicy) -> tuple[Trace, EngineSpec]:
    """A few requests for an engine that can hold little more than the longest of them."""
    n = int(rng.integers(2, 24))
    size = int(rng.choice([4, 8, 16]))
    prompt = rng.integers(1, int(rng.choice([12, 90])), n)
    output = np.minimum(rng.geometric(1 / rng.choice([2, 25]), n), 60)
    runs = -(-(prompt + output) // size)
    family = rng.integers(0, 3, n)
    ids = [1000 * family[i] + j if j < runs[i] // 2 else 10**6 + 1000 * i + j for i in range(n) for j in range(runs[i])]
    trace = Trace(
        arrival=np.cumsum(rng.exponential(rng.choice([1e-4, 2e-2]), n)), prompt=prompt, output=output,
        priority=rng.integers(0, 3, n), hash_ids=np.array(ids, np.int64), hash_block=size,
        hash_start=np.concatenate([[0], np.cumsum(runs)]),
    )  # fmt: skip
    pp = 1 if "layers" in policy.requires else int(rng.choice([1, 1, 2]))
    tokens = np.arange(64)
    tables = StepTables(
        layer=np.where(tokens > 0, 2e-4 + 3e-5 * tokens, 0.0), head=np.where(tokens > 0, 1e-4 + 1e-5 * tokens, 0.0),
        n_layers=4 * pp, stages=pp, decode_byte_s=1.7e-6, prefill_flop_s=4.1e-8, cpu=7e-5,
    )  # fmt: skip
    blocks = int(runs.max()) + int(rng.choice([2, 5, 200]))
    engine = EngineSpec(tables=tables, blocks=blocks, block_size=size, max_len=160, pp=pp)
    if "host_attention" not in policy.requires:
        return trace, engine
    host = HostCosts(floor=1e-5, context_s=float(rng.choice([1e-6, 2e-5])), latency=2e-6, send_s=2e-6, back_s=1e-6, kv_s=1e-6)
    return trace, replace(engine, tables=replace(tables, host=host), host_blocks=int(rng.choice([0, 9, 400])))


def _compare(expected: Any, found: Any, rule: str, where: str) -> None:
    for name in _COLUMNS:
        a, b = getattr(expected, name), getattr(found, name)
        differs = ~np.isclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
        if differs.any():
            sid = int(np.argmax(differs))
            raise PlanRejected(rule, f"{where}: {name} of request {sid} is {a[sid]} when asked before every step, but {b[sid]}")
