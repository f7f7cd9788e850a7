"""Several policies on one trace, with replications: what `rota compare` makes and the reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rota.errors import InputError
from rota.results.bands import Band, Verdict, band, bands, best, versus
from rota.results.run import Run
from rota.results.slo import SLO
from rota.results.summary import Summary, summarise

#: What decides which policy is best: the first metric on which policies differ by more than their band.
CRITERIA = ("slo_met", "goodput", "tbt_p99", "ttft_p99", "e2e_mean")
#: Where the trace has programs: with an objective their completion time comes before latencies of turns, and without one before all else.
PROGRAM_CRITERION = "jct_mean"
#: Metrics whose bands every report shows.
HEADLINES = ("jct_mean", "jct_p95", "goodput", "ttft_p50", "ttft_p99", "tbt_p99", "e2e_p50", "output_throughput")
#: The same for an offline job, where all requests are there at the beginning and only the last end counts.
JOB_CRITERIA = ("makespan",)
JOB_HEADLINES = ("makespan", "total_throughput", "output_throughput", "prefill_saved", "kv_mean", "usd_per_million_tokens")


@dataclass(slots=True)
class Comparison:
    """Runs of several policies under the same conditions, and what follows from them.

    Parameters
    ----------
    runs : dict of str to list of Run
        Replications by policy label. Replication i of every policy must have the same arrivals and cost error.
    summaries : dict of str to list of dict
        `summarise` of each run.
    bands : dict of str to dict of str to Band
        By label and metric.
    slo : SLO
        What goodput means here.
    slo_given : bool
        Whether the user asked for it; if not it is `implied_slo`.
    trace, conditions : dict
        For people: facts about the trace, and everything needed to judge and repeat the comparison. A value may be a
        dict in turn, shown as a section. ``conditions["command"]`` is the command that makes this comparison again.
    offline : bool
        Whether the trace is a job, judged by its time alone.
    frontier : list of dict, optional
        Rows of a parameter sweep: ``policy``, ``parameter``, ``value`` and the metrics of a summary.
    """

    runs: dict[str, list[Run]]
    summaries: dict[str, list[Summary]]
    bands: dict[str, dict[str, Band]]
    slo: SLO
    slo_given: bool = True
    trace: dict[str, object] = field(default_factory=dict)
    conditions: dict[str, object] = field(default_factory=dict)
    offline: bool = False
    frontier: list[dict[str, object]] | None = None

    @classmethod
    def of(
        cls,
        runs: Mapping[str, Sequence[Run]],
        slo: SLO | None = None,
        *,
        warmup: float = 0.0,
        trace: Mapping[str, object] | None = None,
        conditions: Mapping[str, object] | None = None,
        offline: bool = False,
        frontier: Sequence[Mapping[str, object]] | None = None,
    ) -> Comparison:
        """Summarise `runs`; without an `slo`, judge them by `implied_slo`.

        Raises
        ------
        InputError
            If there is nothing to compare, or policies have different numbers of replications.
        """
        counts = {label: len(replications) for label, replications in runs.items()}
        if not counts or min(counts.values()) == 0:
            raise InputError("nothing to compare; give at least one policy with at least one run")
        if len(set(counts.values())) > 1:
            raise InputError(f"policies have different numbers of replications ({counts}); run all with the same seeds")
        objective = slo or implied_slo(runs)
        summaries = {label: [summarise(run, objective, warmup=warmup) for run in reps] for label, reps in runs.items()}
        return cls(
            runs={label: list(reps) for label, reps in runs.items()},
            summaries=summaries,
            bands={label: bands(rows) for label, rows in summaries.items()},
            slo=objective,
            slo_given=slo is not None,
            trace=dict(trace or {}),
            conditions=dict(conditions or {}),
            offline=offline,
            frontier=[dict(row) for row in frontier] if frontier else None,
        )

    @property
    def headlines(self) -> tuple[str, ...]:
        """Metrics whose bands are shown."""
        return JOB_HEADLINES if self.offline else HEADLINES

    @property
    def labels(self) -> list[str]:
        """Policies in the order given."""
        return list(self.runs)

    @property
    def replications(self) -> int:
        """Runs per policy."""
        return len(next(iter(self.runs.values())))

    def mid(self, label: str, metric: str) -> float:
        """Middle of a policy's band on a metric; NaN if it has none."""
        known = self.bands[label].get(metric)
        return known.mid if known else float("nan")

    @property
    def criteria(self) -> tuple[str, ...]:
        """Metrics that decide which policy is best, in turn: `CRITERIA`, ``slo_met`` only under an objective on percentiles.

        Where the trace has programs, `PROGRAM_CRITERION` comes first if no objective was given, and after goodput otherwise. An
        offline job has `JOB_CRITERIA`.
        """
        if self.offline:
            return JOB_CRITERIA
        metrics = [metric for metric in CRITERIA if metric != "slo_met" or self.slo.targets]
        if any(PROGRAM_CRITERION in known for known in self.bands.values()):
            metrics.insert(metrics.index("goodput") + 1 if self.slo_given else 0, PROGRAM_CRITERION)
        return tuple(metrics)

    def best(self, metric: str, among: Sequence[str] | None = None) -> list[str]:
        """The best policy on `metric` (of all, or of `among`), then those that tie with it."""
        return best(self.summaries, metric, among)

    def versus(self, first: str, second: str, metric: str) -> Verdict:
        """First policy against second on `metric`, paired by replication."""
        return versus(self.summaries[first], self.summaries[second], metric)

    def winners(self) -> tuple[list[str], str]:
        """The best policies and the metric that decided.

        `criteria` are taken in turn; each keeps the best of those still in the race and what ties with it. More than one name left
        means a tie on everything, the first named being ahead by a hair.
        """
        left, decided = self.labels, ""
        for metric in self.criteria:
            ahead = best(self.summaries, metric, left)
            if ahead and len(ahead) < len(left):
                left, decided = ahead, metric
            elif ahead:
                left = ahead
            if len(left) == 1:
                break
        return left, decided


def implied_slo(runs: Mapping[str, Sequence[Run]]) -> SLO:
    """Limits to judge by when the user gives none, from the best that any of the policies does.

    Largest token gap: 5 times the smallest median TBT, the rule by which Sarathi-Serve sets its strict objectives (5 times a
    decode step). First token: 2 s, the bound on its median scheduling delay, or 5 times the smallest median TTFT if that is
    longer. Rounded to two digits so that they can be said aloud.
    """
    gaps, waits = [], []
    for replications in runs.values():
        rows = [summarise(run) for run in replications]
        gaps.append(band([row["tbt_p50"] for row in rows]).mid)
        waits.append(band([row["ttft_p50"] for row in rows]).mid)
    limits = []
    wait, gap = _smallest(waits), _smallest(gaps)
    limits.append(("ttft", max(2.0, _rounded(5 * wait)) if wait == wait else 2.0))
    if gap == gap:
        limits.append(("tbt", _rounded(5 * gap)))
    return SLO(tuple(limits))


def _smallest(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value) and value > 0]
    return min(known) if known else float("nan")


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
