"""Admission parts against brute force and against what their sources say, in states made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.contracts.columns import MAX_STEP_TOKENS
from rota.contracts.serving import DECODE, H_BLOCKS, H_KNOWN, H_MAX_NEW, H_PHASE, H_PROMPT, H_SID, HELD_COLUMNS, PREFILL
from rota.errors import InputError
from rota.policies.admission.aggressive import Aggressive
from rota.policies.admission.conservative import Conservative
from rota.policies.admission.lightllm import LightLLM
from rota.policies.admission.oracle import OracleLengths
from rota.policies.admission.past_future import PastFuture, uniform
from rota.policies.admission.peak import fits, peak, stock, worst_peak
from tests.policies.views import ColumnsView, Row, build


def stepwise_peak(held, left):
    """Let every sequence take a token per step until its end, and watch."""
    most = sum(held)
    for step in range(1, max(left, default=0) + 1):
        most = max(most, sum(h + step for h, r in zip(held, left, strict=True) if r >= step))
    return most


pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=12)


@given(pairs)
def test_peak_is_what_a_walk_through_all_steps_finds(batch):
    held, left = [h for h, _ in batch], [r for _, r in batch]
    # a sequence with nothing left ends before the first step, but it is there now
    assert peak(np.array(held, np.int64), np.array(left, np.int64)) == stepwise_peak(held, left)


def test_peaks_of_several_futures_at_once():
    held, left = np.array([[3, 9, 4]] * 2), np.array([[5, 0, 2], [1, 1, 7]])
    assert peak(held, left).tolist() == [stepwise_peak(held[0], left[0]), stepwise_peak(held[1], left[1])]
    assert peak(np.zeros((2, 0), np.int64), np.zeros((2, 0), np.int64)).tolist() == [0, 0]


class Engine:
    """Decoding and waiting requests before an admission part; block size 1, so that tokens are blocks."""

    def __init__(self, part, running=(), waiting=(), *, blocks=100, size=1, max_len=80):
        self.part, self.n = part, len(running)
        held = sum(-(-row.computed // size) for row in running)
        self.view = ColumnsView(*build(list(running), list(waiting), free=blocks - held, total=blocks, size=size, max_len=max_len))
        part.start(self.view.limits)
        part.begin(self.view)

    def admitted(self):
        """Waiting requests that join, in order, until the first that does not."""
        free = self.view.free_blocks
        count = 0
        for seq in self.view.waiting:
            free -= seq.n_known
            if free < 0 or not self.part.admits(seq, free):
                break
            count += 1
        return count


def decoding(prompt, generated, max_new=50):
    return Row(prompt + generated, prompt + generated - 1, DECODE, prompt=prompt, max_new=max_new)


def fresh(prompt, max_new=50):
    return Row(prompt, prompt=prompt, max_new=max_new)


def test_aggressive_looks_at_the_present_only():
    engine = Engine(Aggressive(watermark=0.1), [decoding(40, 5)], [fresh(30), fresh(16), fresh(16)])
    assert engine.part.spare == 10
    assert engine.admitted() == 2  # 100 - 44 - 30 - 16 = 10 free


def test_conservative_sums_all_ends():
    # ends: 40 + 50 - 1 for the one that runs; the next one would hold 8 + 1, and 2 of its 3 tokens
    engine = Engine(Conservative(), [decoding(40, 5)], [fresh(7, 3), fresh(7, 3)])
    assert engine.admitted() == 1
    assert Engine(Conservative(overcommit=1.2), [decoding(40, 5)], [fresh(7, 3)] * 4).admitted() == 3


def test_the_peak_lets_the_short_pass_beneath_the_long():
    running, waiting = [decoding(10, 2, max_new=60)], [fresh(40, 3)] * 2
    assert Engine(Conservative(), running, waiting).admitted() == 0
    assert Engine(Conservative(peak=True), running, waiting).admitted() == 1


def test_lightllm_guesses_until_the_engine_is_busy():
    def admitted(ratio):
        rows = [decoding(400, 1000, max_new=5000)], [fresh(100, 5000)] * 9
        return Engine(LightLLM(router_token_ratio=ratio), *rows, blocks=6000, max_len=6000).admitted()

    # not busy: each ends with 1024 tokens, so the peak is at the new ones' end
    assert admitted(0.5) == 5  # 101 + 1023 tokens each
    assert admitted(0.2) == admitted(0.0) == 0
    conservative = Engine(Conservative(peak=True), [decoding(400, 1000, 5000)], [fresh(100, 5000)] * 9, blocks=6000, max_len=6000)
    assert conservative.admitted() == 0


def test_the_oracle_reads_the_truth():
    lengths = np.array([50, 10, 10, 10])
    assert Engine(OracleLengths(lengths), [decoding(20, 2)], [fresh(20)] * 3).admitted() == 2
    assert Engine(OracleLengths(lengths * 0 + 50), [decoding(20, 2)], [fresh(20)] * 3).admitted() == 0


@pytest.mark.parametrize("part", [Conservative(), LightLLM(), OracleLengths(np.full(3, 500)), PastFuture(initial=500)])
def test_whoever_finds_the_engine_empty_joins(part):
    assert Engine(part, [], [fresh(60, 500)] * 2).admitted() == 1


def test_memory_that_others_pin_is_not_there():
    # 29 of 100 blocks belong to nobody that runs
    for limit, joins in ((21, True), (22, False)):
        view = ColumnsView(*build([decoding(20, 2, 10)], [fresh(20, limit)], free=50, total=100, size=1))
        part = Conservative()
        part.start(view.limits)
        part.begin(view)
        # 22 tokens held and 7 to come; 21 held and limit - 1 to come: fewer than 71 fit
        assert part.admits(view.seq(1), 29) == joins


def test_unfinished_prompts_count_their_chunks():
    seq, tim, ctl = build([Row(40, 8, PREFILL, prompt=40)], [fresh(30)], free=150, total=200, size=1)
    ctl[MAX_STEP_TOKENS] = 9  # 8 for prompts while one sequence runs
    view = ColumnsView(seq, tim, ctl)
    part = OracleLengths(np.array([10, 10]))
    part.start(view.limits)
    part.begin(view)
    assert part.admits(view.seq(1), 20)
    held, left = stock(part._table[:2], np.full((1, 2), 10), 1, part._chunk)
    assert held.tolist() == [41, 31]
    assert left.tolist() == [[9 + 3, 9 + 7]]  # 32 tokens in 4 steps; 30 more behind them: 62 tokens in 8 steps


tables = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9), st.integers(0, 40), st.booleans()), min_size=1, max_size=9)


@given(tables, st.integers(1, 4), st.integers(1, 30), st.integers(0, 400), st.integers(1, 3), st.integers(0, 99))
def test_what_fits_is_what_a_walk_through_all_steps_says(rows, size, chunk, capacity, futures, seed):
    """The certain cases are answered without the peak, and must be answered alike."""
    table = np.zeros((len(rows), HELD_COLUMNS), np.int64)
    for row, (prompt, generated, blocks, decodes) in zip(table, rows, strict=True):
        row[H_PROMPT], row[H_KNOWN], row[H_BLOCKS], row[H_PHASE] = prompt, prompt + generated, blocks, DECODE if decodes else PREFILL
    outputs = np.random.default_rng(seed).integers(1, 50, (futures, len(rows)))
    held, left = stock(table, outputs, size, chunk)
    used = 70
    room = capacity - max(0, used - table[:, H_BLOCKS].sum()) * size
    peaks = [stepwise_peak(held.tolist(), future.tolist()) for future in left]
    assert worst_peak(held, left) == max(peaks)
    assert fits(table, outputs, used, size, chunk, float(capacity), True) == (max(peaks) < room)
    ends = max(int(held.sum() + future.sum()) for future in left)
    assert fits(table, outputs, used, size, chunk, float(capacity), False) == (ends < room)


# ---- Past-Future -------------------------------------------------------------------------------------------------------------------


class Ended:
    def __init__(self, output):
        self.sid, self.n_prompt, self.n_known = -1, 5, 5 + output


def with_past(lengths, **options):
    part = PastFuture(window=max(2, len(lengths)), initial=1, **options)
    part.start(ColumnsView(*build([], [], free=10, total=10)).limits)
    for length in [*lengths, *lengths]:
        part.finished(Ended(length))
    part.begin(ColumnsView(*build([], [], free=10, total=10)))
    return part


def drawn(part, generated, max_new, n=4000):
    part._futures = 1
    table = np.zeros((n, HELD_COLUMNS), np.int64)
    table[:, H_SID], table[:, H_KNOWN], table[:, H_MAX_NEW] = np.arange(n), generated, max_new
    return part.outputs(table)[0]


@given(st.lists(st.integers(1, 90), min_size=2, max_size=30), st.integers(1, 95), st.integers(0, 9))
def test_draws_are_the_inverse_cdf_of_the_lengths_that_are_longer(past, generated, seed):
    part = with_past(past, seed=seed)
    points = [generated, *sorted(h for h in past if h > generated)]
    if points[-1] < 100:
        points.append(100)
    luck = uniform(seed, np.arange(50), 1)[0]
    expected = np.interp(luck * (len(points) - 1), np.arange(len(points)), points)
    np.testing.assert_array_equal(drawn(part, generated, 100, 50), np.floor(expected + 1e-9).astype(int))


def test_fresh_requests_draw_from_the_raw_past_up_to_their_limit():
    part = with_past([10, 20, 30, 40])
    values, counts = np.unique(drawn(part, 0, 35), return_counts=True)
    assert values.tolist() == [10, 20, 30, 35]
    assert counts.min() > 850


def test_the_past_begins_pessimistic_and_forgets():
    part = PastFuture(window=4, initial=70)
    view = ColumnsView(*build([], [], free=10, total=10))
    part.start(view.limits)

    def past():
        part.begin(view)
        return part._sorted.tolist()

    assert past() == [70, 70]
    seen = []
    for length in (5, 6, 7, 8):
        part.finished(Ended(length))
        seen.append(past())
    assert seen == [[5, 70, 70], [5, 6, 70, 70], [5, 6, 7, 70], [5, 6, 7, 8]]
    part.start(view.limits)
    assert past() == [70, 70]


def test_luck_belongs_to_the_request():
    part = with_past(range(1, 100))
    again = with_past(range(1, 100), redraw=0.25)
    view = ColumnsView(*build([], [], free=10, total=10))
    first, other = drawn(part, 3, 200), drawn(again, 3, 200)
    part.begin(view)
    again.begin(view)
    np.testing.assert_array_equal(drawn(part, 3, 200), first)
    assert (drawn(again, 3, 200) != other).mean() > 0.9
    numbers = uniform(1, np.arange(20000), 3)
    assert abs(numbers.mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(numbers) - np.eye(3)).max() < 0.03


def test_futures_are_fewer_in_large_batches_and_the_worst_counts():
    part = PastFuture(reserve=0.0, window=50, futures=5, initial=1)
    rows = [decoding(1, 1)] * 30
    Engine(part, rows, blocks=10_000)
    assert part._futures == 5
    Engine(part, [decoding(1, 1)] * 60, blocks=10_000)
    assert part._futures == 4
    part = PastFuture(reserve=0.0, initial=10, futures=5)
    engine = Engine(part, [decoding(20, 5, 60)], [fresh(20, 60)] * 3)
    part._capacity = 10.0**9
    assert part.admits(engine.view.seq(1), 10)
    table = part._table[:2]
    held, left = stock(table, part.outputs(table), 1, part._chunk)
    assert left.shape == (5, 2)
    for capacity, fits_too in ((peak(np.broadcast_to(held, left.shape), left).max(), False), (worst_peak(held, left) + 1, True)):
        part._n, part._capacity = 1, float(capacity)
        assert part.admits(engine.view.seq(1), 10) == fits_too


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Aggressive(watermark=1), "from 0 to below 1"),
        (lambda: Conservative(overcommit=0), "positive number, not 0"),
        (lambda: Conservative(peak=1), "True or False"),
        (lambda: LightLLM(router_token_ratio=-0.1), "from 0 to below 1"),
        (lambda: PastFuture(window=1), "at least 2"),
        (lambda: PastFuture(reserve=1.5), "from 0 to below 1"),
        (lambda: PastFuture(seed=-1), "at least 0"),
        (lambda: PastFuture(redraw=0), "positive number of seconds"),
    ],
)
def test_options_that_make_no_sense(make, says):
    with pytest.raises(InputError, match=says):
        make()
