"""Measured steps out of an engine's event log: what each computed, how long that took, and what passed around it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rota.cost.step_samples import StepSample
from rota.mechanisms.engine.log import Arrived, Ended, Entry, Stepped


def samples_of(entries: Iterable[Entry]) -> list[StepSample]:
    """The steps of a log.

    What is around a step (the plan before it, everybody's bookkeeping since the last one) is known where the engine had something to do
    all the time since the step before.
    """
    samples = []
    live = 0
    before = math.nan  # end of the last step, if the engine has been busy since
    for entry in entries:
        match entry:
            case Arrived():
                live += 1
            case Ended():
                live -= 1
                if live == 0:
                    before = math.nan
            case Stepped():
                around = entry.start - before
                if entry.copied:  # the step's time holds that of copies, which no cost of a step stands for
                    before = entry.time
                    continue
                samples.append(StepSample(
                    entry.decodes, entry.context, entry.chunks, entry.layers, entry.emitted, entry.time - entry.start, around,
                ))  # fmt: skip
                before = entry.time
    return samples
