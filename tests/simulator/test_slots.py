"""Slot windows: as few copies as any search finds, no live slot overwritten, everybody keeps a slot of the window."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.errors import InputError
from rota.mechanisms.simulator.slots import Slots, densest_window, moves


def consecutive(slots):
    return not slots or max(slots) - min(slots) + 1 == len(slots)


def fewest_copies(n, live):
    """Breadth-first search over all arrangements, one copy of a live slot into a free one at a time."""
    start = frozenset(live)
    seen, queue = {start}, deque([(start, 0)])
    while queue:
        state, steps = queue.popleft()
        if consecutive(state):
            return steps
        for source in state:
            for target in set(range(n)) - state:
                after = state - {source} | {target}
                if after not in seen:
                    seen.add(after)
                    queue.append((after, steps + 1))
    raise AssertionError


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=10))
def test_copies_are_fewest_and_overwrite_nobody(live):
    slots = {slot for slot, alive in enumerate(live) if alive}
    copies = moves(live)
    assert len(copies) == fewest_copies(len(live), slots)
    for source, target in copies:
        assert source in slots and target not in slots
        slots = slots - {source} | {target}
    assert consecutive(slots)
    assert len(slots) == sum(live)


@given(st.lists(st.booleans(), min_size=1, max_size=24))
def test_the_window_is_as_long_as_what_lives_and_the_densest(live):
    low, k = densest_window(live), sum(live)
    assert 0 <= low <= len(live) - k
    assert sum(live[low : low + k]) == max(sum(live[at : at + k]) for at in range(len(live) - k + 1))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10), st.booleans(), st.lists(st.integers(0, 9), max_size=60))
def test_everybody_keeps_a_slot_of_the_window_whatever_comes_and_goes(n, reorder, events):
    slots, present, name = Slots(n, reorder=reorder), [], 0
    for event in events:
        if len(present) < n and event % 2 == 0:
            slots.join(name)
            present.append(name)
            name += 1
        elif present:
            before = list(slots.owner)
            gone = present.pop(event % len(present))
            for source, target in slots.leave(gone):
                assert before[target] in (-1, gone) and before[source] not in (-1, gone)
        assert sorted(owner for owner in slots.owner if owner >= 0) == sorted(present)
        held = [slot for slot, owner in enumerate(slots.owner) if owner >= 0]
        assert all(slots.low <= slot < slots.high for slot in held)
        assert slots.live == len(present) <= slots.rows
        if reorder:
            assert slots.rows == len(present)
        elif held:
            assert (held[0], held[-1] + 1) == (slots.low, slots.high)


def test_the_paper_s_cases_of_leaving():
    slots = Slots(8)
    for request in range(6):
        slots.join(request)
    assert slots.leave(0) == []  # the low end moves up
    assert slots.leave(5) == []  # the high end moves down
    assert slots.leave(2) == [(4, 2)]  # a hole in the middle: one copy closes it
    assert (slots.low, slots.high) == (1, 4)


def test_a_full_batch_says_so():
    slots = Slots(1)
    slots.join(0)
    with pytest.raises(InputError, match="all 1 slots are taken"):
        slots.join(1)
    with pytest.raises(InputError, match="at least one slot"):
        Slots(0)
