"""Policies that remember survive being saved and restored at any time, and remember no more after many requests than after few."""

import pickle

import numpy as np
import pytest

from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy, policy_names
from rota.workload.trace import Trace
from tests.policies.snapshot import Snapshot
from tests.simulator.test_modes import assert_same

#: Not here: oracles, which know the whole trace, and planners of whole jobs (tests/policies/test_batchllm.py).
REMEMBERING = [
    name for name in policy_names()
    if (p := make_policy(name)).follows and "oracle" not in p.requires and not hasattr(p, "prepare")
]  # fmt: skip
#: Requests after which all windows are full.
FULL = {"continuum": 5000}


#: A limit that the load stays within: what it keeps waiting, it has to remember.
OPTIONS = {"rate-limit": dict(requests_per_minute=100_000)}


def engine(blocks=400):
    n = np.arange(400)
    tables = StepTables(layer=np.where(n > 0, 2e-4 + 2e-6 * n, 0.0), head=n[:200] * 1e-6, n_layers=4, decode_byte_s=1e-9, prefill_flop_s=1e-9)
    return EngineSpec(tables=tables, blocks=blocks, block_size=4, max_len=400)


def agents(n, seed=0):
    """Turns of programs, five each, of four tenants; about half of what the engine carries."""
    rng = np.random.default_rng(seed)
    program, turn = np.divmod(np.arange(n), 5)
    added, output = rng.integers(5, 30, n), rng.integers(2, 25, n)
    said = np.cumsum(added + output)
    begin = np.where(program > 0, said[np.maximum(program * 5 - 1, 0)], 0)
    prompt = said - output - begin
    runs = -(-(prompt + output) // 4)
    start = np.concatenate([[0], np.cumsum(runs)])
    ids = np.concatenate([1000 * p + np.arange(r) for p, r in zip(program, runs, strict=True)])
    arrival = np.cumsum(rng.exponential(0.08, n // 5 + 1))[program]
    return Trace(
        arrival=arrival, prompt=prompt, output=output, max_new=output + rng.integers(0, 50, n), tenant=program % 4, program=program,
        tool=np.where(turn == 4, -1, rng.integers(0, 3, n)), tools=("a", "b", "c"), after=np.where(turn == 0, -1, np.arange(n) - 1),
        delay=np.where(turn == 0, 0.0, rng.exponential(0.05, n)), hash_ids=ids, hash_start=start, hash_block=4,
    )  # fmt: skip


class Weighed:
    """A policy whose size is taken every so many decisions."""

    def __init__(self, policy, every):
        self.__dict__.update(inner=policy, every=every, asked=0, most=0)

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    def __deepcopy__(self, memo):
        return self

    def start(self, limits):
        self.__dict__["inner"].start(limits)

    def plan(self, view):
        plan = self.__dict__["inner"].plan(view)
        self.__dict__["asked"] += 1
        if self.__dict__["asked"] % self.__dict__["every"] == 0:
            self.__dict__["most"] = max(self.__dict__["most"], len(pickle.dumps(self.__dict__["inner"])))
        return plan


@pytest.mark.parametrize("name", REMEMBERING)
def test_saving_and_restoring_before_every_decision_changes_nothing(name):
    trace = agents(200)
    run = simulate(trace, make_policy(name), engine())
    assert_same(run, simulate(trace, Snapshot(make_policy(name)), engine()), name)


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_is_remembered_does_not_grow_with_requests(name):
    sizes = []
    first = FULL.get(name, 1500)
    for n in (first, 4 * first):
        policy = Weighed(make_policy(name, **OPTIONS.get(name, {})), every=50)
        simulate(agents(n, seed=1), policy, engine())
        sizes.append(policy.most)
    assert sizes[1] < 1.5 * sizes[0] + 500
