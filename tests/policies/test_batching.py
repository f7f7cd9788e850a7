"""What each policy decides in states whose answer its paper gives, and what its plans promise."""

import pytest
from hypothesis import HealthCheck, given, settings

from rota.contracts.serving import ALWAYS, ARRIVAL, DECODE, FINISH, PREFILL, Limits, Work
from rota.policies.batching.recompute import make_room
from rota.policies.registry import make_policy
from tests.policies.views import ColumnsView, Row, build, evict, states


def ask(policy, running=(), waiting=(), *, free=100, start=True, **options):
    view = ColumnsView(*build(list(running), list(waiting), free=free, **options))
    if start:
        policy.start(view.limits)
    return policy.plan(view)


def decoding(known=10, **options):
    return Row(known, known - 1, DECODE, **options)


def prompt(known, computed=0, **options):
    return Row(known, computed, PREFILL, **options)


# ---- static ------------------------------------------------------------------------------------------------------------------------


def test_static_fills_a_batch_with_the_longest_output_reserved():
    plan = ask(make_policy("static", max_num_seqs=2), waiting=[Row(10, max_new=30), Row(20), Row(5)], max_len=60)
    assert plan.work == (Work(0, 10, 40), Work(1, 20, 60))


def test_static_waits_until_the_whole_batch_has_finished():
    policy = make_policy("static", max_num_seqs=8, padded=True)
    plan = ask(policy, [decoding()], [Row(5)])
    assert (plan.work, plan.decode, plan.repeat, plan.wake, plan.padded) == ((), True, ALWAYS, 0, True)
    assert policy.requires == {"padded"}
    assert make_policy("static").requires == frozenset()


# ---- Orca --------------------------------------------------------------------------------------------------------------------------


def test_orca_reserves_so_that_fewer_fit():
    waiting = [Row(10, max_new=30), Row(10, max_new=30), Row(10, max_new=30)]
    reserve = ask(make_policy("orca"), [decoding()], waiting, free=25)
    paged = ask(make_policy("orca-paged"), [decoding()], waiting, free=25)
    assert [w.sid for w in reserve.work] == [1, 2]
    assert reserve.work[0] == Work(1, 10, 40)
    assert [w.sid for w in paged.work] == [1, 2, 3]
    assert paged.work[0] == Work(1, 10, 10)
    assert reserve.decode
    assert paged.decode


def test_flover_lets_one_join_per_turn_with_its_prompt_alone():
    policy = make_policy("flover", max_num_seqs=3)
    waiting = [Row(10, max_new=30), Row(6, max_new=30)]
    join = ask(policy, [decoding()], waiting)
    assert (join.work, join.decode) == ((Work(1, 10, 40),), False)
    turn = ask(policy, [decoding(), decoding()], waiting[1:], start=False)
    assert (turn.work, turn.decode, turn.repeat) == ((), True, 1)
    assert ask(policy, [decoding(), decoding()], waiting[1:], start=False).work == (Work(2, 6, 36),)
    full = ask(policy, [decoding()] * 3, waiting, start=False)
    assert (full.work, full.repeat, full.wake) == ((), ALWAYS, FINISH)


def test_first_come_first_served_is_strict():
    for name in ("orca", "orca-paged", "vllm-v0", "sarathi", "layered"):
        plan = ask(make_policy(name), [decoding()], [Row(80, max_new=1), Row(4, max_new=1)], free=5, total=300)
        assert plan.work == ()
        assert (plan.repeat, plan.wake) == (ALWAYS, FINISH)


# ---- vLLM v0 -----------------------------------------------------------------------------------------------------------------------


def test_v0_never_mixes_prompts_and_decodes():
    plan = ask(make_policy("vllm-v0"), [decoding(), decoding()], [Row(30), Row(7)])
    assert plan.work == (Work(2, 30, 30), Work(3, 7, 7))
    assert not plan.decode
    assert ask(make_policy("vllm-v0"), [decoding(), decoding()]).decode


def test_v0_stops_at_the_token_cap_and_at_the_watermark():
    capped = make_policy("vllm-v0", max_num_batched_tokens=40, max_num_seqs=9)
    assert [w.sid for w in ask(capped, waiting=[Row(30), Row(10), Row(1)]).work] == [0, 1]
    assert ask(capped, waiting=[Row(41)]).reject == (0,)
    padded = make_policy("vllm-v0", max_num_batched_tokens=60, max_num_seqs=9, padded_prompts=True)
    assert [w.sid for w in ask(padded, waiting=[Row(5), Row(30), Row(1)]).work] == [0, 1]  # 2 x 30 fits, 3 x 30 does not
    spare = make_policy("vllm-v0", watermark=0.2)
    assert [w.sid for w in ask(spare, waiting=[Row(32), Row(33)], free=20).work] == [0]  # 8 of 20 blocks; 9 more leave 3 < 4
    assert ask(spare, waiting=[Row(65)], free=20).reject == (0,)  # 17 blocks would never leave 4


