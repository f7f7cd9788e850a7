"""Attention of one step over paged KV: single tokens of many sequences, and chunks of prompts, in one batch of rows.

Single tokens read the pages in place where a compiled kernel can (CPU, single and double precision) and are gathered elsewhere. Chunks
gather what they look back at. Both then use PyTorch's scaled dot product attention; a plain formula is what all of it is held to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.kv import PagedKV
from rota.mechanisms.engine.paged_attention import paged_decode
from rota.mechanisms.engine.rope import angles


class Chunk(NamedTuple):
    """Rows `begin` to `end` of the batch: tokens of one prompt behind `past` earlier ones, whose KV is in `blocks`."""

    begin: int
    end: int
    past: int
    blocks: Tensor


class StepAttention:
    """How the rows of one step attend. Decodes come first; in layers outside the chunks' range they are alone.

    Parameters
    ----------
    rows : sequence of Row
    tables : int32 (seats, max_blocks)
    kv : PagedKV
    windows : sequence of int
        Sliding window of each layer, 0 for none.
    freq, factor
        Of the rotary embedding (`rope.frequencies`).
    reference : bool
        Plain formulas only.
    """

    def __init__(
        self, rows: Sequence[Row], tables: NDArray[np.int32], kv: PagedKV, windows: Sequence[int], freq: Tensor, factor: float,
        reference: bool = False,
    ) -> None:  # fmt: skip
        self._kv, self._windows, self._tables = kv, windows, tables
        device, dtype, size = kv.keys[0].device, kv.keys[0].dtype, kv.block_size
        decodes = [row for row in rows if row.decode]
        self.n_decodes = len(decodes)
        slots = np.fromiter((row.seq.slot for row in decodes), np.int64, len(decodes))
        past = np.fromiter((row.start for row in decodes), np.int64, len(decodes))
        positions, blocks = [past], [tables[slots, past // size]]
        self._slots, self._lengths = slots, past + 1
        self._chunks = []
        at = len(decodes)
        for row in rows[len(decodes) :]:
            where = np.arange(row.start, row.start + row.n_tokens)
            table = tables[row.seq.slot]
            positions.append(where)
            blocks.append(table[where // size])
            held = torch.from_numpy(table[: -(-(row.start + row.n_tokens) // size)].astype(np.int64)).to(device)
            self._chunks.append(Chunk(at, at + row.n_tokens, row.start, held))
            at += row.n_tokens
        where = np.concatenate(positions)
        self._blocks = torch.from_numpy(np.concatenate(blocks).astype(np.int64)).to(device)
        self._offsets = torch.from_numpy(where % size).to(device)
        self.cos, self.sin = angles(torch.from_numpy(where).to(device), freq, factor, dtype)
        in_place = device.type == "cpu" and dtype in (torch.float32, torch.float64)
        self._decode = self._decode_plainly if reference else self._decode_in_place if in_place else self._decode_gathered
        self._reference = reference

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[0]
        self._kv.write(layer, self._blocks[:n], self._offsets[:n], k, v)
        out = torch.empty_like(q)
        if self.n_decodes:
            self._decode(layer, q[: self.n_decodes], out[: self.n_decodes])
        if n > self.n_decodes:
            for chunk in self._chunks:
                out[chunk.begin : chunk.end] = self._attend(layer, q[chunk.begin : chunk.end], k, v, chunk)
        return out

    def _decode_in_place(self, layer: int, q: Tensor, out: Tensor) -> None:
        keys, values = self._kv.keys[layer].numpy(), self._kv.values[layer].numpy()
        scale = keys.dtype.type(1.0 / math.sqrt(q.shape[-1]))
        paged_decode(q.numpy(), keys, values, self._tables, self._slots, self._lengths, scale, self._windows[layer], out.numpy())

    def _decode_gathered(self, layer: int, q: Tensor, out: Tensor) -> None:
        """All rows' pages, padded to the longest."""
        n, (blocks, behind) = len(q), self._gather
        keys, values = (
            pages[layer][blocks].transpose(1, 2).reshape(n, pages[layer].shape[1], -1, q.shape[-1])
            for pages in (self._kv.keys, self._kv.values)
        )
        for pages in (keys, values):  # what is padded may be another's infinity, and zero times that is no number
            pages.masked_fill_((behind < 0)[:, None, :, None], 0.0)
        window = self._windows[layer]
        seen = behind >= 0 if not window else (behind >= 0) & (behind < window)
        found = functional.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen[:, None, None], enable_gqa=True)
        out.copy_(found[:, :, 0])

    @cached_property
    def _gather(self) -> tuple[Tensor, Tensor]:
        """Block tables of the decodes, (n, blocks of the longest), and how far each position lies behind the row's own, (n, positions)."""
        size = self._kv.block_size
        most = -(-int(self._lengths.max()) // size)
        behind = self._lengths[:, None] - 1 - np.arange(most * size)[None, :]
        device = self._kv.keys[0].device
        return torch.from_numpy(self._tables[self._slots, :most].astype(np.int64)).to(device), torch.from_numpy(behind).to(device)

    def _decode_plainly(self, layer: int, q: Tensor, out: Tensor) -> None:
        """Each row by itself, by the formula."""
        size = self._kv.block_size
        for i, (slot, length) in enumerate(zip(self._slots.tolist(), self._lengths.tolist(), strict=True)):
            blocks = torch.from_numpy(self._tables[slot, : -(-length // size)].astype(np.int64)).to(q.device)
            k, v = self._kv.read(layer, blocks, length)
            out[i : i + 1] = self._sdpa(layer, q[i : i + 1], k, v, length - 1)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, chunk: Chunk) -> Tensor:
        if chunk.past:
            keys, values = self._kv.read(layer, chunk.blocks, chunk.past + len(q))
        else:
            keys, values = k[chunk.begin : chunk.end].transpose(0, 1), v[chunk.begin : chunk.end].transpose(0, 1)
        return self._sdpa(layer, q, keys, values, chunk.past)

    def _sdpa(self, layer: int, q: Tensor, k: Tensor, v: Tensor, past: int) -> Tensor:
        """q (n, heads, d) at positions from `past` on over k, v (kv_heads, past + n, d); (n, heads, d)."""
        n, total, window = q.shape[0], k.shape[1], self._windows[layer]
        mask: Tensor | None = None
        if past or (window and total > window):
            distance = torch.arange(past, past + n, device=q.device)[:, None] - torch.arange(total, device=q.device)[None, :]
            mask = distance >= 0 if not window else (distance >= 0) & (distance < window)
        if self._reference:
            return _formula(q, k, v, mask)
        options: dict[str, Any] = {"is_causal": True} if mask is None and n > 1 else {"attn_mask": mask}
        seen = functional.scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None], enable_gqa=True, **options)
        return seen[0].transpose(0, 1)


def _formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as it is written in a textbook."""
    n, heads, dim = q.shape
    group = heads // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = q.transpose(0, 1) @ k.transpose(1, 2) / math.sqrt(dim)
    if mask is None:
        mask = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    return (scores.masked_fill(~mask, -math.inf).softmax(-1) @ v).transpose(0, 1)
