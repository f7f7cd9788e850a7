"""NEO and APEX: who goes where, how sub-batches are filled, and when which overlap is chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.contracts.offload import ASYNC, BARRIER, DEVICE, HOST, PIPELINED, SERIAL
from rota.contracts.serving import DECODE, WAITING, Limits
from rota.policies.offload.apex import Apex, pipelining_pays
from rota.policies.offload.neo import Neo
from rota.policies.offload.pipelining import divide
from rota.policies.offload.tiers import Tiers

SECONDS = st.floats(1e-5, 1e-2)


class Costs:
    """Linear layers that grow with tokens, attention by the token."""

    def __init__(self, linear=1e-3, slope=1e-6, device=1e-7, host=2e-6, call=1e-5, vectors=1e-6):
        self.linear_table = np.where(np.arange(33) > 0, linear + slope * np.arange(33), 0.0)
        self.host_terms = call, vectors, host
        self._slope, self._device = slope, device

    def linear(self, tokens):
        last = len(self.linear_table) - 1
        return float(self.linear_table[min(tokens, last)] + self._slope * max(0, tokens - last))

    def prefill(self, prompts):
        return sum(1e-7 * n * n for _, n in prompts)

    def device(self, sequences, context):
        return self._device * context

    def host(self, sequences, context):
        call, vectors, token = self.host_terms
        return call + vectors * sequences + token * context if sequences else 0.0


class Seq:
    def __init__(self, sid, known, phase, blocks=0, in_flight=False):
        self.sid, self.n_known, self.phase, self.kv_blocks, self.in_flight = sid, known, phase, blocks, in_flight


class View:
    """So many tokens of context for each sequence: on the device, on the host, waiting. Blocks of 10 tokens."""

    def __init__(self, device=(), host=(), waiting=(), blocks=100, host_blocks=1000, costs=None, seats=64, in_flight=()):
        self.limits = Limits(n_layers=4, block_size=10, blocks=blocks, max_seqs=seats, max_step_tokens=1 << 40, max_len=500)
        sids = iter(range(1000))
        self.running, self.hosted, self.waiting = (
            [Seq(sid := next(sids), known, phase, 0 if phase == WAITING else -(-(known - 1) // 10), sid in in_flight) for known in group]
            for group, phase in ((device, DECODE), (host, DECODE), (waiting, WAITING))
        )
        self._seqs = {s.sid: s for s in (*self.running, *self.hosted, *self.waiting)}
        self.n_decode, self.n_hosted, self.n_waiting = len(self.running), len(self.hosted), len(self.waiting)
        self.n_running = self.n_decode + self.n_hosted
        self.host_blocks, self.host_backlog = host_blocks, 0.0
        self.free_blocks = blocks - sum(s.kv_blocks for s in self.running)
        self.free_host_blocks = host_blocks - sum(s.kv_blocks for s in self.hosted)
        self.decode_need = sum(s.n_known > 10 * s.kv_blocks for s in self.running)
        self.host_need = sum(s.n_known > 10 * s.kv_blocks for s in self.hosted)
        self.costs = costs or Costs()

    def seq(self, sid):
        return self._seqs[sid]

    def contexts(self, sids):
        return np.array([self._seqs[sid].n_known for sid in sids], np.int64)


def started(policy, view):
    policy.start(view.limits)
    tiers = policy if isinstance(policy, Tiers) else policy._tiers
    tiers._device, tiers._host = [s.sid for s in view.running], [s.sid for s in view.hosted]
    return policy


def placed(view, admits=lambda *_: True, **options):
    return started(Tiers(options.get("seats", 64), options.get("budget")), view).place(view, admits)


def test_the_last_device_decode_makes_room_by_going_to_the_hosts_head():
    found = placed(View(device=[41, 41, 21], host=[50], blocks=10))
    assert found.move == [(2, HOST)]
    assert (found.device, found.host) == ([0, 1], [2, 3])
    assert not found.evict


def test_without_room_on_either_tier_it_is_evicted():
    found = placed(View(device=[41, 41, 21], host=[50], blocks=10, host_blocks=6))
    assert (found.move, found.evict, found.device, found.host) == ([], [2], [0, 1], [3])


def test_the_hosts_last_is_evicted_when_the_host_is_full():
    found = placed(View(device=[5], host=[31, 41], host_blocks=7))
    assert found.evict == [2]
    assert found.host == [1]
    assert found.move == []  # nobody changes places in a step in which somebody is evicted


def test_the_hosts_head_comes_back_up_to_95_percent():
    assert placed(View(device=[700], host=[240, 50], blocks=100)).move == [(1, DEVICE)]
    assert placed(View(device=[700], host=[260, 50], blocks=100)).move == []
    assert placed(View(device=[700], host=[100, 100, 100], blocks=100)).move == [(1, DEVICE), (2, DEVICE)]


def test_from_the_first_that_does_not_fit_on_prompts_go_to_the_host():
    found = placed(View(device=[700], waiting=[200, 150, 20], blocks=100))
    assert [w.sid for w in found.work] == [1, 2, 3]
    assert found.to_host == [2, 3]


def test_the_host_keeps_room_for_all_that_is_on_the_device():
    found = placed(View(device=[990], waiting=[200, 20], blocks=100, host_blocks=119))
    assert found.work == []
    found = placed(View(device=[990], waiting=[200, 20], blocks=100, host_blocks=120))
    assert found.to_host == [1]


def test_seats_tokens_and_the_policy_limit_admission():
    view = dict(device=[10], waiting=[20, 20, 20])
    assert len(placed(View(**view), seats=3).work) == 2
    assert len(placed(View(**view), budget=41).work) == 2
    crowded = dict(device=[950], waiting=[100, 100])
    assert placed(View(**crowded), lambda seq, device, host: not host).to_host == [1]


def test_what_can_never_run_is_rejected():
    assert placed(View(waiting=[1000, 5])).reject == [0]
    assert placed(View(waiting=[60, 5]), budget=50).reject == [0]


def divide_by_hand(contexts, tokens, attention, costs):
    """As the seed of the idea tells it: time left in sub-batch j is T_l(other) + its device attention - its host attention."""
    batches = ([], [])

    def left(j):
        size = [tokens + len(batches[0]), len(batches[1])]
        own = costs.host(len(batches[j]), sum(contexts[i] for i in batches[j]))
        return costs.linear(size[1 - j]) + (attention if j == 0 else 0.0) - own

    refused = float("inf")
    for i, context in enumerate(contexts):
        if context >= refused:
            continue
        j = 0 if left(0) > left(1) else 1
        batches[j].append(i)
        if min(left(0), left(1)) < 0:
            batches[j].pop()
            refused = context
    return batches, (left(0), left(1))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(contexts=st.lists(st.integers(1, 900), max_size=40), tokens=st.integers(0, 50), attention=st.floats(0, 5e-3),
       host=st.floats(1e-8, 1e-5), linear=SECONDS, slope=st.floats(0, 1e-5))  # fmt: skip
def test_sub_batches_are_filled_as_told_by_hand(contexts, tokens, attention, host, linear, slope):
    costs = Costs(linear=linear, slope=slope, host=host)
    found = divide(list(range(len(contexts))), np.array(contexts, np.int64), tokens, attention, costs)
    batches, left = divide_by_hand(contexts, tokens, attention, costs)
    assert [list(found.first), list(found.second)] == list(batches)
    assert found.left == pytest.approx(left, abs=1e-12)
    assert min(found.left) >= -1e-12, "the device never waits"
    assert found.seconds == pytest.approx(costs.linear(tokens + len(found.first)) + costs.linear(len(found.second)) + attention)


@settings(derandomize=True, max_examples=300)
@given(linear=SECONDS, attention=SECONDS, rows=st.integers(1, 300), host_rate=st.floats(1, 1e6))
def test_equation_6_compares_tokens_per_second(linear, attention, rows, host_rate):
    pipelined = rows / (2 * linear + attention) + host_rate
    alone = rows / (linear + attention)
    if abs(pipelined / alone - 1) > 1e-9:
        assert pipelining_pays(rows / attention, host_rate, linear, attention) == (pipelined > alone)


def test_apex_overlaps_as_equation_6_says():
    slow, fast = Costs(host=2e-5), Costs(host=2e-7)
    device = [95] * 10
    view = View(device, [95] * 30, costs=slow)
    assert started(Apex(), view).plan(view).overlap == ASYNC
    view = View(device, [95] * 30, costs=fast)
    plan = started(Apex(), view).plan(view)
    assert plan.overlap == PIPELINED
    assert sorted((*plan.batches[0], *plan.batches[1])) == list(range(10, 40))
    for overlap in (ASYNC, BARRIER):
        assert started(Apex(overlap=overlap), view).plan(view).overlap == overlap
    assert started(Apex(), View(device)).plan(View(device)).overlap == SERIAL


def test_apex_sends_to_the_host_what_it_can_attend_for_in_a_pass():
    view = View([950], [], [100] * 9, costs=Costs(linear=1e-3, slope=0.0, device=0.0, host=1e-5, call=0.0, vectors=0.0))
    plan = started(Apex(), view).plan(view)
    assert len(plan.to_host) == 3  # 4 layers of 1 ms against 1 ms and a bit for each
    assert len(started(Apex(host_load=2.0), view).plan(view).to_host) == 6


def test_with_a_prompt_in_the_step_open_tokens_are_left_alone():
    slow = Costs(host=2e-5)
    view = View([95] * 9, [95] * 8, waiting=[50], costs=slow, in_flight=range(9, 17))
    plan = started(Apex(), view).plan(view)
    assert plan.step.work
    assert plan.overlap == ASYNC


def test_neo_rests_the_host_where_pipelining_is_slower():
    device = [95] * 10
    view = View(device, [95] * 2, costs=Costs(host=4e-6, slope=0.0))
    assert started(Neo(), view).plan(view).overlap == SERIAL  # weights read twice for two more sequences
    view = View(device, [95] * 40, costs=Costs(host=1e-7, slope=0.0))
    assert started(Neo(), view).plan(view).overlap == PIPELINED


def test_neo_never_leaves_host_sequences_without_anybody_to_run_with():
    view = View([], [490], blocks=50)  # too long to come back
    plan = started(Neo(), view).plan(view)
    assert (plan.overlap, plan.batches) == (PIPELINED, ((0,), ()))


def test_neo_puts_off_prompts_for_which_the_host_would_idle():
    """Plenty of host-bound prompts, no host decodes: as few as keep 128 tokens in the step."""
    view = View([950], waiting=[100] * 6)
    plan = started(Neo(), view).plan(view)
    assert len(plan.to_host) == 2
