"""A log holds all that a policy's plans depend on: asked again from it, a fresh policy plans the same; and so does the simulator."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.cost.model import CostModel
from rota.errors import InputError
from rota.mechanisms.engine import Engine, ModelClock, SamplingParams
from rota.mechanisms.engine.log import Planned, Stepped, read_log, write_log
from rota.mechanisms.engine.replay import as_trace, replay
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from tests.engine.scripted import Recording, ScriptedRunner, serve
from tests.simulator.scenarios import POLICIES, scenarios
from tests.simulator.test_swap import OPTIONS

NAMES = ["sarathi", "vllm-v1", "orca", "layered", "static", "vtc", "past-future", "vllm-v0"]


def logged(scenario, policy, seed):
    """A run in which some clients hang up at random, and its log."""
    trace, spec = scenario.trace, scenario.engine
    rng, log = np.random.default_rng(seed), []
    runner = ScriptedRunner(trace, spec.tables.n_layers)
    engine = Engine(runner, policy, blocks=spec.blocks, block_size=spec.block_size, clock=ModelClock(spec.tables), log=log, host_blocks=12)
    leaving = {}
    for i in range(len(trace)):
        engine.add_request(runner.streams[i][: trace.prompt[i]], SamplingParams(), arrival=float(trace.arrival[i]), tenant=i % 3)
        if rng.random() < 0.3:
            leaving[i] = int(rng.integers(0, 40))
    steps, outputs = 0, []
    while engine.has_work:
        for sid in [sid for sid, step in leaving.items() if step == steps]:
            engine.cancel(sid)
        outputs += engine.step()
        steps += 1
    assert engine.core.pool.free == spec.blocks
    assert engine.core.pool.host_free == engine.core.pool.host_blocks
    assert {o.sid for o in outputs if o.finish} == set(range(len(trace)))
    return log


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(scenario=scenarios(plain=True), seed=st.integers(0, 10**6))
def test_a_fresh_policy_makes_the_same_plans_from_the_log(name, scenario, seed, tmp_path_factory):
    spec = scenario.engine
    policy = make_policy(name, **(OPTIONS if name == "vllm-v0" else POLICIES.get(name, {})))
    log = logged(scenario, policy, seed)
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write_log(log, path)
    entries = list(read_log(path))
    assert entries == log
    sizes = dict(n_layers=spec.tables.n_layers, blocks=spec.blocks, block_size=spec.block_size, max_len=160)
    sizes |= dict(host_blocks=12 if name == "vllm-v0" else 0)
    assert replay(entries, policy, **sizes) == [entry.plan for entry in log if isinstance(entry, Planned)]


@pytest.mark.parametrize("name", ["sarathi", "vllm-v1"])
@settings(max_examples=25)
@given(scenario=scenarios(plain=True))
def test_the_simulator_makes_the_same_plans_for_the_log_as_a_trace(name, scenario):
    log = []
    policy = make_policy(name, **POLICIES[name])
    serve(scenario.trace, policy, scenario.engine, log=log)
    recorded = Recording(policy)
    simulate(as_trace(log, scenario.engine.block_size), recorded, scenario.engine, compiled=False)
    assert [plan for _, plan in recorded.notes] == [entry.plan for entry in log if isinstance(entry, Planned)]


def test_a_line_that_is_no_entry_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('["cancelled", 1.0, 3]\n["slept", 2.0]\n')
    with pytest.raises(InputError, match=r"log.jsonl: line 2"):
        list(read_log(path))


@settings(max_examples=20)
@given(scenario=scenarios(plain=True))
def test_what_a_log_says_of_steps_is_all_that_a_cost_model_asks(scenario):
    log, tables = [], scenario.engine.tables
    serve(scenario.trace, make_policy("sarathi", **POLICIES["sarathi"]), scenario.engine, log=log)
    costs = CostModel(replace(tables, noise=0.0))
    for entry in log:
        if isinstance(entry, Stepped) and tables.noise == 0.0:
            assert entry.layers in ((0, tables.n_layers), (0, 0))
            seconds = costs.step_seconds(entry.decodes, entry.context, entry.chunks, entry.emitted)
            assert entry.time - entry.start == pytest.approx(seconds, rel=1e-9)
