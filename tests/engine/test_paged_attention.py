"""Attention over pages in place against the formula, for drawn shapes, windows, block tables and lengths."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.tiny import torch

from rota.mechanisms.engine.chunk_attention import TOGETHER, paged_chunks  # isort: skip
from rota.mechanisms.engine.paged_attention import paged_decode  # isort: skip


def formula(q, k, v, position, window):
    """One row q (heads, d) at `position` over k, v (kv_heads, positions, d)."""
    per_key = len(q) // len(k)
    since = max(0, position + 1 - window) if window else 0
    k, v = (np.repeat(x[:, since : position + 1].astype(np.float64), per_key, axis=0) for x in (k, v))
    scores = np.einsum("hd,hpd->hp", q.astype(np.float64), k) / math.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.einsum("hp,hpd->hd", weights / weights.sum(axis=1, keepdims=True), v)


@pytest.mark.parametrize("kept", ["float64", "float32", "bfloat16"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1 << 16), kv_heads=st.sampled_from([1, 2, 3]), per_key=st.sampled_from([1, 4]), dim=st.sampled_from([8, 20, 64]),
    size=st.sampled_from([4, 16]), window=st.sampled_from([0, 1, 7, 40]), parts=st.integers(1, 2),
    lengths=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 40)), min_size=1, max_size=3),
)  # fmt: skip
def test_rows_attend_to_what_lies_before_them(kept, seed, kv_heads, per_key, dim, size, window, parts, lengths):
    """`lengths`: of each sequence, the tokens before a chunk and those in it; the chunk's last row is a single token's, too."""
    generator = np.random.default_rng(seed)
    dtype = np.float64 if kept == "float64" else np.float32
    tables = generator.permutation(len(lengths) * 30).reshape(len(lengths), 30).astype(np.int32)
    shape = (tables.size, kv_heads, size, dim)
    pages = [torch.from_numpy(generator.standard_normal(shape).astype(dtype)).to(getattr(torch, kept)) for _ in range(2)]
    keys, values = (x.view(torch.uint16).numpy() if kept == "bfloat16" else x.numpy() for x in pages)
    n = sum(new for _, new in lengths)
    q, out = generator.standard_normal((n, kv_heads * per_key, dim)).astype(dtype), np.full((n, kv_heads * per_key, dim), np.nan, dtype)
    groups, expected, ends, at = [], np.empty(out.shape), [], 0
    for slot, (past, new) in enumerate(lengths):
        k, v = (x.double().numpy()[tables[slot]].swapaxes(0, 1).reshape(kv_heads, -1, dim) for x in pages)
        groups += [(at + i, min(TOGETHER, new - i), slot, past + i) for i in range(0, new, TOGETHER)]
        for i in range(new):
            expected[at + i] = formula(q[at + i], k, v, past + i, window)
        at += new
        ends.append(at - 1)
    how = dtype(1.0 / math.sqrt(dim)), window, min(parts, kv_heads)
    close = {"rtol": 0, "atol": 1e-12 if kept == "float64" else 2e-5}
    paged_chunks(q, keys, values, tables, np.array(groups), *how, out)
    np.testing.assert_allclose(out, expected, **close)
    singles = np.full((len(ends), *out.shape[1:]), np.nan, dtype)
    where = np.array([past + new for past, new in lengths], np.int64)
    paged_decode(q[ends], keys, values, tables, np.arange(len(ends)), where, *how, singles)
    np.testing.assert_allclose(singles, expected[ends], **close)
