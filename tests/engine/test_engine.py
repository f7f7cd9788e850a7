"""The engine as its users meet it: limits, ends, cancellation, the rules of the contract, with a scripted model."""

import math
import sys
import time

import pytest

from rota.contracts.serving import ALWAYS, StepPlan, Work
from rota.errors import InputError, PlanRejected, UnsupportedPolicy
from rota.mechanisms.engine import Choice, Engine, ModelClock, SamplingParams, load_engine
from rota.mechanisms.engine.log import Planned
from rota.mechanisms.engine.replay import replay
from rota.policies.registry import make_policy
from tests.engine.scripted import serve
from tests.simulator.test_rules import BROKEN, SPEC, TABLES, TRACE, Scripted


class Counting:
    """A model whose next token is the last one plus one."""

    n_layers, vocab, max_len, end_tokens = 4, 1000, 64, frozenset({99})

    def __init__(self):
        self.forgotten = []

    def allocate(self, blocks, block_size):
        pass

    def run(self, rows, tables):
        return [Choice(row.seq.tokens[-1] + 1) for row in rows if row.emits]

    def forget(self, seq):
        self.forgotten.append(seq.sid)


class Letters:
    """Token n is the n-th letter of the alphabet, over and over."""

    def decode(self, ids):
        return "".join(chr(97 + i % 26) for i in ids)


def engine(policy=None, **options):
    options = dict(blocks=16, block_size=4, clock=ModelClock(TABLES)) | options
    return Engine(Counting(), policy or make_policy("sarathi"), **options)


def drain(e):
    outputs = []
    while e.has_work:
        outputs += e.step()
    return outputs


@pytest.mark.parametrize("case", [case for case in BROKEN if "finished or unknown" not in case])
def test_a_broken_plan_is_rejected_by_the_simulators_rule(case):
    rule, script = BROKEN[case]
    with pytest.raises(PlanRejected) as caught:
        serve(TRACE, Scripted(*script), SPEC)
    assert caught.value.rule == rule


def test_an_answer_ends_by_length_by_token_by_text_and_at_the_models_limit():
    e = engine(tokenizer=Letters())
    by_length = e.add_request([5, 6], SamplingParams(max_tokens=3))
    by_end = e.add_request([97], SamplingParams())
    on_and_on = e.add_request([97], SamplingParams(ignore_eos=True, max_tokens=4))
    by_token = e.add_request([10], SamplingParams(stop_token_ids=(13,)))
    by_text = e.add_request([0], SamplingParams(stop=("ef", "xyz")))
    at_limit = e.add_request([200])
    sids = (by_length, by_end, on_and_on, by_token, by_text, at_limit)
    outputs = drain(e)
    tokens = {sid: [o.token for o in outputs if o.sid == sid] for sid in sids}
    ends = {sid: [o.finish for o in outputs if o.sid == sid][-1] for sid in sids}
    texts = {sid: "".join(o.text for o in outputs if o.sid == sid) for sid in sids}
    assert tokens[by_length] == [7, 8, 9] and ends[by_length] == "length" and texts[by_length] == "hij"
    assert tokens[by_end] == [98, 99] and ends[by_end] == "stop" and len(texts[by_end]) == 1
    assert tokens[on_and_on] == [98, 99, 100, 101] and ends[on_and_on] == "length"
    assert tokens[by_token] == [11, 12, 13] and ends[by_token] == "stop" and texts[by_token] == "lm"
    assert tokens[by_text] == [1, 2, 3, 4, 5] and ends[by_text] == "stop" and texts[by_text] == "bcd"
    assert len(tokens[at_limit]) == 63 and ends[at_limit] == "length"
    assert e.stats().free_blocks == 16


def test_a_sequence_ends_where_memory_ends():
    e = engine(blocks=3, block_size=4)
    e.add_request([1, 2])
    outputs = drain(e)
    assert [o.token for o in outputs[:-1]] == list(range(3, 13))
    assert outputs[-1].finish == "length"


