"""Where policies and engines meet for streaming sessions: one session is two linked sequences, read and written at the same time.

A session (a live video with a running commentary) has a **perception lane**, into which frames arrive and are prefilled in chunks, and a
**generation lane**, which writes one group of text tokens per frame. The text of frame i reads the prompt, frames 1 to i and all text
before it; a **watermark**, which moves at frame boundaries only, says how many frames it may read. Nothing here computes.

Which position ids the two lanes get decides what may run when: with `Positions.coupled` a frame's positions follow the text before
it, so the lanes must take turns; otherwise a frame needs nothing of the text and both lanes may run in one step.

Rules
-----
S1  A plan names a session at most once per lane; it is known, admitted (by this plan at the latest), not over, not in flight in that lane.
S2  A perception item has 1 <= n_tokens <= tokens of frames that have arrived and are not computed.
S3  Text of frame i is written only when frames 1 to i are complete and readable, and the text of frame i - 1 is complete.
S4  With coupled positions no token of frame i + 1 is computed before the text of frame i is complete.
S5  Tokens of a step <= max_step_tokens; sessions held <= max_seqs.
S6  At admission KV blocks exist for all tokens that the session has declared; only waiting sessions are admitted.
S7  A plan holds work only for the lanes of the device that asked; admission is the perception lane's.
S8  Progress: an empty plan needs an arrival to come, a frame on its way to the other device or a step in flight.
S9  Conservation: when all sessions are over every block is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from rota.contracts.serving import Limits

#: Where text positions start (`Positions.text`).
AFTER_CONTEXT, AFTER_FIRST_INPUT, OWN_AXIS = "after-context", "after-first-input", "own-axis"


class Positions(NamedTuple):
    """Position ids of a session's text, as data for whatever runs the model.

    Attributes
    ----------
    text : str
        ``"after-context"``: text goes on after all that precedes it, and frames after the text; ``"after-first-input"``: text starts
        where the prompt and the first frame end, sharing ids with later frames; ``"own-axis"``: text counts by itself.
    offset : int
        Added to the position of every text token.
    coupled : bool
        Whether a frame's ids depend on the text before it.
    """

    text: str
    offset: int = 0
    coupled: bool = False


class Perceive(NamedTuple):
    """Frame (or prompt) tokens of one session to compute in this step."""

    sid: int
    n_tokens: int


class StreamPlan(NamedTuple):
    """One decision.

    Attributes
    ----------
    perceive : tuple of Perceive
    generate : tuple of int
        Sessions that take one text token.
    admit : tuple of int
        Waiting sessions that get their KV blocks and may have work from this plan on.
    """

    perceive: tuple[Perceive, ...] = ()
    generate: tuple[int, ...] = ()
    admit: tuple[int, ...] = ()


class SessionView(Protocol):
    """One session as the engine knows it now; how long its texts will be and what frames are still to come is not in it."""

    @property
    def sid(self) -> int: ...
    @property
    def arrival(self) -> float: ...
    @property
    def max_tokens(self) -> int:
        """Declared: prompt, frames and text together will not be more."""
    @property
    def n_arrived(self) -> int:
        """Tokens of the prompt and of the frames that have arrived."""
    @property
    def n_perceived(self) -> int:
        """Of these, computed."""
    @property
    def to_boundary(self) -> int:
        """Arrived and uncomputed tokens of the frame in progress; those of the prompt count with the first frame."""
    @property
    def frame_arrival(self) -> float:
        """When the frame in progress arrived; of the session, before the first; infinity, where the next has not arrived."""
    @property
    def complete(self) -> int:
        """Frames computed whole."""
    @property
    def readable(self) -> int:
        """The watermark: frames that text may read. Behind `complete` where a frame's KV is on its way to another device."""
    @property
    def answered(self) -> int:
        """Frames whose text is complete."""
    @property
    def n_text(self) -> int:
        """Text tokens so far, of all frames."""
    @property
    def perceiving(self) -> bool:
        """Whether a step in flight computes frame tokens of it."""
    @property
    def generating(self) -> bool:
        """Whether a step in flight writes a text token of it."""


class StreamView(Protocol):
    """What a policy sees when a device asks."""

    @property
    def now(self) -> float: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def perceives(self) -> bool:
        """Whether the device that asks runs the perception lane."""
    @property
    def generates(self) -> bool:
        """Whether it runs the generation lane."""
    @property
    def free_blocks(self) -> int: ...
    @property
    def sessions(self) -> Sequence[SessionView]:
        """Admitted sessions that are not over, in admission order."""
    @property
    def waiting(self) -> Iterator[SessionView]:
        """Sessions that have arrived and are not admitted, in order of arrival."""


@runtime_checkable
class StreamPolicy(Protocol):
    """Decides before every step of every device.

    Attributes
    ----------
    name : str
    positions : Positions
    max_seqs : int
        Most sessions held at once.
    max_step_tokens : int
        Most tokens it will put into one step.
    """

    name: str
    positions: Positions
    max_seqs: int
    max_step_tokens: int

    def start(self, limits: Limits) -> None:
        """Called once, before the first plan. Resets all state."""

    def plan(self, view: StreamView) -> StreamPlan:
        """The decision for the step that begins now on the device that asks."""
