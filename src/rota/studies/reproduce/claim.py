"""What a reproduced claim is: who claimed what under which conditions, what was measured here, and the verdict."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
NEEDS_DATA, NEEDS_TRAINING = "needs data", "needs training"


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim and what became of it.

    Attributes
    ----------
    claim, conditions : str
    claimed, measured : str
        With units; `measured` carries the spread over seeds.
    verdict : str
        ``reproduced``, ``partly``, ``not reproduced``, ``needs data`` or ``needs training``.
    why : str
        What differs, or what is needed.
    """

    claim: str
    conditions: str
    claimed: str
    measured: str
    verdict: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A result table: a title, and rows with the same keys."""

    title: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """What one study found."""

    name: str
    findings: list[Finding]
    tables: list[Table] = field(default_factory=list)
    conditions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """The weakest verdict of the claims, but ``partly`` where they differ."""
        verdicts = {f.verdict for f in self.findings}
        return verdicts.pop() if len(verdicts) == 1 else PARTLY

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to run: `seeds` replications on `jobs` processes; `quick` cuts requests to a quarter; `data` is a folder of reference data."""

    seeds: int = 3
    jobs: int = 1
    quick: bool = False
    data: str | None = None
    progress: Callable[[int, int, str], None] | None = None

    def requests(self, n: int) -> int:
        """`n`, or a quarter of it."""
        return max(50, n // 4) if self.quick else n


@dataclass(frozen=True, slots=True)
class Reference:
    """Published data that a study takes if it finds it.

    Parameters
    ----------
    folder : str
        Where it lies below a folder of all reference data.
    file : str
        By which it is known.
    """

    folder: str
    file: str

    def find(self, given: str | None) -> str | None:
        """The folder that holds the file: the given one or one below it; if none is given, below $ROTA_SHARED or ../shared."""
        root = Path(os.environ.get("ROTA_SHARED", "../shared") if given is None else given)
        below = PurePath(self.folder).parts
        places = [root, root.joinpath("data", *below), *(root.joinpath(*below[i:]) for i in range(len(below)))]
        return next((str(place) for place in places if (place / self.file).is_file()), None)


@dataclass(frozen=True, slots=True)
class Study:
    """A claim that `rota reproduce` can check."""

    name: str
    title: str
    source: str
    experiment: Callable[[Options], Report]
    reference: Reference | None = None

    def run(self, options: Options) -> Report:
        """Run it, with the folder of its reference data in place of the one that was given."""
        return self.experiment(replace(options, data=None if self.reference is None else self.reference.find(options.data)))


def spread(values: Sequence[float], unit: str = "", digits: int = 3) -> str:
    """``median (low-high over n seeds)``."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2] if len(ordered) % 2 else 0.5 * (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2])
    text = f"{middle:.{digits}g}{unit}"
    return text if len(ordered) == 1 else f"{text} ({ordered[0]:.{digits}g}-{ordered[-1]:.{digits}g}{unit} over {len(ordered)} seeds)"
