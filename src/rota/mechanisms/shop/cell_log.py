"""What a robot cell did: who picked and placed which sheet, where and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Handling(NamedTuple):
    """A sheet is picked up or placed; after so many stages it is where it comes from, or goes to."""

    kind: Literal["pick", "place"]
    robot: str
    sheet: int
    stage: int
    station: str
    start: int
    end: int
    swap: bool


@dataclass(frozen=True, slots=True)
class CellRun:
    """What came out: all picks and places in the order in which they were decided, and how often the rule was asked."""

    log: tuple[Handling, ...]
    decisions: int

    @property
    def out(self) -> list[int]:
        """When each sheet was placed in the unload port, ascending."""
        last = max(one.stage for one in self.log)
        return sorted(one.end for one in self.log if one.kind == "place" and one.stage == last)

    @property
    def makespan(self) -> int:
        """When the last sheet was out."""
        return self.out[-1]

    @property
    def ticks_per_sheet(self) -> float:
        """Mean ticks between sheets that come out, over the middle half of them, when the cell is full; of less than four, over all."""
        out = self.out
        skip = len(out) // 4
        return (out[-1 - skip] - out[skip]) / (len(out) - 1 - 2 * skip) if skip else out[-1] / len(out)
