"""The Speak While Watching study: clips against the formula, live sessions, and the count of sessions in real time."""

import numpy as np
import pytest

from rota.cost.deployment import Deployment
from rota.studies.reproduce.speak_while_watching import DECOUPLED, TURNS, _clip, _live, _sustained


@pytest.fixture(scope="module")
def engine():
    return Deployment("qwen2.5-vl-7b", "a100-80g", max_model_len=32768).engine(16384)


def test_a_clip_follows_the_formula_and_never_doubles_more_than_once(engine):
    for tokens, group in ((256, 2), (1024, 1), (256, 16)):
        clip = _clip(engine, 0.0, tokens, group)
        gain = clip.turns / clip.two_devices
        assert gain == pytest.approx(clip.expected, rel=0.03)
        assert 1 < gain < clip.steady <= 2
        assert clip.two_devices < clip.one_device < clip.turns


def test_live_delays_grow_in_turns_only(engine):
    _, runs = _live(engine, 0.0)
    turns, lanes = runs["in turns, 2 devices"].delay, runs["decoupled, 2 devices"].delay
    assert (np.diff(turns) > 0).all()
    assert lanes[-1] < 2 * lanes[0]


def test_the_most_sessions_in_time_is_a_threshold(engine):
    """So short a deadline that one session is just in time, and one that nobody meets."""
    assert _sustained(engine, 0.0, TURNS, 1, (3, 0.5, 0.062), 4, 0) >= 1
    assert _sustained(engine, 0.0, DECOUPLED, 2, (3, 0.5, 0.001), 4, 0) == 0
