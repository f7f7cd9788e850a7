"""Periodic work in parts, and the most that can be admitted: by hand, by brute force, and by the independent checker."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.contracts.shop import Budget, Schedule
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.periodic_edf import OCCUPANCIES, admit, begin, profile_of, schedule
from rota.policies.solvers.periodic_exact import most_admitted
from rota.policies.solvers.slots import Slots
from rota.policies.solvers.splitting import parts, place_split
from rota.workload.shop.entanglement import STORAGE, Hold, Protocol
from rota.workload.shop.periodic import Periodic, capacities, hyperperiod, starts_of, unroll
from rota.workload.shop.quantum import demands as drawn
from rota.workload.shop.quantum import made_up_links, networks

#: Two links one after the other, then a swap: node 1 stores a half of the first while the second is made.
CHAIN = Protocol(
    ("link", "link", "swap"), ((0, 1), (1, 2), (0, 2)), (0, 2, 4), (2, 2, 1),
    (Hold(0, 0, 2), Hold(1, 0, 2), Hold(1, 1, 2), Hold(2, 1, 2)), 0.9,
)  # fmt: skip


def link(a: int, b: int, ticks: int, period: int) -> Periodic:
    """A link and nothing else; it stores nothing."""
    return Periodic(Protocol(("link",), ((a, b),), (0,), (ticks,), (), 0.9), period)


def chain(draw: st.DrawFn) -> Protocol:
    """Links in a row of nodes, one after the other or side by side, each stored until the last operation ends."""
    n = draw(st.integers(1, 3))
    ticks = [draw(st.integers(1, 3)) for _ in range(n)]
    start, at = [], 0
    for i in range(n):
        start.append(at)
        # next to each other they share a node, and cannot overlap
        at += ticks[i] + draw(st.integers(0, 1))
    holds = tuple(Hold(node, i, n - 1) for i in range(n) for node in draw(st.sets(st.sampled_from((i, i + 1)))))
    return Protocol(("link",) * n, tuple((i, i + 1) for i in range(n)), tuple(start), tuple(ticks), holds, 0.9)


@st.composite
def works(draw: st.DrawFn, most: int = 3) -> list[Periodic]:
    found = []
    for _ in range(draw(st.integers(1, most))):
        protocol = chain(draw)
        found.append(Periodic(protocol, draw(st.sampled_from([p for p in (4, 8, 16) if p >= protocol.duration]))))
    return found


def test_a_run_pauses_between_its_links_and_what_it_has_stored_stays_locked() -> None:
    assert CHAIN.pauses() == [2, 4]
    # node 1 and 2 are busy in slots 2 and 3 of every 8
    busy = link(1, 2, 2, 8)
    free = Slots(capacities([Periodic(CHAIN, 8), busy]))
    free.take(busy.protocol.profile(), 2)
    pieces = parts(CHAIN, CHAIN.profile())
    assert [(part.offset, part.ticks) for part in pieces] == [(0, 2), (2, 2), (4, 1)]
    assert [part.locked for part in pieces] == [{}, {"s0": 1, "s1": 1}, {"s0": 1, "s1": 2, "s2": 1}]
    assert free.earliest(CHAIN.profile(), 0, 3) is None  # in one piece it needs node 1 for 4 slots on end
    assert place_split(free, pieces, 0, 8, 1) is None
    assert place_split(free, pieces, 0, 8, 2) == (0, 4, 6)
    # two units of node 1's storage are taken while it waits and until it ends
    assert free.free({"s1": STORAGE}) & 0xFF == 0b10000000
    assert free.free({"s1": 2}) & 0xFF == 0b10001111


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(0, 6), st.sampled_from(["qubits", "protocol"]))
def test_of_all_ways_to_pause_the_one_that_ends_first(data: st.DataObject, budget: int, occupancy: str) -> None:
    protocol = data.draw(st.composite(chain)())
    horizon = 14
    free = Slots({f"{kind}{node}": 1 if kind == "c" else STORAGE for kind in "cs" for node in range(4)})
    taken = {name: [[False] * (horizon + 5) for _ in range(1 if name[0] == "c" else STORAGE)] for name in (f"{k}{n}" for k in "cs" for n in range(4))}
    for name, at, ticks in data.draw(st.lists(st.tuples(st.sampled_from(sorted(taken)), st.integers(0, horizon - 1), st.integers(1, 4)), max_size=8)):
        unit = next((u for u in taken[name] if not any(u[at : at + ticks])), None)
        if unit is not None:
            unit[at : at + ticks] = [True] * ticks
            free.take({name: [(0, ticks)]}, at)
    one = Periodic(protocol, horizon)
    pieces = parts(protocol, profile_of(one, occupancy, budget))

    def fits(starts: tuple[int, ...]) -> bool:
        need: dict[tuple[str, int], int] = {}
        for i, (part, at) in enumerate(zip(pieces, starts, strict=True)):
            for name, spans in part.profile.items():
                for a, b in spans:
                    for slot in range(at + a, at + b):
                        need[name, slot] = need.get((name, slot), 0) + 1
            if i:
                for name, units in part.locked.items():
                    for slot in range(starts[i - 1] + pieces[i - 1].ticks, at):
                        need[name, slot] = need.get((name, slot), 0) + units
        return all(sum(not unit[slot] for unit in taken[name]) >= units for (name, slot), units in need.items())

    ways = [
        starts
        for starts in product(range(horizon), repeat=len(pieces))
        if all(b >= a + part.ticks for a, b, part in zip(starts, starts[1:], pieces, strict=False))
        and starts[-1] + pieces[-1].ticks <= horizon
        and starts[-1] - pieces[-1].offset - starts[0] <= budget
        and fits(starts)
    ]  # fmt: skip
    found = place_split(free, pieces, 0, horizon, budget)
    if found is None:
        assert not ways
    else:
        assert found in ways
        assert found[-1] == min(way[-1] for way in ways)


@settings(max_examples=60, deadline=None)
@given(works(), st.sampled_from(OCCUPANCIES), st.sampled_from([1, 3, 100]))
def test_whoever_need_not_pause_does_not(work: list[Periodic], occupancy: str, budget: int) -> None:
    whole = schedule(work, occupancy)
    if whole is not None:
        assert schedule(work, occupancy, budget=budget) == whole


@settings(max_examples=60, deadline=None)
@given(works(5), st.sampled_from(OCCUPANCIES), st.booleans(), st.sampled_from([1, 3, 100]))
def test_what_pauses_passes_the_checker(offered: list[Periodic], occupancy: str, critical: bool, budget: int) -> None:
    accepted, starts = admit(offered, occupancy, critical, budget)
    work = [offered[i] for i in accepted]
    if work:
        assert check(unroll(work, budget=budget), Schedule(starts_of(work, starts), {})).ok
        assert all(k * one.period <= begin(at) for one, own in zip(work, starts, strict=True) for k, at in enumerate(own))


def test_the_checker_sees_pauses_that_are_too_long_and_storage_that_was_let_go() -> None:
    work = [Periodic(CHAIN, 16)]
    for starts, budget, ok in (((0, 2, 4), 3, True), ((0, 4, 7), 3, True), ((0, 4, 8), 3, False), ((0, 1, 4), 3, False)):
        assert check(unroll(work, budget=budget), Schedule(starts_of(work, [[starts]]), {})).ok is ok
    assert not check(unroll(work), Schedule(starts_of(work, [[(0, 3, 5)]]), {})).ok  # without a budget
    crowd = [Periodic(CHAIN, 16), *(Periodic(CHAIN, 16) for _ in range(3))]
    waiting = [[(0, 12, 14)], [(2, 8, 10)], [(4, 6, 8)], [(10, 12, 14)]]
    kinds = {v.kind for v in check(unroll(crowd, budget=100), Schedule(starts_of(crowd, waiting), {})).violations}
    assert "capacity" in kinds


def _possible(work: list[Periodic]) -> bool:
    """Whether all instances fit, every combination of starts tried."""
    units = capacities(work)
    length = hyperperiod(work)
    windows = [
        (one, range(k * one.period, (k + 1) * one.period - one.protocol.duration + 1)) for one in work for k in range(length // one.period)
    ]

    def go(i: int, used: dict[tuple[str, int], int]) -> bool:
        if i == len(windows):
            return True
        one, starts = windows[i]
        for start in starts:
            now = dict(used)
            for name, spans in one.protocol.profile().items():
                for a, b in spans:
                    for slot in range(start + a, start + b):
                        now[name, slot] = now.get((name, slot), 0) + 1
            if all(count <= units[name] for (name, _), count in now.items()) and go(i + 1, now):
                return True
        return False

    return go(0, {})


@settings(max_examples=25, deadline=None)
@given(works(4))
def test_the_most_that_is_admitted_is_what_brute_force_admits(offered: list[Periodic]) -> None:
    length = hyperperiod(offered)
    worth = [length // one.period for one in offered]
    sets = (list(chosen) for n in range(len(offered) + 1) for chosen in combinations(range(len(offered)), n))
    best = 0
    for chosen in sorted(sets, key=lambda chosen: -sum(worth[j] for j in chosen)):
        if not chosen or _possible([offered[j] for j in chosen]):
            best = sum(worth[j] for j in chosen)
            break
    found = most_admitted(offered, Budget(20, 1))
    assert (found.pairs, found.proven) == (best, True)
    work = [offered[j] for j in found.accepted]
    assert not work or check(unroll(work), Schedule(starts_of(work, found.starts), {})).ok
    for occupancy, critical in product(OCCUPANCIES, (False, True)):
        assert sum(worth[j] for j in admit(offered, occupancy, critical)[0]) <= best


@pytest.mark.parametrize("name", ["star", "H", "line", "symmetric"])
def test_on_networks_no_heuristic_is_above_the_bound(name: str) -> None:
    offered = drawn(networks(made_up_links())[name], 0.6, 5, 1)
    hint = admit(offered, "qubits")
    found = most_admitted(offered, Budget(3, 2), hint)
    length = hyperperiod(offered)
    assert 0 < sum(length // offered[j].period for j in hint[0]) <= found.pairs <= found.bound
    assert found.bound <= sum(length // one.period for one in offered)
    work = [offered[j] for j in found.accepted]
    assert check(unroll(work), Schedule(starts_of(work, found.starts), {})).ok


def test_nothing_offered_nothing_admitted() -> None:
    assert most_admitted([], Budget(1, 1)) == ([], [], 0, 0)
