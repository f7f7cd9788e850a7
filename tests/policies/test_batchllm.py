"""BatchLLM: what it must coincide with, what it promises of prefixes and memory, and that jumps change nothing."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rota.contracts.serving import DECODE, H_KNOWN, H_SID, HELD_COLUMNS
from rota.cost.engine import EngineSpec
from rota.errors import InputError
from rota.mechanisms.simulator import simulate
from rota.mechanisms.simulator.simulate import job_of
from rota.policies.admission.peak import peak
from rota.policies.offline.batchllm import BatchLLM
from rota.policies.offline.expected_use import ExpectedUse
from rota.policies.offline.groups import ratios, shared_prefixes
from rota.policies.registry import make_policy
from rota.workload import load_trace
from rota.workload.trace import Trace
from tests.simulator.scenarios import scenarios
from tests.simulator.test_modes import assert_same

RANDOM = settings(
    max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate)
)
SMALL = "documents:documents=12,queries=2..9,size=100..400,question=5..40,brief=3..20,extended=40..90"
OFF = dict(grouping=False, ratio_order=False, memory_centric=False, shared_prefix_attention=False)
flags = st.booleans()


@st.composite
def policies(draw):
    options = {name: draw(flags) for name in OFF}
    return BatchLLM(max_num_batched_tokens=draw(st.sampled_from([9, 24, 60])), max_num_seqs=6,
                    memory_budget=draw(st.sampled_from([0.6, 1.0, 1.7])), expected_output=draw(st.sampled_from([1, 9, 50])), **options)  # fmt: skip


def as_job(scenario, draw_estimates):
    trace = scenario.trace.with_columns(arrival=np.zeros(len(scenario.trace)), after=None, delay=None)
    if draw_estimates:
        trace = trace.with_columns(estimate=np.random.default_rng(len(trace)).integers(1, 40, len(trace)))
    return trace


@RANDOM
@given(scenarios(), policies(), flags)
def test_jumps_change_nothing_and_everything_is_given_back(scenario, policy, estimates):
    trace = as_job(scenario, estimates)
    options = dict(replicas=scenario.replicas, router=scenario.router)
    reference = simulate(trace, policy, scenario.engine, compress=False, **options)
    jumps = simulate(trace, policy, scenario.engine, **options)  # raises I9 where blocks or pins are left over
    assert_same(reference, jumps, policy.name)
    assert reference.totals["shared_context"] == pytest.approx(jumps.totals["shared_context"])
    assert np.isfinite(reference.finish[~reference.rejected]).all()


@RANDOM
@given(scenarios(plain=True), st.sampled_from([9, 24, 60]))
def test_without_its_parts_it_is_sarathi(scenario, tokens):
    trace = as_job(scenario, False).with_columns(hash_ids=None, hash_start=None, hash_block=0, priority=None)
    engine = EngineSpec(tables=scenario.engine.tables, blocks=10_000, block_size=scenario.engine.block_size, max_len=160)
    mine = simulate(trace, BatchLLM(max_num_batched_tokens=tokens, max_num_seqs=6, **OFF), engine)
    assert_same(mine, simulate(trace, make_policy("sarathi", max_num_batched_tokens=tokens, max_num_seqs=6), engine), "ample memory")


@RANDOM
@given(scenarios(plain=True))
def test_without_sharing_grouping_is_pure_ratio_order(scenario):
    trace = as_job(scenario, True).with_columns(hash_ids=None, hash_start=None, hash_block=0)
    grouped = simulate(trace, BatchLLM(max_num_batched_tokens=9), scenario.engine)
    assert_same(grouped, simulate(trace, BatchLLM(max_num_batched_tokens=9, grouping=False), scenario.engine), "no sharing")
    if not grouped.preemptions.any():
        order = np.argsort(-trace.estimate / trace.prompt, kind="stable")
        assert (np.diff(grouped.first_scheduled[order]) >= 0).all()


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 60), st.integers(-9, 40)), min_size=1, max_size=12), st.integers(1, 16), st.data())
def test_expected_use_is_the_peak_of_all_who_run_and_join(requests, size, data):
    shared, known, left = np.array(requests).T
    known = known + shared
    run = data.draw(st.integers(0, len(requests) - 1))
    table = np.zeros((run, HELD_COLUMNS), np.int64)
    table[:, H_SID], table[:, H_KNOWN] = np.arange(run), known[:run]
    use = ExpectedUse(shared, known + left, size, table, len(requests))
    for n in range(run, len(requests)):
        all_tokens = peak((known - shared + size - 1)[: n + 1], np.maximum(left, 1)[: n + 1])
        assert use.join(n, int(known[n])) == all_tokens // size


@pytest.mark.parametrize("options", [{}, {"ratio_order": False}, {"memory_centric": False}, {"max_num_batched_tokens": 300}])
def test_a_prefix_is_computed_exactly_once(options, small_engine):
    trace = load_trace(SMALL, seed=2)
    group, prefix = shared_prefixes(job_of(trace, "test"))
    once = trace.prompt.sum() - prefix.sum() + sum(prefix[group == g][0] for g in np.unique(group))
    run = simulate(trace, BatchLLM(**options), small_engine(6000))
    assert run.preemptions.sum() == 0
    assert run.totals["prefill_tokens"] == once
    # memory for the longest request and little more: recomputation, but everything ends
    tight = simulate(trace, BatchLLM(**options), small_engine(-(-int((trace.prompt + trace.output).max()) // 16) + 2))
    assert np.isfinite(tight.finish).all()
    assert tight.totals["prefill_tokens"] >= once


def test_members_are_consecutive_and_groups_by_ratio(small_engine):
    trace = load_trace(SMALL, seed=4)
    group, prefix = shared_prefixes(job_of(trace, "test"))
    ratio = ratios(group, prefix, trace.prompt, trace.estimate)
    run = simulate(trace, BatchLLM(max_num_batched_tokens=64, max_num_seqs=2, memory_centric=False), small_engine(2000))
    order = np.lexsort((np.arange(len(trace)), run.first_scheduled))
    seen = group[order]
    first = [np.flatnonzero(seen == g)[0] for g in np.unique(seen)]
    opened = seen[np.sort(first)]
    assert (np.diff(ratio[opened]) <= 0).all()


def test_ratios_count_a_prefix_once():
    group, prefix = np.array([0, 0, 1]), np.array([10, 10, 0])
    assert ratios(group, prefix, np.array([12, 13, 7]), np.array([5, 10, 21])).tolist() == [15 / 15, 3.0]


class Watched(BatchLLM):
    """Counts, before every step, the tokens of its decodes' prompts that others hold too, from their contents alone.

    With `spare` it reserves so many tokens more than it needs: members then change their place in the decode set on the way.
    """

    shared = 0

    def __init__(self, trace, spare=0, **options):
        super().__init__(**options)
        self.spare = spare
        self.contents = [tuple(trace.hash_ids[trace.hash_start[i] : trace.hash_start[i + 1]][: trace.prompt[i] // 16]) for i in range(len(trace))]

    def plan(self, view):
        plan = super().plan(view)
        if plan.decode and (plan.work or view.n_decode):
            blocks = [self.contents[s.sid][: i + 1] for s in view.running if s.phase == DECODE for i in range(s.n_prompt // 16)]
            type(self).shared += 16 * (len(blocks) - len(set(blocks)))
        return plan._replace(work=tuple(w._replace(reserve_to=w.reserve_to and w.reserve_to + self.spare) for w in plan.work))


@pytest.mark.parametrize("spare", [0, 40])
def test_shared_attention_reads_each_block_once(spare, small_engine):
    trace = load_trace(SMALL, seed=1)
    Watched.shared = 0
    run = simulate(trace, Watched(trace, spare), small_engine(6000), compress=False)
    assert Watched.shared == run.totals["shared_context"] > 0
    apart = simulate(trace, BatchLLM(shared_prefix_attention=False), small_engine(6000))
    assert apart.totals["shared_context"] == 0
    assert apart.totals["decode_context"] == run.totals["decode_context"]
    assert apart.finish.max() > run.finish.max()


def test_memory_budget_is_kept(small_engine):
    trace = load_trace(SMALL, seed=1)
    engine = small_engine(400)
    run = simulate(trace, BatchLLM(estimates="oracle", memory_budget=0.5), engine)
    assert run.policy == "batchllm-oracle"
    assert run.totals["peak_blocks"] <= 200
    assert run.preemptions.sum() == 0


def test_only_whole_jobs():
    trace = Trace(arrival=np.array([0.0, 1.0]), prompt=np.array([5, 5]), output=np.array([2, 2]))
    with pytest.raises(InputError, match="plans whole jobs, but the requests of trace arrive one after the other"):
        job_of(trace, "batchllm")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory_budget": 0}, "memory_budget must be a positive share"),
        ({"memory_centric": False, "max_num_batched_tokens": 9}, "below max_num_seqs=256"),
        ({"estimates": "guess"}, "estimates must be 'given', 'limit' or 'oracle', not 'guess'"),
        ({"grouping": 1}, "grouping must be True or False"),
    ],
)
def test_options(options, says):
    with pytest.raises(InputError, match=says):
        BatchLLM(**options)


@pytest.fixture
def small_engine():
    from rota.cost.deployment import Deployment

    tables = Deployment("llama-3-8b", "a100-80g").engine(512).tables
    return lambda blocks: EngineSpec(tables=tables, blocks=blocks, max_len=1024)
