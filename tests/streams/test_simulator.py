"""Streaming sessions against closed forms, and what holds whatever is decided: every token once, no frame read before it is complete."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rota.contracts.streams import OWN_AXIS, Perceive, Positions, StreamPlan
from rota.cost.engine import EngineSpec
from rota.cost.model import CostModel
from rota.cost.tables import StepTables
from rota.errors import DoesNotFit, InputError, PlanRejected
from rota.mechanisms.simulator.streams import simulate_streams
from rota.policies.streams.registry import DISCIPLINES, stream_policy
from rota.workload.streams import Streams
from rota.workload.streams import streams as generated
from tests.streams.workloads import FRAME, UNIT, engine, one_session, problems

FEW, MANY = (settings(max_examples=n, deadline=None, suppress_health_check=list(HealthCheck)) for n in (80, 300))


def pipeline(at, seeing, speaking, apart):
    """When the text of each frame is complete: seconds to see and to speak, one after the other or on two devices."""
    seen = spoken = 0.0
    ends = []
    for when, see, speak in zip(at, seeing, speaking, strict=True):
        seen = max(seen if apart else max(seen, spoken), when) + see
        spoken = max(spoken, seen) + speak
        ends.append(spoken)
    return ends


loads = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 9)), min_size=1, max_size=12)


@MANY
@given(loads, st.integers(1, 90), st.integers(1, 30))
def test_one_session_is_the_pipeline_of_its_frames(load, frame, token):
    at = np.cumsum([gap for gap, _ in load]) * UNIT
    texts = [n for _, n in load]
    seeing, speaking = [frame * UNIT] * len(load), [n * token * UNIT for n in texts]
    spec = engine(frame, token)
    for name, devices, apart in (("interleave", 1, False), ("interleave", 2, False), ("group-decoupled", 2, True)):
        streams = one_session(at - at[0], texts)  # the prompt is computed with the first frame
        run = simulate_streams(streams, stream_policy(name), spec, devices=devices)
        assert run.answered.tolist() == pipeline(at - at[0], seeing, speaking, apart)


@given(st.integers(2, 40), st.integers(1, 90), st.integers(1, 30), st.integers(1, 9))
@settings(deadline=None)
def test_per_frame_the_sum_becomes_the_maximum(frames, frame, token, group):
    """Of a recorded clip with equal frames: t (T_p + T_g) in turns, and T_p + (t - 1) max(T_p, T_g) + T_g with two lanes."""
    see, speak = frame * UNIT, group * token * UNIT
    clip = one_session([0.0] * frames, [group] * frames)
    turns = simulate_streams(clip, stream_policy("interleave"), engine(frame, token)).makespan
    lanes = simulate_streams(clip, stream_policy("group-decoupled"), engine(frame, token), devices=2).makespan
    assert turns == frames * (see + speak)
    assert lanes == see + (frames - 1) * max(see, speak) + speak
    assert 1 <= turns / lanes <= min(2.0, (see + speak) / max(see, speak))


def test_on_one_device_text_rides_on_the_frame():
    """Frames of 4 chunks, text of 4 tokens: steps carry a chunk and a token for the price of one of them."""
    spec = engine(10, 10)
    clip = one_session([0.0] * 10, [4] * 10, tokens=12, prompt=1)
    options = dict(max_num_batched_tokens=4, max_num_seqs=1)
    turns, both = (simulate_streams(clip, stream_policy(n, **options), spec, log=True) for n in ("interleave", "group-decoupled"))
    # a frame of 12 tokens takes 3 chunks of 4, beside a text token 4 of 3; the first one has the prompt with it
    assert turns.makespan == (4 + 9 * 3 + 10 * 4) * 10 * UNIT
    assert both.makespan == (4 + 10 * 4) * 10 * UNIT
    assert sum(bool(seen) and bool(said) for *_, seen, said in both.log) == 9 * 4
    assert not any(bool(seen) and bool(said) for *_, seen, said in turns.log)


def test_steps_cost_what_they_read():
    """Text reads the prompt, its frames and all text so far; a frame reads the text before it only with coupled positions."""
    n = np.arange(100)
    tables = StepTables(layer=n * 1e-4, head=n * 1e-5, n_layers=3, prefill_flop_s=1e-6, decode_byte_s=1e-5, cpu=1e-4, cpu_per_seq=1e-6)
    spec, cost = EngineSpec(tables=tables, blocks=99, block_size=16, max_len=999), CostModel(tables)
    clip = Streams(arrival=np.zeros(1), prompt=np.array([5]), max_tokens=np.array([58]), frame_start=np.array([0, 2]), frame_at=np.zeros(2),
                   frame_tokens=np.array([20, 30]), text_tokens=np.array([2, 1]))  # fmt: skip
    first, said, last = cost.step_seconds(prefill=[(0, 25)]), cost.step_seconds(1, 26) + cost.step_seconds(1, 27), cost.step_seconds(1, 58)
    turns = simulate_streams(clip, stream_policy("interleave"), spec)
    assert turns.makespan == pytest.approx(first + said + cost.step_seconds(prefill=[(27, 30)]) + last)
    both = simulate_streams(clip, stream_policy("gap-isolated"), spec)
    assert both.makespan == pytest.approx(first + cost.step_seconds(1, 26, [(25, 30)]) + cost.step_seconds(1, 27) + last)


def test_a_frame_on_its_way_cannot_be_read_yet():
    clip = one_session([0.0, 0.0], [1, 1])
    transfer = 7 * UNIT
    run = simulate_streams(clip, stream_policy("overlapped"), engine(50, 10), devices=2, transfer=transfer)
    first = 50 * UNIT + (FRAME + 1) * transfer  # the prompt's KV comes along
    assert run.answered.tolist() == [first + 10 * UNIT, max(first, 100 * UNIT) + FRAME * transfer + 10 * UNIT]


def replay(streams, run):
    """Check a log token by token: each once, no frame before it arrived, no text before its frames were computed."""
    rows = [slice(a, b) for a, b in pairwise(streams.frame_start)]
    ends = [streams.prompt[i] + np.cumsum(streams.frame_tokens[rows[i]]) for i in range(len(streams))]
    seen, said = Counter(), Counter()
    finished = sorted(run.log, key=lambda step: step[2])
    frames_at = {i: [] for i in range(len(streams))}  # when each session had how many frame tokens
    for _, _, end, chunks, _ in finished:
        for sid, n in chunks:
            seen[sid] += n
            frames_at[sid].append((end, seen[sid]))
    for _, begin, _, chunks, speakers in sorted(run.log, key=lambda step: step[1]):
        for sid, n in chunks:
            before = sum(m for _, b, _, others, _ in run.log for other, m in others if other == sid and b < begin)
            arrived = streams.prompt[sid] + streams.frame_tokens[rows[sid]][streams.frame_at[rows[sid]] <= begin].sum()
            assert before + n <= arrived, "a frame was computed before it arrived"
        for sid in speakers:
            frame = int(np.searchsorted(np.cumsum(streams.text_tokens[rows[sid]]), said[sid], side="right"))
            computed = max((n for end, n in frames_at[sid] if end <= begin), default=0)
            assert computed >= ends[sid][frame], "text read an incomplete frame"
            said[sid] += 1
    for sid in range(len(streams)):
        assert seen[sid] == ends[sid][-1], "a frame token was left out or computed twice"
        assert said[sid] == streams.text_tokens[rows[sid]].sum(), "a text token was left out or written twice"


@FEW
@given(problems(), st.sampled_from([1, 2]), st.sampled_from([8, 64, 500]), st.sampled_from([0.0, 1e-5]))
def test_every_token_is_computed_once_and_no_frame_read_early(problem, devices, budget, transfer):
    streams, spec = problem
    for name in DISCIPLINES:
        policy = stream_policy(name, max_num_seqs=4, max_num_batched_tokens=budget)
        run = simulate_streams(streams, policy, spec, devices=devices, transfer=transfer, log=True)
        replay(streams, run)
        assert (run.perceived >= run.arrived).all()
        assert (run.first_text > run.perceived).all()
        assert (run.answered >= run.first_text).all()
        assert all(sum(n for _, n in seen) + len(said) <= budget for *_, seen, said in run.log)
        for device, busy in run.busy.items():
            mine = sorted((begin, end) for name, begin, end, *_ in run.log if name == device)
            assert sum(end - begin for begin, end in mine) == pytest.approx(busy)
            assert all(end <= begin for (_, end), (begin, _) in pairwise(mine))
        if policy.positions.coupled:
            for frame in np.flatnonzero(np.diff(run.session) == 0):
                assert run.answered[frame] < run.perceived[frame + 1]


@FEW
@given(problems(), st.sampled_from([1, 2]))
def test_to_a_scheduler_the_three_decoupled_schemes_are_one(problem, devices):
    streams, spec = problem
    logs = [simulate_streams(streams, stream_policy(name), spec, devices=devices, log=True).log for name in DISCIPLINES if name != "interleave"]
    assert logs[0] == logs[1] == logs[2]
    ids = {DISCIPLINES[name].positions for name in DISCIPLINES}
    assert len(ids) == 4  # what differs is what the engine gets


@FEW
@given(problems())
def test_with_two_lanes_nobody_waits_longer(problem):
    """One session at a time, frames whole: without competition the lanes can only help."""
    streams, spec = problem
    options = dict(max_num_seqs=1)
    turns, lanes = (simulate_streams(streams, stream_policy(n, **options), spec, devices=2) for n in ("interleave", "group-decoupled"))
    assert (lanes.answered <= turns.answered * (1 + 1e-12)).all()


@FEW
@given(problems(), st.sampled_from([1, 2]), st.sampled_from([0.3, 1.0, 3.0]))
def test_where_every_answer_is_done_before_the_next_frame_decoupling_changes_nothing(problem, devices, gap):
    streams, _ = problem
    at = np.concatenate([streams.arrival[sid] + gap * np.arange(n) for sid, n in enumerate(np.diff(streams.frame_start))])
    streams = replace(streams, frame_at=at)
    turns, lanes = (simulate_streams(streams, stream_policy(n), engine(), devices=devices, log=True) for n in ("interleave", "group-decoupled"))
    inside = np.flatnonzero(np.diff(turns.session) == 0)
    in_time = (turns.answered[inside] <= at[inside + 1]).all()
    assume(in_time)
    assert turns.log == lanes.log


class Scripted:
    """Plays a list of plans, then stays empty; frames and texts are decoupled unless said otherwise."""

    name = "scripted"
    max_seqs = 1
    max_step_tokens = 100

    def __init__(self, *plans, coupled=False):
        self.plans = plans
        self.positions = Positions(OWN_AXIS, coupled=coupled)

    def start(self, limits):
        self.at = 0

    def plan(self, view):
        self.at += 1
        return self.plans[self.at - 1] if self.at <= len(self.plans) else StreamPlan()


FIRST = StreamPlan((Perceive(0, FRAME + 1),), admit=(0,))
BROKEN = {
    "text before its frame is complete": ("S3", [StreamPlan((Perceive(0, FRAME),), admit=(0,)), StreamPlan(generate=(0,))]),
    "text beyond the last complete frame": ("S3", [FIRST, StreamPlan(generate=(0,)), StreamPlan(generate=(0,))]),
    "a session twice": ("S1", [StreamPlan((Perceive(0, 1), Perceive(0, 1)), admit=(0,))]),
    "a session that is not admitted": ("S1", [StreamPlan((Perceive(0, 1),))]),
    "no tokens": ("S2", [StreamPlan((Perceive(0, 0),), admit=(0,))]),
    "a frame that has not arrived": ("S2", [StreamPlan((Perceive(0, 2 * FRAME + 1),), admit=(0,))]),
    "too many tokens": ("S5", [FIRST, StreamPlan((Perceive(0, 101),))]),
    "admitted twice": ("S6", [FIRST, StreamPlan(admit=(0,))]),
    "nothing to do for ever": ("S8", []),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plan_is_rejected_by_name(case):
    rule, script = BROKEN[case]
    streams = one_session([0.0, 0.0 if rule == "S5" else 9.0], [1, 1])
    with pytest.raises(PlanRejected) as caught:
        simulate_streams(streams, Scripted(*script), engine())
    assert caught.value.rule == rule


def test_coupled_positions_forbid_what_decoupled_ones_allow():
    clip = one_session([0.0, 0.0], [1, 1])
    both = StreamPlan((Perceive(0, FRAME),), generate=(0,))
    ahead = StreamPlan((Perceive(0, FRAME),))
    across = StreamPlan((Perceive(0, 2 * FRAME + 1),), admit=(0,))
    last = StreamPlan(generate=(0,))
    assert simulate_streams(clip, Scripted(FIRST, both, last), engine()).answered[-1] == 110 * UNIT
    assert simulate_streams(clip, Scripted(across, last, last), engine()).perceived.tolist() == [50 * UNIT] * 2
    for script in ((FIRST, both), (FIRST, ahead), (across,)):
        with pytest.raises(PlanRejected) as caught:
            simulate_streams(clip, Scripted(*script, coupled=True), engine())
        assert caught.value.rule == "S4"


def test_devices_keep_to_their_lanes():
    clip = one_session([0.0], [1])
    for plan in (StreamPlan(generate=(0,), admit=(0,)), StreamPlan()._replace(admit=(0,))):
        with pytest.raises(PlanRejected) as caught:  # the second device is asked next, and gets the same plan
            simulate_streams(clip, Scripted(plan, plan), engine(), devices=2)
        assert caught.value.rule == "S7"


def test_seats_and_memory_bound_admission():
    four = generated(4, 2, 0.0)
    policy = Scripted(StreamPlan(admit=(0, 1)))
    with pytest.raises(PlanRejected) as caught:
        simulate_streams(four, policy, engine())
    assert caught.value.rule == "S5"
    policy.max_seqs = 4
    with pytest.raises(PlanRejected) as caught:
        simulate_streams(four, policy, engine(blocks=int(four.max_tokens[0]) // 16 + 2))
    assert caught.value.rule == "S6"
    tight = engine(blocks=-(-int(four.max_tokens[0]) // 16))
    run = simulate_streams(four, stream_policy("interleave"), tight)
    ends = run.answered.reshape(4, 2)
    assert (ends[1:, 0] > ends[:-1, 1]).all()  # one after the other


def test_what_cannot_run_is_said_before_the_run():
    clip = one_session([0.0], [1])
    with pytest.raises(InputError, match="devices must be 1 or 2"):
        simulate_streams(clip, stream_policy("interleave"), engine(), devices=3)
    with pytest.raises(InputError, match="declares 42 tokens, more than the model's 20"):
        simulate_streams(clip, stream_policy("interleave"), engine(max_len=20))
    with pytest.raises(DoesNotFit, match="fewer or smaller frames"):
        simulate_streams(clip, stream_policy("interleave"), engine(blocks=2))
    with pytest.raises(InputError, match="did you mean interleave"):
        stream_policy("interleaved")
