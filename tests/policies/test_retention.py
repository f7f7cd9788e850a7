"""KV held between turns: the best time to live against brute force, and whole policies on random programs in tight memory."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rota.contracts.serving import Limits
from rota.cost.engine import EngineSpec
from rota.errors import InputError
from rota.mechanisms.simulator import simulate
from rota.policies.order.program import ProgramOrder
from rota.policies.registry import make_policy
from rota.policies.retention import ttl as module
from rota.policies.retention.pins import Held, Pins
from rota.policies.retention.pressure import UntilPressure
from rota.policies.retention.ttl import Gaps, Ttl, TurnCounts, best_ttl, default_ttl
from rota.workload.agents import Agent, Tool, agents
from rota.workload.lengths import Spread
from tests.policies.snapshot import Snapshot
from tests.simulator.programs import problems
from tests.simulator.scenarios import tables
from tests.simulator.test_modes import NO_SHRINK, assert_same

NAMES = ("program-fcfs", "continuum", "fixed-ttl", "pin-until-pressure", "pin-forever")
BATCHINGS = {
    "vllm-v1": dict(max_num_seqs=6, max_num_batched_tokens=24),
    "sarathi": dict(max_num_seqs=6, max_num_batched_tokens=24),
    "vllm-v0": dict(max_num_seqs=6, max_num_batched_tokens=160),
    "orca-paged": dict(max_num_seqs=6),
}
PLAIN = settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINK)
LIMITS = Limits(n_layers=32, block_size=16, blocks=1000, max_seqs=64, max_step_tokens=2048, max_len=4096, prefill=(0.5, 1e-3, 0.0))


def policies(**options):
    """Each retention with each batching, made quick to learn and to forget."""
    for name in NAMES:
        own = {"continuum": dict(cold_start=3), "fixed-ttl": dict(ttl=0.05)}.get(name, {})
        for batching, limited in BATCHINGS.items():
            yield make_policy(name, batching=batching, **limited, **own, **options)
    yield make_policy("pin-until-pressure", yields="anyone", **BATCHINGS["vllm-v1"])
    # held KV with queues that know nothing of programs
    yield make_policy("composed", batching="vllm-v1", retention="ttl", **BATCHINGS["vllm-v1"])
    yield make_policy("composed", batching="sarathi", order="shortest-prompt", retention="forever", **BATCHINGS["sarathi"])


@given(st.lists(st.floats(0, 100), max_size=60), st.floats(-5, 200))
def test_the_scan_finds_what_brute_force_finds(gaps, value):
    def worth(tau):
        return (np.mean(np.array(gaps) <= tau) * value if gaps else 0.0) - tau

    found = best_ttl(sorted(gaps), value)
    assert found == 0 or found in gaps
    assert worth(found) >= max(worth(tau) for tau in [0.0, *gaps]) - 1e-9
    assert worth(found) >= max(worth(tau) for tau in np.linspace(0, 250, 100)) - 1e-9


def test_the_default_is_best_for_exponential_gaps():
    for value in (0.2, 1.0, 3.0, 40.0):
        taus = np.linspace(0, 20, 200_001)
        assert default_ttl(value) == pytest.approx(taus[np.argmax((1 - np.exp(-taus)) * value - taus)], abs=1e-3)
    assert default_ttl(-1.0) == 0


@given(st.lists(st.integers(1, 30), min_size=1, max_size=50))
def test_what_turns_done_say_of_turns_left_is_their_correlation(counts):
    known = TurnCounts()
    for turns in counts:
        known.add(turns)
    done = np.concatenate([np.arange(1, turns) for turns in counts])
    left = np.concatenate([turns - np.arange(1, turns) for turns in counts])
    expected = -np.corrcoef(done, left)[0, 1] if len(done) > 1 and done.std() > 0 else 1.0
    assert known.memory() == pytest.approx(expected)


def test_turn_counts_that_are_equal_geometric_or_heavy_tailed():
    def eta(counts):
        known = TurnCounts()
        for turns in counts:
            known.add(int(turns))
        return known.memory()

    rng = np.random.default_rng(0)
    assert eta([18] * 50) == 1
    assert eta(rng.geometric(0.05, 1000)) == pytest.approx(0, abs=0.15)
    assert eta(np.ceil(rng.pareto(1.1, 1000))) < 0


@given(st.lists(st.floats(0, 9), min_size=1, max_size=60))
def test_the_window_of_gaps_holds_the_last_ones_in_order(values):
    limit, module.GAPS = module.GAPS, 20
    try:
        gaps = Gaps()
        for value in values:
            gaps.add(value)
    finally:
        module.GAPS = limit
    assert gaps.ordered.tolist() == sorted(values[-20:])
    assert gaps.count == len(values)


def turn(program, number, arrival=0.0, finished=0.0, tool=0, known=100, preemptions=0):
    return SimpleNamespace(program=program, turn=number, arrival=arrival, finished_at=finished, tool=tool, n_known=known, preemptions=preemptions)


def test_cold_start_then_all_tools_then_the_tool_itself():
    rule = Ttl(cold_start=2)
    rule.start(LIMITS)
    reload = 0.5 + 0.1
    assert rule.finished(turn(1, 0)) == default_ttl(reload)
    for program, tool, gap in ((1, 0, 0.1), (2, 0, 0.2), (3, 1, 0.3)):
        rule.finished(turn(program, 0, tool=tool))
        rule.arrived(turn(program, 1, arrival=gap))
    # three gaps in all, but of no tool more than two
    assert rule.finished(turn(9, 0, tool=1)) == best_ttl([0.1, 0.2, 0.3], reload) == 0.3
    rule.finished(turn(4, 0, tool=0))
    rule.arrived(turn(4, 1, arrival=0.15))
    assert rule.finished(turn(9, 0, tool=0)) == best_ttl([0.1, 0.15, 0.2], reload) == 0.2


def test_only_turns_that_lost_kv_count_for_the_delay():
    rule = Ttl()
    rule.start(LIMITS)
    for reused, counted in ((96, False), (80, True), (0, True)):
        rule.finished(turn(1, 0, known=101))
        rule.arrived(turn(1, 1, arrival=1.0))
        before = len(rule.delays)
        rule.admitted(turn(1, 1, arrival=1.0, known=150), reused, now=4.0)
        assert (len(rule.delays) > before) == counted
    assert set(rule.delays) == {3.0}
    # a first turn has lost nothing
    rule.admitted(turn(2, 0), 0, now=9.0)
    assert len(rule.delays) == 2
    assert rule.finished(turn(1, 0)) == default_ttl(3.0 + 0.6)


def test_copying_from_the_host_counts_instead_of_computing_again():
    rule = Ttl()
    rule.start(Limits(*[1] * 6, prefill=(9.0, 9.0, 9.0), reload=0.02))
    assert rule.reload_seconds(100) == 2.0


def test_statistics_do_not_grow():
    rule = Ttl()
    rule.start(LIMITS)
    module.AWAY, kept = 500, module.AWAY
    try:
        for i in range(20_000):
            rule.finished(turn(i, 0, finished=float(i), tool=i % 7))
            if i % 3:
                rule.arrived(turn(i, 1, arrival=i + 1.0))
                rule.admitted(turn(i, 1, arrival=i + 1.0), 0, now=i + 2.0)
                rule.finished(turn(i, 1, tool=-1))
    finally:
        module.AWAY = kept
    assert len(pickle.dumps(rule)) < 300_000


def test_program_order_puts_evicted_then_held_then_old_programs_first():
    pins = Pins(UntilPressure())
    order = ProgramOrder(pins)
    pins.start(LIMITS)
    order.start(LIMITS)
    view = SimpleNamespace(seq=lambda sid: sid)
    #: sid: (program, its arrival)
    waiting = {0: (3, 5.0), 1: (1, 1.0), 2: (2, 3.0), 3: (-1, 2.0), 4: (4, 9.0), 5: (5, 8.0)}
    for sid, (program, began) in waiting.items():
        order.joins(SimpleNamespace(sid=sid, program=program, program_arrival=began), evicted=sid == 4)
    pins.held = {3: Held(math.inf, 5.0), 5: Held(math.inf, 8.0), 77: Held(math.inf, 0.0)}
    found = []
    for sid in order.queue(view):
        found.append(sid)
        program, began = waiting[sid]
        order.leaves(SimpleNamespace(sid=sid, program=program, program_arrival=began), True)
    assert found == [4, 0, 5, 1, 3, 2]


@PLAIN
@given(problems())
def test_modes_agree_and_all_programs_end(problem):
    """30 problems x 23 policies. `simulate` itself raises if a block or a pin is left over, or if nothing can go on."""
    trace, engine = problem
    for policy in policies():
        reference = simulate(trace, policy, engine, compress=False)
        assert_same(reference, simulate(trace, policy, engine), policy.name)
        assert np.isfinite(reference.finish[~reference.rejected]).all()
        assert not reference.rejected.any()


@PLAIN
@given(problems())
def test_no_time_to_live_is_program_order_alone(problem):
    trace, engine = problem
    for batching, limited in BATCHINGS.items():
        alone = simulate(trace, make_policy("program-fcfs", batching=batching, **limited), engine)
        assert_same(alone, simulate(trace, make_policy("fixed-ttl", ttl=0, batching=batching, **limited), engine), batching)


@PLAIN
@given(problems())
def test_single_turns_without_pressure_are_served_first_come_first_served(problem):
    trace, engine = problem
    first = np.flatnonzero(trace.after < 0)
    start = np.concatenate([[0], np.cumsum(np.diff(trace.hash_start)[first])])
    ids = np.concatenate([np.split(trace.hash_ids, trace.hash_start[1:-1])[i] for i in first])
    single = trace.with_columns(
        **{name: getattr(trace, name)[first] for name in ("arrival", "prompt", "output", "program")}, tool=np.full(len(first), -1),
        after=None, delay=None, hash_ids=ids, hash_start=start,
    )  # fmt: skip
    ample = EngineSpec(tables=engine.tables, blocks=5000, block_size=engine.block_size, max_len=160)
    expected = simulate(single, make_policy("vllm-v1", max_num_seqs=6, max_num_batched_tokens=24), ample)
    for name in NAMES:
        run = simulate(single, make_policy(name, max_num_seqs=6, max_num_batched_tokens=24), ample)
        np.testing.assert_allclose(run.finish, expected.finish, rtol=1e-9)


@PLAIN
@given(problems())
def test_state_survives_a_snapshot_before_every_decision(problem):
    trace, engine = problem
    for name in NAMES:
        policy = make_policy(name, **BATCHINGS["vllm-v1"])
        assert_same(simulate(trace, policy, engine), simulate(trace, Snapshot(policy), engine), name)


class Audit(Snapshot):
    """Checks before every decision that the policy and the engine agree on what is held."""

    def plan(self, view):
        pins = self.__dict__["inner"].pins
        held = [key for key in view._pins]
        assert set(held) == pins._set
        assert set(pins.held) <= set(held)
        assert all(count > 0 for count in pins.waiting.values())
        plan = self.__dict__["inner"].plan(view)
        assert set(pins.held) == (set(held) | {pin.key for pin in plan.pin}) - set(plan.unpin)
        return plan

    def __deepcopy__(self, memo):
        return Audit(pickle.loads(pickle.dumps(self.__dict__["inner"])))


@PLAIN
@given(problems())
def test_policy_and_engine_agree_on_what_is_held(problem):
    trace, engine = problem
    for policy in policies():
        if policy.pins:
            simulate(trace, Audit(policy), engine)


@PLAIN
@given(problems(), st.floats(0.2, 5.0))
def test_changes_of_pins_beside_work_decide_as_those_in_plans_of_their_own(problem, ample):
    trace, engine = problem
    engine = replace(engine, blocks=int(engine.blocks * (1 + ample)))
    for policy in policies():
        if policy.pins:
            beside = simulate(trace, policy, engine)
            policy._most_wanted = lambda view: math.inf
            alone = simulate(trace, policy, engine)
            assert_same(beside, alone, policy.name)
            assert beside.totals["plans"] <= alone.totals["plans"]


def test_what_is_held_is_found_again_where_others_would_have_taken_it():
    # two programs whose first turns fill the engine; a stranger comes while both are away
    kind = Agent(Spread.fixed(2), Spread.fixed(64), Spread.fixed(16), Spread.fixed(16), (Tool("t", 1, Spread.fixed(1.0)),))
    trace = agents(6, 40.0, kind, seed=1)
    engine = EngineSpec(tables=tables(lambda strategy: 0.0, 1), blocks=24, block_size=16, max_len=160)
    lost = {name: simulate(trace, make_policy(name, max_num_seqs=2, max_num_batched_tokens=64), engine).cached[1::2].sum() for name in NAMES}
    assert lost["pin-forever"] > lost["program-fcfs"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pin-until-pressure", {"yields": "x"}), ("fixed-ttl", {"ttl": -1}), ("fixed-ttl", {"ttl": math.nan}),
        ("continuum", {"cold_start": -1}),
    ],
)  # fmt: skip
def test_wrong_options(name, options):
    with pytest.raises(InputError, match=next(iter(options))):
        make_policy(name, **options)
