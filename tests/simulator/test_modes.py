"""The jumps, the repeated plans and the compiled twins must not change anything: against the step-by-step reference mode, column by column."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from rota.cost.engine import EngineSpec
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from tests.simulator.scenarios import POLICIES, scenarios

#: A failing scenario is small as it is; shrinking it costs minutes.
NO_SHRINK = (Phase.explicit, Phase.generate)
COUNTS = ("preemptions", "recomputed", "cached", "replica", "rejected")
TIMES = ("arrival", "first_scheduled", "first_token", "finish", "max_tbt")
SUMS = ("steps", "decode_tokens", "prefill_tokens", "decode_context", "prefill_area", "prefill_context", "busy", "weight_passes")


def assert_same(a, b, what):
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=f"{what}: {name}")
    for name in TIMES:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12, err_msg=f"{what}: {name}")
    for name in SUMS:
        assert a.totals[name] == pytest.approx(b.totals[name], rel=1e-9), f"{what}: {name}"
    assert a.tbt_histogram.sum() == b.tbt_histogram.sum()


def policies_for(scenario):
    for name, options in POLICIES.items():
        if scenario.engine.pp > 1 and name in ("layered", "static"):
            continue
        yield name, make_policy(name, **options)
    yield "vllm-v1 priority", make_policy("vllm-v1", scheduling_policy="priority", **POLICIES["vllm-v1"])
    yield "vllm-v1 no cache", make_policy("vllm-v1", enable_prefix_caching=False, **POLICIES["vllm-v1"])
    yield "vllm-v1 threshold", make_policy("vllm-v1", long_prefill_token_threshold=9, **POLICIES["vllm-v1"])
    if scenario.engine.pp == 1:
        yield "static padded", make_policy("static", padded=True, **POLICIES["static"])


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINK)
@given(scenarios())
def test_jumps_and_twins_change_nothing(scenario):
    """80 scenarios x 10 policies or more: over 800 cases, each in three modes."""
    for name, policy in policies_for(scenario):
        options = dict(replicas=scenario.replicas, router=scenario.router, seed=3)
        reference = simulate(scenario.trace, policy, scenario.engine, compress=False, compiled=False, **options)
        jumps = simulate(scenario.trace, policy, scenario.engine, compiled=False, **options)
        assert_same(reference, jumps, name)
        if getattr(policy, "twin", None):
            twin = simulate(scenario.trace, policy, scenario.engine, **options)
            assert_same(reference, twin, f"{name} twin")
        ended = ~reference.rejected
        gaps = (scenario.trace.output[ended] - 1).sum()
        assert reference.tbt_histogram.sum() == gaps
        assert np.isfinite(reference.finish[ended]).all()


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINK)
@given(scenarios(plain=True))
def test_pairs_that_must_coincide(scenario):
    def times(name, **options):
        return simulate(scenario.trace, make_policy(name, max_num_seqs=6, **options), scenario.engine)

    infinite = 1 << 20
    ample = EngineSpec(tables=scenario.engine.tables, blocks=10_000, block_size=scenario.engine.block_size, max_len=160)
    paged = times("orca-paged")
    assert_same(paged, times("sarathi", max_num_batched_tokens=infinite, watermark=0.0), "Sarathi with C=inf is paged Orca")
    scenario.engine = ample
    paged = times("orca-paged")
    assert_same(paged, times("sarathi", max_num_batched_tokens=infinite), "with watermark, memory being ample")
    v1 = times("vllm-v1", max_num_batched_tokens=infinite, enable_prefix_caching=False)
    assert_same(paged, v1, "vLLM v1 without cache and chunks is paged Orca")
    layered = times("layered", unit=infinite, max_cohort_tokens=infinite)
    assert_same(paged, layered, "layered with one group is paged Orca")
