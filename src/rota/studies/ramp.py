"""Does a policy come back? The load rises in steps and falls again in one run, and both ways are compared at each rate.

Where KV is lost under load, every turn computes its history again, which is more load: an engine can be fine at a rate on the way up and
never recover at the same rate on the way down (metastability). The rates at which both ways agree are the stable branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.results.latency import e2e
from rota.results.programs import programs
from rota.results.run import Floats, Run
from rota.studies.compare import HasEngine, engines_of
from rota.studies.replicate import PolicySource, Pool, Progress, Task, in_parallel, labels_of, run_task
from rota.workload.trace import Trace
from rota.workload.transform import ramp, ramp_step

#: Falling, a step's mean may be this many times the rising one's before the policy counts as not recovered; and a rate counts as carried
#: while the mean is at most this many times that at the lowest rate.
RECOVERED, CARRIED = 1.5, 2.0


class Step(NamedTuple):
    """One policy at one rate.

    Attributes
    ----------
    policy : str
    rate : float
        Independent arrivals per second.
    rising, falling : float
        Mean completion time of programs, or of requests where there are none, that began at this step, seconds.
    """

    policy: str
    rate: float
    rising: float
    falling: float

    @property
    def recovered(self) -> bool:
        """Whether the way down is about as good as the way up."""
        return self.falling <= RECOVERED * self.rising


def up_and_down(rates: Sequence[float]) -> list[float]:
    """The rates of the steps: ascending to the highest, which comes once, and back."""
    ordered = sorted(rates)
    if len(ordered) < 2 or len(set(ordered)) < len(ordered):
        raise InputError("a ramp needs at least two different rates, such as 0.5,1,2")
    return ordered + ordered[-2::-1]


def load_ramp(
    trace: Trace, deployment: HasEngine, policies: Sequence[PolicySource], rates: Sequence[float], *, jobs: int | Pool = 1,
    progress: Progress | None = None,
) -> list[Step]:  # fmt: skip
    """Run a trace's requests at rising and then at falling rates.

    Parameters
    ----------
    trace : Trace
        Its independent arrivals are shared out equally over the steps (one for the highest rate, two for each other one).
    deployment : Deployment
    policies : sequence of str or BatchPolicy
    rates : sequence of float
        Independent arrivals per second.
    jobs : int
    progress : callable, optional
        Called with (runs done, all runs, label).

    Returns
    -------
    list of Step
        By policy and ascending rate. At the highest rate both ways are one.

    Raises
    ------
    InputError
        If rates or trace do not do for it.
    """
    steps = up_and_down(rates)
    own = ramp(trace, steps)
    labels = labels_of(policies)
    tasks = [Task(own, policy, engine) for policy, engine in zip(policies, engines_of(policies, deployment), strict=True)]
    found: dict[str, list[Step]] = {}
    with closing(in_parallel(run_task, tasks, jobs)) as stream:
        for done, (index, run) in enumerate(stream):
            means = _means(run, own, len(steps))
            found[labels[index]] = [
                Step(labels[index], rate, float(means[i]), float(means[-1 - i])) for i, rate in enumerate(steps[: len(rates)])
            ]
            if progress:
                progress(done + 1, len(tasks), labels[index])
    return [step for label in labels for step in found[label]]


def stable_rate(steps: Sequence[Step]) -> float:
    """The highest rate of one policy up to which every step is carried and recovers; NaN if not even the lowest is."""
    best = float("nan")
    for step in sorted(steps, key=lambda step: step.rate):
        if not step.recovered or step.rising > CARRIED * steps[0].rising:
            break
        best = step.rate
    return best


def _means(run: Run, trace: Trace, steps: int) -> Floats:
    """Mean completion time of what began at each step; infinity where something never ended."""
    found = programs(run)
    if found is not None and trace.after is not None:
        took, begun = found.completion[np.argsort(found.arrival, kind="stable")], len(found.number)
    else:
        free = np.arange(len(trace)) if trace.after is None else np.flatnonzero(trace.after < 0)
        took, begun = e2e(run)[free], len(free)
    took = np.where(np.isnan(took), np.inf, took)
    at = ramp_step(begun, steps)
    return np.bincount(at, took, steps) / np.bincount(at, minlength=steps)
