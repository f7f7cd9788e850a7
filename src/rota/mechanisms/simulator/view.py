"""The engine view over a simulated engine's columns, for policies written in Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rota.contracts import columns as col
from rota.contracts.serving import DECODE, FINISHED, Limits
from rota.mechanisms.simulator import kernel
from rota.mechanisms.simulator.blocks import held_once, look_up, new_claim, unclaimed
from rota.mechanisms.simulator.reference import StateRef
from rota.mechanisms.simulator.state import (
    AS_OF,
    AVAIL,
    CACHING,
    G_STEP,
    HITS,
    HOST_BLOCKS,
    HOST_FREE,
    IDLE,
    JOIN,
    N_ARRIVED,
    N_FINISHED,
    NOW,
    OWN_COLUMNS,
    REFS,
    SLOT,
    VERSION,
    State,
)

_N = col.SEQ_COLUMNS
#: By key of a pin: the sequence, and how many of its leading blocks are held.
Pinned = dict[int, tuple[int, int]]


class SimSeq:
    """A row of the columns as a `SeqView`."""

    __slots__ = ("_row", "_view", "sid")

    def __init__(self, view: SimView, sid: int) -> None:
        self._view = view
        self.sid = sid
        self._row = sid * _N

    @property
    def arrival(self) -> float:
        return self._view._tim[self.sid * col.TIM_COLUMNS + col.ARRIVED]

    @property
    def phase(self) -> int:
        return self._view._seq[self._row + col.PHASE]

    @property
    def priority(self) -> int:
        return self._view._seq[self._row + col.PRIORITY]

    @property
    def tenant(self) -> int:
        return self._view._seq[self._row + col.TENANT]

    @property
    def n_prompt(self) -> int:
        return self._view._seq[self._row + col.PROMPT]

    @property
    def n_known(self) -> int:
        seq, row = self._view._seq, self._row
        known = seq[row + col.KNOWN]
        return known + self._gained() if seq[row + col.PHASE] == DECODE else known

    @property
    def n_computed(self) -> int:
        seq, row = self._view._seq, self._row
        computed = seq[row + col.COMPUTED]
        return computed + self._gained() if seq[row + col.PHASE] == DECODE else computed

    @property
    def n_reusable(self) -> int:
        view = self._view
        if view._seq[self._row + col.PHASE] != 1:
            return 0
        cached = view.hits(self.sid)[0] * view.limits.block_size if view._ctl[CACHING] else 0
        return max(cached, int(view._state.kept[self.sid])) if view._ctl[HOST_BLOCKS] else cached

    @property
    def max_new(self) -> int:
        return self._view._seq[self._row + col.MAX_NEW]

    @property
    def kv_blocks(self) -> int:
        view = self._view
        size = view.limits.block_size
        return max(view._seq[self._row + col.BLOCKS], -(-self.n_computed // size) if self.phase == DECODE else 0)

    @property
    def layer_cursor(self) -> int:
        return self._view._seq[self._row + col.CURSOR]

    @property
    def in_flight(self) -> bool:
        return self._view._seq[self._row + col.FLIGHT] != 0

    @property
    def preemptions(self) -> int:
        return self._view._seq[self._row + col.PREEMPTIONS]

    @property
    def program(self) -> int:
        programs = self._view._program
        return programs[self.sid] if programs is not None else -1

    @property
    def turn(self) -> int:
        return self._view._turn[self.sid] if self._view._turn is not None else 0

    @property
    def program_arrival(self) -> float:
        view = self._view
        first = self.sid if view._first is None else view._first[self.sid]
        return view._tim[first * col.TIM_COLUMNS + col.ARRIVED]

    @property
    def tool(self) -> int:
        if self._view._tool is None or self.phase != FINISHED:
            return -1
        return self._view._tool[self.sid]

    @property
    def first_scheduled(self) -> float:
        return self._view._tim[self.sid * col.TIM_COLUMNS + col.FIRST_SCHEDULED]

    @property
    def finished_at(self) -> float:
        return self._view._tim[self.sid * col.TIM_COLUMNS + col.FINISHED_AT]

    def _gained(self) -> int:
        """Tokens since this decoding sequence was last brought up to date."""
        view = self._view
        if view._seq[self._row + col.FLIGHT]:
            return 0
        step = view._state.grp[view._ctl[AVAIL], G_STEP]
        return int(step - view._state.own[self.sid, JOIN])


class SimLedger:
    """Scratch block accounting over a view."""

    def __init__(self, view: SimView) -> None:
        self._view = view
        self._free = view.free_blocks
        self._held: dict[int, int] = {}
        # several sequences may reuse the same idle block, which then counts once: those that will, and those whose blocks are claimed
        self._admits: list[int] = []
        self._claims = 0
        self._claim = 0

    def free(self) -> int:
        return self._free

    def need(self, sid: int, upto_tokens: int) -> int:
        view = self._view
        size = view.limits.block_size
        total = -(-upto_tokens // size)
        if sid in self._held:
            return max(0, total - self._held[sid])
        row = sid * _N
        if view._seq[row + col.PHASE] == 1:
            if not view._ctl[CACHING]:
                return total
            hits, idle = view.hits(sid)
            return max(0, total - hits) + (self._unclaimed(sid) if self._admits and idle else idle)
        return max(0, total - SimSeq(view, sid).kv_blocks)

    def reserve(self, sid: int, upto_tokens: int) -> bool:
        need = self.need(sid, upto_tokens)
        if need > self._free:
            return False
        self._free -= need
        if self._view._ctl[CACHING] and self._view._seq[sid * _N + col.PHASE] == 1:
            self._admits.append(sid)
        size = self._view.limits.block_size
        held = self._held.get(sid)
        if held is None:
            held = 0 if self._view._seq[sid * _N + col.PHASE] == 1 else SimSeq(self._view, sid).kv_blocks
        self._held[sid] = max(held, -(-upto_tokens // size))
        return True

    def _unclaimed(self, sid: int) -> int:
        """Idle blocks that a sequence would reuse beside those of the ones admitted before it."""
        ref = self._view._ref
        self._claim = self._claim or new_claim(ref)
        for other in self._admits[self._claims :]:
            unclaimed(ref, other, self._claim, True)
        self._claims = len(self._admits)
        return int(unclaimed(ref, sid, self._claim, False))

    def evict(self, sid: int) -> None:
        view = self._view
        held = self._held.pop(sid, None)
        current = SimSeq(view, sid).kv_blocks
        back = held if held is not None else current
        if view._ctl[CACHING]:
            state = view._state
            blocks = state.held[state.own[sid, SLOT], :current]
            back -= int((state.block[blocks, REFS] > 1).sum())
        self._free += back
        self._held[sid] = 0

    def unpin(self, key: int) -> None:
        self._free += self._view.pinned_blocks(key)


class SimView:
    """An `EngineView`. One per engine; it always shows the present."""

    __slots__ = (
        "_arrived", "_cache", "_ctl", "_finished", "_first", "_flt", "_own", "_pins", "_program", "_ref", "_running", "_seq", "_state", "_tim",
        "_tool", "_turn", "limits",
    )  # fmt: skip

    def __init__(
        self, state: State, ref: StateRef, limits: Limits, shared: dict[str, np.ndarray], pins: Pinned
    ) -> None:
        self._program, self._first, self._turn, self._tool = (
            memoryview(np.ascontiguousarray(shared[name], np.int64)) if name in shared else None for name in ("program", "first", "turn", "tool")
        )
        self._pins = pins
        self._state = state
        self._ref = ref
        self._seq = memoryview(state.seq.reshape(-1))
        self._tim = memoryview(state.tim.reshape(-1))
        self._ctl = memoryview(state.ctl)
        self._flt = memoryview(state.flt)
        self._own = memoryview(state.own.reshape(-1))
        self._cache = memoryview(state.cache)
        self._arrived, self._finished = memoryview(state.arrived), memoryview(state.finished)
        self._running = state.running
        self.limits = limits

    @property
    def now(self) -> float:
        return self._flt[NOW]

    @property
    def n_decode(self) -> int:
        return self._ctl[col.N_DECODE]

    @property
    def decode_need(self) -> int:
        return self._ctl[col.DECODE_NEED]

    @property
    def free_blocks(self) -> int:
        return self._ctl[col.FREE]

    @property
    def free_host_blocks(self) -> int:
        return self._ctl[HOST_FREE]

    @property
    def n_running(self) -> int:
        return self._ctl[col.N_RUNNING]

    @property
    def n_waiting(self) -> int:
        return self._ctl[col.N_WAITING]

    @property
    def n_prefill(self) -> int:
        return self._ctl[col.N_PREFILL]

    @property
    def prefills(self) -> list[SimSeq]:
        seq, found = self._seq, []
        sid = self._ctl[col.PRE_HEAD]
        while sid >= 0:
            row = sid * _N
            if not seq[row + col.FLIGHT]:
                found.append(SimSeq(self, sid))
            sid = seq[row + col.PNEXT]
        return found

    @property
    def waiting(self) -> Iterator[SimSeq]:
        seq = self._seq
        sid = self._ctl[col.WAIT_HEAD]
        while sid >= 0:
            yield SimSeq(self, sid)
            sid = seq[sid * _N + col.NEXT]

    @property
    def running(self) -> list[SimSeq]:
        kernel.settle_all(self._ref)
        seq, found = self._seq, []
        sid = self._ctl[col.RUN_HEAD]
        while sid >= 0:
            row = sid * _N
            if not seq[row + col.FLIGHT] and seq[row + col.PHASE] <= DECODE:
                found.append(SimSeq(self, sid))
            sid = seq[row + col.NEXT]
        return found

    @property
    def arrived(self) -> list[SimSeq]:
        n = self._ctl[N_ARRIVED]
        return [SimSeq(self, sid) for sid in self._arrived[:n]] if n else []

    @property
    def finished(self) -> list[SimSeq]:
        n = self._ctl[N_FINISHED]
        return [SimSeq(self, sid) for sid in self._finished[:n]] if n else []

    @property
    def held(self) -> np.ndarray:
        return self._running[: kernel.held_table(self._ref)]

    def pinned_blocks(self, key: int) -> int:
        return int(held_once(self._ref, *self._pins[key])) if key in self._pins else 0

    def hits(self, sid: int) -> tuple[int, int]:
        """Cached blocks that a waiting sequence begins with, and free ones that they take."""
        own, row = self._own, sid * OWN_COLUMNS
        if own[row + AS_OF] != self._cache[VERSION]:
            look_up(self._ref, sid)
        return own[row + HITS], own[row + IDLE]

    def seq(self, sid: int) -> SimSeq:
        return SimSeq(self, sid)

    def ledger(self) -> SimLedger:
        return SimLedger(self)
