"""The NumPy cost model against the compiled one, and Sarathi's choice of a chunk against trying them all."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.cost import kernel
from rota.cost.deployment import Deployment
from rota.cost.model import CHUNK, CostModel, lookup
from rota.cost.tables import TABLE, StepTables
from rota.errors import InputError


@pytest.fixture(scope="module")
def llama():
    return CostModel(Deployment("llama-3-8b", "a100-80g").engine(2048).tables)


def measured():
    """Tables of kind TABLE with distinct, rising entries."""
    rows, columns = np.arange(1, 33), np.arange(9)
    table = 1e-5 * rows[:, None] + 1e-6 * columns
    long = np.concatenate([table[:, 0], 1e-5 * np.arange(33, 600)])
    return StepTables(
        layer=1e-6 * np.arange(700.0), head=1e-6 * np.arange(9.0), n_layers=3, kind=TABLE, decode_table=table, prefill_table=table,
        prefill_long=long, batch_factor=1.1, cpu=1e-4, cpu_per_seq=1e-6,
    )  # fmt: skip


chunks = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300)), max_size=4)


def compiled(t, decodes, context, prefill, emitted):
    """The same step from the functions that the simulator compiles."""
    cp = kernel.pack(t)
    past, new = (np.array([p for p, _ in prefill]), np.array([n for _, n in prefill]))
    tokens = int(new.sum()) if prefill else 0
    area = float((new * past + new * (new + 1) / 2).sum()) if prefill else 0.0
    cached = int(past.sum()) if prefill else 0
    rounded = int((-(-past // t.kv_scale) * t.kv_scale).sum()) if prefill else 0
    attention = kernel.decode_attention(cp, t.decode_table, decodes, context, 0) + kernel.prefill_attention(
        cp, t.prefill_table, t.prefill_long, len(prefill), tokens, area, cached + tokens, float((new**2).sum()), rounded
    )
    device = t.n_layers * (kernel.lookup(t.layer, decodes + tokens) + attention) + kernel.lookup(t.head, decodes + emitted)
    return max(device, t.launch) + t.cpu + t.cpu_per_seq * (decodes + len(prefill))


@given(decodes=st.integers(0, 64), mean=st.integers(1, 4000), prefill=chunks)
def test_roofline_steps_equal_the_compiled_ones(llama, decodes, mean, prefill):
    if decodes or prefill:
        mine = llama.step_seconds(decodes, decodes * mean, prefill, len(prefill))
        assert mine == pytest.approx(compiled(llama.tables, decodes, decodes * mean, prefill, len(prefill)), rel=1e-12)


def both_attentions(t, decodes=0, context=0, past=0, new=0):
    """A layer's attention of so many decodes or of one chunk, from both models, which agree."""
    cp, model = kernel.pack(t), CostModel(t)
    if decodes:
        found = kernel.decode_attention(cp, t.decode_table, decodes, context, 0), model.decode_attention(decodes, context)
    else:
        sums = new, new * past + new * (new + 1) / 2, past + new, float(new**2), -(-past // t.kv_scale) * t.kv_scale
        found = kernel.prefill_attention(cp, t.prefill_table, t.prefill_long, 1, *sums), model.prefill_attention([(past, new)])
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    return found[0]


@given(more=st.integers(1, 10_000))
def test_beyond_the_tables_costs_stay_at_the_last_entry(more):
    t = measured()
    rows, columns = t.decode_table.shape
    most = (columns - 1) * t.kv_scale
    assert both_attentions(t, decodes=rows + more, context=(rows + more) * 64) == pytest.approx(t.decode_table[-1, 1] * t.batch_factor)
    assert both_attentions(t, decodes=1, context=most + more) == t.decode_table[0, -1]
    assert both_attentions(t, past=most + more, new=7) == t.prefill_table[6, -1]
    assert both_attentions(t, new=len(t.prefill_long) + more) == t.prefill_long[-1]


@given(new=st.integers(33, 599), past=st.integers(0, 512))
def test_cached_tokens_of_long_prompts_cost_in_proportion(new, past):
    t = measured()
    surplus = t.prefill_table[-1, -(-past // t.kv_scale)] - t.prefill_table[-1, 0]
    expected = t.prefill_long[new - 1] + surplus * new / len(t.prefill_table)
    assert both_attentions(t, past=past, new=new) == pytest.approx(expected, rel=1e-12)


@given(
    decodes=st.integers(0, 40), mean=st.integers(1, 600), past=st.integers(0, 600), new=st.integers(0, 500), fresh=st.booleans()
)
def test_tabulated_steps_equal_the_compiled_ones(decodes, mean, past, new, fresh):
    """With at most one chunk over cached tokens: where there are more, contexts are rounded up one by one."""
    prefill = [(past, new)] * (new > 0) + [(0, 7)] * fresh
    if decodes or prefill:
        t = measured()
        mine = CostModel(t).step_seconds(decodes, decodes * mean, prefill)
        assert mine == pytest.approx(compiled(t, decodes, decodes * mean, prefill, 0), rel=1e-12)


def test_contexts_of_several_chunks_are_rounded_up_one_by_one():
    t = measured()
    expected = (1e-5 * round(math.sqrt(2 * 16)) + 1e-6 * 4) * 1.1
    assert CostModel(t).prefill_attention([(65, 4), (65, 4)]) == pytest.approx(expected)


def test_a_step_without_tokens_takes_no_time(llama):
    assert llama.step_seconds() == 0.0


def test_prefill_takes_arrays_and_grows(llama):
    seconds = llama.prefill_seconds([128, 512, 2048], past=[0, 0, 0])
    assert seconds.shape == (3,)
    assert np.all(np.diff(seconds) > 0)
    assert llama.prefill_seconds(512, past=4096) > llama.prefill_seconds(512)


@given(n=st.integers(1, 3000), part=st.floats(0.01, 0.99))
def test_attention_of_a_prompt_does_the_same_work_in_any_chunks(llama, n, part):
    """Without floors and memory, attention of two chunks adds up to that of the whole."""
    t = llama.tables
    first = max(1, int(n * part))
    areas = [m * p + m * (m + 1) / 2 for p, m in ((0, first), (first, n - first))]
    assert sum(areas) == n * (n + 1) / 2
    assert llama.prefill_attention([(0, n)]) >= t.prefill_floor + t.prefill_flop_s * sum(areas) * (1 - 1e-12)


@given(target=st.floats(0.03, 0.5), decodes=st.integers(0, 100))
def test_the_chunk_is_the_largest_that_meets_the_target(llama, target, decodes):
    def seconds(budget):
        fresh = budget - decodes
        return llama.step_seconds(decodes, 1024 * decodes, [(0, fresh)] if fresh > 0 else [], emitted=int(fresh > 0))

    fitting = [c for c in range(CHUNK, 4096 + 1, CHUNK) if seconds(c) <= target]
    if fitting:
        assert llama.chunk_for_tbt(target, decodes, limit=4096) == max(fitting)
    else:
        with pytest.raises(InputError, match="no chunk meets"):
            llama.chunk_for_tbt(target, decodes, limit=4096)


def test_lookup_goes_on_with_the_last_slope():
    table = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(lookup(table, [0, 2, 3, 10]), [0, 3, 5, 19])


@given(decodes=st.integers(1, 64), mean=st.integers(1, 4000), share=st.floats(0, 1), compute=st.floats(0, 3), steps=st.integers(1, 300))
def test_stretches_with_shared_contexts_are_sums_of_steps(llama, decodes, mean, share, compute, steps):
    t = replace(llama.tables, prefill_flop_s=compute * llama.tables.decode_byte_s)
    cp, context, shared = kernel.pack(t), decodes * mean, int(share * decodes * mean)
    model = CostModel(t)
    summed = crossed = 0.0
    for k in range(steps):
        attention = model.decode_attention(decodes, context + k * decodes, shared)
        assert attention == pytest.approx(kernel.decode_attention(cp, t.decode_table, decodes, context + k * decodes, shared))
        device = t.n_layers * (kernel.lookup(t.layer, decodes) + attention) + kernel.lookup(t.head, decodes)
        summed += max(device, t.launch) + t.cpu + t.cpu_per_seq * decodes
    left = steps
    while left:
        first, slope, length = kernel.decode_segment(cp, t.layer, t.head, t.decode_table, decodes, context, shared, 0)
        m = min(left, length)
        crossed += m * first + slope * m * (m - 1) / 2
        context += m * decodes
        left -= m
    assert crossed == pytest.approx(summed, rel=1e-9)
