"""Two tiers: equal to the main simulator without the second, conserving blocks and tokens with it, and held to its own rules."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from rota.contracts.offload import ASYNC, BARRIER, HOST, PIPELINED, SERIAL, OffloadPlan
from rota.contracts.serving import StepPlan, Work
from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.errors import PlanRejected, UnsupportedPolicy
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from rota.workload.trace import Trace
from tests.simulator.scenarios import scenarios
from tests.simulator.test_modes import assert_same
from tests.simulator.two_tiers import HOST as HOST_COSTS
from tests.simulator.two_tiers import OneTier, Watched, offload_scenarios, policies

QUICK = dict(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate))


@settings(max_examples=60, **QUICK)
@given(scenarios(pipeline=False))
def test_without_host_memory_it_is_the_main_simulator(scenario):
    """Request by request, for the policy that APEX then is, and for others that never touch the second tier."""
    hosts = [make_policy("vllm-v0", max_num_seqs=6, max_num_batched_tokens=128), make_policy("orca-paged", max_num_seqs=6),
             make_policy("sarathi", max_num_seqs=6, max_num_batched_tokens=24),
             make_policy("vllm-v1", max_num_seqs=6, max_num_batched_tokens=24, enable_prefix_caching=False)]  # fmt: skip
    for policy in hosts:
        expected = simulate(scenario.trace, policy, scenario.engine, seed=3)
        assert_same(expected, simulate(scenario.trace, OneTier(policy), scenario.engine, seed=3), policy.name)
    apex = make_policy("apex", max_num_seqs=6, max_num_batched_tokens=128)
    expected = simulate(scenario.trace, hosts[0], scenario.engine, seed=3)
    assert_same(expected, simulate(scenario.trace, apex, scenario.engine, seed=3), "APEX without host memory is vLLM v0")


@settings(max_examples=60, **QUICK)
@given(offload_scenarios())
def test_blocks_and_tokens_are_conserved_and_repetition_changes_nothing(scenario):
    for policy in policies():
        watched = Watched(policy)
        run = simulate(scenario.trace, watched, scenario.engine, seed=3)
        stepwise = simulate(scenario.trace, policy, scenario.engine, seed=3, compress=False)
        what = f"{policy.name} {getattr(policy, 'overlap', '')}"
        assert_same(stepwise, run, what)
        ended = ~run.rejected
        assert np.isfinite(run.finish[ended]).all()
        assert run.tbt_histogram.sum() == (scenario.trace.output[ended] - 1).sum()
        # every token is emitted by a decode or by a computed prompt, which there is one of per admission
        emitted = scenario.trace.output[ended].sum()
        prompts = (run.preemptions[ended] + 1).sum()
        assert emitted - prompts <= run.totals["decode_tokens"] <= emitted
        assert run.totals["peak_blocks"] <= scenario.engine.blocks
        assert run.totals["host_peak_blocks"] <= scenario.engine.host_blocks


def test_all_ways_to_overlap_are_exercised():
    """The scenarios above would prove little if the host were never used."""
    tokens, overlaps = {}, {}

    @settings(max_examples=40, **QUICK)
    @given(offload_scenarios())
    def collect(scenario):
        for i, policy in enumerate(policies()):
            run = simulate(scenario.trace, Watched(policy, overlaps.setdefault(i, set())), scenario.engine, seed=3)
            tokens[i] = tokens.get(i, 0) + run.totals["host_tokens"]

    collect()
    assert min(tokens.values()) > 100
    by_name = {getattr(p, "overlap", p.name): overlaps[i] for i, p in enumerate(policies()) if getattr(p, "host_load", 1) == 1}
    assert by_name["neo"] >= {SERIAL, PIPELINED}
    assert by_name["auto"] >= {SERIAL, PIPELINED, ASYNC}
    assert ASYNC in by_name["async"]
    assert by_name["pipelined"] >= {SERIAL, PIPELINED}
    assert BARRIER in by_name["barrier"]


# ---- rules -------------------------------------------------------------------------------------------------------------------------------

TOKENS = np.arange(40)
TABLES = StepTables(layer=np.where(TOKENS > 0, 1e-3 + 1e-5 * TOKENS, 0.0), head=np.where(TOKENS > 0, 1e-3, 0.0), n_layers=4,
                    decode_floor=1e-4, decode_byte_s=1e-6, prefill_floor=1e-4, host=HOST_COSTS)  # fmt: skip
SPEC = EngineSpec(tables=TABLES, blocks=12, block_size=4, max_len=40, host_blocks=12)
TRACE = Trace(arrival=np.zeros(3), prompt=np.array([9, 5, 6]), output=np.array([8, 7, 6]))


class Scripted:
    name, order, prefix_caching, follows = "scripted", "fcfs", False, False
    requires = frozenset({"host_attention"})
    max_seqs, max_step_tokens = 3, 30

    def __init__(self, *plans):
        self.plans = list(plans)

    def start(self, limits):
        self.at = 0

    def plan(self, view):
        self.at += 1
        return self.plans[self.at - 1]


FIRST = OffloadPlan(StepPlan((Work(0, 9, 9), Work(1, 5, 5))), to_host=(1,))


@pytest.mark.parametrize(
    ("plans", "rule"),
    [
        ([OffloadPlan(StepPlan((Work(0, 9, 9),)), to_host=(1,))], "O2"),  # no work
        ([OffloadPlan(StepPlan((Work(0, 5, 9),)), to_host=(0,))], "O2"),  # only part of the prompt
        ([OffloadPlan(StepPlan((Work(0, 9, 40), Work(1, 5, 49))), to_host=(1,))], "I4"),  # more than the host has
        ([OffloadPlan(StepPlan((Work(0, 9, 49),)))], "I4"),
        ([OffloadPlan(StepPlan((Work(0, 9), Work(1, 5), Work(2, 6), Work(0, 1))))], "I1"),
        ([OffloadPlan(StepPlan((Work(0, 10),)))], "I2"),
        ([OffloadPlan(StepPlan((Work(0, 9), Work(1, 5)), evict=(0,)))], "I7"),
        ([OffloadPlan(StepPlan(reject=(7,)))], "I7"),
        ([OffloadPlan(StepPlan((Work(0, 9),)), move=((0, HOST),))], "O1"),  # does not run yet
        ([FIRST, OffloadPlan(StepPlan(), move=((1, HOST),))], "O1"),  # is there
        ([FIRST, OffloadPlan(StepPlan(), move=((0, 2),))], "O1"),
        ([FIRST, OffloadPlan(StepPlan(), move=((0, HOST), (0, HOST)))], "O1"),
        ([FIRST, OffloadPlan(StepPlan(evict=(0,)), move=((0, HOST),))], "O1"),
        ([FIRST, OffloadPlan(StepPlan(), overlap=PIPELINED, batches=((0,), ()))], "O3"),  # a device decode
        ([FIRST, OffloadPlan(StepPlan(), overlap=PIPELINED, batches=((1,), (1,)))], "O3"),
        ([FIRST, OffloadPlan(StepPlan(), overlap=PIPELINED, batches=((2,), ()))], "O3"),
        ([FIRST, OffloadPlan(StepPlan(), overlap=ASYNC, batches=((1,), ()))], "O3"),
        ([FIRST, OffloadPlan(StepPlan(), overlap="sideways")], "O3"),
        ([FIRST, OffloadPlan(StepPlan(pause=(1,)))], "I6"),
        ([FIRST, OffloadPlan(StepPlan((Work(1, 1),)))], "I6"),
        ([FIRST, OffloadPlan(StepPlan(decode=False))], "I8"),  # the host rests too
    ],
)  # fmt: skip
def test_broken_rules_are_named(plans, rule):
    with pytest.raises(PlanRejected) as caught:
        simulate(TRACE, Scripted(*plans), SPEC)
    assert caught.value.rule == rule
    assert "scripted" in str(caught.value)


def test_what_this_engine_cannot_do_is_refused():
    policy = Scripted()
    policy.prefix_caching = True
    with pytest.raises(UnsupportedPolicy, match="prefix cache"):
        simulate(TRACE, policy, SPEC)
    with pytest.raises(UnsupportedPolicy, match="pipeline_parallel_size=2"):
        simulate(TRACE, Scripted(), replace(SPEC, pp=2))
    with pytest.raises(UnsupportedPolicy, match="round-robin or random"):
        simulate(TRACE, Scripted(), SPEC, replicas=2, router="least-outstanding")
    layered = OneTier(make_policy("layered"))
    with pytest.raises(UnsupportedPolicy, match="needs layers"):
        simulate(TRACE, layered, SPEC)


def test_a_moved_sequence_keeps_its_tokens_and_the_step_waits_for_the_copy():
    """One sequence, moved to the host before its first decode; the copy is longer than the step."""
    slow = replace(SPEC, tables=replace(TABLES, host=replace(HOST_COSTS, kv_s=1.0)))
    trace = Trace(arrival=np.zeros(1), prompt=np.array([9]), output=np.array([3]))
    prompt = OffloadPlan(StepPlan((Work(0, 9, 9),)))
    moved = OffloadPlan(StepPlan(), move=((0, HOST),), overlap=BARRIER)
    run = simulate(trace, Scripted(prompt, moved, OffloadPlan(StepPlan(), overlap=BARRIER)), slow)
    assert run.max_tbt[0] == pytest.approx(9 * 4 * 1.0)  # 9 tokens of KV in 4 layers
    assert run.totals["host_tokens"] == 2
    assert run.preemptions[0] == 0


def test_replicas_share_the_work():
    trace = Trace(arrival=np.zeros(8), prompt=np.full(8, 6), output=np.full(8, 9))
    run = simulate(trace, make_policy("apex", max_num_seqs=4), SPEC, replicas=2)
    assert run.replica.tolist() == [0, 1] * 4
    assert np.isfinite(run.finish).all()
    one = simulate(Trace(arrival=np.zeros(4), prompt=np.full(4, 6), output=np.full(4, 9)), make_policy("apex", max_num_seqs=4), SPEC)
    np.testing.assert_allclose(run.finish[::2], one.finish)
