"""Every executor rule, broken on purpose by a policy made for it."""

import numpy as np
import pytest

from rota.contracts.serving import ALWAYS, Pin, StepPlan, Work
from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.errors import DoesNotFit, InputError, PlanRejected, UnsupportedPolicy
from rota.mechanisms.simulator import simulate
from rota.workload.trace import Trace

TABLES = StepTables(layer=np.arange(65) * 1e-4, head=np.arange(9) * 1e-4, n_layers=4, decode_byte_s=1e-7, prefill_flop_s=1e-9)
SPEC = EngineSpec(tables=TABLES, blocks=16, block_size=4, max_len=64)
TRACE = Trace(arrival=np.array([0.0, 0.0, 0.0]), prompt=np.array([6, 6, 6]), output=np.array([4, 4, 4]))


class Scripted:
    """Plays a list of functions view -> plan, then stays empty."""

    name = "scripted"
    requires: frozenset[str] = frozenset()
    order = "fcfs"
    prefix_caching = False
    max_seqs = 2
    max_step_tokens = 16
    follows = False

    def __init__(self, *script):
        self.script = script

    def start(self, limits):
        self.at = 0

    def plan(self, view):
        self.at += 1
        return self.script[self.at - 1](view) if self.at <= len(self.script) else StepPlan()


def whole(*sids, **options):
    return lambda view: StepPlan(tuple(Work(s, 6) for s in sids), **options)


