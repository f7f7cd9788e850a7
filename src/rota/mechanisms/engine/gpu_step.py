"""Steps on a GPU: what the kernels need to know of a step's rows in one transfer, and steps of single tokens as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.gpu_attention import TILE, attend_chunks, attend_singles, tokens_per_tile
from rota.mechanisms.engine.gpu_rows import rotate_and_keep
from rota.mechanisms.engine.kv import PagedKV
from rota.mechanisms.engine.model import Decoder
from rota.mechanisms.engine.rope import angles

#: Programs that keep a GPU busy: contexts of a few single tokens are split until there are about as many.
PROGRAMS = 512
#: Steps of up to so many single tokens are captured.
MOST = 512


class Splits(NamedTuple):
    """Contexts in `parts` parts of `length` positions."""

    length: int
    parts: int


def splits_for(rows: int, kv_heads: int, longest: int) -> Splits:
    """How contexts of up to `longest` positions are split: into parts whose number is a power of two, and more the fewer rows there are."""
    length = 1024
    while length > 2 * TILE and rows * kv_heads * 1024 // length < PROGRAMS:
        length //= 2
    return Splits(length, 1 << max(0, (longest - 1) // length).bit_length())


@dataclass(slots=True)
class GpuAttention:
    """How the rows of one step attend (`model.Attend`), single tokens first; in layers outside the chunks' range they are alone.

    Attributes
    ----------
    positions, where : int32 (n,)
        Of each row, and where its key and value go; -1 for a row that is not there.
    tables : int32 (sequences, blocks)
        Single tokens' first.
    tasks : int32 (m, 4)
        See `attend_chunks`.
    cos, sin : (n, head_dim)
    """

    kv: PagedKV
    decoder: Decoder
    n_decodes: int
    splits: Splits
    positions: Tensor
    where: Tensor
    tables: Tensor
    tasks: Tensor
    cos: Tensor
    sin: Tensor

    def __call__(self, layer: int, rows: Tensor, norms: tuple[Tensor, Tensor] | None) -> Tensor:
        keys, values, config = self.kv.keys[layer], self.kv.values[layer], self.decoder.config
        heads, window, n = config.shape.heads, config.windows[layer], self.n_decodes
        rotate_and_keep(rows, norms, config.eps, self.cos, self.sin, keys, values, self.where)
        out = rows.new_empty(len(rows), heads, rows.shape[2])
        if n:
            attend_singles(rows[:n], keys, values, self.tables, self.positions[:n], window, heads, *self.splits, out[:n])
        if len(rows) > n:
            attend_chunks(rows, keys, values, self.tables, self.tasks, window, heads, out)
        return out


def attention_of(rows: Sequence[Row], tables: NDArray[np.int32], kv: PagedKV, decoder: Decoder) -> GpuAttention:
    """For a step of any rows."""
    shape, size = decoder.config.shape, kv.block_size
    slots = [row.seq.slot for row in rows]
    width = max(-(-(row.start + row.n_tokens) // size) for row in rows)
    mine = tables[slots, :width]
    positions = np.concatenate([np.arange(row.start, row.start + row.n_tokens, dtype=np.int32) for row in rows])
    owner = np.repeat(np.arange(len(rows)), [row.n_tokens for row in rows])
    where = mine[owner, positions // size] * size + positions % size
    n = sum(row.decode for row in rows)
    tasks, at, most = [], n, tokens_per_tile(shape.heads // shape.kv_heads)
    for i, row in enumerate(rows[n:], n):
        tasks += [(at + j, min(most, row.n_tokens - j), i, row.start + j) for j in range(0, row.n_tokens, most)]
        at += row.n_tokens
    parts = [positions, where, mine.ravel(), np.array(tasks, np.int32).ravel()]
    whole = torch.from_numpy(np.concatenate(parts).astype(np.int32)).to(decoder.device)
    on = whole.split([part.size for part in parts])
    longest = max((row.start + 1 for row in rows[:n]), default=1)
    return GpuAttention(
        kv, decoder, n, splits_for(n, shape.kv_heads, longest), on[0], on[1], on[2].view(len(rows), width), on[3].view(-1, 4),
        *angles(on[0], decoder.rope_freq, decoder.rope_factor, decoder.dtype),
    )  # fmt: skip


class Captured(NamedTuple):
    """A graph, and the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    ints: Tensor
    staged: Tensor
    logits: Tensor


class DecodeGraphs:
    """Steps of single tokens, each size captured once: a graph starts hundreds of kernels in the time of one.

    Parameters
    ----------
    decoder : Decoder
        Dense: what a router chooses, the host would have to know.
    kv : PagedKV
    """

    def __init__(self, decoder: Decoder, kv: PagedKV) -> None:
        self._decoder, self._kv = decoder, kv
        self._captured: dict[tuple[int, Splits], Captured] = {}
        self._pool: tuple[int, int] | None = None

    def take(self, n: int) -> bool:
        """Whether steps of n rows are captured."""
        return n <= MOST

    def logits(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> Tensor:
        """(n, vocab) of so many rows; overwritten by the next call."""
        n, size = len(rows), self._kv.block_size
        room = padded(n)
        past = np.fromiter((row.start for row in rows), np.int32, n)
        splits = splits_for(room, self._decoder.config.shape.kv_heads, int(past.max()) + 1)
        captured = self._captured.get((room, splits)) or self._capture(room, splits)
        slots = np.fromiter((row.seq.slot for row in rows), np.int64, n)
        ints = captured.staged.numpy()
        tokens, positions, where, blocks = ints[:room], ints[room : 2 * room], ints[2 * room : 3 * room], ints[3 * room :].reshape(room, -1)
        tokens[:n] = [row.seq.tokens[row.start] for row in rows]
        positions[:n], positions[n:] = past, -1
        where[:n], where[n:] = tables[slots, past // size] * size + past % size, -1
        width = min(blocks.shape[1], tables.shape[1])
        blocks[:n, :width] = tables[slots, :width]
        captured.ints.copy_(captured.staged, non_blocking=True)
        captured.graph.replay()
        return captured.logits[:n]

    def _capture(self, room: int, splits: Splits) -> Captured:
        width = -(-splits.length * splits.parts // self._kv.block_size)
        staged = torch.zeros(room * (3 + width), dtype=torch.int32, pin_memory=True)
        staged[room : 3 * room] = -1
        ints = staged.to(self._decoder.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles kernels and lets libraries set themselves up
            self._compute(ints, room, splits)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._compute(ints, room, splits)
        self._pool = graph.pool()
        captured = self._captured[room, splits] = Captured(graph, ints, staged, logits)
        return captured

    def _compute(self, ints: Tensor, room: int, splits: Splits) -> Tensor:
        d = self._decoder
        tokens, positions, where = ints[: 3 * room].view(3, room)
        attend = GpuAttention(
            self._kv, d, room, splits, positions, where, ints[3 * room :].view(room, -1), ints,
            *angles(positions, d.rope_freq, d.rope_factor, d.dtype),
        )  # fmt: skip
        x = d.embed(tokens)
        for layer in range(d.config.shape.layers):
            x = d.layer(layer, x, attend)
        return d.logits(x)


def padded(n: int) -> int:
    """The size of the graph that computes n rows: powers of two up to 8, then multiples of 8, then of 32."""
    return 1 << (n - 1).bit_length() if n <= 8 else -(-n // 8) * 8 if n <= 64 else -(-n // 32) * 32
