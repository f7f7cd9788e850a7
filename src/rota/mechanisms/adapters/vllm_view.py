"""What a batching policy sees of a vLLM scheduler: its requests, queues and KV cache manager, read where they are.

Nothing here imports vLLM. With vLLM's asynchronous scheduling a step is planned while the one before it still runs: a token that is
being computed counts as known, and a sequence whose last token is being computed as in flight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import DECODE, FINISHED, HELD_COLUMNS, PREFILL, WAITING, Limits


class Seq:
    """One request of vLLM's, as `rota.contracts.serving.SeqView` shows it.

    Attributes
    ----------
    request : vllm.v1.request.Request
    running : bool
        Whether it holds a seat. A request that was aborted while it waited keeps waiting here, `gone`, until the policy schedules it.
    reserved : int
        KV tokens that a plan has set aside for it beyond what vLLM has allocated.
    """

    __slots__ = (
        "_cache", "arrival", "finished_at", "first_scheduled", "gone", "program", "program_arrival", "request", "reserved", "running",
        "sid", "tenant", "turn",
    )  # fmt: skip

    def __init__(self, sid: int, request: Any, cache: Cache, arrival: float) -> None:
        self.sid, self.request, self.arrival, self._cache = sid, request, arrival, cache
        asked = getattr(request.sampling_params, "extra_args", None) or {}
        self.tenant, self.program = int(asked.get("tenant", 0)), int(asked.get("program", -1))
        self.turn, self.program_arrival = 0, arrival
        self.first_scheduled = self.finished_at = math.nan
        self.running = self.gone = False
        self.reserved = 0

    @property
    def phase(self) -> int:
        if self.running:
            return PREFILL if self.request.is_prefill_chunk else DECODE
        return WAITING if math.isnan(self.finished_at) else FINISHED

    @property
    def priority(self) -> int:
        return int(self.request.priority)

    @property
    def n_prompt(self) -> int:
        return int(self.request.num_prompt_tokens)

    @property
    def n_known(self) -> int:
        return int(self.request.num_tokens + self.request.num_output_placeholders)

    @property
    def n_computed(self) -> int:
        return int(self.request.num_computed_tokens)

    @property
    def n_reusable(self) -> int:
        return self._cache.reusable(self.request) if self.phase == WAITING and not self.gone else 0

    @property
    def max_new(self) -> int:
        return int(self.request.max_tokens)

    @property
    def kv_blocks(self) -> int:
        return self._cache.held(self) if self.running else 0

    @property
    def layer_cursor(self) -> int:
        return 0

    @property
    def in_flight(self) -> bool:
        """Its last token is being computed."""
        ends = min(self.n_prompt + self.max_new, self._cache.max_len)
        return self.running and self.request.num_output_placeholders > 0 and self.n_known >= ends

    @property
    def preemptions(self) -> int:
        return int(self.request.num_preemptions)

    @property
    def tool(self) -> int:
        return -1


class Cache:
    """vLLM's KV cache manager, for a model with one kind of full attention.

    Parameters
    ----------
    manager : vllm.v1.core.kv_cache_manager.KVCacheManager
    size : int
        Tokens in a block.
    max_len : int
        Longest prompt and answer together.
    """

    def __init__(self, manager: Any, size: int, max_len: int) -> None:
        self.manager, self.size, self.max_len = manager, size, max_len
        self._blocks = manager.coordinator.single_type_managers[0].req_to_blocks
        self.reserving: dict[int, Seq] = {}  # sequences for which a plan has set blocks aside

    def allocated(self, seq: Seq) -> int:
        """Blocks that vLLM has given to it."""
        return len(self._blocks.get(seq.request.request_id, ()))

    def held(self, seq: Seq) -> int:
        """Those, and what is set aside."""
        return max(self.allocated(seq), -(-seq.reserved // self.size))

    def free(self) -> int:
        """Blocks that can be taken, idle cached ones included."""
        aside = sum(self.held(seq) - self.allocated(seq) for seq in self.reserving.values())
        return int(self.manager.block_pool.get_num_free_blocks()) - aside

    def reserve(self, seq: Seq, tokens: int) -> None:
        """Set blocks aside for so many tokens."""
        if tokens:
            seq.reserved = tokens
            self.reserving[seq.sid] = seq

    def release(self, seq: Seq) -> None:
        """Nothing is set aside any more."""
        seq.reserved = 0
        self.reserving.pop(seq.sid, None)

    def hits(self, request: Any) -> Sequence[Any]:
        """Cached blocks with which a waiting request begins."""
        found: Sequence[Any] = self.manager.get_computed_blocks(request)[0].blocks[0]
        return found

    def reusable(self, request: Any) -> int:
        """Tokens in them."""
        return int(self.manager.get_computed_blocks(request)[1])

    def held_once(self, seq: Seq) -> int:
        """Blocks that only this sequence holds."""
        return sum(block.ref_cnt == 1 for block in self._blocks.get(seq.request.request_id, ()))


class View:
    """A `rota.contracts.serving.EngineView`.

    Parameters
    ----------
    limits : Limits
    cache : Cache
    clock : callable
        Seconds since the scheduler's start.
    """

    def __init__(self, limits: Limits, cache: Cache, clock: Callable[[], float]) -> None:
        self.limits, self.cache, self._clock = limits, cache, clock
        self.seqs: dict[int, Seq] = {}
        self.queue: list[Seq] = []
        self.held_seqs: list[Seq] = []
        self.arrived: list[Seq] = []
        self.finished: list[Seq] = []

    def look(self, queue: list[Seq], held: list[Seq]) -> None:
        """Take in who waits, first to be served first, and who holds a seat, in order of admission."""
        self.queue, self.held_seqs = queue, held
        self.running = [seq for seq in held if not seq.in_flight]
        self.prefills = [seq for seq in self.running if seq.phase == PREFILL]
        self.decodes = [seq for seq in self.running if seq.phase == DECODE]

    @property
    def now(self) -> float:
        return self._clock()

    @property
    def n_decode(self) -> int:
        return len(self.decodes)

    @property
    def decode_need(self) -> int:
        size = self.limits.block_size
        return sum(seq.n_computed >= seq.kv_blocks * size for seq in self.decodes)

    @property
    def free_blocks(self) -> int:
        return self.cache.free()

    @property
    def free_host_blocks(self) -> int:
        return 0

    @property
    def n_running(self) -> int:
        return len(self.held_seqs)

    @property
    def n_waiting(self) -> int:
        return len(self.queue)

    @property
    def n_prefill(self) -> int:
        return len(self.prefills)

    @property
    def waiting(self) -> Iterator[Seq]:
        return iter(self.queue)

    @property
    def held(self) -> NDArray[np.int64]:
        rows = [(s.sid, s.n_prompt, s.n_known, s.n_computed, s.max_new, s.kv_blocks, s.phase) for s in self.held_seqs]
        return np.array(rows, np.int64).reshape(-1, HELD_COLUMNS)

    def seq(self, sid: int) -> Seq:
        return self.seqs[sid]

    def ledger(self) -> BlockLedger:
        return BlockLedger(self)

    def pinned_blocks(self, key: int) -> int:
        return 0


class BlockLedger:
    """Scratch block accounting for one `plan` call: a `rota.contracts.serving.Ledger`."""

    def __init__(self, view: View) -> None:
        self._view, self._cache = view, view.cache
        self._free = view.free_blocks
        self._held: dict[int, int] = {}
        self._claimed: set[int] = set()  # idle blocks that this plan reuses, each once

    def free(self) -> int:
        return self._free

    def need(self, sid: int, upto_tokens: int) -> int:
        total = -(-upto_tokens // self._cache.size)
        if sid in self._held:
            return max(0, total - self._held[sid])
        seq = self._view.seqs[sid]
        if seq.phase != WAITING:
            return max(0, total - seq.kv_blocks)
        found = self._hits(seq)
        return max(0, total - len(found)) + len(self._idle(found))

    def reserve(self, sid: int, upto_tokens: int) -> bool:
        need = self.need(sid, upto_tokens)
        if need > self._free:
            return False
        self._free -= need
        seq = self._view.seqs[sid]
        if seq.phase == WAITING and sid not in self._held:
            self._claimed.update(self._idle(self._hits(seq)))
        self._held[sid] = max(self._held.get(sid, seq.kv_blocks), -(-upto_tokens // self._cache.size))
        return True

    def evict(self, sid: int) -> None:
        seq = self._view.seqs[sid]
        shared = self._cache.allocated(seq) - self._cache.held_once(seq)
        self._free += self._held.get(sid, seq.kv_blocks) - shared
        self._held[sid] = 0

    def unpin(self, key: int) -> None:
        raise KeyError(key)  # vLLM keeps no pins, and policies that set them are refused

    def _hits(self, seq: Seq) -> Sequence[Any]:
        return () if seq.gone else self._cache.hits(seq.request)

    def _idle(self, blocks: Sequence[Any]) -> list[int]:
        return [b.block_id for b in blocks if b.ref_cnt == 0 and b.block_id not in self._claimed]
