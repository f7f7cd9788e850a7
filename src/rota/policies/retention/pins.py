"""Whose KV is held between turns, until when, and who loses it first. `Composed` asks; a `Retention` says for how long.

A pin outlives its time while a turn of its program waits. It goes when that turn is admitted, for the turn then holds the KV itself.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from rota.contracts.serving import EngineView, Limits, Pin, SeqView
from rota.policies.parts import Retention


class Held(NamedTuple):
    """A pin: when it expires, and when its program began (seconds)."""

    expires: float
    arrival: float


class Pins:
    """The pins of one engine, by program.

    Parameters
    ----------
    retention : Retention
    """

    def __init__(self, retention: Retention) -> None:
        self.retention = retention

    def start(self, limits: Limits) -> None:
        """A new engine: nothing is held."""
        self.retention.start(limits)
        self._size = limits.block_size
        self.held: dict[int, Held] = {}
        self.waiting: dict[int, int] = {}
        self._expiries: list[tuple[float, int]] = []
        self.released: list[int] = []
        self._set: set[int] = set()

    def follow(
        self, view: EngineView, finished: Sequence[SeqView], arrived: Sequence[SeqView]
    ) -> tuple[tuple[Pin, ...], tuple[int, ...]]:
        """Learn what has happened, in order of time, and expire; pins to set and to release now."""
        now = view.now
        over = view.n_waiting == 0 and view.n_running == 0
        if not (finished or arrived or over or (self._expiries and self._expiries[0][0] <= now)):
            return (), ()
        new: dict[int, Pin] = {}
        if arrived and finished:
            events = [(seq.finished_at, 0, seq) for seq in finished] + [(seq.arrival, 1, seq) for seq in arrived]
            events.sort(key=itemgetter(0, 1))
            for _, arrives, seq in events:
                if arrives:
                    self._arrived(seq)
                else:
                    self._finished(seq, new)
        else:
            for seq in arrived:
                self._arrived(seq)
            for seq in finished:
                self._finished(seq, new)
        self._expire(now)
        if over:
            for program in list(self.held):
                self.drop(program)
        unpin = self.take() if self.released else ()
        if not new:
            return (), unpin
        # what has expired before it could be set is never held
        pin = tuple([item for key, item in new.items() if key in self.held])
        self._set.update([item.key for item in pin])
        return pin, unpin

    def _arrived(self, seq: SeqView) -> None:
        program = seq.program
        if program >= 0:
            self.waiting[program] = self.waiting.get(program, 0) + 1
            self.retention.arrived(seq)

    def _finished(self, seq: SeqView, new: dict[int, Pin]) -> None:
        program = seq.program
        if program < 0:
            return
        seconds = self.retention.finished(seq)
        if seq.tool < 0:
            self.drop(program)
        elif seconds > 0:
            expires = seq.finished_at + seconds
            new[program] = Pin(program, seq.sid, seq.n_known)
            self.held[program] = Held(expires, seq.program_arrival)
            if seconds < math.inf:
                heapq.heappush(self._expiries, (expires, program))

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            expires, program = heapq.heappop(self._expiries)
            known = self.held.get(program)
            if known and known.expires == expires and not self.waiting.get(program):
                self.drop(program)

    def admitted(self, seq: SeqView, reused: int, now: float) -> None:
        """A request leaves the queue to run, with so many tokens of cached KV."""
        program = seq.program
        if program >= 0:
            if seq.preemptions == 0:
                self.retention.admitted(seq, reused, now)
            self._left(program)
            self.drop(program)

    def rejected(self, seq: SeqView) -> None:
        """A request leaves the queue for good, and with it its program."""
        if seq.program >= 0:
            self._left(seq.program)
            self.drop(seq.program)

    def evicted(self, seq: SeqView) -> None:
        """A request is back in the queue."""
        if seq.program >= 0:
            self.waiting[seq.program] = self.waiting.get(seq.program, 0) + 1

    def _left(self, program: int) -> None:
        left = self.waiting.pop(program, 0) - 1
        if left > 0:
            self.waiting[program] = left

    def yield_to(self, seq: SeqView | None, n_running: int) -> bool:
        """Drop the pin of the program that began last, for a request that does not fit, or for running ones (None). Whether there was one.

        The request's own pin is of use to itself, and goes only when nothing else could ever make room.
        """
        own, since = (-1, -math.inf) if seq is None else (seq.program, seq.program_arrival)
        if seq is None or not n_running or self.retention.yields == "anyone":
            since = -math.inf
        elif self.retention.yields == "deadlock":
            return False
        others = [program for program, held in self.held.items() if program != own and held.arrival > since]
        if not others and (own not in self.held or n_running):
            return False
        self.drop(max(others, key=lambda program: (self.held[program].arrival, program)) if others else own)
        return True

    def blocks(self, pin: tuple[Pin, ...]) -> int:
        """The most blocks that new pins can hold."""
        return sum([item.n_tokens // self._size for item in pin])

    def drop(self, program: int) -> None:
        """Release a pin, if there is one, with the next plan."""
        if self.held.pop(program, None):
            self.released.append(program)

    def take(self) -> tuple[int, ...]:
        """Pins that the engine holds and shall release, since it was last asked."""
        released = tuple([key for key in dict.fromkeys(self.released) if key in self._set and key not in self.held])
        self.released = []
        self._set.difference_update(released)
        return released

    @property
    def expiry(self) -> float:
        """When a pin expires next; pins that have outlived their time do not count."""
        expiries, held = self._expiries, self.held
        while expiries:
            expires, program = expiries[0]
            if program in held and held[program].expires == expires:
                return expires
            heapq.heappop(expiries)
        return math.inf
