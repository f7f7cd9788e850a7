"""Streaming sessions as columns: frames that arrive at their times, and how many text tokens each will in truth get.

A session is a live or recorded video with a running commentary. `streams` generates them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError
from rota.workload.lengths import Spread
from rota.workload.trace import Floats, Ints


@dataclass(frozen=True, slots=True)
class Streams:
    """Sessions of ``s`` rows and their frames, ``f`` rows; frames of session i are rows ``frame_start[i]`` to ``frame_start[i + 1]``.

    Parameters
    ----------
    arrival : float64 (s,)
        When sessions begin, ascending, seconds.
    prompt : int64 (s,)
        Tokens before the first frame (instruction, question), at least 1.
    max_tokens : int64 (s,)
        Declared limit of a session's prompt, frame and text tokens together, which policies may see.
    frame_start : int64 (s + 1,)
        Every session has at least one frame.
    frame_at : float64 (f,)
        When frames arrive, seconds; ascending within a session and not before it.
    frame_tokens, text_tokens : int64 (f,)
        Tokens of the frame, and of the text that follows it (hidden from policies). Both at least 1.
    name, source : str

    Raises
    ------
    InputError
        If columns do not fit together or hold values that make no sense; the message names the column and the row.
    """

    arrival: Floats
    prompt: Ints
    max_tokens: Ints
    frame_start: Ints
    frame_at: Floats
    frame_tokens: Ints
    text_tokens: Ints
    name: str = "streams"
    source: str = ""

    def __post_init__(self) -> None:
        sessions, frames = len(self.arrival), len(self.frame_at)
        if sessions == 0:
            raise InputError(f"{self.name}: there are no sessions; give at least one")
        rows_of = dict(prompt=sessions, max_tokens=sessions, frame_start=sessions + 1, frame_tokens=frames, text_tokens=frames)
        for column, rows in rows_of.items():
            if len(getattr(self, column)) != rows:
                raise InputError(f"{self.name}: column {column} has {len(getattr(self, column))} rows, expected {rows}")
        if self.frame_start[0] != 0 or self.frame_start[-1] != frames or np.any(np.diff(self.frame_start) < 1):
            raise InputError(f"{self.name}: frame_start must rise from 0 to {frames}, by at least one frame per session")
        self._check(~np.isfinite(self.arrival) | (self.arrival < 0), "arrival", "is negative or not a number")
        self._check(np.diff(self.arrival, prepend=0.0) < 0, "arrival", "is before that of the row above; sort sessions by arrival")
        self._check(~np.isfinite(self.frame_at), "frame_at", "is not a finite number")
        owner = np.repeat(np.arange(sessions), np.diff(self.frame_start))
        before = np.where(np.diff(owner, prepend=-1) > 0, self.arrival[owner], np.roll(self.frame_at, 1))
        self._check(self.frame_at < before, "frame_at", "is before its session or the frame before it")
        for column in ("prompt", "frame_tokens", "text_tokens"):
            self._check(getattr(self, column) < 1, column, "is below 1 token")
        total = self.prompt + np.add.reduceat(self.frame_tokens + self.text_tokens, self.frame_start[:-1])
        self._check(self.max_tokens < total, "max_tokens", "is smaller than what the session will need")

    def _check(self, wrong: NDArray[np.bool_], column: str, what: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{self.name}: {column} of row {row} {what} ({getattr(self, column)[row]})")

    def __len__(self) -> int:
        return len(self.arrival)


FRAME, GROUP, PROMPT = Spread.fixed(256), Spread.fixed(3), Spread.fixed(64)


def streams(
    sessions: int = 1, frames: int = 30, frame_interval: float = 0.5, *, frame_tokens: Spread = FRAME, group_tokens: Spread = GROUP,
    last_tokens: Spread | None = None, prompt_tokens: Spread = PROMPT, rate: float = 0.0, seed: int = 0,
) -> Streams:  # fmt: skip
    """Sessions of equally many frames at a fixed interval.

    Parameters
    ----------
    sessions, frames : int
        Sessions, and frames of each.
    frame_interval : float
        Seconds between frames; 0 for a recorded clip, all of whose frames are there at the start.
    frame_tokens, group_tokens, last_tokens, prompt_tokens : Spread
        Of a frame, of the text after it, of the text after the last one (None: as after the others), and of the prompt.
    rate : float
        Sessions per second, Poisson; 0: all begin within one frame interval, at random.
    seed : int

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    for name, value in (("sessions", sessions), ("frames", frames)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    for name, number in (("frame_interval", frame_interval), ("rate", rate)):
        if not 0 <= number < math.inf:
            raise InputError(f"{name} must be 0 or a positive number, not {number:g}")
    if seed < 0:
        raise InputError(f"seed must not be negative ({seed})")
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, sessions)) if rate else np.sort(rng.uniform(0, frame_interval, sessions))
    arrival -= arrival[0]
    prompt = prompt_tokens.tokens(rng, sessions)
    each = frame_tokens.tokens(rng, sessions * frames)
    text = group_tokens.tokens(rng, sessions * frames)
    if last_tokens is not None:
        text[frames - 1 :: frames] = last_tokens.tokens(rng, sessions)
    start = np.arange(sessions + 1) * frames
    longest = frames * int(text.reshape(sessions, frames)[:, :-1].max(initial=1)) + int(text[frames - 1 :: frames].max())
    return Streams(
        arrival=arrival, prompt=prompt, max_tokens=prompt + np.add.reduceat(each, start[:-1]) + longest, frame_start=start,
        frame_at=np.repeat(arrival, frames) + np.tile(np.arange(frames) * frame_interval, sessions), frame_tokens=each, text_tokens=text,
        source=f"generated: {sessions} sessions of {frames} frames, one each {frame_interval:g} s, seed {seed}",
    )  # fmt: skip
