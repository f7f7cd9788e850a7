"""Entanglement protocols and periodic schedules: closed forms, and the independent checker on what is unrolled."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.contracts.shop import Budget, Schedule
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.periodic_edf import OCCUPANCIES, admit, schedule, utilisation
from rota.workload.shop.entanglement import (
    Capability,
    Protocol,
    distill,
    find_protocol,
    pumped,
    shortest_path,
    swap,
    unpump,
    unswap,
)
from rota.workload.shop.periodic import Periodic, starts_of, unroll

LINKS = [Capability(0.95, 8.0), Capability(0.9, 15.0), Capability(0.8, 28.0), Capability(0.7, 40.0)]
fidelities = st.floats(0.5, 1)


def links(a: int, b: int) -> list[Capability]:
    return LINKS


def line(a: int, b: int) -> list[int]:
    return list(range(a, b + 1)) if a < b else list(range(a, b - 1, -1))


def demands(seed: int, count: int) -> list[Periodic]:
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        protocol = find_protocol(line(*rng.sample(range(5), 2)), rng.choice([0.6, 0.7, 0.8]), links)
        if protocol is not None:
            fitting = [2**e for e in range(10) if 2**e >= protocol.duration]
            if fitting:
                found.append(Periodic(protocol, rng.choice(fitting)))
    return found


@pytest.mark.parametrize("fixed", [1.0, 0.25])
def test_fixed_points(fixed: float) -> None:
    assert swap(fixed, fixed) == pytest.approx(fixed)
    assert distill(fixed, fixed) == pytest.approx(fixed)
    assert unswap(fixed) == pytest.approx(fixed)


@given(fidelities, fidelities, fidelities)
def test_the_order_of_swaps_does_not_matter(a: float, b: float, c: float) -> None:
    assert swap(swap(a, b), c) == pytest.approx(swap(a, swap(b, c)))
    assert swap(a, b) == pytest.approx(swap(b, a))


@given(st.floats(0.3, 1), st.integers(1, 4))
def test_inverses(fidelity: float, rounds: int) -> None:
    assert swap(unswap(fidelity), unswap(fidelity)) == pytest.approx(fidelity)
    if 0.51 < fidelity < 0.999:
        before = unpump(pumped(fidelity, rounds), rounds)
        assert before == pytest.approx(fidelity, abs=1e-6)
        assert pumped(fidelity, 1) > fidelity


@settings(max_examples=40)
@given(st.integers(1, 4), st.floats(0.5, 0.95))
def test_a_protocol_keeps_its_promise(hops: int, wanted: float) -> None:
    protocol = find_protocol(line(0, hops), wanted, links)
    if protocol is None:
        assert wanted > 0.8 or hops > 2
        return
    assert protocol.fidelity >= wanted - 1e-9
    assert protocol.kinds.count("swap") >= hops - 1
    assert min(protocol.start) == 0
    alone = Periodic(protocol, protocol.duration)
    assert check(unroll([alone]), Schedule(starts_of([alone], [[0]]), {})).ok


def test_one_swap_by_hand() -> None:
    protocol = find_protocol([0, 1, 2], 0.6, links)
    assert protocol is not None
    assert unswap(0.6) == pytest.approx(
        0.7623, abs=1e-4
    )  # so 0.8 at 28 pairs/s: 4 slots each, and the middle has one communication qubit
    assert protocol.duration == 4 + 4 + 1
    assert sorted(protocol.profile()["c1"]) == [(0, 4), (4, 8)]
    assert sorted(protocol.profile()["s1"]) == [(0, 9), (4, 9)]
    assert find_protocol([0, 1], 0.9999, links) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(OCCUPANCIES), st.booleans())
def test_what_is_admitted_passes_the_checker(seed: int, occupancy: str, critical: bool) -> None:
    offered = demands(seed, 6)
    accepted, starts = admit(offered, occupancy, critical)
    work = [offered[i] for i in accepted]
    assert work
    assert check(unroll(work), Schedule(starts_of(work, starts), {})).ok
    assert max(utilisation(work).values()) <= 1 + 1e-9
    moved = [[at + (j == 0) * 1000 for at in one] for j, one in enumerate(starts)]
    assert not check(unroll(work), Schedule(starts_of(work, moved), {})).ok


@given(st.integers(0, 10**6))
def test_a_schedule_of_a_coarser_view_is_one_of_the_finer(seed: int) -> None:
    work = demands(seed, 3)
    coarse = schedule(work, "protocol")
    if coarse is not None:
        assert check(unroll(work), Schedule(starts_of(work, coarse), {})).ok


def test_cp_sat_agrees_that_two_do_not_fit() -> None:
    protocol = find_protocol([0, 1, 2], 0.6, links)
    assert protocol is not None
    both = [Periodic(protocol, 16), Periodic(protocol, 16)]  # 16 slots of the middle's communication qubit, and then a swap
    assert schedule(both, "qubits") is None
    assert CpSat().solve(unroll(both), Budget(30, 1)).status == "infeasible"
    apart = [Periodic(protocol, 16), Periodic(protocol, 32)]
    assert schedule(apart, "network") is None or schedule(apart, "qubits") is not None


def test_the_most_critical_goes_first_where_it_would_lose_its_last_place() -> None:
    def link(ticks: int, period: int) -> Periodic:
        return Periodic(Protocol(("link",), ((0, 1),), (0,), (ticks,), (), 0.9), period)

    work = [link(1, 6), link(9, 15)]
    for occupancy in OCCUPANCIES:
        # by deadline the second run of the short one takes slot 6, and no 9 in a row are left before 15
        assert schedule(work, occupancy) is None
        assert schedule(work, occupancy, critical=True) == [[0, 10, 12, 18, 28], [1, 19]]


@given(st.integers(0, 10**6), st.sampled_from(OCCUPANCIES))
def test_with_room_for_all_the_most_critical_changes_nothing(seed: int, occupancy: str) -> None:
    (alone,) = demands(seed, 1)
    work = [alone, Periodic(alone.protocol, 4 * alone.period)]
    if alone.period >= 4 * alone.protocol.duration:
        assert schedule(work, occupancy, critical=True) == schedule(work, occupancy)


def test_shortest_path_is_by_length() -> None:
    net = {0: {1: 1.0, 2: 5.0}, 1: {0: 1.0, 2: 1.0}, 2: {0: 5.0, 1: 1.0}, 3: {}}
    assert shortest_path(net, 0, 2) == [0, 1, 2]
    assert shortest_path(net, 0, 3) == []