# ---- the eviction loop -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sarathi", "vllm-v0", "orca-paged", "layered", "sarathi-dynamic"])
def test_a_half_done_prompt_can_be_the_victim_of_a_decode(name):
    running = [decoding(9, arrival=0), prompt(40, 8, blocks=10, arrival=1)]  # the decode has filled its blocks
    plan = ask(make_policy(name), running, free=0)
    assert plan.evict == (1,)
    assert plan.decode
    assert plan.work == ()


def test_one_free_block_is_wanted_even_where_none_is_needed():
    running = [decoding(10, arrival=0), decoding(10, arrival=1)]  # both have room in their last block
    assert ask(make_policy("sarathi"), running, free=0).evict == (1,)
    assert ask(make_policy("sarathi"), running, free=1).evict == ()
    assert ask(make_policy("vllm-v1", enable_prefix_caching=False), running, free=0).evict == ()


def test_victims_are_the_latest_arrivals_and_only_those_behind():
    running = [decoding(9, arrival=2), decoding(9, arrival=0), decoding(9, arrival=1), prompt(8, 0, blocks=2, arrival=0.5)]
    view = ColumnsView(*build(running, [], free=1))
    assert make_room(view) == ((0,), 2, 1)  # 1 and 2 take a block each; 0, the latest, is let go for 2 and gives two back
    alone = ColumnsView(*build([prompt(8, 0, blocks=2, arrival=0), decoding(9, arrival=1)], [], free=0))
    assert make_room(alone) == ((1,), 0, 2)  # the prompt came earlier, so the decode itself must go


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(states())
def test_room_is_made_exactly_where_it_lacks(state):
    view = ColumnsView(*state)
    evicted, decodes, free = make_room(view)
    spare = view.free_blocks - view.decode_need
    if spare >= 1 or not view.n_decode:
        assert evicted == ()
    if spare < 0:
        assert evicted
    assert free >= 0
    if not evicted:
        assert (decodes, free) == (view.n_decode, spare)
    gone = [view.seq(sid) for sid in evicted]
    assert decodes == view.n_decode - sum(s.phase == DECODE for s in gone)
    keys = [(s.arrival, s.sid) for s in gone]
    assert keys[:-1] == sorted(keys[:-1], reverse=True)  # the latest first; only the very last can be a decode that stood alone
    seq, _, ctl = state
    evict(seq, ctl, evicted)
    assert view.free_blocks - view.decode_need == free  # what is left after the loop is what the engine will have


# ---- Sarathi-Serve -----------------------------------------------------------------------------------------------------------------


def test_sarathi_decodes_count_against_the_budget():
    policy = make_policy("sarathi", max_num_batched_tokens=32, max_num_seqs=8)
    plan = ask(policy, [decoding(), decoding(), prompt(100, 40, blocks=25)], [Row(9)])
    assert plan.work == (Work(2, 30),)
    assert (plan.repeat, plan.wake, plan.headroom) == (2, FINISH, 1)  # 60 tokens left are two whole chunks


def test_sarathi_reserves_the_whole_prompt_but_runs_a_chunk():
    policy = make_policy("sarathi", max_num_batched_tokens=32, max_num_seqs=8)
    plan = ask(policy, [decoding()], [Row(10), Row(50)])
    assert plan.work == (Work(1, 10, 10), Work(2, 21, 50))
    assert plan.repeat == 1
    assert ask(policy, [decoding()], [Row(10), Row(50)], free=14).work == (Work(1, 10, 10),)


def test_sarathi_never_exceeds_its_budget_nor_starves_a_decode():
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(states())
    def check(state):
        view = ColumnsView(*state)
        policy = make_policy("sarathi", max_num_batched_tokens=24, max_num_seqs=9)
        policy.start(view.limits)
        plan = policy.plan(view)
        if plan.reject:
            return
        decodes = view.n_decode - sum(view.seq(sid).phase == DECODE for sid in plan.evict)
        assert plan.decode
        assert plan.pause == ()
        assert decodes + sum(w.n_tokens for w in plan.work) <= 24
        assert all(1 <= w.n_tokens <= view.seq(w.sid).n_known - view.seq(w.sid).n_computed for w in plan.work)

    check()


