"""Protocols that give two users of a quantum network an entangled pair of some fidelity: which links, swaps and distillations, and when.

Pairs are Werner states. A link is generated with the one communication qubit of each end, and each of the pair's two halves holds a storage
qubit from then until the swap or distillation that uses it up, or the end. Operations succeed; a link takes its mean time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

SLOT_S = 0.01
MOST_ROUNDS = 2
MOST_PIVOTED = 4
STORAGE = 3


class Capability(NamedTuple):
    """What a link can do: pairs of this fidelity at this mean rate (1/s)."""

    fidelity: float
    rate: float


def swap(a: float, b: float) -> float:
    """Fidelity after an entanglement swap of two pairs."""
    return (4 * a * b - a - b + 1) / 3


def unswap(fidelity: float) -> float:
    """The fidelity that two equal pairs need to give this one when swapped."""
    return (1 + math.sqrt(max(0.0, 12 * fidelity - 3))) / 4


def distill(a: float, b: float) -> float:
    """Fidelity after a successful distillation of two pairs (Bennett et al., 1996)."""
    p, q = (1 - a) / 3, (1 - b) / 3
    return (a * b + p * q) / (a * b + a * q + b * p + 5 * p * q)


def pumped(fidelity: float, rounds: int) -> float:
    """Fidelity after distilling a pair with `rounds` further ones like it, one after the other."""
    found = fidelity
    for _ in range(rounds):
        found = distill(found, fidelity)
    return found


def unpump(fidelity: float, rounds: int) -> float | None:
    """The least fidelity from which so many rounds reach `fidelity`, by bisection; None if none below 1 does."""
    low, high = 0.5, 1.0
    if rounds == 0:
        return fidelity
    if fidelity >= 1:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if pumped(middle, rounds) >= fidelity else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class Tree:
    """How a pair comes to be.

    Parameters
    ----------
    kind : {"link", "swap", "distill"}
    ends : (int, int)
    ticks : int
        Of this operation alone.
    fidelity : float
    parts : tuple of Tree
        The two pairs that are swapped or distilled.
    busy : mapping of node to int
        Ticks for which each communication qubit generates links, in all.
    depth : int
        Ticks of swaps and distillations that follow each other.
    """

    kind: str
    ends: tuple[int, int]
    ticks: int
    fidelity: float
    parts: tuple[Tree, ...] = ()
    busy: Mapping[int, int] = field(default_factory=dict)
    depth: int = 0

    @property
    def work(self) -> tuple[int, int]:
        """About how long it takes: the busiest node, then the operations; and all ticks together."""
        return max(self.busy.values()) + self.depth, sum(self.busy.values())


def _link(ends: tuple[int, int], able: Capability) -> Tree:
    ticks = math.ceil(1 / (able.rate * SLOT_S))
    return Tree("link", ends, ticks, able.fidelity, busy=dict.fromkeys(ends, ticks))


def _joined(kind: str, ends: tuple[int, int], fidelity: float, first: Tree, second: Tree) -> Tree:
    busy = {node: first.busy.get(node, 0) + second.busy.get(node, 0) for node in {**first.busy, **second.busy}}
    return Tree(kind, ends, 1, fidelity, (first, second), busy, max(first.depth, second.depth) + 1)


def find_protocol(path: Sequence[int], fidelity: float, links: Callable[[int, int], Sequence[Capability]]) -> Protocol | None:
    """The protocol that takes least time over this path of nodes; None if the fidelity is out of reach.

    Tried are 0 to `MOST_ROUNDS` rounds of distillation at every level, and all pivots on up to `MOST_PIVOTED` links; on more, the middle.
    """

    @cache
    def best(first: int, last: int, wanted: float) -> Tree | None:
        found = [tree for rounds in range(MOST_ROUNDS + 1) for tree in candidates(first, last, wanted, rounds)]
        return min(found, key=lambda tree: tree.work, default=None)

    def candidates(first: int, last: int, wanted: float, rounds: int) -> Iterator[Tree]:
        least = unpump(wanted, rounds)
        if least is None:
            return
        ends = (path[first], path[last])
        if last - first == 1:
            able = [one for one in links(*ends) if pumped(one.fidelity, rounds) >= wanted]
            for one in able:
                yield _pump(_link(ends, one), rounds)
            return
        part = round(unswap(least) + 5e-10, 9)
        middle = (first + last) // 2
        for pivot in range(first + 1, last) if last - first <= MOST_PIVOTED else (middle,):
            left, right = best(first, pivot, part), best(pivot, last, part)
            if left is not None and right is not None:
                yield _pump(_joined("swap", ends, swap(left.fidelity, right.fidelity), left, right), rounds)

    tree = best(0, len(path) - 1, fidelity) if len(path) > 1 else None
    return None if tree is None else place(tree)


def _pump(tree: Tree, rounds: int) -> Tree:
    found = tree
    for _ in range(rounds):
        found = _joined("distill", tree.ends, distill(found.fidelity, tree.fidelity), found, tree)
    return found


class Hold(NamedTuple):
    """A storage qubit of `node`, from the start of operation `by` until the end of operation `until`."""

    node: int
    by: int
    until: int


@dataclass(frozen=True, slots=True)
class Protocol:
    """Operations at fixed times from its start; a periodic piece of work.

    Parameters
    ----------
    kinds : tuple of str
    ends : tuple of (int, int)
        Of each operation; a link uses the communication qubit at both.
    start, ticks : tuples of int
    holds : tuple of Hold
    fidelity : float
    """

    kinds: tuple[str, ...]
    ends: tuple[tuple[int, int], ...]
    start: tuple[int, ...]
    ticks: tuple[int, ...]
    holds: tuple[Hold, ...]
    fidelity: float

    @property
    def duration(self) -> int:
        """Ticks from the first start to the last end."""
        return max(at + ticks for at, ticks in zip(self.start, self.ticks, strict=True))

    def pauses(self) -> list[int]:
        """Ticks from its start at which an operation begins and none is under way: there a run can be interrupted."""
        running = list(zip(self.start, self.ticks, strict=True))
        return [at for at in sorted({*self.start} - {0}) if not any(begun < at < begun + ticks for begun, ticks in running)]

    def profile(self) -> dict[str, list[tuple[int, int]]]:
        """Intervals, one per unit, in which each qubit is busy or locked: ``c3`` is node 3's communication qubit, ``s3`` its storage."""
        found: dict[str, list[tuple[int, int]]] = {}
        for i, kind in enumerate(self.kinds):
            if kind == "link":
                for node in self.ends[i]:
                    found.setdefault(f"c{node}", []).append((self.start[i], self.start[i] + self.ticks[i]))
        for hold in self.holds:
            found.setdefault(f"s{hold.node}", []).append((self.start[hold.by], self.start[hold.until] + self.ticks[hold.until]))
        return found


