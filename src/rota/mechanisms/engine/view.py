"""The engine view over the engine's sequences and blocks, for any batching policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import HELD_COLUMNS, WAITING, Limits
from rota.mechanisms.engine.sequences import Seq, is_held

if TYPE_CHECKING:
    from rota.mechanisms.engine.core import EngineCore


class View:
    """An `rota.contracts.serving.EngineView`. One per engine; it always shows the present."""

    __slots__ = ("_core",)

    def __init__(self, core: EngineCore) -> None:
        self._core = core

    @property
    def now(self) -> float:
        return self._core.now

    @property
    def limits(self) -> Limits:
        return self._core.limits

    @property
    def n_decode(self) -> int:
        return len(self._core.decodes)

    @property
    def decode_need(self) -> int:
        return self._core.decode_need()

    @property
    def free_blocks(self) -> int:
        return self._core.pool.free

    @property
    def free_host_blocks(self) -> int:
        return self._core.pool.host_free

    @property
    def n_running(self) -> int:
        return len(self._core.held)

    @property
    def n_waiting(self) -> int:
        return len(self._core.waiting)

    @property
    def n_prefill(self) -> int:
        return len(self._core.prefills)

    @property
    def prefills(self) -> list[Seq]:
        return list(self._core.prefills.values())

    @property
    def waiting(self) -> Iterator[Seq]:
        return iter(self._core.waiting)

    @property
    def running(self) -> list[Seq]:
        return [seq for seq in self._core.held.values() if is_held(seq)]

    @property
    def arrived(self) -> list[Seq]:
        return list(self._core.arrived)

    @property
    def finished(self) -> list[Seq]:
        return list(self._core.finished)

    @property
    def held(self) -> NDArray[np.int64]:
        rows = [
            (s.sid, s.n_prompt, s.n_known, s.n_computed, s.max_new, s.n_blocks, s.phase)
            for s in self._core.held.values()
            if is_held(s)
        ]
        return np.array(rows, np.int64).reshape(-1, HELD_COLUMNS)

    def seq(self, sid: int) -> Seq:
        return self._core.seqs[sid]

    def ledger(self) -> BlockLedger:
        return BlockLedger(self._core)

    def pinned_blocks(self, key: int) -> int:
        return self._core.pool.held_once(self._core.pins.get(key, []))


class BlockLedger:
    """Scratch block accounting for one `plan` call: an `rota.contracts.serving.Ledger`."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._pool = core.pool
        self._free = core.pool.free
        self._held: dict[int, int] = {}
        self._claimed: set[int] = set()  # idle blocks that this plan reuses, each once

    def free(self) -> int:
        return self._free

    def need(self, sid: int, upto_tokens: int) -> int:
        total = self._pool.count(upto_tokens)
        if sid in self._held:
            return max(0, total - self._held[sid])
        seq = self._core.seqs[sid]
        if seq.phase != WAITING:
            return max(0, total - seq.n_blocks)
        found = self._pool.match(seq)
        return max(0, total - len(found)) + len(self._idle(found))

    def reserve(self, sid: int, upto_tokens: int) -> bool:
        need = self.need(sid, upto_tokens)
        if need > self._free:
            return False
        self._free -= need
        seq = self._core.seqs[sid]
        if seq.phase == WAITING and sid not in self._held:
            self._claimed.update(self._idle(self._pool.match(seq)))
        self._held[sid] = max(self._held.get(sid, seq.n_blocks), self._pool.count(upto_tokens))
        return True

    def evict(self, sid: int) -> None:
        seq = self._core.seqs[sid]
        shared = seq.n_blocks - self._pool.held_once(self._pool.blocks_of(seq))
        self._free += self._held.get(sid, seq.n_blocks) - shared
        self._held[sid] = 0

    def unpin(self, key: int) -> None:
        self._free += self._pool.held_once(self._core.pins.get(key, []))

    def _idle(self, blocks: list[int]) -> list[int]:
        return [b for b in blocks if self._pool.is_idle(b) and b not in self._claimed]
