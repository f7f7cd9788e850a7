"""Streaming sessions: what a generator promises, and columns that make no sense."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload.lengths import Spread
from rota.workload.streams import streams


@given(st.integers(1, 8), st.integers(1, 9), st.floats(0, 3), st.just(0.0) | st.floats(0.01, 5), st.integers(0, 99))
def test_frames_come_at_their_interval(sessions, frames, interval, rate, seed):
    made = streams(sessions, frames, interval, group_tokens=Spread.uniform(1, 9), last_tokens=Spread.fixed(30), rate=rate, seed=seed)
    at = made.frame_at.reshape(sessions, frames)
    np.testing.assert_array_equal(at[:, 0], made.arrival)
    np.testing.assert_allclose(np.diff(at, axis=1), interval, atol=1e-9)
    text = made.text_tokens.reshape(sessions, frames)
    assert (text[:, -1] == 30).all()
    assert (text[:, :-1] <= 9).all()
    again = streams(sessions, frames, interval, group_tokens=Spread.uniform(1, 9), last_tokens=Spread.fixed(30), rate=rate, seed=seed)
    np.testing.assert_array_equal(made.frame_at, again.frame_at)
    np.testing.assert_array_equal(made.text_tokens, again.text_tokens)
    if not rate:
        assert made.arrival.max() <= interval


def test_poisson_sessions_have_the_rate():
    made = streams(4000, 1, rate=2.0)
    assert len(made) / made.arrival[-1] == pytest.approx(2.0, rel=0.06)


def test_options_that_make_no_sense():
    for options, says in (
        (dict(sessions=0), "sessions must be at least 1"), (dict(frames=0), "frames must be at least 1"), (dict(seed=-1), "seed"),
        (dict(frame_interval=-1.0), "frame_interval must be 0 or a positive"), (dict(rate=float("nan")), "rate must be 0 or a positive"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            streams(**options)


def test_columns_that_make_no_sense_are_named_with_their_row():
    good = streams(2, 3, 0.5)
    for changes, says in (
        (dict(frame_start=np.array([0, 0, 6])), "frame_start must rise"),
        (dict(arrival=good.arrival[::-1].copy()), "arrival of row 1"),
        (dict(frame_at=good.frame_at[::-1].copy()), "frame_at of row"),
        (dict(text_tokens=np.array([1, 1, 0, 1, 1, 1])), "text_tokens of row 2 is below 1"),
        (dict(max_tokens=np.array([10_000, 5])), "max_tokens of row 1 is smaller"),
        (dict(frame_tokens=good.frame_tokens[1:]), "column frame_tokens has 5 rows, expected 6"),
        (dict(prompt=np.array([0, 1])), "prompt of row 0 is below 1"),
    ):
        with pytest.raises(InputError, match=says):
            replace(good, **changes)
