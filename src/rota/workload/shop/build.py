"""The usual problem classes as problems: job, flexible and open shops, projects with lags or modes, single machines.

Numbering is from 0 as in the data: job j is ``j3``, its operation k is task ``j3.0``, machine i is ``m2``; activities of projects keep the
number that their file gives them, and resources are ``R1``, ``R2``, ... and ``N1``, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from rota.errors import InputError
from rota.workload.shop.problem import Event, Job, Lag, Mode, Objective, Problem, Resource, Task, Use

#: What happens to an operation that is done while the next machine is taken. ``none``: it waits in a buffer without limit. ``swap``: it keeps
#: its machine, and jobs may exchange places in a ring; ``no-swap``: they may not. ``no-wait``: it must go on at once.
BLOCKING = ("none", "swap", "no-swap", "no-wait")
MOST_MACHINES = 100_000
#: Machine and duration, one for each way to do an operation.
Operation = Sequence[tuple[int, int]]


def precedence(first: str, second: str) -> Lag:
    """`second` starts when `first` has ended, or later."""
    return Lag(Event(first, "end"), Event(second, "start"))


def flexible_job_shop(
    jobs: Sequence[Sequence[Operation]],
    machines: int,
    *,
    blocking: str = "none",
    objective: Objective | None = None,
    name: str = "shop",
) -> Problem:
    """Jobs of operations in sequence, each on one of several machines.

    Parameters
    ----------
    jobs : sequence of sequences of operations
    machines : int
    blocking : {"none", "swap", "no-swap", "no-wait"}
        See `BLOCKING`.
    """
    if blocking not in BLOCKING:
        raise InputError(f"blocking must be one of {', '.join(BLOCKING)}, not {blocking!r}")
    if machines > MOST_MACHINES:
        raise InputError(f"{name}: {machines} machines cannot be meant; {MOST_MACHINES:,} are the most")
    if not any(jobs):
        raise InputError(f"{name}: there are no operations; give each job at least one")
    holds = blocking in ("swap", "no-swap")
    tasks, lags, groups = [], [], []
    for j, operations in enumerate(jobs):
        names = [f"j{j}.{k}" for k in range(len(operations))]
        for k, ways in enumerate(operations):
            until = Event(names[k + 1], "start") if holds and k + 1 < len(operations) else None
            tasks.append(Task(names[k], tuple(Mode(ticks, (Use(f"m{machine}", until=until),)) for machine, ticks in ways)))
        longest_wait = 0 if blocking == "no-wait" else None
        lags += [Lag(Event(a, "end"), Event(b, "start"), max=longest_wait) for a, b in pairwise(names)]
        if names:
            groups.append(Job(f"j{j}", tuple(names)))
    return Problem(
        tuple(tasks), tuple(Resource(f"m{i}") for i in range(machines)), tuple(lags), tuple(groups), objective or Objective.of("makespan"),
        swap=blocking != "no-swap", name=name,
    )  # fmt: skip


def job_shop(
    jobs: Sequence[Sequence[tuple[int, int]]], machines: int, *, blocking: str = "none", objective: Objective | None = None,
    name: str = "shop",
) -> Problem:  # fmt: skip
    """Jobs of operations (machine, duration) in sequence."""
    flexible = [[[operation] for operation in job] for job in jobs]
    return flexible_job_shop(flexible, machines, blocking=blocking, objective=objective, name=name)


def open_shop(durations: Sequence[Sequence[int]], *, objective: Objective | None = None, name: str = "open shop") -> Problem:
    """Every job visits every machine once, in any order: ``durations[job][machine]``."""
    machines = max(map(len, durations), default=0)
    tasks = tuple(Task(f"j{j}.{i}", (Mode(d, (Use(f"m{i}"),)),)) for j, row in enumerate(durations) for i, d in enumerate(row))
    jobs = tuple(Job(f"j{j}", tuple(f"j{j}.{i}" for i in range(len(row)))) for j, row in enumerate(durations) if row)
    exclusive = tuple(frozenset(job.tasks) for job in jobs if len(job.tasks) > 1)
    resources = tuple(Resource(f"m{i}") for i in range(machines))
    return Problem(tasks, resources, (), jobs, objective or Objective.of("makespan"), exclusive, name=name)


def project(
    modes: Sequence[Sequence[tuple[int, Sequence[int]]]], renewable: Sequence[int], consumable: Sequence[int],
    successors: Iterable[tuple[int, int]] = (), start_lags: Iterable[tuple[int, int, int]] = (), *, first: int = 1,
    objective: Objective | None = None, name: str = "project",
) -> Problem:  # fmt: skip
    """A resource-constrained project.

    Parameters
    ----------
    modes : for each activity a sequence of (duration, demand of each renewable, then of each consumable resource)
    renewable, consumable : capacities
    successors : pairs (i, j): j starts when i has ended, or later
    start_lags : triples (i, j, ticks): start of j >= start of i + ticks; negative ticks from j back to i are a maximum lag
    first : int
        Number of the first activity.
    """
    resources = [Resource(f"R{r + 1}", units) for r, units in enumerate(renewable)]
    resources += [Resource(f"N{r + 1}", units, "consumable") for r, units in enumerate(consumable)]

    def uses(demand: Sequence[int]) -> tuple[Use, ...]:
        return tuple(Use(resource.id, amount) for resource, amount in zip(resources, demand, strict=True) if amount)

    tasks = tuple(
        Task(str(i + first), tuple(Mode(duration, uses(demand)) for duration, demand in ways)) for i, ways in enumerate(modes)
    )
    lags = [precedence(tasks[i].id, tasks[j].id) for i, j in successors]
    lags += [Lag(Event(tasks[i].id, "start"), Event(tasks[j].id, "start"), ticks) for i, j, ticks in start_lags]
    return Problem(tasks, tuple(resources), tuple(lags), (), objective or Objective.of("makespan"), name=name)


def single_machine(
    jobs: Iterable[Job], durations: Sequence[int], *, objective: Objective | None = None, name: str = "jobs"
) -> Problem:
    """Jobs of one task each (of the job's own name) on one machine."""
    groups = tuple(jobs)
    tasks = tuple(Task(job.id, (Mode(ticks, (Use("machine"),)),)) for job, ticks in zip(groups, durations, strict=True))
    if objective is None:
        due = any(job.due_date is not None for job in groups)
        objective = Objective.of("total_tardiness" if due else "total_completion")
    return Problem(tasks, (Resource("machine"),), (), groups, objective, name=name)


def task_graph(
    durations: Sequence[Sequence[int]],
    edges: Iterable[tuple[int, int, int]],
    *,
    objective: Objective | None = None,
    name: str = "graph",
) -> Problem:
    """A task graph on processors that differ, ``p0``, ``p1``, ...

    Parameters
    ----------
    durations : for each task the ticks that it takes on each processor
    edges : triples (i, j, ticks): j starts when i has ended, and so many ticks later if it runs on another processor
    """
    tasks, lags = _graph(durations, edges, "")
    job = Job(name, tuple(task.id for task in tasks))
    return Problem(tasks, _processors(durations), lags, (job,), objective or Objective.of("makespan"), name=name)


def task_graphs(graphs: Sequence[tuple[Sequence[Sequence[int]], Iterable[tuple[int, int, int]]]], *, name: str = "graphs") -> Problem:
    """Jobs ``j0``, ``j1``, ... that are each a task graph, see `task_graph`, on the same processors; the objective is their total flow time."""
    tasks: list[Task] = []
    lags: list[Lag] = []
    jobs = []
    for j, (durations, edges) in enumerate(graphs):
        own, ties = _graph(durations, edges, f"j{j}.")
        tasks += own
        lags += ties
        jobs.append(Job(f"j{j}", tuple(task.id for task in own)))
    return Problem(tuple(tasks), _processors(graphs[0][0]), tuple(lags), tuple(jobs), Objective.of("total_flow_time"), name=name)


def _processors(durations: Sequence[Sequence[int]]) -> tuple[Resource, ...]:
    return tuple(Resource(f"p{q}") for q in range(len(durations[0])))


def _graph(
    durations: Sequence[Sequence[int]], edges: Iterable[tuple[int, int, int]], prefix: str
) -> tuple[tuple[Task, ...], tuple[Lag, ...]]:
    processors = range(len(durations[0]))
    tasks = tuple(Task(f"{prefix}t{i}", tuple(Mode(row[q], (Use(f"p{q}"),)) for q in processors)) for i, row in enumerate(durations))
    lags = tuple(
        Lag(
            Event(f"{prefix}t{i}", "end"), Event(f"{prefix}t{j}", "start"),
            by_modes={(q, r): ticks for q in processors for r in processors if q != r and ticks} or None,
        )
        for i, j, ticks in edges
    )  # fmt: skip
    return tasks, lags


def due_jobs(due: Sequence[int], weights: Sequence[int] | None = None) -> Iterator[Job]:
    """Jobs named 0, 1, ... with these due dates."""
    for j, date in enumerate(due):
        yield Job(str(j), (str(j),), due_date=date, weight=1 if weights is None else weights[j])
