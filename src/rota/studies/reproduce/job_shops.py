"""Job shops for claims about them: the published ones, if their folder is at hand, or some drawn as Lawrence (1984) drew his."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: Jobs and machines of la01, la06, la11, ... la36, of which each begins five of that size.
SIZES = ((10, 5), (15, 5), (20, 5), (10, 10), (15, 10), (20, 10), (30, 10), (15, 15))


class Instance(NamedTuple):
    """A job shop: operations (machine, duration) of each job."""

    name: str
    machines: int
    ops: list[list[tuple[int, int]]]

    @property
    def load(self) -> int:
        """The longest job or the busiest machine, in ticks: no schedule is shorter."""
        busy = [0] * self.machines
        for job in self.ops:
            for machine, ticks in job:
                busy[machine] += ticks
        return max(*busy, *(sum(ticks for _, ticks in job) for job in self.ops))


def published(path: Path, names: Collection[str] | None = None) -> list[Instance]:
    """The instances of one file, or those of them that are named, in its order."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Instance(row["name"], row["machines"], [[(m, d) for m, d in job] for job in row["ops"]])
        for row in rows
        if names is None or row["name"] in names
    ]


def drawn(of_each: int, seed: int = 0) -> list[Instance]:
    """Instances of the sizes of la01 to la40: durations U(5, 99), every job on every machine once, in random order."""
    rng = np.random.default_rng(seed)
    return [
        Instance(
            f"{jobs}x{machines}-{k + 1}", machines,
            [list(zip(rng.permutation(machines).tolist(), rng.integers(5, 100, machines).tolist(), strict=True)) for _ in range(jobs)],
        )
        for jobs, machines in SIZES
        for k in range(of_each)
    ]  # fmt: skip