def test_dynamic_chunks_shrink_along_the_prompt_and_repeat_within_a_stage():
    policy = make_policy("sarathi-dynamic", max_num_batched_tokens=512, low_chunk_size=128, chunk_schedule_stages=4,
                         chunk_schedule_max_tokens=4000)  # fmt: skip
    assert policy.chunk_sizes == [512, 384, 256, 128]
    assert [policy.budget_at(p) for p in (0, 999, 1000, 2999, 3000, 9000)] == [512, 512, 384, 256, 128, 128]
    plan = ask(policy, [decoding(), prompt(8000, 1100, blocks=2000)], max_len=9000)
    assert plan.work == (Work(1, 383),)
    assert plan.repeat == 3  # at 1100, 1483 and 1866; 2249 lies in the next stage
    assert plan.wake == ARRIVAL | FINISH  # an arrival stands at its prompt's start, where the budget is larger


# ---- layered prefill ---------------------------------------------------------------------------------------------------------------


def test_layer_groups_follow_the_table():
    limits = Limits(n_layers=48, block_size=16, blocks=1000, max_seqs=8, max_step_tokens=1 << 40, max_len=9000)
    tables = {
        16: {1: 1, 512: 1, 513: 2, 1024: 2, 1025: 4, 2048: 4, 2049: 8, 4096: 8, 4097: 16, 8192: 16},
        8: {4097: 8},
        4: {8192: 4},
    }
    for stages, table in tables.items():
        policy = make_policy("layered", stages=stages)
        policy.start(limits)
        assert {n: policy.groups(n) for n in table} == table
    policy = make_policy("layered", stages=64)
    policy.start(Limits(**{**{f: getattr(limits, f) for f in limits.__slots__}, "n_layers": 5}))
    assert policy.groups(1 << 20) == 5


def test_a_cohort_passes_every_layer_once_and_only_then_comes_the_next():
    policy = make_policy("layered", stages=4, unit=8, max_cohort_tokens=64)
    waiting = [Row(20), Row(50), Row(9)]
    plan = ask(policy, [decoding()], waiting)
    assert plan.work == (
        Work(1, 20, 20, (0, 4)),
        Work(2, 44, 50, (0, 4)),
    )  # 16 layers in 4 groups; the rest of request 2 comes later
    running = [decoding(11), prompt(20), prompt(50, blocks=13)]
    spans = [ask(policy, running, [Row(9)], start=False).work for _ in range(3)]
    assert [work[0].layers for work in spans] == [(4, 8), (8, 12), (12, 16)]
    assert all([w.sid for w in work] == [1, 2] for work in spans)
    plan = ask(policy, [decoding(14), decoding(21), prompt(50, 44, blocks=13)], [Row(9)], start=False)
    assert [(w.sid, w.n_tokens) for w in plan.work] == [(2, 6), (3, 9)]


def test_an_evicted_member_leaves_its_cohort():
    policy = make_policy("layered", stages=4, unit=8)
    ask(policy, [decoding(9, arrival=0)], [Row(20, arrival=1), Row(20, arrival=2)])
    running = [decoding(9, arrival=0), prompt(20, blocks=5, arrival=1), prompt(20, blocks=5, arrival=2)]
    plan = ask(policy, running, free=0, start=False)
    assert plan.evict == (2,)
    assert [(w.sid, w.layers) for w in plan.work] == [(1, (4, 8))]


def test_layers_split_nearly_equally():
    policy = make_policy("layered", stages=4, unit=1, max_cohort_tokens=64)
    view = ColumnsView(*build([], [Row(20)], free=100))
    policy.start(Limits(**{**{f: getattr(view.limits, f) for f in view.limits.__slots__}, "n_layers": 10}))
    policy.plan(view)
    view = ColumnsView(*build([prompt(20)], [], free=95))
    assert [policy.plan(view).work[0].layers for _ in range(3)] == [(3, 6), (6, 8), (8, 10)]


# ---- vLLM v1 -----------------------------------------------------------------------------------------------------------------------


def v1(**options):
    return make_policy("vllm-v1", **{"max_num_batched_tokens": 32, "max_num_seqs": 8, **options})


def test_v1_takes_memory_per_chunk_and_starts_behind_the_cached_prefix():
    plan = ask(v1(), [decoding()], [Row(40, hit_blocks=5, idle_blocks=2), Row(30)], free=10)
    assert plan.work == (Work(1, 20), Work(2, 11))  # 20 of 40 tokens are cached; the rest of the budget goes to the next
    assert (
        ask(v1(), [decoding()], [Row(40, hit_blocks=5, idle_blocks=2)], free=6, total=300).work == ()
    )  # 5 new blocks and 2 idle ones
    assert ask(v1(enable_prefix_caching=False), [decoding()], [Row(40)], free=8).work == (Work(1, 31),)


def test_v1_threshold_leaves_budget_for_others():
    plan = ask(v1(long_prefill_token_threshold=10), [prompt(50, 10)], [Row(50), Row(50)])
    assert [(w.sid, w.n_tokens) for w in plan.work] == [(0, 10), (1, 10), (2, 10)]
    alone = ask(v1(long_prefill_token_threshold=10), [prompt(50, 10)])
    assert (alone.repeat, alone.wake) == (4, ARRIVAL | FINISH)


