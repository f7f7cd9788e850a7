"""Rings of jobs of which each holds what the next wants: found, so that they can turn at one instant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rota.mechanisms.shop.simulator import Simulator

Move = tuple[int, int]


def ring(shop: Simulator) -> list[Move]:
    """Waiting tasks, with modes, that can start together although none can alone; empty if there are none.

    Each lacks one resource that the next in the ring gives back. Where a task has several modes, or a resource several units, rings may
    overlap; the first one found from the lowest task on is taken.
    """
    state = shop.state
    movers = [task for task in state.ready if state.gives[task]]
    giver: dict[int, list[int]] = {}
    for task in movers:
        for resource, _, _ in state.gives[task]:
            giver.setdefault(resource, []).append(task)
    wants: dict[int, list[tuple[int, int]]] = {}
    for task in movers:
        wants[task] = []
        for mode in range(len(shop.plant.ways[task])):
            lack = shop.lacking(task, mode)
            if lack and len(lack) == 1:
                wants[task] += [(mode, other) for other in giver.get(lack[0][0], ())]
    seen: set[int] = set()
    for task in movers:
        found = _cycle(task, wants, seen)
        if found and _together(shop, found):
            return found
    return []


def _cycle(root: int, wants: dict[int, list[tuple[int, int]]], seen: set[int]) -> list[Move]:
    """A ring that is reached from `root` through tasks not yet seen, by depth-first search."""
    path: list[Move] = []
    at: dict[int, int] = {}
    choices: list[list[tuple[int, int]]] = []
    if root in seen:
        return []
    seen.add(root)
    at[root] = 0
    path.append((root, -1))
    choices.append(list(wants[root]))
    while path:
        if not choices[-1]:
            choices.pop()
            del at[path.pop()[0]]
            continue
        mode, other = choices[-1].pop(0)
        path[-1] = (path[-1][0], mode)
        if other in at:
            return path[at[other] :]
        if other not in seen:
            seen.add(other)
            at[other] = len(path)
            path.append((other, -1))
            choices.append(list(wants[other]))
    return []


def _together(shop: Simulator, moves: list[Move]) -> bool:
    """Whether what they give back and what is free is enough for all of them."""
    state = shop.state
    left: dict[int, int] = {}
    for task, mode in moves:
        for resource, units, _ in state.gives[task]:
            left[resource] = left.get(resource, state.free[resource]) + units
        for use in shop.plant.ways[task][mode].uses:
            left.setdefault(use.resource, state.free[use.resource])
    for task, mode in moves:
        for use in shop.plant.ways[task][mode].uses:
            left[use.resource] -= use.amount
    return all(units >= 0 for units in left.values())
