"""What a policy's option trades: sweep it, and mark the settings that no other setting beats on both TTFT and TBT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rota.errors import InputError
from rota.results.metrics import METRICS
from rota.results.run import Run
from rota.results.slo import SLO
from rota.results.summary import summarise
from rota.studies.compare import HasEngine, engines_of
from rota.studies.replicate import Interrupted, Pool, Progress, Task, TraceSource, in_parallel, labels_of, run_task, traces

if TYPE_CHECKING:
    import polars

#: The two latencies that a frontier weighs against each other; less is better in both.
AXES = ("ttft_p99", "tbt_p99")
#: Most settings in one sweep.
MOST_SETTINGS = 64
_HELP = 'write for example "sarathi:max_num_batched_tokens=128..4096" (doubling), "=256..1024+256" (steps) or "=128/512/2048"'


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep: the policy as text, and the swept option's name and value ("" where nothing is swept)."""

    policy: str
    name: str
    parameter: str
    value: str


@dataclass(frozen=True, slots=True)
class Frontier:
    """Rows of a sweep: ``policy``, ``setting``, ``parameter``, ``value``, ``pareto`` and the figures of `summarise`."""

    rows: list[dict[str, object]]
    axes: tuple[str, str] = AXES
    incomplete: str = ""

    def frame(self) -> polars.DataFrame:
        """One row per setting."""
        from rota.results.frame import rows_frame

        return rows_frame(self.rows)


def settings(sweep: str) -> list[Setting]:
    """The settings that a sweep names.

    Parameters
    ----------
    sweep : str
        A policy, in whose options one value may be a range: ``a..b`` doubles from a up to b, ``a..b+s`` goes in steps of s, and
        ``a/b/c`` is a list. The ends belong to the range.

    Raises
    ------
    InputError
        If the range cannot be read, is empty or too long, or two options are swept at once.
    """
    name, _, text = sweep.partition(":")
    options = [item.partition("=") for item in text.replace(":", ",").split(",")] if text else []
    swept = [i for i, (_, _, value) in enumerate(options) if ".." in value or "/" in value]
    if len(swept) > 1:
        raise InputError(f"{sweep!r} sweeps {len(swept)} options; sweep one at a time")
    if not swept:
        return [Setting(sweep, name.strip(), "", "")]
    at = swept[0]
    parameter = options[at][0].strip()
    found = []
    for value in _values(options[at][2].strip(), sweep):
        written = ",".join(f"{key.strip()}={value if i == at else own.strip()}" for i, (key, _, own) in enumerate(options))
        found.append(Setting(f"{name}:{written}", name.strip(), parameter, value))
    return found


def _values(text: str, sweep: str) -> list[str]:
    if ".." not in text:
        values = [part.strip() for part in text.split("/")]
    else:
        first, _, rest = text.partition("..")
        last, _, step = rest.partition("+")
        try:
            low, high, by = int(first), int(last), int(step) if step else 0
        except ValueError:
            raise InputError(f"range {text!r} in {sweep!r} is not made of whole numbers; {_HELP}") from None
        if low < 1 or high < low or (step and by < 1):
            raise InputError(f"range {text!r} in {sweep!r} is empty; {_HELP}")
        values, at = [], low
        while at < high and len(values) <= MOST_SETTINGS:
            values.append(str(at))
            at = at + by if by else at * 2
        values.append(str(high))
    if not all(values) or len(set(values)) != len(values):
        raise InputError(f"{text!r} in {sweep!r} has an empty or a repeated value; {_HELP}")
    if len(values) > MOST_SETTINGS:
        raise InputError(f"{sweep!r} has more than {MOST_SETTINGS} settings; use a longer step")
    return values


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other point beats: none is at least as good in both and better in one (less is better). NaN never wins."""
    marks = []
    for a, b in points:
        beaten = any(x <= a and y <= b and (x < a or y < b) for x, y in points)
        marks.append(a == a and b == b and not beaten)
    return marks


def frontier(
    trace: TraceSource,
    deployment: HasEngine,
    sweeps: Sequence[str],
    *,
    replicas: int = 1,
    router: str = "round-robin",
    seed: int = 0,
    slo: SLO | None = None,
    axes: tuple[str, str] = AXES,
    jobs: int | Pool = 1,
    progress: Progress | None = None,
) -> Frontier:
    """Simulate every setting of the sweeps on one trace, with nominal costs.

    Parameters
    ----------
    sweeps : sequence of str
        Each as in `settings`; a plain policy joins as a single point.
    axes : (str, str)
        Two figures of `summarise` to weigh, less being better.
    trace, deployment, replicas, router, seed, slo, jobs, progress
        As in `rota.studies.compare.compare`.

    Raises
    ------
    InputError
        If a sweep or an option makes no sense.
    Interrupted
        On Ctrl-C; `partial` is a `Frontier` of the settings that had finished, or None.
    """
    points = [setting for sweep in sweeps for setting in settings(sweep)]
    labels_of([point.policy for point in points])
    if unknown := [axis for axis in axes if axis not in METRICS]:
        raise InputError(f"unknown figure {unknown[0]!r}; choose two from {', '.join(METRICS)}")
    engines = engines_of([point.policy for point in points], deployment)
    own = traces(trace, 1, seed)[0]
    tasks = [Task(own, point.policy, engine, replicas, router, seed) for point, engine in zip(points, engines, strict=True)]
    done: dict[int, Run] = {}
    try:
        with closing(in_parallel(run_task, tasks, jobs)) as stream:
            for index, run in stream:
                done[index] = run
                if progress:
                    progress(len(done), len(tasks), points[index].policy)
    except KeyboardInterrupt:
        rows = _rows(points, done, slo, axes)
        raise Interrupted(Frontier(rows, axes, f"stopped after {len(done)} of {len(tasks)} settings") if rows else None) from None
    return Frontier(_rows(points, done, slo, axes), axes)


def _rows(points: Sequence[Setting], runs: Mapping[int, Run], slo: SLO | None, axes: tuple[str, str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    where = []
    for index in sorted(runs):
        point, figures = points[index], summarise(runs[index], slo)
        where.append((figures[axes[0]], figures[axes[1]]))
        named = {"policy": point.name, "setting": point.policy, "parameter": point.parameter, "value": point.value}
        rows.append({**named, **figures})
    for row, best in zip(rows, pareto(where), strict=True):
        row["pareto"] = best
    return rows
