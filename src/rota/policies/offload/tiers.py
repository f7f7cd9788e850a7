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

#: Whether a waiting sequence may go to the host: (sequence, device decodes, host decodes) to bool.
Admits = Callable[[SeqView, list[int], list[int]], bool]
#: Share of the device's blocks up to which sequences come back from the host.
SWAP_IN = 0.95


class Placed(NamedTuple):
    """Where everybody is in the step that begins: decodes by tier, and the changes that lead there.

    Attributes
    ----------
    device, host : list of int
        Sequences.
    work : list of Work
        Whole prompts, those for the device first.
    to_host, evict, reject : list of int
    move : list of (int, int)
    """

    device: list[int]
    host: list[int]
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

    def place(self, view: OffloadView, admits: Admits) -> Placed:
        """Decide for the next step.

        Parameters
        ----------
        view : OffloadView
        admits : Admits
        """
        device, host = self._device, self._host
        if len(device) > view.n_decode:
            present = {s.sid for s in view.running if s.phase == DECODE}
            device = [sid for sid in device if sid in present]
        if len(host) > view.n_hosted:
            present = {s.sid for s in view.hosted}
            host = [sid for sid in host if sid in present]
        placed = Placed(device, host, [], [], [], [], [])
        free, free_host = self._make_room(view, placed, view.free_blocks - view.decode_need, view.free_host_blocks - view.host_need)
        if not placed.move and not placed.evict:
            free, free_host = self._bring_back(view, placed, free, free_host)
        if not placed.evict:
            self._admit(view, placed, free, free_host, admits)
        # nobody comes to either tier but through here, so that later a number tells whether somebody has finished
        self._device = device + [w.sid for w in placed.work if w.sid not in placed.to_host]
        self._host = host + placed.to_host
        return placed

    def _blocks_of(self, view: OffloadView, sid: int) -> int:
        """Blocks that it holds once its next token has one."""
        seq = view.seq(sid)
        return max(seq.kv_blocks, -(-seq.n_known // self._size))

    def _make_room(self, view: OffloadView, placed: Placed, free: int, free_host: int) -> tuple[int, int]:
        """Make up for blocks that are missing: the last device decode goes to the host, or is evicted. Returns what is free then."""
        device, host = placed.device, placed.host
        while free_host < 0:
            last = host.pop()
            free_host += self._blocks_of(view, last)
            placed.evict.append(last)
        while free < 0 or len(device) > self._budget:
            last = device.pop()
            blocks = self._blocks_of(view, last)
            free += blocks
            if blocks > free_host:
                placed.evict.append(last)
            else:
                free_host -= blocks
                host.insert(0, last)
                placed.move.append((last, HOST))
        return free, free_host

    def _bring_back(self, view: OffloadView, placed: Placed, free: int, free_host: int) -> tuple[int, int]:
        """The host's head comes back while that leaves a little of the device free."""
        device, host = placed.device, placed.host
        spare = self._blocks - int(SWAP_IN * self._blocks)
        while host and len(device) < self._budget:
            blocks = self._blocks_of(view, host[0])
            if free - blocks < spare:
                break
            free -= blocks
            free_host += blocks
            placed.move.append((host[0], DEVICE))
            device.append(host.pop(0))
        return free, free_host

    def _admit(
        self, view: OffloadView, placed: Placed, free: int, free_host: int, admits: Admits
    ) -> None:
        """Whole prompts in order of the queue: to the device while it has room, from the first that does not fit on to the host."""
        seats = self._seats - view.n_running
        tokens = self._budget - len(placed.device)
        free_host -= self._blocks  # so that what is on the device can always go to the host
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
            elif free_host >= blocks and admits(seq, placed.device, placed.host + placed.to_host):
                free_host -= blocks
                placed.to_host.append(seq.sid)
            else:
                return
            placed.work.append(Work(seq.sid, known, known))
