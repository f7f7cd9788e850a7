"""Claims about multi-user quantum networks: finer occupancy admits more users, at trade-offs between throughput, jitter and fidelity.

Small topologies are made here. Link capabilities are too, unless a folder of measured ones is given (``--data DIR`` with
nv_link_capabilities.json), as is the SURFnet core (topologies.json).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

from rota.contracts.shop import Schedule
from rota.errors import InputError
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.periodic_edf import OCCUPANCIES, admit, utilisation
from rota.studies.reproduce.claim import NEEDS_DATA, NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload.shop.entanglement import SLOT_S, Capability, Protocol, find_protocol, shortest_path
from rota.workload.shop.periodic import Periodic, hyperperiod, starts_of, unroll

LOADS = (5, 20)
FIDELITIES = (0.6, 0.7, 0.8)
LONGEST_PERIOD = 512
LABELS = {"network": "PTS-NP-EDF", "protocol": "RCPSP-NP-FPR", "qubits": "RCPSP-NP-EDF"}
#: Replications per seed; a cell's figure for a seed is their mean.
SETS = 4


@dataclass(frozen=True, slots=True)
class Network:
    """Users, and the length of fibre (km) between neighbours; what its links can do."""

    users: tuple[int, ...]
    neighbours: Mapping[int, Mapping[int, float]]
    links: tuple[Capability, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One set of demands under one occupancy: accepted pairs/s, accepted share, jitter (slots squared), whether the checker agrees."""

    throughput: float
    share: float
    jitter: float
    checked: bool


def made_up_links() -> tuple[Capability, ...]:
    """Links that trade fidelity for rate in a straight line, as single-click generation does in the bright-state population."""
    return tuple(Capability(0.92 - alpha / 100, 2.8 * alpha) for alpha in range(5, 45, 4))


def networks(links: tuple[Capability, ...]) -> dict[str, Network]:
    """Star, H, line and symmetric, all fibres 5 km."""
    edges = {
        "star": ([(3, 0), (3, 1), (3, 2)], (0, 1, 2)),
        "H": ([(0, 1), (1, 2), (1, 4), (3, 4), (4, 5)], (0, 2, 3, 5)),
        "line": ([(i, i + 1) for i in range(5)], tuple(range(6))),
        "symmetric": ([(i, i + 4) for i in range(4)] + [(a, b) for a in range(4, 8) for b in range(a + 1, 8)], (0, 1, 2, 3)),
    }
    return {name: Network(users, _both_ways(pairs), links) for name, (pairs, users) in edges.items()}


def _both_ways(pairs: Sequence[tuple[int, int]]) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = {}
    for a, b in pairs:
        found.setdefault(a, {})[b] = 5.0
        found.setdefault(b, {})[a] = 5.0
    return found


def read_folder(folder: str | Path) -> tuple[tuple[Capability, ...], Network | None]:
    """Measured capabilities of 5 km links, and the SURFnet core if it is there.

    Raises
    ------
    InputError
        If nv_link_capabilities.json is not there or not as expected.
    """
    file = Path(folder) / "nv_link_capabilities.json"
    try:
        rows = json.loads(file.read_text())["by_length_km"]["5"]
        links = tuple(Capability(row["fidelity"], row["rate_per_s"]) for row in rows)
        file = Path(folder) / "topologies.json"
        if not file.is_file():
            return links, None
        given = json.loads(file.read_text())["surfnet"]
        number = {node["name"]: i for i, node in enumerate(given["nodes"])}
        neighbours: dict[int, dict[int, float]] = {i: {} for i in number.values()}
        for a, b, length in given["edges"]:
            neighbours[number[a]][number[b]] = neighbours[number[b]][number[a]] = length
        users = tuple(number[node["name"]] for node in given["nodes"] if node["end_node"])
        able = given["link_capability"]
        return links, Network(users, neighbours, (Capability(able["fidelity"], able["rate_per_s"]),))
    except OSError:
        raise InputError(f"{file}: is not there; give the folder that holds it, or leave out --data") from None
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{file}: is not as expected ({type(error).__name__}: {error})") from None


