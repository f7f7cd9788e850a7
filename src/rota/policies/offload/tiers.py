"""Where KV lives: the part of NEO's scheduler that decides who is on the device, who in host memory, and who joins.

Device decodes queue in the order in which they came there, host decodes likewise; one that has to leave the device goes to the head of
the host's queue. Source: swiftllm/server/scheduler.py of NEO-MLSys25/NEO. Where NEO would stop, because neither tier has room for a
growing sequence, the last one is evicted (recompute).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rota.contracts.offload import DEVICE, HOST, OffloadView
from rota.contracts.serving import DECODE, Limits, SeqView, Work

#: Share of the device's blocks up to which sequences come back from the host.
SWAP_IN = 0.95


class Placed(NamedTuple):
    """Where everybody is in the step that begins: decodes by tier, and the changes that lead there.

    Attributes
    ----------
    device, host : list of SeqView
    work : list of Work
        Whole prompts, those for the device first.
    to_host, evict, reject : list of int
    move : list of (int, int)
    """

    device: list[SeqView]
    host: list[SeqView]
    work: list[Work]
    to_host: list[int]
    move: list[tuple[int, int]]
    evict: list[int]
    reject: list[int]


class Tiers:
    """The two queues of running sequences, and the rules by which they change.

    Parameters
    ----------
    max_num_seqs : int
    max_num_batched_tokens : int or None
        None stands for the larger of 2048 and the engine's longest request.
    """

    def __init__(self, max_num_seqs: int, max_num_batched_tokens: int | None) -> None:
        self._seats = max_num_seqs
        self._given = max_num_batched_tokens

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
        self._size = limits.block_size
        self._blocks = limits.blocks
        self._budget = self._given or max(2048, limits.max_len)
        self._longest = min(limits.blocks * limits.block_size - 1, self._budget)
        self._device: list[int] = []
        self._host: list[int] = []

    def place(self, view: OffloadView, admits: Callable[[SeqView, list[SeqView], list[SeqView]], bool]) -> Placed:
        """Decide for the next step.

        Parameters
        ----------
        view : OffloadView
        admits : callable
            Whether a waiting sequence may go to the host: (sequence, device decodes, host sequences) to bool.
        """
        device = self._ordered(self._device, [s for s in view.running if s.phase == DECODE])
        host = self._ordered(self._host, list(view.hosted))
        placed = Placed(device, host, [], [], [], [], [])
        free, free_host = self._make_room(placed, view.free_blocks, view.free_host_blocks)
        if not placed.move and not placed.evict:
            free, free_host = self._bring_back(placed, free, free_host)
        if not placed.evict:
            self._admit(view, placed, free, free_host, admits)
        self._device = [s.sid for s in device] + [w.sid for w in placed.work if w.sid not in placed.to_host]
        self._host = [s.sid for s in host] + placed.to_host
        return placed

    def _ordered(self, known: list[int], present: list[SeqView]) -> list[SeqView]:
        """Sequences in the queue's order; those that it does not know last."""
        rank = {sid: at for at, sid in enumerate(known)}
        return sorted(present, key=lambda s: rank.get(s.sid, len(rank)))

    def _need(self, seq: SeqView) -> int:
        """Blocks that its next token takes."""
        return 1 if seq.n_known > seq.kv_blocks * self._size else 0

    def _make_room(self, placed: Placed, free: int, free_host: int) -> tuple[int, int]:
        """Blocks for the next token of everybody; returns what is free after that. The last device decode goes to the host, or is evicted."""
        device, host = placed.device, placed.host
        free_host -= sum(map(self._need, host))
        while free_host < 0:
            last = host.pop()
            free_host += last.kv_blocks + self._need(last)
            placed.evict.append(last.sid)
        free -= sum(map(self._need, device))
        while free < 0 or len(device) > self._budget:
            last = device.pop()
            blocks, need = last.kv_blocks, self._need(last)
            free += blocks + need
            if blocks + need > free_host:
                placed.evict.append(last.sid)
            else:
                free_host -= blocks + need
                host.insert(0, last)
                placed.move.append((last.sid, HOST))
        return free, free_host

    def _bring_back(self, placed: Placed, free: int, free_host: int) -> tuple[int, int]:
        """The host's head comes back while that leaves a little of the device free."""
        device, host = placed.device, placed.host
        spare = self._blocks - int(SWAP_IN * self._blocks)
        while host and len(device) < self._budget:
            blocks = host[0].kv_blocks + self._need(host[0])
            if free - blocks < spare:
                break
            free -= blocks
            free_host += blocks
            placed.move.append((host[0].sid, DEVICE))
            device.append(host.pop(0))
        return free, free_host

    def _admit(
        self, view: OffloadView, placed: Placed, free: int, free_host: int, admits: Callable[[SeqView, list[SeqView], list[SeqView]], bool]
    ) -> None:
        """Whole prompts in order of the queue: to the device while it has room, from the first that does not fit on to the host."""
        seats = self._seats - view.n_running
        tokens = self._budget - len(placed.device)
        free_host -= self._blocks  # so that what is on the device can always go to the host
        joining: list[SeqView] = []
        for seq in view.waiting:
            known = seq.n_known
            if known > self._longest:
                placed.reject.append(seq.sid)
                return
            blocks = -(-known // self._size)
            tokens -= known
            if seats <= len(placed.work) or tokens < 0:
                return
            if not placed.to_host and free >= blocks:
                free -= blocks
            elif free_host >= blocks and admits(seq, placed.device, placed.host + joining):
                free_host -= blocks
                placed.to_host.append(seq.sid)
                joining.append(seq)
            else:
                return
            placed.work.append(Work(seq.sid, known, known))