@pytest.mark.parametrize(("prompt", "params", "match"), [
    ([], None, "empty"), ([1] * 64, None, "64 tokens, but this engine holds at most 63"), ([1000], None, "vocabulary of 1000"),
    ([-1], None, "vocabulary"), ([1], SamplingParams(stop=("x",)), "tokenizer"),
])  # fmt: skip
def test_impossible_requests_are_refused(prompt, params, match):
    with pytest.raises(InputError, match=match):
        engine().add_request(prompt, params)


def test_policies_that_ask_too_much_are_refused():
    with pytest.raises(UnsupportedPolicy, match="oracle"):
        engine(make_policy("oracle-lengths"))
    with pytest.raises(UnsupportedPolicy, match="host_attention"):
        engine(make_policy("neo"))
    with pytest.raises(UnsupportedPolicy, match="whole jobs"):
        engine(make_policy("batchllm"))


@pytest.mark.parametrize("name", ["sarathi", "vllm-v1", "vtc", "static", "layered", "past-future", "rate-limit", "continuum"])
def test_cancelled_requests_free_their_blocks_in_every_phase(name):
    e = engine(make_policy(name), blocks=64)
    waits, runs, future = (e.add_request([sid] * 9, SamplingParams(max_tokens=20), tenant=sid) for sid in range(3))
    later = e.add_request([3], arrival=1e3)
    assert e.cancel(later)
    assert not e.cancel(later)
    assert [(o.sid, o.finish) for o in e.step() if o.finish] == [(later, "cancelled")]
    for _ in range(3):
        e.step()
    assert e.cancel(runs)
    assert not e.cancel(runs)
    outputs = drain(e)
    assert [o.finish for o in outputs if o.sid == runs] == ["cancelled"]
    assert {o.sid: o.finish for o in outputs if o.finish} == {runs: "cancelled", waits: "length", future: "length"}
    assert e.stats().free_blocks == 64
    assert e.stats().finished == 4
    assert not e.cancel(99)


@pytest.mark.parametrize("name", ["sarathi", "vtc", "rate-limit"])
def test_a_waiting_request_can_be_cancelled_and_its_place_goes_to_others(name):
    e = engine(make_policy(name, **({"max_num_seqs": 1} if name == "sarathi" else {"max_num_seqs": 1, "max_num_batched_tokens": 512})))
    first = e.add_request([1], SamplingParams(max_tokens=5))
    gone = e.add_request([1], SamplingParams(max_tokens=5))
    last = e.add_request([1], SamplingParams(max_tokens=5))
    e.step()
    e.cancel(gone)
    outputs = drain(e)
    assert [o.token for o in outputs if o.sid == gone] == [-1]
    assert {o.sid: o.finish for o in outputs if o.finish} == {first: "length", gone: "cancelled", last: "length"}


def test_a_chunk_between_layer_ranges_is_let_through_when_its_client_hangs_up():
    e = engine(make_policy("layered", unit=2, stages=4))
    sid = e.add_request(list(range(16)), SamplingParams(max_tokens=5))
    assert e.step() == []
    assert e.core.seqs[sid].layer_cursor == 1
    assert e.cancel(sid)
    free, steps = e.stats().free_blocks, 0
    while e.has_work:
        outputs = e.step()
        steps += 1
        assert e.stats().free_blocks in (free, 16)
    assert steps == 3
    assert outputs[-1].finish == "cancelled"
    assert e.runner.forgotten == [sid]


