"""Interleave: a frame, then its text, then the next frame, as position ids that run through both ask for."""

from __future__ import annotations

from rota.contracts.streams import AFTER_CONTEXT, Positions, StreamPlan, StreamView
from rota.policies.streams.composition import StreamBatching, compose


class Interleave(StreamBatching):
    """Within a session, watching and speaking take turns; other sessions may be in the same step."""

    name = "interleave"
    title = "a frame, then its text, then the next frame"
    positions = Positions(AFTER_CONTEXT, coupled=True)

    def plan(self, view: StreamView) -> StreamPlan:
        """Text of complete frames, and frames of sessions that have nothing left to say."""
        return compose(self, view, lambda session: session.answered == session.complete)