def demands(network: Network, fidelity: float, load: float, seed: int) -> list[Periodic]:
    """Pairs of users at random, each with a period drawn among the powers of two that its protocol fits, until `load` pairs/s are asked for."""
    rng = random.Random(f"demands {seed} {load:g}")
    known: dict[tuple[int, int], Protocol | None] = {}
    found: list[Periodic] = []
    asked, misses = 0.0, 0
    while asked < load and misses < 1000:
        a, b = sorted(rng.sample(network.users, 2))
        if (a, b) not in known:
            known[a, b] = find_protocol(shortest_path(network.neighbours, a, b), fidelity, lambda *_: network.links)
        protocol = known[a, b]
        if protocol is None or protocol.duration > LONGEST_PERIOD:
            misses += 1
            continue
        least = max(1, (protocol.duration - 1).bit_length())
        period = 2 ** rng.randint(least, LONGEST_PERIOD.bit_length() - 1)
        found.append(Periodic(protocol, period))
        asked += 1 / (period * SLOT_S)
    return found


def outcome(offered: Sequence[Periodic], occupancy: str) -> Outcome:
    """Admit the demands, and have the schedule checked."""
    accepted, starts = admit(offered, occupancy)
    work = [offered[i] for i in accepted]
    if not work:
        return Outcome(0.0, 0.0, 0.0, True)
    checked = check(unroll(work), Schedule(starts_of(work, starts), {})).ok and max(utilisation(work).values()) <= 1 + 1e-9
    rate = sum(1 / (one.period * SLOT_S) for one in work)
    length = hyperperiod(work)
    jitter = fmean(_jitter(own, one.period, length) for own, one in zip(starts, work, strict=True))
    return Outcome(rate, len(work) / len(offered), jitter, checked)


def _jitter(starts: Sequence[int], period: int, length: int) -> float:
    """Variance of the gaps between starts, over the repeating schedule, in slots squared."""
    gaps = [b - a - period for a, b in zip(starts, [*starts[1:], starts[0] + length], strict=True)]
    return pvariance(gaps)


Key = tuple[str, float, int, str]


def run(options: Options) -> Report:
    """All claims."""
    began = time.perf_counter()
    links, surfnet = (made_up_links(), None) if options.data is None else read_folder(options.data)
    nets = networks(links)
    cells = [(name, fidelity, load) for name in nets for fidelity in FIDELITIES for load in LOADS]
    if surfnet is not None:
        nets["SURFnet"] = surfnet
        cells.append(("SURFnet", 0.9, 50))  # one set per seed: its hyperperiods have thousands of operations
    sets = 1 if options.quick else SETS
    found: dict[Key, list[list[Outcome]]] = {}
    for done, (name, fidelity, load) in enumerate(cells):
        for seed in range(options.seeds):
            offered = [
                one
                for one in (demands(nets[name], fidelity, load, seed * SETS + k) for k in range(1 if name == "SURFnet" else sets))
                if one
            ]
            for occupancy in OCCUPANCIES:
                found.setdefault((name, fidelity, load, occupancy), []).append([outcome(one, occupancy) for one in offered])
        if options.progress:
            options.progress(done + 1, len(cells), name)
    found = {key: rows for key, rows in found.items() if all(rows)}
    findings = [_valid(found), _order(found), _star(found), _fidelity(found, list(nets)), _jitters(found)]
    if options.data is None:
        findings.append(
            Finding("The order holds on SURFnet too", "54 users, futuristic links", "more throughput by finer occupancy", "not measured",
                    NEEDS_DATA, "give --data DIR with topologies.json and nv_link_capabilities.json")
        )  # fmt: skip
    conditions = {
        "networks": ", ".join(nets) + "; 1 communication and 3 storage qubits per node, 10 ms slots, fibres of 5 km",
        "links": "made up: fidelity 0.92 - a/100 at 2.8 a pairs/s"
        if options.data is None
        else "measured (nitrogen-vacancy, 5 km)",
        "demands": f"random pairs of users until the load is asked for; {options.seeds} seeds of {sets} sets",
        "kept simple": "operations always succeed; storage qubits are held from the start of generation; at most 2 rounds of distillation per level",
        "not covered": "preemption (PB), critical-EDF, and an exact bound on what could be admitted",
    }
    return Report("quantum-network", findings, [Table("Means over seeds", _rows(found))], conditions, time.perf_counter() - began)


def _mean(found: Mapping[Key, list[list[Outcome]]], key: Key, part: str) -> float:
    return fmean(getattr(one, part) for row in found[key] for one in row)


def _cells(found: Mapping[Key, Any]) -> list[tuple[str, float, int]]:
    return list(dict.fromkeys(key[:3] for key in found))


