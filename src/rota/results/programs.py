"""Programs of several turns (agent sessions): how long they take from beginning to end, and how often a turn finds its KV gone.

The unit is the program, not the request: a turn that is served quickly is worth little if the next one waits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.results.run import Floats, Ints, Run


class Programs(NamedTuple):
    """The programs of a run, as columns by program in the order of their numbers.

    Attributes
    ----------
    number : int64 (p,)
    turns : int64 (p,)
    arrival : float64 (p,)
        Of the first turn, seconds.
    completion : float64 (p,)
        Job completion time: end of the last turn less arrival of the first, seconds; NaN if a turn never ended.
    """

    number: Ints
    turns: Ints
    arrival: Floats
    completion: Floats


def programs(run: Run) -> Programs | None:
    """The programs of a run, or None where its trace has none."""
    if run.program is None or not (run.program >= 0).any():
        return None
    rows = np.flatnonzero(run.program >= 0)
    number, index, turns = np.unique(run.program[rows], return_inverse=True, return_counts=True)
    arrival = np.full(len(number), np.inf)
    finish = np.full(len(number), -np.inf)
    np.minimum.at(arrival, index, np.where(np.isnan(run.arrival[rows]), np.inf, run.arrival[rows]))
    ended = np.isfinite(run.finish[rows]) & ~run.rejected[rows]
    np.maximum.at(finish, index, np.where(ended, run.finish[rows], np.inf))
    return Programs(number, turns.astype(np.int64), arrival, np.where(finish < np.inf, finish, np.nan) - arrival)


def completion(run: Run) -> Floats:
    """Job completion time by program, seconds; empty where there are none."""
    found = programs(run)
    return np.zeros(0) if found is None else found.completion


def missed(run: Run) -> NDArray[np.bool_]:
    """Which turns lost KV of the turn before: fewer tokens came from the prefix cache, at the last admission, than it left behind.

    A turn leaves the KV of all its tokens but the last, in whole blocks. First turns, and turns that never ran, have missed nothing.
    """
    found = np.zeros(len(run.arrival), np.bool_)
    if run.program is None:
        return found
    size = run.meta.get("block_size")
    size = size if isinstance(size, int) else 1
    rows = np.flatnonzero(run.program >= 0)
    rows = rows[np.argsort(run.program[rows], kind="stable")]
    before, after = rows[:-1], rows[1:]
    same = (run.program[before] == run.program[after]) & np.isfinite(run.first_scheduled[after])
    before, after = before[same], after[same]
    left = (run.prompt + run.output)[before] - 1
    found[after] = run.cached[after] < np.minimum(left, run.prompt[after] - 1) // size * size
    return found


def later_turns(run: Run) -> int:
    """Turns that ran and follow another one of their program."""
    if run.program is None:
        return 0
    own = run.program[(run.program >= 0) & np.isfinite(run.first_scheduled)]
    return len(own) - len(np.unique(own))
