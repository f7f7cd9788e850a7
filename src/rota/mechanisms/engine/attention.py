"""Attention of one step over paged KV: single tokens of many sequences, and chunks of prompts, in one batch of rows.

On a CPU both read the pages in place, and what comes before (norm, rotation, keeping keys and values) is compiled too. Elsewhere pages are
gathered for PyTorch's scaled dot product attention. A plain formula is what all of it is held to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import get_num_threads
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rota.mechanisms.engine.chunk_attention import TOGETHER, paged_chunks
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.head_rows import rotate_and_keep
from rota.mechanisms.engine.kv import PagedKV
from rota.mechanisms.engine.model import Decoder
from rota.mechanisms.engine.paged_attention import paged_decode
from rota.mechanisms.engine.rope import angles, rotate


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
    decoder : Decoder
        Whose layers these are.
    reference : bool
        Plain formulas only.
    """

    def __init__(
        self, rows: Sequence[Row], tables: NDArray[np.int32], kv: PagedKV, decoder: Decoder, reference: bool = False
    ) -> None:
        self._kv, self._tables = kv, tables
        self._windows, self._eps, self._heads = decoder.config.windows, decoder.config.eps, decoder.config.shape.heads
        device, dtype, size = kv.keys[0].device, decoder.dtype, kv.block_size
        decodes = [row for row in rows if row.decode]
        self.n_decodes = len(decodes)
        slots = np.fromiter((row.seq.slot for row in decodes), np.int64, len(decodes))
        past = np.fromiter((row.start for row in decodes), np.int64, len(decodes))
        positions, blocks = [past], [tables[slots, past // size]]
        self._slots, self._lengths = slots, past + 1
        self._chunks = []
        groups = [np.empty((0, 4), np.int64)]
        at = len(decodes)
        for row in rows[len(decodes) :]:
            where = np.arange(row.start, row.start + row.n_tokens)
            table = tables[row.seq.slot]
            positions.append(where)
            blocks.append(table[where // size])
            held = torch.from_numpy(table[: -(-(row.start + row.n_tokens) // size)].astype(np.int64)).to(device)
            self._chunks.append(Chunk(at, at + row.n_tokens, row.start, held))
            cut = np.arange(0, row.n_tokens, TOGETHER)
            groups.append(np.stack([at + cut, np.minimum(TOGETHER, row.n_tokens - cut), np.full_like(cut, row.seq.slot), row.start + cut], axis=1))
            at += row.n_tokens
        self._groups = np.concatenate(groups)
        where = np.concatenate(positions)
        self._blocks = torch.from_numpy(np.concatenate(blocks).astype(np.int64)).to(device)
        self._offsets = torch.from_numpy(where % size).to(device)
        self._cos, self._sin = angles(torch.from_numpy(where).to(device), decoder.rope_freq, decoder.rope_factor, dtype)
        single = (torch.float32, torch.bfloat16)
        kept = kv.keys[0].dtype
        in_place = bool(kv.arrays) and (kept == dtype == torch.float64 or (dtype in single and kept in single))
        self._in_place = in_place and not reference
        self._compiled = self._in_place and dtype != torch.bfloat16
        self._decode = self._decode_plainly if reference else self._decode_gathered
        self._reference = reference

    def __call__(self, layer: int, rows: Tensor, norms: tuple[Tensor, Tensor] | None) -> Tensor:
        n = rows.shape[0]
        if self._compiled:
            return self._attend_in_place(layer, self._keep_compiled(layer, rows, norms))
        q, k, v = self._keep(layer, rows, norms)
        if self._in_place:
            return self._attend_in_place(layer, q)
        out = rows.new_empty(q.shape)
        if self.n_decodes:
            self._decode(layer, q[: self.n_decodes], out[: self.n_decodes])
        if n > self.n_decodes:
            for chunk in self._chunks:
                out[chunk.begin : chunk.end] = self._attend(layer, q[chunk.begin : chunk.end], k, v, chunk)
        return out

    def _keep(self, layer: int, rows: Tensor, norms: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Norm and rotate queries and keys, write keys and values to their pages; the three of them."""
        n, kv_heads = rows.shape[0], self._kv.keys[0].shape[1]
        q, k, v = rows.split([self._heads, kv_heads, kv_heads], dim=1)
        if norms is not None:
            q, k = (functional.rms_norm(x, w.shape, w, self._eps) for x, w in zip((q, k), norms, strict=True))
        cos, sin = self._cos[:n], self._sin[:n]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return (q, *self._kv.write(layer, self._blocks[:n], self._offsets[:n], k, v))

    def _keep_compiled(self, layer: int, rows: Tensor, norms: tuple[Tensor, Tensor] | None) -> Tensor:
        """`_keep`, in place; the queries."""
        n, (keys, values) = rows.shape[0], self._kv.arrays[layer]
        q = rows.new_empty(n, self._heads, rows.shape[2])
        weights = (w.numpy() for w in norms) if norms is not None else (_none(rows.dtype),) * 2
        rotate_and_keep(
            rows.numpy(), *weights, self._eps, self._cos[:n, 0].numpy(), self._sin[:n, 0].numpy(), q.numpy(), keys, values,
            self._blocks[:n].numpy(), self._offsets[:n].numpy(),
        )  # fmt: skip
        return q

    def _attend_in_place(self, layer: int, q: Tensor) -> Tensor:
        (keys, values), n = self._kv.arrays[layer], self.n_decodes
        wide = (q if q.dtype != torch.bfloat16 else q.float()).numpy()
        out = np.empty_like(wide)
        how = wide.dtype.type(1.0 / math.sqrt(q.shape[-1])), self._windows[layer], min(keys.shape[1], get_num_threads())
        if n:
            paged_decode(wide[:n], keys, values, self._tables, self._slots, self._lengths, *how, out[:n])
        if len(q) > n:
            paged_chunks(wide, keys, values, self._tables, self._groups, *how, out)
        return torch.from_numpy(out).to(q.dtype)

    def _decode_gathered(self, layer: int, q: Tensor, out: Tensor) -> None:
        """All rows' pages, padded to the longest."""
        n, (blocks, behind) = len(q), self._gather
        keys, values = (
            pages[layer][blocks].to(q.dtype).transpose(1, 2).reshape(n, pages[layer].shape[1], -1, q.shape[-1])
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
            k, v = self._kv.read(layer, blocks, length, q.dtype)
            out[i : i + 1] = self._sdpa(layer, q[i : i + 1], k, v, length - 1)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, chunk: Chunk) -> Tensor:
        if chunk.past:
            keys, values = self._kv.read(layer, chunk.blocks, chunk.past + len(q), q.dtype)
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


@cache
def _none(dtype: torch.dtype) -> NDArray[Any]:
    """No weights."""
    return np.empty(0, np.float64 if dtype == torch.float64 else np.float32)
