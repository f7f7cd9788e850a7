"""The small decisions that a batching policy is put together from: order, admission, victim, retention. Composition is the fifth.

`rota.policies.batching.composed.Composed` asks them; each technique is one class in one file under ``order``, ``admission``,
``victim`` or ``retention``. Parts hold plain state that survives copying and pickling, bounded by what waits and runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from rota.contracts.serving import EngineView, Limits, SeqView


class Order(Protocol):
    """Which waiting request comes next.

    Attributes
    ----------
    dynamic : bool
        Whether an arrival may come ahead of a request that was refused; then arrivals are a reason to ask again.
    keeps : str
        How the engine keeps its own queue, ``"fcfs"`` or ``"priority"``, for orders that use it.
    """

    dynamic: bool
    keeps: str

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
    def joins(self, seq: SeqView, evicted: bool) -> None:
        """A request joins the queue: it has arrived, or it was evicted."""
    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """Waiting requests, first to be served first. Whoever asks for another one has admitted the one before."""
    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """A request leaves the queue: it was admitted, or rejected as impossible. Comes before the next one is asked for."""
    def finished(self, seq: SeqView) -> None:
        """A request has finished."""


@runtime_checkable
class TimedOrder(Order, Protocol):
    """An order that may have more to offer as time passes.

    Attributes
    ----------
    until : float
        When to ask again, seconds, as of the last time it was asked; infinity for never.
    """

    until: float


class Admission(Protocol):
    """May the next request join? That there are blocks for what is reserved now is checked elsewhere.

    Attributes
    ----------
    spare : int
        Blocks that it never lets an admission use; a request that cannot run within the rest is rejected. Set by `start`.
    learns : bool
        Whether its answer depends on more than free blocks. A refusal then stands until something finishes or is evicted.
    again : float
        Seconds after which it may answer otherwise all the same; infinity for never.
    """

    spare: int
    learns: bool
    again: float

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
    def begin(self, view: EngineView) -> None:
        """Admissions of one plan begin: whatever runs is known, nothing is admitted yet."""
    def admits(self, seq: SeqView, free: int) -> bool:
        """Whether `seq` may join too; `free` blocks would be left after what is reserved for it now. True: it has joined."""
    def finished(self, seq: SeqView) -> None:
        """A request has finished."""


class Retention(Protocol):
    """How long the KV of a program's turn is held for the next one. `rota.policies.retention.pins.Pins` keeps the pins themselves.

    Attributes
    ----------
    yields : str
        For whom KV that is held makes way when the first in the queue does not fit: ``"anyone"``, ``"older"`` (only if its program
        began earlier than the one whose KV it is), or ``"deadlock"`` (nobody, as long as anything runs). For running requests it
        always does.
    """

    yields: str

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
    def arrived(self, seq: SeqView) -> None:
        """A turn of a program has arrived."""
    def admitted(self, seq: SeqView, reused: int, now: float) -> None:
        """A turn is admitted for the first time, with so many tokens of cached KV."""
    def finished(self, seq: SeqView) -> float:
        """A turn has finished: seconds from then on to hold its KV, if another turn follows (`seq.tool`); 0 for none, inf for no end.

        Arrivals and finishes come in order of time.
        """


class Victim(Protocol):
    """Who is evicted when memory is short."""

    def rank(self, running: Sequence[SeqView]) -> Sequence[SeqView]:
        """Running requests, given in order of admission, in the order in which they are served; the last one is evicted first."""
