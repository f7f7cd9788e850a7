"""Quantum networks with users: small made-up ones, a measured one out of files, and demands of its users at random."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rota.errors import InputError
from rota.workload.shop.entanglement import SLOT_S, Capability, Protocol, find_protocol, shortest_path
from rota.workload.shop.periodic import Periodic

LONGEST_PERIOD = 512


@dataclass(frozen=True, slots=True)
class Network:
    """Users, and the length of fibre (km) between neighbours; what its links can do."""

    users: tuple[int, ...]
    neighbours: Mapping[int, Mapping[int, float]]
    links: tuple[Capability, ...]


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
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: is not JSON ({error.msg}); is the file cut off?") from None
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