BROKEN = {
    "twice in one plan": ("I1", [whole(0, 0)]),
    "unknown sequence": ("I1", [whole(7)]),
    "already finished or unknown phase": ("I1", [whole(-3)]),
    "more tokens than the prompt": ("I2", [lambda v: StepPlan((Work(0, 7),))]),
    "no tokens": ("I2", [lambda v: StepPlan((Work(0, 0),))]),
    "a skipped layer": ("I2", [lambda v: StepPlan((Work(0, 6, 0, (1, 4)),))]),
    "too many layers": ("I2", [lambda v: StepPlan((Work(0, 6, 0, (0, 5)),))]),
    "another chunk while one is open": (
        "I2",
        [lambda v: StepPlan((Work(0, 6, 0, (0, 2)),)), lambda v: StepPlan((Work(0, 5, 0, (2, 4)),))],
    ),
    "all layers while a chunk is open": ("I2", [lambda v: StepPlan((Work(0, 6, 0, (0, 2)),)), whole(0)]),
    "too many tokens": ("I3", [lambda v: StepPlan((Work(0, 6), Work(1, 6), Work(2, 6)))]),
    "too many sequences": ("I3", [lambda v: StepPlan((Work(0, 2), Work(1, 2), Work(2, 2)))]),
    "more blocks than there are": ("I4", [lambda v: StepPlan((Work(0, 6, 60), Work(1, 6, 60)))]),
    "listed while decoding": ("I6", [whole(0), lambda v: StepPlan((Work(0, 1),))]),
    "paused while waiting": ("I6", [lambda v: StepPlan(pause=(0,))]),
    "evicted and scheduled": ("I7", [whole(0), lambda v: StepPlan((Work(0, 7),), evict=(0,))]),
    "evicted while waiting": ("I7", [lambda v: StepPlan(evict=(1,))]),
    "rejected while running": ("I7", [whole(0), lambda v: StepPlan(reject=(0,))]),
    "nothing to do for ever": ("I8", [lambda v: StepPlan()]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plan_is_rejected_by_name(case):
    rule, script = BROKEN[case]
    with pytest.raises(PlanRejected) as caught:
        simulate(TRACE, Scripted(*script), SPEC)
    assert caught.value.rule == rule


def test_progress_happens_only_at_the_last_layer():  # I5
    seen = []

    def look(view):
        seen.append((view.seq(0).n_computed, view.seq(0).layer_cursor))
        lo = view.seq(0).layer_cursor
        return StepPlan((Work(0, 6, 0, (lo, lo + 2)),)) if view.seq(0).n_computed == 0 else StepPlan()

    one = Trace(arrival=np.zeros(1), prompt=np.array([6]), output=np.array([1]))
    run = simulate(one, Scripted(look, look), SPEC)
    assert seen == [(0, 0), (0, 2)]
    layer = TABLES.layer[6] + TABLES.prefill_flop_s * 21
    assert run.finish[0] == pytest.approx(4 * layer + TABLES.head[1], rel=1e-12)


def test_memory_balances_after_evictions_and_rejections():  # I9: `simulate` raises if a block is missing at the end
    def evict_first(view):
        return StepPlan((Work(1, 6),), evict=(0,))

    def rest(view):
        work = tuple(Work(s.sid, s.n_known) for s in list(view.waiting)[:1] if view.n_running < 2)
        return StepPlan(work)

    run = simulate(TRACE, Scripted(whole(0), evict_first, lambda v: StepPlan(reject=(2,)), *[rest] * 40), SPEC)
    assert run.preemptions.tolist() == [1, 0, 0]
    assert run.recomputed.tolist() == [6, 0, 0]
    assert run.rejected.tolist() == [False, False, True]
    assert np.isnan(run.finish[2])
    assert np.isfinite(run.finish[:2]).all()
    assert run.tbt_histogram.sum() == 6


class Pinning(Scripted):
    """With a prefix cache, and told of arrivals and finishes."""

    requires = frozenset({"prefix_cache", "pin"})
    prefix_caching = True
    follows = True


CHAT = Trace(
    arrival=np.array([0.0, 1.0, 2.0]), prompt=np.array([8, 30, 13]), output=np.array([4, 2, 2]), program=np.array([7, -1, 7]),
    tool=np.array([0, -1, -1]), tools=("shell",), hash_ids=np.array([1, 2, 3, 9, 1, 2, 3, 4]), hash_start=np.array([0, 3, 4, 8]), hash_block=4,
)  # fmt: skip
#: The same with two longer requests between the turns, for an engine that can hold one of them beside two pinned blocks.
CROWDED = Trace(
    arrival=np.array([0.0, 1.0, 2.0, 3.0]), prompt=np.array([8, 24, 24, 13]), output=np.array([4, 2, 2, 2]),
    hash_ids=np.array([1, 2, 3, 9, 8, 1, 2, 3, 4]), hash_start=np.array([0, 3, 4, 5, 9]), hash_block=4,
)  # fmt: skip
SMALL = EngineSpec(tables=TABLES, blocks=9, block_size=4, max_len=64)


def serve(view):
    return StepPlan(tuple(Work(s.sid, s.n_known - s.n_reusable) for s in list(view.waiting)[:1]))


def test_a_pin_keeps_a_prefix_that_others_would_have_overwritten():
    def keep(view):
        return serve(view)._replace(pin=(Pin(7, 0, 11),)) if [s.sid for s in view.finished] == [0] else serve(view)

    def release(view):
        return serve(view)._replace(unpin=(7,)) if 3 in [s.sid for s in view.finished] else keep(view)

    for look, cached in ((serve, 0), (release, 8)):
        policy = Pinning(*[look] * 40)
        policy.max_step_tokens = 64
        assert simulate(CROWDED, policy, SMALL).cached.tolist() == [0, 0, 0, cached]
    kept = Pinning(*[keep] * 40)
    kept.max_step_tokens = 64
    with pytest.raises(PlanRejected, match="holds pins on 2 KV blocks") as caught:
        simulate(CROWDED, kept, SMALL)
    assert caught.value.rule == "I9"
    with pytest.raises(PlanRejected, match="releases pin 3, which it does not hold") as caught:
        simulate(CHAT, Pinning(lambda v: StepPlan(unpin=(3,))), SPEC)
    assert caught.value.rule == "I9"
    with pytest.raises(PlanRejected, match="without requiring"):
        simulate(CHAT, Scripted(lambda v: StepPlan(pin=(Pin(1, 0, 8),))), SPEC)


@pytest.mark.parametrize("compress", [True, False])
def test_a_policy_that_follows_is_told_of_every_arrival_and_finish_once(compress):
    told, turns = [], []

    def look(view):
        told.extend(("in", s.sid, s.arrival) for s in view.arrived)
        told.extend(("out", s.sid, s.tool) for s in view.finished)
        turns.extend((s.program, s.turn, s.program_arrival) for s in view.arrived)
        return serve(view)._replace(repeat=ALWAYS)

    policy = Pinning(*[look] * 100)
    policy.max_step_tokens = 64
    run = simulate(CHAT, policy, SPEC, compress=compress)
    assert [entry[1:] for entry in told if entry[0] == "in"] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert [entry[1:] for entry in told if entry[0] == "out"] == [(0, 0), (1, -1)]  # nobody is asked after the last
    assert turns == [(7, 0, 0.0), (-1, 0, 1.0), (7, 1, 0.0)]
    assert run.cached[2] == 8


def test_a_plan_holds_no_longer_than_its_wake_time():
    one = Trace(arrival=np.zeros(1), prompt=np.array([6]), output=np.array([30]))
    asked = []

    def look(view):
        asked.append(view.now)
        return StepPlan(repeat=ALWAYS, wake_at=0.01)

    run = simulate(one, Scripted(whole(0), look, look), SPEC)
    step = (run.finish[0] - asked[0]) / 29
    assert asked[0] < 0.01 <= asked[1] < 0.01 + 1.2 * step


def test_a_paused_sequence_keeps_its_place_and_its_gap_is_measured():
    one = Trace(arrival=np.zeros(2), prompt=np.array([6, 6]), output=np.array([3, 3]))
    run = simulate(one, Scripted(whole(0, 1), lambda v: StepPlan(pause=(1,)), *[lambda v: StepPlan()] * 9), SPEC)
    assert run.finish[1] > run.finish[0]
    assert run.max_tbt[1] > run.max_tbt[0]


def test_capabilities_are_matched_at_start():
    policy = Scripted(whole(0))
    policy.requires = frozenset({"layers"})
    with pytest.raises(UnsupportedPolicy, match="layers.*pipeline_parallel_size"):
        simulate(TRACE, policy, EngineSpec(tables=TABLES, blocks=16, block_size=4, max_len=64, pp=2))
    policy.requires = frozenset({"telepathy"})
    with pytest.raises(UnsupportedPolicy, match="telepathy"):
        simulate(TRACE, policy, SPEC)


def test_requests_that_cannot_run_are_found_before_the_run():
    long = Trace(arrival=np.zeros(1), prompt=np.array([60]), output=np.array([9]))
    with pytest.raises(InputError, match="request 0 needs 60 prompt \\+ 9 output"):
        simulate(long, Scripted(), SPEC)
    with pytest.raises(DoesNotFit, match="15 KV blocks.*only 8"):
        simulate(Trace(arrival=np.zeros(1), prompt=np.array([50]), output=np.array([9])), Scripted(),
                 EngineSpec(tables=TABLES, blocks=8, block_size=4, max_len=64))  # fmt: skip
    with pytest.raises(DoesNotFit, match="no memory"):
        simulate(TRACE, Scripted(), EngineSpec(tables=TABLES, blocks=0, block_size=4, max_len=64))
    with pytest.raises(InputError, match="unknown router"):
        simulate(TRACE, Scripted(), SPEC, replicas=2, router="magic")
    with pytest.raises(InputError, match="at least 1"):
        simulate(TRACE, Scripted(), SPEC, replicas=0)


def test_a_livelock_is_named():
    """Two policies' worth of greed: each step evicts what the step before admitted, so time passes and nobody ends."""

    class Seesaw(Scripted):
        def plan(self, view):
            running = [s.sid for s in view.running]
            return StepPlan((Work(next(s.sid for s in view.waiting if s.sid not in running), 3),), evict=tuple(running))

    with pytest.raises(PlanRejected, match="without one request ending") as caught:
        simulate(TRACE, Seesaw(), SPEC)
    assert caught.value.rule == "I8"
