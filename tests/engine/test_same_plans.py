"""One policy object, two mechanisms: on the cost model's clock the engine makes the simulator's plans, at the simulator's times."""

import numpy as np
import pytest
from hypothesis import given, settings

from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from tests.engine.scripted import Recording, serve
from tests.simulator.scenarios import POLICIES, scenarios

SMALL = "max_num_seqs=6,max_num_batched_tokens=24"
NAMES = [
    *(f"{name}:{','.join(f'{key}={value}' for key, value in options.items())}" for name, options in POLICIES.items()),
    f"vllm-v1:scheduling_policy=priority,{SMALL}", f"vtc:{SMALL}", f"rate-limit:{SMALL}", "past-future:max_num_seqs=6", "conservative:max_num_seqs=6",
    "aggressive:max_num_seqs=6", "lightllm:max_num_seqs=6", "composed", "program-fcfs", "continuum", "fixed-ttl", "pin-forever",
]  # fmt: skip


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(scenario=scenarios(plain=True))
def test_engine_and_simulator_make_the_same_plans(name, compress, scenario):
    simulated, real = Recording(parse_policy(name)), Recording(parse_policy(name))
    simulate(scenario.trace, simulated, scenario.engine, compress=compress, compiled=False)
    serve(scenario.trace, real, scenario.engine, compress=compress)
    assert [plan for _, plan in real.notes] == [plan for _, plan in simulated.notes]
    ours, theirs = (np.array([now for now, _ in notes]) for notes in (real.notes, simulated.notes))
    if compress:
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    else:
        assert ours.tolist() == theirs.tolist()
