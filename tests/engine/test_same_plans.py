"""One policy object, two mechanisms: on the cost model's clock the engine makes the simulator's plans, at the simulator's times."""

import numpy as np
import pytest
from hypothesis import given, settings

from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from tests.engine.scripted import Recording, serve
from tests.simulator.scenarios import POLICIES, scenarios


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["sarathi", "vllm-v1", "orca", "layered", "static", "orca-paged", "vllm-v0", "flover", "sarathi-dynamic"])
@settings(max_examples=40)
@given(scenario=scenarios(plain=True))
def test_engine_and_simulator_make_the_same_plans(name, compress, scenario):
    options = POLICIES[name]
    simulated, real = Recording(make_policy(name, **options)), Recording(make_policy(name, **options))
    simulate(scenario.trace, simulated, scenario.engine, compress=compress, compiled=False)
    serve(scenario.trace, real, scenario.engine, compress=compress)
    assert [plan for _, plan in real.notes] == [plan for _, plan in simulated.notes]
    ours, theirs = (np.array([now for now, _ in notes]) for notes in (real.notes, simulated.notes))
    if compress:
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    else:
        assert ours.tolist() == theirs.tolist()