def _valid(found: Mapping[Key, list[list[Outcome]]]) -> Finding:
    every = [one for rows in found.values() for row in rows for one in row]
    good = sum(one.checked for one in every)
    return Finding(
        "Schedules keep every qubit to one use at a time, locked qubits too", f"{len(every)} schedules, unrolled over the hyperperiod",
        "valid", f"{good} of {len(every)} pass the independent checker, with no qubit used more than all of the time",
        REPRODUCED if good == len(every) else NOT,
    )  # fmt: skip


def _order(found: Mapping[Key, list[list[Outcome]]]) -> Finding:
    cells = [cell for cell in _cells(found) if cell[0] != "star"]
    means = {cell: [_mean(found, (*cell, occupancy), "throughput") for occupancy in OCCUPANCIES] for cell in cells}
    kept = [cell for cell in cells if means[cell] == sorted(means[cell])]
    gains = [row[-1] / row[0] for row in means.values() if row[0]]
    return Finding(
        "The finer the occupancy, the higher the throughput", "all networks but the star, all fidelities and loads, means",
        "PTS-NP-EDF <= RCPSP-NP-FPR <= RCPSP-NP-EDF; H at 20 pairs/s and fidelity 0.7: 3.08, 3.61, 4.54 (released code)",
        f"in {len(kept)} of {len(cells)} cells; finest over coarsest {min(gains):.2f}x to {max(gains):.2f}x",
        REPRODUCED if len(kept) == len(cells) else PARTLY if len(kept) > len(cells) / 2 else NOT,
        "" if len(kept) == len(cells) else "demands are admitted one by one, so that a finer view may take one that later shuts out others",
    )  # fmt: skip


def _star(found: Mapping[Key, list[list[Outcome]]]) -> Finding:
    cells = [cell for cell in _cells(found) if cell[0] == "star"]
    apart = [
        max(values) / min(values) - 1
        for values in ([_mean(found, (*cell, occupancy), "throughput") for occupancy in OCCUPANCIES] for cell in cells)
        if min(values)
    ]
    return Finding(
        "On a star all are equal", "one shared centre", "equal (released code: 8.15, 8.15, 8.15 at 20 pairs/s)",
        f"largest difference {max(apart):.1%}", REPRODUCED if max(apart) < 0.02 else PARTLY if max(apart) < 0.2 else NOT,
        "swaps and distillations leave the centre's communication qubit free, and the finest view generates the next links meanwhile",
    )  # fmt: skip


def _fidelity(found: Mapping[Key, list[list[Outcome]]], nets: Sequence[str]) -> Finding:
    falls = total = 0
    for name in nets:
        for load in LOADS:
            keys = [key for key in ((name, fidelity, load, "qubits") for fidelity in FIDELITIES) if key in found]
            values = [_mean(found, key, "throughput") for key in keys]
            total += max(0, len(values) - 1)
            falls += sum(a >= b for a, b in pairwise(values))
    return Finding(
        "Throughput falls as the fidelity asked for rises", "RCPSP-NP-EDF, step by step from 0.6 over 0.7 to 0.8",
        "a trade-off; no figure carried over", f"in {falls} of {total} steps", REPRODUCED if falls == total else PARTLY if falls > total / 2 else NOT,
    )  # fmt: skip


def _jitters(found: Mapping[Key, list[list[Outcome]]]) -> Finding:
    rises = []
    for name, fidelity, load in _cells(found):
        other = (name, fidelity, LOADS[-1], "qubits")
        if load == LOADS[0] and other in found:
            rises.append(_mean(found, other, "jitter") >= _mean(found, (name, fidelity, load, "qubits"), "jitter"))
    return Finding(
        "Jitter rises as throughput does", f"RCPSP-NP-EDF, {LOADS[0]} against {LOADS[-1]} pairs/s asked for", "a trade-off; no figure carried over",
        f"in {sum(rises)} of {len(rises)} cells", REPRODUCED if all(rises) else PARTLY if sum(rises) > len(rises) / 2 else NOT,
    )  # fmt: skip


def _rows(found: Mapping[Key, list[list[Outcome]]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, fidelity, load in _cells(found):
        row: dict[str, object] = {"network": name, "fidelity": fidelity, "load (pairs/s)": load}
        for occupancy in OCCUPANCIES:
            key = (name, fidelity, load, occupancy)
            row[f"{LABELS[occupancy]} (pairs/s)"] = spread([fmean(one.throughput for one in row_) for row_ in found[key]])
            row[f"accepted {LABELS[occupancy]} (%)"] = round(100 * _mean(found, key, "share"))
        row["jitter RCPSP-NP-EDF"] = round(_mean(found, (name, fidelity, load, "qubits"), "jitter"), 1)
        rows.append(row)
    return rows