def place(tree: Tree) -> Protocol | None:
    """Operations as early as they can be, then as late as they can be so that pairs wait less; None if storage does not suffice."""
    kinds: list[str] = []
    ends: list[tuple[int, int]] = []
    ticks: list[int] = []
    after: list[int | None] = []
    holds: list[Hold] = []

    def add(one: Tree) -> tuple[int, dict[int, int]]:
        """The operation's number, and the links whose storage qubits hold its pair: by node."""
        parts = [add(part) for part in one.parts]
        number = len(kinds)
        kinds.append(one.kind)
        ends.append(one.ends)
        ticks.append(one.ticks)
        after.append(None)
        for part, _ in parts:
            after[part] = number
        if one.kind == "link":
            return number, dict.fromkeys(one.ends, number)
        if one.kind == "distill":
            (_, kept), (_, spent) = parts
            holds.extend(Hold(node, by, number) for node, by in spent.items())
            return number, kept
        kept = {}
        for _, pair in parts:
            for node, by in pair.items():
                if node in one.ends:
                    kept[node] = by
                else:
                    holds.append(Hold(node, by, number))
        return number, kept

    last, pair = add(tree)
    holds.extend(Hold(node, by, last) for node, by in pair.items())
    early = _early(kinds, ends, ticks, after)
    late = _late(kinds, ends, ticks, after, early)
    for start in (late, early):
        protocol = Protocol(tuple(kinds), tuple(ends), tuple(start), tuple(ticks), tuple(holds), tree.fidelity)
        if all(_most_at_once(spans) <= STORAGE for name, spans in protocol.profile().items() if name[0] == "s"):
            return protocol
    return None


def _early(kinds: Sequence[str], ends: Sequence[tuple[int, int]], ticks: Sequence[int], after: Sequence[int | None]) -> list[int]:
    """Starts in post-order, each as early as parts and communication qubits allow."""
    ready = [0] * len(kinds)
    free: dict[int, int] = {}
    start = []
    for i, kind in enumerate(kinds):
        at = ready[i]
        if kind == "link":
            at = max(at, *(free.get(node, 0) for node in ends[i]))
            free.update(dict.fromkeys(ends[i], at + ticks[i]))
        start.append(at)
        following = after[i]
        if following is not None:
            ready[following] = max(ready[following], at + ticks[i])
    return start


def _late(
    kinds: Sequence[str], ends: Sequence[tuple[int, int]], ticks: Sequence[int], after: Sequence[int | None], early: Sequence[int]
) -> list[int]:  # fmt: skip
    """The same order with the same end, each as late as what follows allows; the first starts at 0."""
    end = max(at + lasts for at, lasts in zip(early, ticks, strict=True))
    start = [0] * len(kinds)
    taken: dict[int, int] = {}
    for i in sorted(range(len(kinds)), key=lambda i: (early[i], i), reverse=True):
        following = after[i]
        by = end if following is None else start[following]
        if kinds[i] == "link":
            by = min(by, *(taken.get(node, end) for node in ends[i]))
            taken.update(dict.fromkeys(ends[i], by - ticks[i]))
        start[i] = by - ticks[i]
    first = min(start)
    return [at - first for at in start]


def _most_at_once(spans: Sequence[tuple[int, int]]) -> int:
    return max((sum(a <= at < b for a, b in spans) for at, _ in spans), default=0)


def shortest_path(neighbours: Mapping[int, Mapping[int, float]], a: int, b: int) -> list[int]:
    """Nodes of a path with the least length of fibre; [] if there is none."""
    queue: list[tuple[float, list[int]]] = [(0.0, [a])]
    seen: set[int] = set()
    while queue:
        length, path = heapq.heappop(queue)
        if path[-1] == b:
            return path
        if path[-1] not in seen:
            seen.add(path[-1])
            for node, fibre in neighbours[path[-1]].items():
                if node not in seen:
                    heapq.heappush(queue, (length + fibre, [*path, node]))
    return []