def test_a_plan_that_repeats_is_not_asked_for_again_until_something_happens():
    asked = []

    def look(view):
        asked.append((view.n_waiting, view.n_decode))
        return StepPlan(tuple(Work(s.sid, s.n_known) for s in view.waiting), repeat=ALWAYS)

    policy = Scripted(*[look] * 50)
    policy.max_seqs = 4
    e = engine(policy)
    e.add_request([1], SamplingParams(max_tokens=8))
    for _ in range(4):
        e.step()
    assert asked == [(1, 0), (0, 1)]
    e.add_request([1], SamplingParams(max_tokens=2))
    drain(e)
    assert asked == [(1, 0), (0, 1), (1, 1), (0, 2), (0, 1)]


def test_stats_count_what_has_happened():
    e = engine(make_policy("vllm-v1"), blocks=40)
    e.add_request(list(range(20, 32)), SamplingParams(max_tokens=3))
    drain(e)
    e.add_request(list(range(20, 32)), SamplingParams(max_tokens=2))
    drain(e)
    stats = e.stats()
    assert (stats.requests, stats.finished, stats.prompt_tokens, stats.cached_tokens, stats.generated_tokens) == (2, 2, 24, 8, 5)
    assert (stats.n_running, stats.n_waiting, stats.free_blocks) == (0, 0, 40)


def test_nothing_to_do_is_said_at_once_and_when_there_will_be():
    e = engine(clock=None)
    assert e.step() == []
    assert e.next_event == math.inf
    e.add_request([1], SamplingParams(max_tokens=1), arrival=e.clock.now() + 60)
    assert e.step() == []
    assert 50 < e.next_event - e.clock.now() <= 60
    e.add_request([1], SamplingParams(max_tokens=1))
    assert e.next_event <= e.clock.now()
    assert [o.finish for o in e.step()] == ["length"]


def test_requests_without_a_seed_get_different_ones_and_the_same_in_every_run():
    e, f = engine(), engine()
    seeds = []
    for one in (e, f):
        sids = [one.add_request([1], SamplingParams(seed=seed)) for seed in (None, None, 7)]
        while one.core.waiting or not one.core.seqs:
            one.step()
        seeds.append([one.core.seqs[sid].seed for sid in sids])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3
    assert seeds[0][2] == 7


@pytest.mark.parametrize(("called", "cached"), [(True, 32), (False, 0)])
def test_a_program_that_calls_a_tool_keeps_its_prefix_through_a_rush(called, cached):
    log = []
    policy = make_policy("pin-forever", max_num_seqs=8)
    e = engine(policy, blocks=24, log=log)
    first = e.add_request(list(range(30)), SamplingParams(max_tokens=5), program=3)
    answer = [o.token for o in drain(e)]
    if called:
        e.set_tool(first, 0)
    for i in range(6):
        e.add_request([500 + i] * 40, SamplingParams(max_tokens=3))
    drain(e)
    before = e.stats().cached_tokens
    e.add_request([*range(30), *answer, 7, 8], SamplingParams(max_tokens=1), program=3)
    drain(e)
    assert e.stats().cached_tokens - before == cached
    sizes = dict(n_layers=4, blocks=24, block_size=4, max_len=64)
    assert replay(log, policy, **sizes) == [entry.plan for entry in log if isinstance(entry, Planned)]


@pytest.mark.parametrize("name", ["sarathi", "vllm-v1", "layered"])
def test_policy_and_bookkeeping_take_less_than_a_millisecond_a_step_for_64_sequences(name):
    best = math.inf
    for _ in range(3):
        e = engine(make_policy(name), blocks=64 * 20, compress=False)
        for _ in range(64):
            e.add_request([1] * 20, SamplingParams(ignore_eos=True))
        while e.core.waiting or e.core.prefills or not e.core.decodes:
            e.step()
        began = time.thread_time()
        for _ in range(20):
            e.step()
        best = min(best, (time.thread_time() - began) / 20)
        assert len(e.core.decodes) == 64
    assert best < 1e-3


def test_without_pytorch_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rota.mechanisms.engine.model_runner", None)
    with pytest.raises(InputError, match=r"pip install 'rota\[engine\]'"):
        load_engine(tmp_path, make_policy("sarathi"))
