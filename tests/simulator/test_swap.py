"""Preemption by swap: what it costs to the last bit of a closed form, that nothing is computed twice, and that host memory is bounded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rota.contracts.serving import StepPlan, Work
from rota.cost.engine import EngineSpec
from rota.cost.host import HostCosts
from rota.cost.model import CostModel
from rota.cost.tables import StepTables
from rota.errors import PlanRejected
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from rota.workload.trace import Trace
from tests.engine.schedules import RandomPolicy
from tests.simulator.scenarios import POLICIES, scenarios
from tests.simulator.test_modes import assert_same
from tests.simulator.test_rules import Scripted

KV_S = 3e-6
TABLES = StepTables(
    layer=np.arange(65) * 1e-4, head=np.arange(9) * 1e-4, n_layers=4, decode_byte_s=1e-7, prefill_flop_s=1e-9, host=HostCosts(kv_s=KV_S)
)
SPEC = EngineSpec(tables=TABLES, blocks=16, block_size=4, max_len=64, host_blocks=4)
#: Failing scenarios are small as they are.
FEW = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,))
OPTIONS = POLICIES["vllm-v0"] | {"preemption": "swap"}


class Swapping(Scripted):
    requires = frozenset({"swap"})


def hosted(engine, blocks, kv_s=1.3e-5):
    return replace(engine, tables=replace(engine.tables, host=HostCosts(kv_s=kv_s)), host_blocks=blocks)


@pytest.mark.parametrize("swap", [False, True])
def test_one_victim_costs_its_prompt_again_or_its_bytes_twice(swap):
    """A prompt of 6 and two tokens, evicted at 7 computed ones: recompute is a prompt of 8; swap is two blocks out, two back, and one token."""
    one = Trace(arrival=np.zeros(1), prompt=np.array([6]), output=np.array([4]))
    script = [
        lambda v: StepPlan((Work(0, 6),)), lambda v: StepPlan(), lambda v: StepPlan(evict=(0,), swap=(0,) * swap),
        lambda v: StepPlan((Work(0, 1 if swap else 8),)),
    ]  # fmt: skip
    run = simulate(one, Swapping(*script), SPEC)
    cost = CostModel(TABLES)
    first, decodes = cost.step_seconds(0, 0, [(0, 6)], 1), cost.step_seconds(1, 7, []) + cost.step_seconds(1, 9, [])
    again = cost.step_seconds(0, 0, [(7, 1)], 1) + 2 * 2 * 4 * 4 * KV_S if swap else cost.step_seconds(0, 0, [(0, 8)], 1)
    assert run.finish[0] == pytest.approx(first + decodes + again, rel=1e-12)
    assert run.preemptions[0] == 1
    assert run.recomputed[0] == (0 if swap else 7)
    assert (run.totals["swapped_tokens"], run.totals["reloaded_tokens"]) == ((8, 8) if swap else (0, 0))


ADMIT = [lambda v: StepPlan((Work(0, 6),))]
BROKEN = {
    "not evicted": ("I7", [*ADMIT, lambda v: StepPlan(swap=(0,))]),
    "twice": ("I7", [*ADMIT, lambda v: StepPlan(evict=(0,), swap=(0, 0))]),
    "waiting": ("I7", [lambda v: StepPlan(evict=(0,), swap=(0,))]),
    "no room on the host": ("I4", [lambda v: StepPlan((Work(0, 6), Work(1, 6))), lambda v: StepPlan(evict=(0, 1), swap=(0, 1))]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_swap_is_rejected_by_name(case):
    rule, script = BROKEN[case]
    two = Trace(arrival=np.zeros(2), prompt=np.array([6, 6]), output=np.array([9, 9]))
    with pytest.raises(PlanRejected) as caught:
        simulate(two, Swapping(*script), replace(SPEC, host_blocks=3))
    assert caught.value.rule == rule
    with pytest.raises(PlanRejected, match="without requiring"):
        simulate(two, Scripted(*ADMIT, lambda v: StepPlan(evict=(0,), swap=(0,))), SPEC)


@FEW
@given(scenario=scenarios(), blocks=st.sampled_from([0, 1, 4, 12]))
def test_asking_before_every_step_changes_nothing(scenario, blocks):
    engine = hosted(scenario.engine, blocks)
    options = dict(replicas=scenario.replicas, router=scenario.router, seed=3)
    reference = simulate(scenario.trace, make_policy("vllm-v0", **OPTIONS), engine, compress=False, compiled=False, **options)
    assert_same(reference, simulate(scenario.trace, make_policy("vllm-v0", **OPTIONS), engine, **options), "modes")
    if blocks == 0:
        recompute = simulate(scenario.trace, make_policy("vllm-v0", **POLICIES["vllm-v0"]), engine, **options)
        assert_same(reference, recompute, "without host memory it is recompute")


@FEW
@given(scenario=scenarios(plain=True))
def test_with_room_and_a_link_without_limits_nothing_is_computed_twice(scenario):
    run = simulate(scenario.trace, make_policy("vllm-v0", **OPTIONS), hosted(scenario.engine, 10**6, 0.0))
    assert run.recomputed.sum() == 0
    if not run.rejected.any():
        trace = scenario.trace
        assert run.totals["prefill_tokens"] + run.totals["decode_tokens"] == (trace.prompt + trace.output - 1).sum()
    assert run.totals["swapped_tokens"] >= run.totals["reloaded_tokens"]


@pytest.mark.parametrize("caching", [False, True])
@FEW
@given(scenario=scenarios(plain=True), seed=st.integers(0, 2**32 - 1), blocks=st.sampled_from([0, 2, 30]))
def test_random_swaps_are_served_and_give_everything_back(caching, scenario, seed, blocks):
    run = simulate(scenario.trace, RandomPolicy(seed, caching, swaps=True), hosted(scenario.engine, blocks))
    assert np.isfinite(run.finish).all()  # `simulate` itself looks at the blocks of device and host
