"""Jobs that hold what others want: rings that turn by themselves, and moves after which a shop without swaps would be stuck."""

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


def leads_nowhere(shop: Simulator, task: int, mode: int) -> bool:
    """Whether starting `task` could leave a shop without swaps stuck (Dijkstra's banker, so it may be too careful, never too careless).

    It is safe if the jobs that hold something can be brought to their ends one after the other, each with what is free and what it holds.
    """
    state, plant = shop.state, shop.plant
    free = list(state.free)
    held: dict[int, dict[int, int]] = {}
    for resource, holders in enumerate(state.holders):
        for holder, units in holders.items():
            held.setdefault(plant.job[holder], {}).setdefault(resource, 0)
            held[plant.job[holder]][resource] += units
    mover = plant.job[task]
    own = held.setdefault(mover, {})
    for resource, units, _ in state.gives[task]:
        free[resource] += units
        own[resource] -= units
    for use in plant.ways[task][mode].uses:
        free[use.resource] -= use.amount
        own[use.resource] = own.get(use.resource, 0) + use.amount
    left = {job: [t for t in plant.job_tasks[job] if state.start[t] < 0 and t != task] for job in held}
    while left:
        out = next((job for job in left if _can_finish(shop, left[job], free, held[job])), None)
        if out is None:
            return True
        del left[out]
        for resource, units in held[out].items():
            free[resource] += units
    return False


def _can_finish(shop: Simulator, tasks: list[int], free: list[int], own: dict[int, int]) -> bool:
    """Whether each of the job's tasks to come has a mode for which what is free and what the job has now is enough."""
    ways = shop.plant.ways
    return all(
        any(all(free[use.resource] + own.get(use.resource, 0) >= use.amount for use in way.uses) for way in ways[task]) for task in tasks
    )
