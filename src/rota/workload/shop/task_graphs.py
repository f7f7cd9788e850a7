"""Task graphs that arrive one by one at a chip with processors of different kinds: made-up graphs, those of a file, and the stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.workload.shop.build import task_graphs
from rota.workload.shop.problem import Problem
from rota.workload.shop.realization import Realization

#: By which a folder of published task graphs is known.
FILE = "soc_top.json"


class TaskGraph(NamedTuple):
    """Ticks of each task on each processor, and edges (i, j, ticks that data take to another processor)."""

    durations: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, int, int], ...]


def made_up_graph(seed: int, tasks: int = 10, processors: int = 3) -> TaskGraph:
    """A graph with one first and one last task, the others in between in two to four layers.

    Ticks are uniform: 5 to 21 on each processor by itself, so that none is the fastest for everything, and 9 to 27 for data. Each task but
    the first gets data of one or two tasks of the layer before, and each but the last gives some on.

    Parameters
    ----------
    seed, tasks, processors : int
        At least 2 tasks and 1 processor.

    Raises
    ------
    InputError
        If there are fewer.
    """
    if tasks < 2 or processors < 1:
        raise InputError(f"a task graph has at least 2 tasks and 1 processor, not {tasks} and {processors}")
    rng = np.random.default_rng([seed, 7])
    inner = list(range(1, tasks - 1))
    cuts = sorted(rng.choice(inner[1:], min(int(rng.integers(1, 4)), len(inner) - 1), replace=False).tolist()) if len(inner) > 1 else []
    between = [list(range(a, b)) for a, b in zip([1, *cuts], [*cuts, tasks - 1], strict=True)] if inner else []
    layers = [[0], *between, [tasks - 1]]
    pairs = set()
    for earlier, later in pairwise(layers):
        for j in later:
            pairs |= {(int(i), j) for i in rng.choice(earlier, min(len(earlier), int(rng.integers(1, 3))), replace=False)}
        pairs |= {(i, int(rng.choice(later))) for i in earlier if not any(a == i for a, _ in pairs)}
    edges = tuple((i, j, int(rng.integers(9, 28))) for i, j in sorted(pairs))
    return TaskGraph(tuple(tuple(rng.integers(5, 22, processors).tolist()) for _ in range(tasks)), edges)


def read_graphs(folder: str | Path) -> list[TaskGraph]:
    """The graphs of ``soc_top.json``: `pes` with `exec_us` by task, `jobs` with `tasks` and `edges`, bandwidth 1 between processors.

    Raises
    ------
    InputError
        If the file is not there or not like that.
    """
    file = Path(folder) / FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: is not JSON ({error.msg})") from None
    try:
        speeds = [pe["exec_us"] for pe in data["pes"] if pe["exec_us"]]
        return [
            TaskGraph(
                tuple(tuple(int(ticks[name]) for ticks in speeds) for name in job["tasks"]), tuple((i, j, ticks) for i, j, ticks in job["edges"])
            )
            for job in data["jobs"]
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is not as expected ({error!r}); give pes with exec_us, and jobs with tasks and edges") from None


def stream(graphs: Sequence[TaskGraph], jobs: int, scale: float, noise: float, seed: int) -> tuple[Problem, Realization]:
    """Jobs drawn from `graphs`, and what happens to them; gaps, graphs and noise have random numbers of their own.

    Parameters
    ----------
    graphs : sequence of TaskGraph
        For the same processors.
    jobs : int
    scale : float
        Gaps between jobs are exponential with this mean, in ticks, rounded down.
    noise : float
        Standard deviation of a duration over its mean; durations are normal, rounded, and at least 1.
    seed : int
    """
    if jobs < 1 or not scale > 0 or noise < 0:
        raise InputError(f"a stream has at least 1 job, a positive mean gap and no negative noise, not {jobs}, {scale:g} and {noise:g}")
    which = np.random.default_rng([seed, 0]).integers(len(graphs), size=jobs)
    gaps = np.floor(np.random.default_rng([seed, 1]).exponential(scale, jobs - 1)).astype(int)
    arrival = {f"j{j}": at for j, at in enumerate([0, *np.cumsum(gaps).tolist()])}
    problem = task_graphs([graphs[g] for g in which], name=f"stream {seed}")
    work: dict[tuple[str, int], int] = {}
    if noise:
        rng = np.random.default_rng([seed, 2])
        for task in problem.tasks:
            off = noise * rng.standard_normal()
            work |= {(task.id, m): max(1, round(mode.duration * (1 + off))) for m, mode in enumerate(task.modes)}
    return problem, Realization(work=work, arrival=arrival)
