"""What a policy sees of a simulated engine with two tiers, and the costs that it may predict with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rota.contracts import columns as col
from rota.contracts.serving import HELD_COLUMNS, WAITING
from rota.cost.engine import EngineSpec
from rota.cost.model import CostModel, lookup
from rota.mechanisms.simulator import split
from rota.mechanisms.simulator.view import SimSeq

if TYPE_CHECKING:
    from rota.mechanisms.simulator.offload import OffloadEngine


class SplitSeq(SimSeq):
    """A row of the columns as a `SeqView`; rows are always up to date here."""

    __slots__ = ()

    @property
    def n_known(self) -> int:
        return self._view._seq[self._row + col.KNOWN]

    @property
    def n_computed(self) -> int:
        return self._view._seq[self._row + col.COMPUTED]

    @property
    def kv_blocks(self) -> int:
        return self._view._seq[self._row + col.BLOCKS]


class TierCosts:
    """The deployment's tables as `rota.contracts.offload.SplitCosts`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._model = CostModel(spec.tables)
        self.linear_table = spec.tables.layer
        host = spec.tables.host
        self.host_terms = host.floor + 2 * host.latency, host.send_s + host.back_s, host.context_s

    def linear(self, tokens: int) -> float:
        table = self.linear_table
        return float(table[tokens]) if tokens < len(table) else float(lookup(table, tokens))

    def prefill(self, prompts: Sequence[tuple[int, int]]) -> float:
        return self._model.prefill_attention(prompts)

    def device(self, sequences: int, context: int) -> float:
        return self._model.decode_attention(sequences, context)

    def host(self, sequences: int, context: int) -> float:
        call, per_sequence, per_token = self.host_terms
        return call + per_sequence * sequences + per_token * context if sequences else 0.0


class SplitView:
    """`rota.contracts.offload.OffloadView` over an `OffloadEngine`."""

    def __init__(self, engine: OffloadEngine, shared: dict[str, np.ndarray], spec: EngineSpec) -> None:
        self._engine = engine
        self.spec = spec
        self.limits = engine.limits
        self.costs = TierCosts(spec)
        self.host_blocks = spec.host_blocks
        # what SimSeq reads
        self._seq = memoryview(engine.s.seq.reshape(-1))
        self._tim = memoryview(engine.s.tim.reshape(-1))
        self._ctl = np.zeros(col.CTL_SIZE, np.int64)
        self._program, self._first, self._turn = (shared.get(name) for name in ("program", "first", "turn"))
        self._tool = shared.get("tool")
        self._seqs: list[SplitSeq | None] = [None] * len(engine.s.seq)

    @property
    def now(self) -> float:
        return float(self._engine.s.num[split.NOW])

    @property
    def n_decode(self) -> int:
        return len(self._engine.members()[0])

    @property
    def decode_need(self) -> int:
        return int(split.needed(self._engine.s, self._engine.members()[0], False))

    @property
    def free_blocks(self) -> int:
        return int(self._engine.s.ctl[split.FREE])

    @property
    def free_host_blocks(self) -> int:
        return int(self._engine.s.ctl[split.HOST_FREE])

    @property
    def host_need(self) -> int:
        return int(split.needed(self._engine.s, self._engine.members()[1], False))

    @property
    def host_backlog(self) -> float:
        num = self._engine.s.num
        return max(0.0, float(num[split.HOST_AT] - num[split.NOW]))

    @property
    def n_running(self) -> int:
        return len(self._engine.running)

    @property
    def n_waiting(self) -> int:
        return len(self._engine.waiting)

    @property
    def n_prefill(self) -> int:
        return len(self._engine.prefilling)

    @property
    def prefills(self) -> list[SplitSeq]:
        return [self.seq(sid) for sid in self._engine.prefilling]

    @property
    def waiting(self) -> Iterator[SplitSeq]:
        return (self.seq(sid) for sid in self._engine.waiting)

    @property
    def running(self) -> list[SplitSeq]:
        tier = self._engine.tier
        return [self.seq(sid) for sid in self._engine.running if not tier[sid]]

    @property
    def held(self) -> np.ndarray:
        rows = [self.seq(sid) for sid in self._engine.running]
        found = [(s.sid, s.n_prompt, s.n_known, s.n_computed, s.max_new, s.kv_blocks, s.phase) for s in rows]
        return np.array(found, np.int64).reshape(len(found), HELD_COLUMNS)

    @property
    def hosted(self) -> list[SplitSeq]:
        return [self.seq(sid) for sid in self._engine.members()[1].tolist()]

    @property
    def n_hosted(self) -> int:
        return len(self._engine.members()[1])

    def contexts(self, sids: Sequence[int]) -> np.ndarray:
        return self._engine.s.seq[np.fromiter(sids, np.int64, len(sids)), col.KNOWN]

    @property
    def arrived(self) -> list[SplitSeq]:
        return [self.seq(sid) for sid in self._engine.arrived]

    @property
    def finished(self) -> list[SplitSeq]:
        return [self.seq(sid) for sid in self._engine.finished]

    def seq(self, sid: int) -> SplitSeq:
        found = self._seqs[sid]
        if found is None:
            found = self._seqs[sid] = SplitSeq(self, sid)
        return found

    def ledger(self) -> SplitLedger:
        return SplitLedger(self)

    def pinned_blocks(self, key: int) -> int:
        return 0


class SplitLedger:
    """Scratch accounting of the device's blocks."""

    def __init__(self, view: SplitView) -> None:
        self._view = view
        self._free = view.free_blocks
        self._held: dict[int, int] = {}

    def free(self) -> int:
        return self._free

    def need(self, sid: int, upto_tokens: int) -> int:
        seq = self._view.seq(sid)
        held = self._held.get(sid, 0 if seq.phase == WAITING else seq.kv_blocks)
        return max(0, -(-upto_tokens // self._view.limits.block_size) - held)

    def reserve(self, sid: int, upto_tokens: int) -> bool:
        need = self.need(sid, upto_tokens)
        if need > self._free:
            return False
        seq = self._view.seq(sid)
        self._held[sid] = self._held.get(sid, 0 if seq.phase == WAITING else seq.kv_blocks) + need
        self._free -= need
        return True

    def evict(self, sid: int) -> None:
        self._free += self._held.pop(sid, self._view.seq(sid).kv_blocks)
        self._held[sid] = 0

    def unpin(self, key: int) -> None:
        """There are no pins here."""
