"""What a check of a schedule can find, as a closed list of kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

#: ``task``: not scheduled, or not known. ``mode``: does not exist. ``end``: a stated end is wrong. ``window``: before the earliest start or
#: after the latest end. ``capacity``: more held than there is. ``break``: work where a calendar allows none. ``ring``: machines exchanged in
#: a ring though `swap` is False. ``objective``, ``bound``: a solver's claim is wrong. (A hold cannot end before it begins while lags are kept.)
Kind = Literal[
    "task", "mode", "end", "window", "release", "deadline", "min_lag", "max_lag", "capacity", "break", "consumable", "setup",
    "exclusive", "ring", "objective", "bound",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


class Violation(NamedTuple):
    """One broken constraint.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    subject : str
        Task, resource, job or lag.
    at : int
        Time of the (first) violation; of a consumable and of claims, 0.
    by : int
        How much is missing or too much: ticks, units, or 1 where there is no measure.
    """

    kind: Kind
    subject: str
    at: int
    by: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject} at {self.at} (by {self.by})"


@dataclass(frozen=True, slots=True)
class Report:
    """What the check found.

    Parameters
    ----------
    violations : tuple of Violation
    objective : tuple of int, or None
        Value of each stage; None without objective, or where a task is not scheduled.
    terms : mapping of term to value
        Every term of the objective, and the makespan.
    """

    violations: tuple[Violation, ...]
    objective: tuple[int, ...] | None
    terms: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations
