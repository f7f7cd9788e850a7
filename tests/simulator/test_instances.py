"""Processor sharing against closed forms, and the law that a saturated device loses no time by being shared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.mechanisms.simulator.instances import share_device


@given(st.integers(1, 12), st.integers(1, 5), st.floats(1, 6), st.floats(0.1, 9))
def test_equal_requests_at_once_finish_in_rounds(n, instances, capacity, work):
    start, finish = share_device(np.zeros(n), np.full(n, work), instances, capacity)
    slow = max(1.0, min(n, instances) / capacity)  # rounds of `instances`; only the last may be smaller, and then faster
    rounds, rest = divmod(n, instances)
    expected = rounds * work * max(1.0, instances / capacity) + (work * max(1.0, rest / capacity) if rest else 0.0)
    assert finish.max() == pytest.approx(expected)
    assert finish[0] == pytest.approx(work * slow)
    assert start[0] == 0


requests = st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 4)), min_size=1, max_size=20)


@given(requests, st.integers(1, 8))
def test_sharing_a_saturated_device_ends_when_one_at_a_time_would(given_requests, instances):
    gaps, work = np.array(given_requests).T
    arrival = np.cumsum(gaps)
    _, shared = share_device(arrival, work, instances)
    _, alone = share_device(arrival, work, 1)
    last, end = [], 0.0
    for when, seconds in zip(arrival, work, strict=True):
        end = max(end, when) + seconds
        last.append(end)
    np.testing.assert_allclose(alone, last)
    assert shared.max() == pytest.approx(alone.max())


@given(requests, st.integers(1, 8), st.floats(1, 8))
def test_nobody_is_served_faster_than_alone(given_requests, instances, capacity):
    gaps, work = np.array(given_requests).T
    arrival = np.cumsum(gaps)
    start, finish = share_device(arrival, work, instances, capacity)
    assert (start >= arrival).all()
    assert (finish - start >= work * (1 - 1e-9)).all()
    if capacity >= instances:
        np.testing.assert_allclose(finish - start, work)


def test_senseless_counts():
    for instances, capacity in ((0, 1.0), (1, 0.5), (1, float("nan"))):
        with pytest.raises(InputError, match="at least 1"):
            share_device(np.zeros(1), np.ones(1), instances, capacity)
