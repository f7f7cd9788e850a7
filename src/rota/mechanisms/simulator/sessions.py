"""State of one streaming session in the simulator, and what a policy may read of it."""

from __future__ import annotations

import math

from rota.workload.streams import Streams


class Session:
    """A row of `Streams` under way; its properties are the `SessionView`, what begins with an underscore is the engine's."""

    def __init__(self, streams: Streams, sid: int) -> None:
        low, high = int(streams.frame_start[sid]), int(streams.frame_start[sid + 1])
        self._sid, self._low, self._frames = sid, low, high - low
        self._arrival = float(streams.arrival[sid])
        self._max_tokens = int(streams.max_tokens[sid])
        self._frame_at: list[float] = streams.frame_at[low:high].tolist()
        self._texts: list[int] = streams.text_tokens[low:high].tolist()
        self._ends: list[int] = (int(streams.prompt[sid]) + streams.frame_tokens[low:high].cumsum()).tolist()
        self._prompt = int(streams.prompt[sid])
        self._arrived = self._complete = self._readable = self._answered = 0
        self._perceived = self._group = self._text = self._perceiving = 0
        self._generating = False

    @property
    def sid(self) -> int:
        return self._sid

    @property
    def arrival(self) -> float:
        return self._arrival

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    @property
    def n_arrived(self) -> int:
        return self._ends[self._arrived - 1] if self._arrived else self._prompt

    @property
    def n_perceived(self) -> int:
        return self._perceived

    @property
    def to_boundary(self) -> int:
        end = self._ends[self._complete] if self._complete < self._frames else self._ends[-1]
        return max(0, min(end, self.n_arrived) - self._perceived)

    @property
    def frame_arrival(self) -> float:
        if self._complete < self._arrived:
            return self._frame_at[self._complete]
        return self._arrival if self._arrived == 0 else math.inf

    @property
    def complete(self) -> int:
        return self._complete

    @property
    def readable(self) -> int:
        return self._readable

    @property
    def answered(self) -> int:
        return self._answered

    @property
    def n_text(self) -> int:
        return self._text

    @property
    def perceiving(self) -> bool:
        return self._perceiving > 0

    @property
    def generating(self) -> bool:
        return self._generating

    @property
    def _over(self) -> bool:
        return self._answered == self._frames

    def _context(self) -> int:
        """Tokens that the next text token reads, itself included."""
        return self._ends[self._answered] + self._text + 1

    def _perceive(self) -> int:
        """The chunk in flight is computed; returns how many frames it completes."""
        self._perceived += self._perceiving
        self._perceiving = 0
        before = self._complete
        while self._complete < self._frames and self._ends[self._complete] <= self._perceived:
            self._complete += 1
        return self._complete - before

    def _write(self) -> tuple[int, bool, bool]:
        """A text token is written; returns its frame, and whether it is the first and the last one of that frame's text."""
        frame = self._answered
        self._generating = False
        self._text += 1
        self._group += 1
        first, last = self._group == 1, self._group == self._texts[frame]
        if last:
            self._answered += 1
            self._group = 0
        return frame, first, last
