"""Policies put together from parts decide as the policies they are taken apart from, and the same in every mode."""

import numpy as np
from hypothesis import HealthCheck, given, settings

from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from tests.policies.snapshot import Snapshot
from tests.simulator.scenarios import scenarios
from tests.simulator.test_modes import NO_SHRINK, assert_same

LIMITED = {
    "sarathi": dict(max_num_seqs=6, max_num_batched_tokens=24),
    "orca-paged": dict(max_num_seqs=6),
    "vllm-v0": dict(max_num_seqs=6, max_num_batched_tokens=128),
    "vllm-v1": dict(max_num_seqs=6, max_num_batched_tokens=24),
}
PLAIN = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINK)


@PLAIN
@given(scenarios())
def test_a_policy_equals_the_parts_it_is_made_of(scenario):
    for batching, options in LIMITED.items():
        if batching == "vllm-v1":
            if scenario.engine.pp > 1:
                continue  # vLLM v1 serves prompts and decodes in one order of admission; the composition puts decodes first
            whole = make_policy(batching, enable_prefix_caching=False, **options)
        else:
            whole = make_policy(batching, **options)
        route = dict(replicas=scenario.replicas, router=scenario.router, seed=3)
        expected = simulate(scenario.trace, whole, scenario.engine, compiled=False, **route)
        composed = make_policy("composed", batching=batching, **options)
        assert_same(expected, simulate(scenario.trace, composed, scenario.engine, **route), batching)


@PLAIN
@given(scenarios())
def test_modes_agree_with_a_prefix_cache_and_priorities(scenario):
    for batching, options in LIMITED.items():
        for order in ("fcfs", "priority", "shortest-prompt"):
            policy = make_policy("composed", batching=batching, order=order, retention="lru", **options)
            route = dict(replicas=scenario.replicas, router=scenario.router, seed=3)
            reference = simulate(scenario.trace, policy, scenario.engine, compress=False, **route)
            assert_same(reference, simulate(scenario.trace, policy, scenario.engine, **route), f"{batching} {order}")
            ended = ~reference.rejected
            assert np.isfinite(reference.finish[ended]).all()


@PLAIN
@given(scenarios(plain=True))
def test_a_snapshot_and_restore_before_every_decision_changes_nothing(scenario):
    for batching, options in LIMITED.items():
        policy = make_policy("composed", batching=batching, **options)
        run = simulate(scenario.trace, policy, scenario.engine)
        assert_same(run, simulate(scenario.trace, Snapshot(policy), scenario.engine), batching)
