"""What a check of a schedule can find, as a closed list of kinds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from rota.contracts.shop import Event

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


class Hold(NamedTuple):
    """Units of a resource taken by the start of `task` and given back by `release`."""

    start: int
    end: int
    amount: int
    task: str
    release: Event


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
    times : mapping of event to ticks
        When every task really starts and ends.
    holds : mapping of resource to list of Hold
        Who holds it from when to when; renewable resources only.
    """

    violations: tuple[Violation, ...]
    objective: tuple[int, ...] | None
    terms: dict[str, int]
    times: dict[Event, int] = field(default_factory=dict)
    holds: dict[str, list[Hold]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations
