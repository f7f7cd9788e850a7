"""Instances written in the text formats that are read, from random numbers; every writer also gives the numbers back."""

from __future__ import annotations

import random
from collections.abc import Sequence


def classic(jobs: Sequence[Sequence[tuple[int, int]]], machines: int) -> str:
    rows = ["  ".join(f"{machine} {ticks}" for machine, ticks in job) for job in jobs]
    return f"{len(jobs)} {machines}\n" + "\n".join(rows) + "\n"


def taillard(jobs: Sequence[Sequence[tuple[int, int]]], machines: int) -> str:
    times = [" ".join(f"{ticks:2d}" for _, ticks in job) for job in jobs]
    order = [" ".join(f"{machine + 1:2d}" for machine, _ in job) for job in jobs]
    head = "Nb of jobs, Nb of Machines, Time seed, Machine seed, Upper bound, Lower bound"
    return "\n".join([head, f"   {len(jobs)}   {machines}   84   39   12   10", "Times", *times, "Machines", *order]) + "\n"


def taillard_without_headings(jobs: Sequence[Sequence[tuple[int, int]]], machines: int) -> str:
    lines = taillard(jobs, machines).splitlines()
    return "\n".join([f"{len(jobs)} {machines}", *lines[3 : 3 + len(jobs)], *lines[4 + len(jobs) :]]) + "\n"


def fjs(jobs: Sequence[Sequence[Sequence[tuple[int, int]]]], machines: int) -> str:
    rows = []
    for job in jobs:
        words = [str(len(job))]
        for ways in job:
            words += [str(len(ways)), *(f"{machine + 1} {ticks}" for machine, ticks in ways)]
        rows.append(" ".join(words))
    return f"{len(jobs)} {machines} 1.5\n" + "\n".join(rows) + "\n"


def open_shop(durations: Sequence[Sequence[int]]) -> str:
    return f"{len(durations)} {len(durations[0])}\n" + "\n".join(" ".join(map(str, row)) for row in durations) + "\n"


def psplib(
    successors: Sequence[Sequence[int]], modes: Sequence[Sequence[tuple[int, Sequence[int]]]], capacity: Sequence[int], kinds: str
) -> str:
    stars = "*" * 72
    names = "  ".join(f"{kind} {1 + kinds[:i].count(kind)}" for i, kind in enumerate(kinds))
    lines = [
        stars,
        "file with basedata            : random",
        "initial value random generator: 1",
        stars,
        "projects                      :  1",
    ]
    lines += [
        f"jobs (incl. supersource/sink ):  {len(modes)}",
        "RESOURCES",
        f"  - renewable                 :  {kinds.count('R')}   R",
    ]
    lines += [f"  - nonrenewable              :  {kinds.count('N')}   N", "  - doubly constrained        :  0   D", stars]
    lines += ["PRECEDENCE RELATIONS:", "jobnr.    #modes  #successors   successors"]
    for i, follows in enumerate(successors):
        lines.append(f"  {i + 1}   {len(modes[i])}   {len(follows)}     " + "  ".join(str(j + 1) for j in follows))
    lines += [stars, "REQUESTS/DURATIONS:", f"jobnr. mode duration  {names}", "-" * 72]
    for i, ways in enumerate(modes):
        for m, (ticks, demand) in enumerate(ways):
            first = f"  {i + 1}  " if m == 0 else "       "
            lines.append(f"{first} {m + 1}  {ticks}   " + "  ".join(map(str, demand)))
    lines += [stars, "RESOURCEAVAILABILITIES:", f"  {names}", "  " + "  ".join(map(str, capacity)), stars]
    return "\n".join(lines) + "\n"


def progen_max(
    durations: Sequence[int], demand: Sequence[Sequence[int]], capacity: Sequence[int], lags: Sequence[tuple[int, int, int]]
) -> str:
    lines = [f"{len(durations) - 2}\t{len(capacity)}\t0\t0"]
    for i in range(len(durations)):
        mine = [(j, ticks) for a, j, ticks in lags if a == i]
        lines.append("\t".join([str(i), "1", str(len(mine)), *(str(j) for j, _ in mine), *(f"[{ticks}]" for _, ticks in mine)]))
    lines += ["\t".join([str(i), "1", str(ticks), *map(str, demand[i])]) for i, ticks in enumerate(durations)]
    return "\n".join([*lines, "\t".join(map(str, capacity))]) + "\n"


def weighted_tardiness(instances: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> str:
    """125 instances of durations, weights and due dates, 20 numbers per line."""
    lines = []
    for parts in instances:
        for part in parts:
            lines += [" ".join(f"{value:5d}" for value in part[k : k + 20]) for k in range(0, len(part), 20)]
    return "\n".join(lines) + "\n"


def random_jobs(rng: random.Random, jobs: int, machines: int) -> list[list[tuple[int, int]]]:
    return [[(machine, rng.randint(1, 99)) for machine in rng.sample(range(machines), machines)] for _ in range(jobs)]
