"""Earliest due date (Jackson 1955): minimises the largest lateness, and total tardiness where at most one job is late."""

from __future__ import annotations

from rota.policies.dispatch.sequencing import Ints, smallest


def edd(now: int, p: Ints, d: Ints) -> int:
    """The job that is due first; of several, the shortest."""
    return smallest(d, d, p)
