"""One policy object, two mechanisms: on the cost model's clock the engine makes the simulator's plans, at the simulator's times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from tests.engine.schedules import RandomPolicy
from tests.engine.scripted import Recording, serve
from tests.simulator.scenarios import POLICIES, scenarios
from tests.simulator.test_swap import hosted

SMALL = "max_num_seqs=6,max_num_batched_tokens=24"
NAMES = [
    *(f"{name}:{','.join(f'{key}={value}' for key, value in options.items())}" for name, options in POLICIES.items()),
    f"vllm-v1:scheduling_policy=priority,{SMALL}", f"vtc:{SMALL}", f"rate-limit:{SMALL}", "past-future:max_num_seqs=6", "conservative:max_num_seqs=6",
    "aggressive:max_num_seqs=6", "lightllm:max_num_seqs=6", "composed", "program-fcfs", "continuum", "fixed-ttl", "pin-forever",
    "vllm-v0:preemption=swap,max_num_seqs=6,max_num_batched_tokens=128",
]  # fmt: skip


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(scenario=scenarios(plain=True))
def test_engine_and_simulator_make_the_same_plans(name, compress, scenario):
    compare(scenario.trace, parse_policy(name), hosted(scenario.engine, 12), compress)


@pytest.mark.parametrize("caching", [False, True])
@settings(max_examples=40)
@given(scenario=scenarios(plain=True), seed=st.integers(0, 2**32 - 1), blocks=st.sampled_from([2, 30]))
def test_random_swaps_are_the_same_in_both(caching, scenario, seed, blocks):
    compare(scenario.trace, RandomPolicy(seed, caching, swaps=True), hosted(scenario.engine, blocks), False)


def compare(trace, policy, spec, compress):
    simulated, real = Recording(policy), Recording(policy)
    simulate(trace, simulated, spec, compress=compress, compiled=False)
    serve(trace, real, spec, compress=compress)
    assert [plan for _, plan in real.notes] == [plan for _, plan in simulated.notes]
    ours, theirs = (np.array([now for now, _ in notes]) for notes in (real.notes, simulated.notes))
    if compress:
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    else:
        assert ours.tolist() == theirs.tolist()
