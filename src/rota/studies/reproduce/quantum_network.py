"""Claims about multi-user quantum networks: finer occupancy admits more users, at trade-offs between throughput, jitter and fidelity.

Small topologies are made here. Link capabilities are too, unless a folder of measured ones is given (``--data DIR`` with
nv_link_capabilities.json), as is the SURFnet core (topologies.json).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pvariance
from typing import Any

from rota.contracts.shop import Budget, Schedule
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.periodic_edf import admit, begin, utilisation
from rota.policies.solvers.periodic_exact import most_admitted
from rota.studies.reproduce.claim import NEEDS_DATA, NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload.shop.entanglement import SLOT_S
from rota.workload.shop.periodic import Periodic, Start, hyperperiod, starts_of, unroll
from rota.workload.shop.quantum import demands, made_up_links, networks, read_folder

LOADS = (5, 20)
FIDELITIES = (0.6, 0.7, 0.8)
#: Slots by which pauses may prolong an instance (the paper's preemption budget).
BUDGET = 100
#: By the paper's names: what an instance is taken to occupy, whether the most critical one goes first, and the preemption budget.
VARIANTS = {
    "PTS-NP-EDF": ("network", False, 0), "RCPSP-NP-FPR": ("protocol", False, 0), "RCPSP-NP-EDF": ("qubits", False, 0),
    "PTS-NP-CEDF": ("network", True, 0), "RCPSP-NP-CEDF": ("qubits", True, 0),
    "PTS-PB-EDF": ("network", False, BUDGET), "RCPSP-PB-FPR": ("protocol", False, BUDGET), "RCPSP-PB-EDF": ("qubits", False, BUDGET),
}  # fmt: skip
#: By deadline and without preemption, the finer the later.
BY_DEADLINE = ("PTS-NP-EDF", "RCPSP-NP-FPR", "RCPSP-NP-EDF")
FINEST = BY_DEADLINE[-1]
#: The most that could be admitted without preemption: not in the order of arrival, and by CP-SAT; seconds for each set.
MOST, MOST_S = "most", 10.0
#: Replications per seed; a cell's figure for a seed is their mean.
SETS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """One set of demands under one occupancy: accepted pairs/s, accepted share, jitter (slots squared), whether the checker agrees."""

    throughput: float
    share: float
    jitter: float
    checked: bool


def outcome(offered: Sequence[Periodic], occupancy: str, critical: bool = False, budget: int = 0) -> Outcome:
    """Admit the demands, and have the schedule checked."""
    return _judged(offered, *admit(offered, occupancy, critical, budget), budget)


def most(offered: Sequence[Periodic], seconds: float = MOST_S) -> tuple[Outcome, float]:
    """The best set of demands that was found, and a throughput that none exceeds, pairs/s."""
    found = most_admitted(offered, Budget(seconds, 1), admit(offered, "qubits"))
    return _judged(offered, found.accepted, found.starts), found.bound / (hyperperiod(offered) * SLOT_S)


def _judged(offered: Sequence[Periodic], accepted: Sequence[int], starts: Sequence[Sequence[Start]], budget: int = 0) -> Outcome:
    work = [offered[i] for i in accepted]
    if not work:
        return Outcome(0.0, 0.0, 0.0, True)
    problem = unroll(work, budget=budget)
    checked = check(problem, Schedule(starts_of(work, starts), {})).ok and max(utilisation(work).values()) <= 1 + 1e-9
    rate = sum(1 / (one.period * SLOT_S) for one in work)
    length = hyperperiod(work)
    jitter = fmean(_jitter([begin(at) for at in own], one.period, length) for own, one in zip(starts, work, strict=True))
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
    bounds: list[tuple[Outcome, float, dict[str, float]]] = []
    for done, (name, fidelity, load) in enumerate(cells):
        for seed in range(options.seeds):
            offered = [
                one
                for one in (demands(nets[name], fidelity, load, seed * SETS + k) for k in range(1 if name == "SURFnet" else sets))
                if one
            ]
            for variant, how in VARIANTS.items():
                if name == "SURFnet" and "PB" in variant:
                    continue  # the check of so many operations that may pause takes minutes
                found.setdefault((name, fidelity, load, variant), []).append([outcome(one, *how) for one in offered])
            if name != "SURFnet":
                best = [most(one) for one in offered]
                found.setdefault((name, fidelity, load, MOST), []).append([one for one, _ in best])
                bounds += [
                    (one, bound, {variant: found[name, fidelity, load, variant][-1][i].throughput for variant in VARIANTS})
                    for i, (one, bound) in enumerate(best)
                ]
        if options.progress:
            options.progress(done + 1, len(cells), name)
    found = {key: rows for key, rows in found.items() if all(rows)}
    findings = [
        _valid(found), _order(found), _star(found), _critical(found), _preemption(found), _most(bounds),
        _fidelity(found, list(nets)), _jitters(found),
    ]  # fmt: skip
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
        "preemption": f"where no operation is under way, for {BUDGET} slots in all; only what would miss its deadline in one piece pauses",
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
    means = {cell: [_mean(found, (*cell, variant), "throughput") for variant in BY_DEADLINE] for cell in cells}
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
        for values in ([_mean(found, (*cell, variant), "throughput") for variant in BY_DEADLINE] for cell in cells)
        if min(values)
    ]
    return Finding(
        "On a star all are equal", "one shared centre", "equal (released code: 8.15, 8.15, 8.15 at 20 pairs/s)",
        f"largest difference {max(apart):.1%}", REPRODUCED if max(apart) < 0.02 else PARTLY if max(apart) < 0.2 else NOT,
        "swaps and distillations leave the centre's communication qubit free, and the finest view generates the next links meanwhile",
    )  # fmt: skip


def _critical(found: Mapping[Key, list[list[Outcome]]]) -> Finding:
    gains = {
        f"{kind}-NP": [
            _mean(found, (*cell, f"{kind}-NP-CEDF"), "throughput") / plain
            for cell in _cells(found) if (plain := _mean(found, (*cell, f"{kind}-NP-EDF"), "throughput"))
        ]
        for kind in ("PTS", "RCPSP")
    }  # fmt: skip
    never_less = all(min(each) >= 1 for each in gains.values())
    return Finding(
        "Critical EDF admits no less than EDF", "all networks, fidelities and loads, means",
        "a variant of the paper; no figure carried over",
        "; ".join(f"{kind}: {fmean(each):.3f}x ({min(each):.2f}x to {max(each):.2f}x), more in {sum(x > 1 for x in each)} of {len(each)} cells"
                  for kind, each in gains.items()),
        REPRODUCED if never_less else PARTLY if all(fmean(each) >= 1 for each in gains.values()) else NOT,
        "" if never_less else "it keeps alive what EDF gives up, which may shut out later demands",
    )  # fmt: skip


def _preemption(found: Mapping[Key, list[list[Outcome]]]) -> Finding:
    gains = {
        pausing: [
            _mean(found, (*cell, pausing), "throughput") / plain
            for cell in _cells(found)
            if (*cell, pausing) in found and (plain := _mean(found, (*cell, pausing.replace("PB", "NP")), "throughput"))
        ]
        for pausing in VARIANTS if "PB" in pausing
    }  # fmt: skip
    never_less = all(min(each) >= 1 for each in gains.values())
    return Finding(
        "Preemption with a budget admits no less than none", f"all networks but SURFnet, fidelities and loads, means; {BUDGET} slots",
        "variants of the paper; no figure carried over",
        "; ".join(f"{kind}: {fmean(each):.3f}x ({min(each):.2f}x to {max(each):.2f}x), more in {sum(x > 1 for x in each)} of {len(each)} cells"
                  for kind, each in gains.items()),
        REPRODUCED if never_less else PARTLY if all(fmean(each) >= 1 for each in gains.values()) else NOT,
        "" if never_less else "a demand that only fits with pauses may shut out later ones",
    )  # fmt: skip


def _most(bounds: Sequence[tuple[Outcome, float, dict[str, float]]]) -> Finding:
    proven = sum(one.throughput >= bound - 1e-9 for one, bound, _ in bounds)
    above = sum(each[variant] > bound + 1e-9 for _, bound, each in bounds for variant in each if "NP" in variant)
    ours = [one.throughput for one, _, _ in bounds]
    reached = {variant: sum(each[variant] for _, _, each in bounds) / sum(ours) for variant in VARIANTS}
    return Finding(
        "No schedule without preemption admits more than CP-SAT's bound", f"{len(bounds)} sets of demands, not SURFnet, {MOST_S:g} s each",
        "exceeds the paper: what could be admitted if all demands were known", f"above it {above}, proven {proven} of {len(bounds)}; of its "
        f"throughput: {', '.join(f'{variant} {share:.0%}' for variant, share in reached.items())}",
        REPRODUCED if not above else NOT,
        "heuristics take demands as they come; the bound chooses among all, and so leaves out those that would shut out many",
    )  # fmt: skip


def _fidelity(found: Mapping[Key, list[list[Outcome]]], nets: Sequence[str]) -> Finding:
    falls = total = 0
    for name in nets:
        for load in LOADS:
            keys = [key for key in ((name, fidelity, load, FINEST) for fidelity in FIDELITIES) if key in found]
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
        other = (name, fidelity, LOADS[-1], FINEST)
        if load == LOADS[0] and other in found:
            rises.append(_mean(found, other, "jitter") >= _mean(found, (name, fidelity, load, FINEST), "jitter"))
    return Finding(
        "Jitter rises as throughput does", f"RCPSP-NP-EDF, {LOADS[0]} against {LOADS[-1]} pairs/s asked for", "a trade-off; no figure carried over",
        f"in {sum(rises)} of {len(rises)} cells", REPRODUCED if all(rises) else PARTLY if sum(rises) > len(rises) / 2 else NOT,
    )  # fmt: skip


def _rows(found: Mapping[Key, list[list[Outcome]]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, fidelity, load in _cells(found):
        row: dict[str, object] = {"network": name, "fidelity": fidelity, "load (pairs/s)": load}
        for variant in (*VARIANTS, MOST):
            key = (name, fidelity, load, variant)
            if key not in found:
                continue
            row[f"{variant} (pairs/s)"] = spread([fmean(one.throughput for one in row_) for row_ in found[key]])
            row[f"accepted {variant} (%)"] = round(100 * _mean(found, key, "share"))
        row["jitter RCPSP-NP-EDF"] = round(_mean(found, (name, fidelity, load, FINEST), "jitter"), 1)
        rows.append(row)
    return rows
