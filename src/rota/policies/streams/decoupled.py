"""Decoupled lanes: the next frame is computed while the text of the last one is written, under three schemes of position ids.

To a scheduler the three are one discipline; they differ in the ids that the text gets, which whatever runs the model has to apply, and in
what that does to a fine-tuned model's answers. Neither is decided here.
"""

from __future__ import annotations

from rota.contracts.streams import AFTER_FIRST_INPUT, OWN_AXIS, Positions, StreamPlan, StreamView
from rota.policies.streams.composition import StreamBatching, compose


class Decoupled(StreamBatching):
    """Both lanes of a session advance whenever they can, in one step or on two devices."""

    def plan(self, view: StreamView) -> StreamPlan:
        """Text of complete frames, and frames that have arrived."""
        return compose(self, view, lambda session: True)


class Overlapped(Decoupled):
    """Text positions start where the first input ends, and overlap with those of later frames."""

    name = "overlapped"
    title = "both lanes at once; text ids overlap those of later frames"
    positions = Positions(AFTER_FIRST_INPUT)


class GroupDecoupled(Decoupled):
    """Text positions count by themselves from 0."""

    name = "group-decoupled"
    title = "both lanes at once; text ids count from 0"
    positions = Positions(OWN_AXIS)


class GapIsolated(Decoupled):
    """Text positions count by themselves from far behind all frames."""

    name = "gap-isolated"
    title = "both lanes at once; text ids count from 10,000"
    positions = Positions(OWN_AXIS, offset=10_000)