def test_v1_admits_nobody_in_a_step_that_evicted():
    policy = v1(enable_prefix_caching=False)
    seq, tim, ctl = build([decoding(9), decoding(21), decoding(6)], [Row(4)], free=0)
    view = ColumnsView(seq, tim, ctl)
    policy.start(view.limits)
    first = policy.plan(view)
    assert (first.evict, first.decode, first.work) == ((2,), False, ())  # takes no time: asked again at once
    evict(seq, ctl, first.evict)
    assert view.free_blocks == 2
    second = policy.plan(view)
    assert (second.decode, second.work, second.evict, second.repeat) == (True, (), (), 1)
    assert policy.plan(view).work == ()  # no block is left for the one at the head
    ctl[9] += 5
    assert [w.sid for w in policy.plan(view).work] == [2, 3]


def test_v1_priority_evicts_the_least_urgent_and_stops_at_itself():
    policy = v1(scheduling_policy="priority", enable_prefix_caching=False)
    running = [decoding(9, priority=2), decoding(9, priority=0), decoding(10, priority=1)]
    behind = ask(policy, running, free=1)
    assert (behind.evict, behind.decode) == ((0,), False)  # the second lacks a block; the first, served already, pays
    itself = ask(policy, running, free=0)
    assert (itself.evict, itself.decode, itself.pause) == ((0,), True, (1, 2))  # the first lacks one and is itself the victim


def test_v1_keeps_a_chunk_as_it_was_when_memory_was_made_for_it():
    policy = v1(scheduling_policy="priority", enable_prefix_caching=False)
    seq, tim, ctl = build([decoding(6, priority=3), decoding(7), prompt(90, 8, blocks=2)], [], free=1, max_len=400)
    view = ColumnsView(seq, tim, ctl)
    policy.start(view.limits)
    assert policy.plan(view).evict == (0,)
    ctl[9] = 20
    evict(seq, ctl, (0,))
    assert policy.plan(view).work == (Work(2, 30),)  # not 31, though the evicted one's token came back to the budget


def test_v1_looks_at_a_blocked_head_in_every_step_only_with_a_cache():
    cached = ask(v1(), [decoding(), decoding()], [Row(60)], free=2, total=300)
    counted = ask(v1(enable_prefix_caching=False), [decoding(), decoding()], [Row(60)], free=2, total=300)
    urgent = ask(
        v1(enable_prefix_caching=False, scheduling_policy="priority"), [decoding(), decoding()], [Row(60)], free=2, total=300
    )
    assert (cached.repeat, counted.repeat, counted.wake) == (1, ALWAYS, FINISH)
    assert (urgent.repeat, urgent.wake) == (ALWAYS, ARRIVAL | FINISH)


def test_with_pipeline_stages_a_prompt_that_stands_first_takes_the_budget():
    running = [prompt(90, 8), decoding(6), decoding(7, flight=True)]
    plan = ask(v1(enable_prefix_caching=False), running, stages=2)
    assert (plan.work, plan.pause) == ((Work(0, 32),), (1,))


# ---- promises common to all --------------------------------------------------------------------------------------------------------

ALL = ["static", "orca", "flover", "orca-paged", "vllm-v0", "vllm-v1", "sarathi", "sarathi-dynamic", "layered"]


@pytest.mark.parametrize("name", ALL)
def test_a_request_larger_than_the_memory_is_rejected_at_once(name):
    plan = ask(make_policy(name), waiting=[Row(40), Row(4)], free=10, size=4)  # 40 tokens fill it; the next has no block
    assert (plan.reject, plan.work, plan.decode) == ((0,), (), False)
    assert ask(make_policy(name, **({"watermark": 0} if "watermark" in WATERMARKED.get(name, ()) else {})),
               waiting=[Row(39), Row(4)], free=10, size=4).work[0].sid == 0  # fmt: skip


WATERMARKED = dict.fromkeys(("vllm-v0", "sarathi", "sarathi-dynamic"), ("watermark",))


@pytest.mark.parametrize("name", [n for n in ALL if n != "static"])
def test_decode_only_plans_say_what_could_change_them(name):
    policy = make_policy(name, max_num_seqs=3)
    two, three = [decoding(), decoding()], [decoding(), decoding(), decoding()]
    one_block = name not in ("orca", "flover", "vllm-v1")
    idle, full, queued = ask(policy, two), ask(policy, three), ask(policy, three, [Row(5)])
    assert [(p.work, p.repeat) for p in (idle, full, queued)] == [((), ALWAYS)] * 3
    assert [p.wake for p in (idle, full, queued)] == [ARRIVAL, FINISH, FINISH]
    assert {p.headroom for p in (idle, full, queued)} == {int(one_block)}
