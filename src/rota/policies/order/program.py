"""Programs first come, first served: a turn counts from the arrival of its program's first one, so that old programs get done.

Evicted requests are ahead, then turns whose KV is still held, then the rest; in each of these the program that began first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from rota.contracts.serving import EngineView, Limits, SeqView
from rota.policies.retention.pins import Pins

_Key = tuple[bool, float, int]


class ProgramOrder:
    """Order by (evicted first, held first, arrival of the program).

    Parameters
    ----------
    pins : Pins or None
        Those of the same policy. None: nothing is held.
    """

    dynamic = True
    keeps = "fcfs"

    def __init__(self, pins: Pins | None = None) -> None:
        self.pins = pins

    def start(self, limits: Limits) -> None:
        """Nothing waits."""
        self._keys: dict[int, _Key] = {}
        self._rows: list[_Key] = []
        self._turns: dict[int, list[_Key]] = {}

    def joins(self, seq: SeqView, evicted: bool) -> None:
        """Into its place."""
        key = self._keys[seq.sid] = (not evicted, seq.program_arrival, seq.sid)
        insort(self._rows, key)
        program = seq.program
        if program in self._turns:
            insort(self._turns[program], key)
        elif program >= 0:
            self._turns[program] = [key]

    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """Out of it."""
        key = self._keys.pop(seq.sid)
        del self._rows[bisect_left(self._rows, key)]
        program = seq.program
        if program >= 0:
            turns = self._turns[program]
            if len(turns) > 1:
                turns.remove(key)
            else:
                del self._turns[program]

    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """The first one, as long as there is one; whoever asks again has taken it out."""
        while self._rows:
            yield view.seq(self._first()[2])

    def _first(self) -> _Key:
        head = self._rows[0]
        if self.pins is None or len(self._rows) == 1 or not head[0]:
            return head
        return min((self._turns[program][0] for program in self.pins.held if program in self._turns), default=head)

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""
