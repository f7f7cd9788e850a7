"""Who holds which KV block, and what is in it: the allocator and the prefix cache. The tensors themselves are elsewhere.

Full blocks are entered under the identity of their content and everything before it. Blocks that nobody holds keep their content and
wait, least recently freed first, to be taken for new use; a released sequence gives its blocks back end first, so that its end is lost
before its beginning. The simulator counts blocks by the same rules, so that a policy sees the same numbers in both.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from rota.mechanisms.engine.sequences import Seq


class Copy(NamedTuple):
    """KV blocks to be copied between device and host, one by one."""

    device: list[int]
    host: list[int]


class BlockPool:
    """All KV blocks of an engine.

    Parameters
    ----------
    blocks, size : int
        How many, and tokens in each.
    seats : int
        Sequences that can hold blocks at once.
    max_blocks : int
        Most blocks of one sequence.
    caching : bool
        Whether contents are remembered for reuse.
    host_blocks : int
        Blocks of host memory for what is swapped out.

    Attributes
    ----------
    tables : int32 (seats, max_blocks)
        Block tables; a sequence's row is `Seq.slot`, of which the first `Seq.n_blocks` entries count.
    n_swapped : int
        Sequences that have blocks of host memory.
    """

    def __init__(self, blocks: int, size: int, seats: int, max_blocks: int, caching: bool, host_blocks: int = 0) -> None:
        self.blocks, self.size, self.caching = blocks, size, caching
        self.tables = np.zeros((seats, max_blocks), np.int32)
        self._slots = list(range(seats))[::-1]
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._holders = [0] * blocks
        self._content: list[int | None] = [None] * blocks
        self.host_blocks, self.n_swapped = host_blocks, 0
        self._host_free = list(range(host_blocks))[::-1]
        self._where: dict[int, OrderedDict[int, None]] = {}  # content -> the blocks that have it, the first entered first

    @property
    def free(self) -> int:
        """Blocks that can be taken, idle cached ones included."""
        return len(self._free)

    @property
    def host_free(self) -> int:
        """Blocks of host memory that can be taken."""
        return len(self._host_free)

    def count(self, tokens: int) -> int:
        """Blocks that so many tokens fill or begin."""
        return -(-tokens // self.size)

    def match(self, seq: Seq) -> list[int]:
        """Cached blocks with which a waiting sequence begins: whole ones, at most its known tokens less one."""
        found: list[int] = []
        if self.caching:
            for i in range((seq.n_known - 1) // self.size):
                blocks = self._where.get(seq.block_key(i, self.size))
                if not blocks:
                    break
                found.append(next(iter(blocks)))
        return found

    def reusable(self, seq: Seq) -> int:
        """Tokens in `match`, or those that were swapped out, whichever are more."""
        return max(len(self.match(seq)) * self.size, seq.n_kept)

    def is_idle(self, block: int) -> bool:
        """Whether nobody holds the block."""
        return self._holders[block] == 0

    def held_once(self, blocks: list[int]) -> int:
        """How many of these blocks have one holder."""
        return sum(self._holders[b] == 1 for b in blocks)

    def blocks_of(self, seq: Seq) -> list[int]:
        """The sequence's blocks, first to last."""
        held: list[int] = self.tables[seq.slot, : seq.n_blocks].tolist()
        return held

    def admit(self, seq: Seq) -> None:
        """Give a sequence a block table that begins with what is cached of it."""
        seq.slot = self._slots.pop()
        found = self.match(seq)
        self.hold(found)
        self.tables[seq.slot, : len(found)] = found
        seq.n_blocks = seq.committed = len(found)
        seq.cached = len(found) * self.size
        seq.n_computed = max(seq.cached, seq.n_kept)

    def hold(self, blocks: list[int]) -> None:
        """Count one more holder of each block."""
        for b in blocks:
            if self._holders[b] == 0:
                del self._free[b]
            self._holders[b] += 1

    def let_go(self, blocks: list[int]) -> None:
        """Count one holder of each block less, the last first; nobody's blocks become free and keep their content."""
        for b in reversed(blocks):
            self._holders[b] -= 1
            if self._holders[b] == 0:
                self._free[b] = None

    def grow(self, seq: Seq, n_blocks: int) -> None:
        """Extend a block table with the least recently freed blocks; the caller has checked that there are as many."""
        for i in range(seq.n_blocks, n_blocks):
            b, _ = self._free.popitem(last=False)
            self._forget(b)
            self._holders[b] = 1
            self.tables[seq.slot, i] = b
        seq.n_blocks = max(seq.n_blocks, n_blocks)

    def commit(self, seq: Seq) -> None:
        """Enter all full blocks of what is computed."""
        full = seq.n_computed // self.size
        if not self.caching or full <= seq.committed:
            return
        for i in range(seq.committed, full):
            b = int(self.tables[seq.slot, i])
            if self._content[b] is None:
                key = seq.block_key(i, self.size)
                self._content[b] = key
                self._where.setdefault(key, OrderedDict())[b] = None
        seq.committed = full

    def release(self, seq: Seq) -> None:
        """Take back all of a sequence's blocks and its table."""
        self.commit(seq)
        self.let_go(self.blocks_of(seq))
        self._slots.append(seq.slot)
        seq.slot, seq.n_blocks, seq.committed = -1, 0, 0

    def swap_out(self, seq: Seq) -> Copy:
        """Give a sequence host blocks for what is computed of it; the caller has checked that there are as many."""
        blocks = self.blocks_of(seq)[: self.count(seq.n_computed)]
        seq.kept, seq.n_kept = [self._host_free.pop() for _ in blocks], seq.n_computed
        self.n_swapped += bool(blocks)
        return Copy(blocks, seq.kept)

    def swap_in(self, seq: Seq) -> Copy:
        """Take the host blocks of an admitted sequence back, whose table has grown since; what begins its table anyway is not copied."""
        copy = Copy(self.blocks_of(seq)[seq.committed : len(seq.kept)], seq.kept[seq.committed :])
        self.forget_kept(seq)
        return copy

    def forget_kept(self, seq: Seq) -> None:
        """Take host blocks back."""
        self._host_free += seq.kept
        self.n_swapped -= bool(seq.kept)
        seq.kept, seq.n_kept = [], 0

    def match_prefix(self, seq: Seq, most: int) -> list[int]:
        """Cached blocks, at most `most`, with which a request, in whatever phase, begins."""
        found: list[int] = []
        for i in range(min(most, seq.n_known // self.size)):
            blocks = self._where.get(seq.block_key(i, self.size))
            if not blocks:
                break
            found.append(next(iter(blocks)))
        return found

    def _forget(self, block: int) -> None:
        key = self._content[block]
        if key is None:
            return
        holders = self._where[key]
        del holders[block]
        if not holders:
            del self._where[key]
        self._content[block] = None
