"""The simulator against the independent plain-Python one, request by request, over random scenarios."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from tests.oracle.oracle import simulate_oracle
from tests.simulator.programs import problems
from tests.simulator.scenarios import POLICIES, scenarios
from tests.simulator.test_modes import assert_same

CASES = {name: (name, options) for name, options in POLICIES.items() if name != "sarathi-dynamic"}
V1 = POLICIES["vllm-v1"]
CASES |= {
    "vllm-v1 no cache": ("vllm-v1", V1 | {"enable_prefix_caching": False}),
    "vllm-v1 priority": ("vllm-v1", V1 | {"scheduling_policy": "priority"}),
    "vllm-v1 long prompts": ("vllm-v1", V1 | {"long_prefill_token_threshold": 10}),
    "vllm-v1 long prompts no cache": ("vllm-v1", V1 | {"long_prefill_token_threshold": 7, "enable_prefix_caching": False}),
    "static padded": ("static", POLICIES["static"] | {"padded": True}),
}

ORACLE = settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,))


@pytest.mark.parametrize("case", CASES)
@ORACLE
@given(scenario=scenarios())
def test_every_request_is_served_as_the_oracle_serves_it(case, scenario):
    name, options = CASES[case]
    engine = replace(scenario.engine, tables=replace(scenario.engine.tables, noise=0.0))
    if engine.pp > 1 and (name == "layered" or "padded" in options):
        engine = replace(engine, pp=1, tables=replace(engine.tables, stages=1))
    router = "round-robin" if scenario.router == "random" else scenario.router
    ours = simulate(scenario.trace, make_policy(name, **options), engine, replicas=scenario.replicas, router=router)
    theirs = simulate_oracle(scenario.trace, name, options, engine, scenario.replicas, router)
    compare(ours, theirs)


@pytest.mark.parametrize("copies", [1, 4, 30])
@ORACLE
@given(problem=problems())
def test_copies_in_host_memory_are_found_as_by_a_plain_lru(copies, problem):
    trace, engine = problem
    engine = replace(engine, tables=replace(engine.tables, noise=0.0), offload_blocks=copies, reload=1.3e-5)
    policy = make_policy("vllm-v1", **V1)
    ours, theirs = simulate(trace, policy, engine), simulate_oracle(trace, "vllm-v1", V1, engine)
    compare(ours, theirs)
    assert ours.totals["reloaded_tokens"] == sum(e.blocks.loaded for e in theirs["engines"]) * engine.block_size
    assert_same(ours, simulate(trace, policy, engine, compress=False, compiled=False), "modes")


def compare(ours, theirs):
    for column in ("replica", "preemptions", "recomputed", "cached", "rejected"):
        np.testing.assert_array_equal(getattr(ours, column), theirs[column], err_msg=column)
    for column in ("arrival", "first_scheduled", "first_token", "finish", "max_tbt"):
        np.testing.assert_allclose(getattr(ours, column), theirs[column], rtol=1e-9, atol=1e-12, err_msg=column)
    assert ours.tbt_histogram.sum() == sum(len(gaps) for gaps in theirs["gaps"])
