"""What a policy for offline jobs is told before the job begins: all its requests, but not how long their answers will be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import BatchPolicy

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Job:
    """All requests of a job, as columns; row i is the request with ``sid == i``. All of them are there when it begins.

    Parameters
    ----------
    prompt : int64 (n,)
        Prompt tokens.
    runs : int64 (h,)
        Identities of consecutive runs of `run_tokens` prompt tokens: request i owns ``runs[start[i]:start[i + 1]]``. Equal leading
        identities mean equal leading tokens. A last run that is not full is left out.
    start : int64 (n + 1,)
    run_tokens : int
    max_new : int64 (n,)
        Declared limits on generated tokens; 0 where none is declared.
    estimate : int64 (n,)
        Generated tokens that the user expects; 0 where he has not said.
    """

    prompt: Ints
    runs: Ints
    start: Ints
    run_tokens: int
    max_new: Ints
    estimate: Ints


@runtime_checkable
class OfflinePolicy(BatchPolicy, Protocol):
    """A batching policy that knows its whole job in advance."""

    def prepare(self, job: Job) -> None:
        """Called once, before `start`, by a mechanism in which all of the job arrives at time 0."""
