"""Without swaps a blocking shop can get stuck; a move is safe if the jobs inside can still be brought out one move after the other.

That is searched for depth first, times left aside. The search may give up on a state that is safe, never the other way round; the way out
that it found last stays allowed, so a shop that is run like this is never stuck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rota.mechanisms.shop.plant import Plant
    from rota.mechanisms.shop.simulator import Simulator

Move = tuple[int, int]
#: Where the jobs inside are: of each, how many of its tasks have started and the mode of the last, -1 once it is out.
Inside = tuple[tuple[int, int], ...]
#: States looked at before the search gives up.
MOST = 1000


def way_out(shop: Simulator, task: int, mode: int) -> list[Move] | None:
    """Moves that bring out all jobs that are inside once `task` has started; None if none were found."""
    plant, state = shop.plant, shop.state
    inside = sorted({plant.job[t] for holders in state.holders for t in holders} | {plant.job[task]})
    chains = [plant.job_tasks[job] for job in inside]
    places = []
    for job, chain in zip(inside, chains, strict=True):
        started = sum(state.start[t] >= 0 for t in chain)
        places.append((started + 1, mode) if job == plant.job[task] else (started, state.mode[chain[started - 1]]))
    return _search(plant, chains, tuple(places))


def _search(plant: Plant, chains: list[list[int]], begin: Inside) -> list[Move] | None:
    seen = {begin}
    path: list[Move] = []
    trail = [(begin, _moves(plant, chains, begin, -1))]
    while trail:
        places, moves = trail[-1]
        if all(place < 0 for place, _ in places):
            return path
        if not moves:
            trail.pop()
            if path:
                path.pop()
            continue
        mover, mode = moves.pop()
        place = places[mover][0]
        gone = place == len(chains[mover])
        then = (*places[:mover], (-1, -1) if gone else (place + 1, mode), *places[mover + 1 :])
        if then in seen or len(seen) >= MOST:
            continue
        seen.add(then)
        path.append((-1, -1) if gone else (chains[mover][place], mode))
        trail.append((then, _moves(plant, chains, then, mover)))
    return None


def _moves(plant: Plant, chains: list[list[int]], places: Inside, last: int) -> list[Move]:
    """Which job can move on and in which mode; the best to try is at the end: a job that leaves, then the one that moved last."""
    free = list(plant.capacity)
    for chain, (place, mode) in zip(chains, places, strict=True):
        if place > 0:
            for use in plant.ways[chain[place - 1]][mode].uses:
                free[use.resource] -= use.amount
    found = []
    for mover, (chain, (place, mode)) in enumerate(zip(chains, places, strict=True)):
        if place < 0:
            continue
        if place == len(chain):
            return [(mover, -1)]  # nobody is worse off when it leaves
        own = {use.resource: use.amount for use in plant.ways[chain[place - 1]][mode].uses}
        for m, way in enumerate(plant.ways[chain[place]]):
            if all(free[use.resource] + own.get(use.resource, 0) >= use.amount for use in way.uses):
                found.append((mover, m))
    return sorted(found, key=lambda move: move[0] == last)
