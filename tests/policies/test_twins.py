"""Compiled twins decide exactly as their Python policies, from any state."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rota.policies.registry import make_policy
from tests.policies.views import ColumnsView, evict, plain, read_plan, states

CASES = {
    "static": dict(max_num_seqs=4),
    "static padded": dict(max_num_seqs=4, padded=True),
    "orca": dict(max_num_seqs=9),
    "orca-paged": dict(max_num_seqs=9),
    "vllm-v0": dict(max_num_seqs=9),
    "vllm-v0 capped": dict(max_num_seqs=9, max_num_batched_tokens=60),
    "vllm-v0 padded": dict(max_num_seqs=12, max_num_batched_tokens=100, padded_prompts=True, watermark=0.05),
    "sarathi": dict(max_num_seqs=9, max_num_batched_tokens=24),
    "sarathi wide": dict(max_num_seqs=12, max_num_batched_tokens=300, watermark=0.1),
    "vllm-v1": dict(max_num_seqs=8, max_num_batched_tokens=24),
    "vllm-v1 no cache": dict(max_num_seqs=12, max_num_batched_tokens=60, enable_prefix_caching=False),
    "vllm-v1 threshold": dict(
        max_num_seqs=8, max_num_batched_tokens=60, long_prefill_token_threshold=9, enable_prefix_caching=False
    ),
    "vllm-v1 priority": dict(max_num_seqs=8, max_num_batched_tokens=24, scheduling_policy="priority"),
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(state=states())
def test_twin_equals_python(case, state):
    seq, tim, ctl = (a.copy() for a in state)
    policy = make_policy(case.split()[0], **CASES[case])
    policy.start(ColumnsView(seq, tim, ctl).limits)
    function, par = policy.twin()
    out = np.zeros(4096, np.int64)
    for _ in range(20):  # rounds of evictions, until the step can run
        before = seq.copy(), tim.copy(), ctl.copy(), par.copy()
        function(seq, tim, ctl, par, out)
        for array, old in zip((seq, tim, ctl, par), before, strict=True):
            np.testing.assert_array_equal(array, old)  # a twin writes its plan and nothing else
        plan = policy.plan(ColumnsView(seq, tim, ctl))
        assert plain(read_plan(out)) == plain(plan)
        if plan.decode or not plan.evict:
            return
        evict(seq, ctl, plan.evict)
    raise AssertionError("evictions never end")


def test_no_twin_where_the_columns_show_too_little():
    assert hasattr(make_policy("vllm-v1"), "twin")
    assert not hasattr(make_policy("vllm-v1", max_num_seqs=4, long_prefill_token_threshold=9), "twin")
