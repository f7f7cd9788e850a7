"""The oracle against arithmetic done by hand, against itself where two policies must coincide, and against what always holds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.workload.trace import Trace
from tests.oracle.oracle import Engine, simulate_oracle
from tests.oracle.policies import POLICIES, groups, split

N = np.arange(65)
TABLES = StepTables(layer=np.where(N, 1e-4 + 2e-5 * N, 0.0), head=np.where(N, 3e-5 + 1e-6 * N, 0.0), n_layers=6, prefill_floor=1e-5,
                    prefill_flop_s=3e-9, prefill_byte_s=4e-9, query_byte_s=1e-9, decode_floor=2e-5, decode_byte_s=5e-8, cpu=7e-5,
                    cpu_per_seq=2e-6)  # fmt: skip
AMPLE = EngineSpec(tables=TABLES, blocks=10_000, block_size=16, max_len=400)
TIMES = ("first_scheduled", "first_token", "finish", "max_tbt")
LIMITS = {"vllm-v1": {"max_num_batched_tokens": 64}, "sarathi": {"max_num_batched_tokens": 64}, "vllm-v0": {"max_num_batched_tokens": 400},
          "layered": {"max_cohort_tokens": 200, "unit": 32, "stages": 4}}  # fmt: skip
NAMES = [name for name in POLICIES if name != "vllm-vidur"]


def served(policy, spec=AMPLE, *, arrival, prompt, output, replicas=1, router="round-robin", columns=None, **options):
    trace = Trace(arrival=np.array(arrival, float), prompt=np.array(prompt), output=np.array(output), **(columns or {}))
    return simulate_oracle(trace, policy, options, spec, replicas, router)


def linear(n):
    """Seconds of `n` tokens through one layer without attention."""
    return 1e-4 + 2e-5 * n


def prefill_step(past, n, emits):
    area = n * past + n * (n + 1) / 2
    attention = 1e-5 + math.hypot(3e-9 * area, 4e-9 * (past + n) + 1e-9 * n)
    return 6 * (linear(n) + attention) + (3e-5 + 1e-6) * emits + 7e-5 + 2e-6


def decode_step(contexts):
    n = len(contexts)
    return 6 * (linear(n) + 2e-5 + 5e-8 * sum(contexts)) + 3e-5 + 1e-6 * n + 7e-5 + 2e-6 * n


@st.composite
def workloads(draw, tight=False):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 14))
    prompt, output = rng.integers(1, 90, n), rng.integers(1, 30, n)
    arrival = np.cumsum(rng.exponential(draw(st.sampled_from([1e-4, 1e-2])), n))
    blocks = int(-(-(prompt + output).max() // 8)) + 2 + draw(st.integers(0, 10)) if tight else 10_000
    return dict(arrival=arrival, prompt=prompt, output=output), replace(AMPLE, blocks=blocks, block_size=8)


def assert_same(a, b):
    for name in TIMES:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-12, err_msg=name)
    assert a["preemptions"] == b["preemptions"]


@pytest.mark.parametrize("policy", ["static", "orca", "orca-paged", "vllm-v0", "vllm-v1", "sarathi", "layered"])
def test_one_request_alone_costs_its_prefill_and_its_decodes(policy):
    run = served(policy, arrival=[2.5], prompt=[50], output=[4])
    prefill = prefill_step(0, 50, True)
    assert run["first_scheduled"] == [2.5]
    assert run["first_token"][0] == pytest.approx(2.5 + prefill, rel=1e-12)
    decodes = [decode_step([50 + i]) for i in (1, 2, 3)]
    assert run["gaps"][0] == pytest.approx(decodes, rel=1e-9)
    assert run["finish"][0] == pytest.approx(2.5 + prefill + sum(decodes), rel=1e-12)


@pytest.mark.parametrize("policy", ["sarathi", "vllm-v1"])
def test_chunks_of_one_prompt_add_up(policy):
    run = served(policy, arrival=[0.0], prompt=[50], output=[1], max_num_batched_tokens=20)
    steps = prefill_step(0, 20, False) + prefill_step(20, 20, False) + prefill_step(40, 10, True)
    assert run["finish"][0] == run["first_token"][0] == pytest.approx(steps, rel=1e-12)
    assert run["max_tbt"] == [0.0]


def test_layer_groups_add_up_to_one_prefill_and_one_head():
    run = served("layered", arrival=[0.0], prompt=[60], output=[1], unit=15, stages=4)
    device = prefill_step(0, 60, True) - 7e-5 - 2e-6
    assert run["first_token"][0] == pytest.approx(device + 4 * (7e-5 + 2e-6), rel=1e-12)


@pytest.mark.parametrize("policy", ["static", "orca", "orca-paged", "vllm-v0", "vllm-v1"])
def test_equal_requests_at_once_move_in_step(policy):
    n, prompt = 5, 12
    run = served(policy, arrival=[0.0] * n, prompt=[prompt] * n, output=[3] * n)
    area, reads = n * prompt * (prompt + 1) / 2, 4e-9 * n * prompt + 1e-9 * n * prompt
    prefill = 6 * (linear(n * prompt) + 1e-5 + math.hypot(3e-9 * area, reads)) + 3e-5 + 1e-6 * n + 7e-5 + 2e-6 * n
    assert run["first_token"] == pytest.approx([prefill] * n, rel=1e-12)
    total = prefill + decode_step([prompt + 1] * n) + decode_step([prompt + 2] * n)
    assert run["finish"] == pytest.approx([total] * n, rel=1e-12)


def test_padded_batches_pay_for_finished_rows():
    load = dict(arrival=[0.0, 0.0], prompt=[10, 10], output=[1, 20])
    assert served("static", padded=True, **load)["finish"][1] > served("static", **load)["finish"][1]


@settings(max_examples=40)
@given(workloads(tight=True))
def test_sarathi_without_a_budget_is_paged_orca(case):
    load, spec = case
    assert_same(
        served("sarathi", spec, max_num_batched_tokens=1 << 40, watermark=0.0, **load), served("orca-paged", spec, **load)
    )


@settings(max_examples=40)
@given(workloads())
def test_layered_with_one_group_and_unchunked_v1_are_paged_orca_when_memory_is_ample(case):
    load, spec = case
    paged = served("orca-paged", spec, **load)
    assert_same(served("layered", spec, unit=1 << 40, max_cohort_tokens=1 << 40, **load), paged)
    assert_same(served("vllm-v1", spec, max_num_batched_tokens=1 << 40, enable_prefix_caching=False, **load), paged)


@pytest.mark.parametrize("policy", NAMES)
@settings(max_examples=20)
@given(workloads(tight=True))
def test_everything_ends_and_every_block_comes_back(policy, case):
    load, spec = case
    run = served(policy, spec, **load, **LIMITS.get(policy, {}))
    ended = ~np.array(run["rejected"])
    assert [len(gaps) + 1 for gaps, ok in zip(run["gaps"], ended, strict=True) if ok] == load["output"][ended].tolist()
    assert np.isfinite(np.array(run["finish"])[ended]).all()
    assert np.isnan(np.array(run["finish"])[~ended]).all()
    for engine in run["engines"]:
        assert len(engine.blocks.queue) == spec.blocks
        assert not any(engine.blocks.holders)
    if policy in ("static", "orca"):
        assert not any(run["preemptions"]), "who reserves is never evicted"


@pytest.mark.parametrize("budget", [16, 40])
@settings(max_examples=25)
@given(case=workloads(tight=True))
def test_sarathi_never_stalls_a_decode_and_never_exceeds_its_budget(budget, case):
    load, spec = case
    seen = []

    class Watched(Engine):
        def _end(self, now, items):
            seen.append(items)
            served_now = {item.req for item in items}
            assert all(r in served_now for r in self.running if r.decoding), "a running decode got no token"
            return super()._end(now, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.oracle.oracle.Engine", Watched)
        run = served("sarathi", spec, max_num_seqs=12, max_num_batched_tokens=budget, **load)
    assert max(sum(i.n for i in items) for items in seen) <= budget
    # what was evicted is computed again, and a sequence's last token is never computed
    computed = sum(i.n for items in seen for i in items)
    assert computed == (load["prompt"] + load["output"] - 1).sum() + sum(run["recomputed"])


def test_the_second_of_two_equal_prompts_reuses_all_whole_blocks_but_the_last_token():
    ids = dict(hash_ids=np.array([7, 8, 7, 8]), hash_start=np.array([0, 2, 4]), hash_block=32)
    run = served("vllm-v1", arrival=[0.0, 1.0], prompt=[64, 64], output=[2, 2], columns=ids)
    assert run["cached"] == [0, 48]
    assert run["first_token"][1] - 1.0 == pytest.approx(prefill_step(48, 16, True), rel=1e-9)


def test_blocks_computed_in_a_step_are_reusable_from_the_next_step_on():
    ids = dict(hash_ids=np.array([7, 8, 7, 8]), hash_start=np.array([0, 2, 4]), hash_block=32)
    together = served("vllm-v1", arrival=[0.0, 0.0], prompt=[64, 64], output=[1, 1], columns=ids)
    assert together["cached"] == [0, 0]
    one_by_one = served("vllm-v1", arrival=[0.0, 0.0], prompt=[64, 64], output=[1, 1], columns=ids, max_num_batched_tokens=64)
    assert one_by_one["cached"] == [0, 48]


@pytest.mark.parametrize(("blocks", "together"), [(7, True), (6, False)])
def test_an_idle_prefix_taken_by_several_in_one_step_is_counted_once(blocks, together):
    # four idle blocks of prefix for three requests, and one new block for each: seven in all
    ids = dict(hash_ids=np.array([1, 1, 2, 1, 3, 1, 4]), hash_start=np.array([0, 1, 3, 5, 7]), hash_block=16)
    spec = replace(AMPLE, blocks=blocks, block_size=4, max_len=40)
    run = served("vllm-v1", spec, arrival=[0.0, 1.0, 1.0, 1.0], prompt=[17, 20, 20, 20], output=[1, 2, 2, 2], columns=ids)
    assert (run["first_scheduled"][3] == 1.0) == together


def test_priority_jumps_the_queue():
    load = dict(arrival=[0.0, 1e-6, 2e-6], prompt=[30, 30, 30], output=[9, 9, 9], max_num_seqs=1)
    first_come = served("vllm-v1", **load)["finish"]
    urgent = served("vllm-v1", scheduling_policy="priority", columns=dict(priority=np.array([1, 1, 0])), **load)["finish"]
    assert first_come[1] < first_come[2]
    assert urgent[0] < urgent[2] < urgent[1]


def test_two_stages_halve_the_time_between_starts_but_not_the_latency():
    tables = replace(TABLES, stages=2, cpu=0.0, cpu_per_seq=0.0, send=1e-4, send_per_token=1e-6)
    spec = replace(AMPLE, tables=tables, pp=2)
    layers = 6 * (linear(30) + 1e-5 + math.hypot(3e-9 * 30 * 31 / 2, 4e-9 * 30 + 1e-9 * 30))
    run = served("sarathi", spec, arrival=[0.0, 0.0], prompt=[30, 30], output=[1, 1], max_num_batched_tokens=30)
    assert run["first_scheduled"] == pytest.approx([0.0, layers / 2], rel=1e-12)
    whole = layers + 1e-4 + 30e-6 + 3e-5 + 1e-6
    assert run["first_token"] == pytest.approx([whole, whole + layers / 2 + 3e-5 + 1e-6], rel=1e-12)


@settings(max_examples=20)
@given(workloads(), st.sampled_from([2, 3]))
def test_round_robin_replicas_are_separate_engines(case, replicas):
    load, spec = case
    run = served("sarathi", spec, replicas=replicas, **load)
    n = len(load["prompt"])
    assert run["replica"] == [i % replicas for i in range(n)]
    for k in range(min(replicas, n)):
        alone = served("sarathi", spec, **{name: column[k::replicas] for name, column in load.items()})
        np.testing.assert_allclose(alone["finish"], run["finish"][k::replicas], rtol=1e-12)


def test_load_aware_routers_avoid_the_busy_replica():
    load = dict(arrival=[0.0, 1e-5, 0.1, 0.2], prompt=[60, 5, 5, 5], output=[300, 1, 1, 1])
    # at 0.1 s replica 0 still decodes the first request: one unfinished, none queued
    assert served("orca-paged", replicas=2, router="least-outstanding", **load)["replica"] == [0, 1, 1, 1]
    assert served("orca-paged", replicas=2, router="least-queued", **load)["replica"] == [0, 0, 0, 0]


def test_a_chained_request_arrives_when_its_predecessor_is_done_and_its_pause_is_over():
    chain = dict(after=np.array([-1, 0, 1]), delay=np.array([0.0, 0.25, 0.5]))
    run = served("vllm-v0", arrival=[0.0, 0.0, 0.0], prompt=[20] * 3, output=[3] * 3, columns=chain)
    assert run["arrival"] == pytest.approx([0.0, run["finish"][0] + 0.25, run["finish"][1] + 0.5], rel=1e-12)
    assert run["first_scheduled"] == run["arrival"]


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 1), (512, 1), (513, 2), (1024, 2), (2048, 4), (2049, 8), (4097, 16), (9000, 16)]
)
def test_layer_groups_follow_the_table_of_the_reference(tokens, expected):
    assert groups(tokens, 512, 16) == expected


@given(st.integers(1, 130), st.integers(1, 16))
def test_layer_ranges_cover_every_layer_once(n_layers, parts):
    ranges = split(n_layers, min(parts, n_layers))
    assert [layer for start, end in ranges for layer in range(start, end)] == list(range(n_layers))
    sizes = [end - start for start, end in ranges]
    assert max(sizes) - min(sizes) <= 1
