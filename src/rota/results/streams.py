"""What a run of streaming sessions leaves behind: times per frame, and the delays and rates that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class StreamRun:
    """One discipline on some sessions. Columns have a row per frame, in the order of `rota.workload.streams.Streams`; seconds.

    Attributes
    ----------
    policy, deployment : str
    session : int64 (f,)
        Session of the frame.
    arrived, perceived, first_text, answered : float64 (f,)
        When the frame came, was computed whole, got its first and its last text token.
    frame_tokens, text_tokens : int64 (f,)
    start, end : float64
        When the first session arrived and the last one was over.
    busy : dict of str to float
        Seconds in steps, by device: ``{"both": 3.1}``, or ``"perception"`` and ``"generation"``.
    steps : int
    log : list of (device, start, end, ((sid, tokens), ...), (sid, ...))
        Every step with its frame tokens and the sessions that got a text token, when asked for.
    """

    policy: str
    deployment: str
    session: Ints
    arrived: Floats
    perceived: Floats
    first_text: Floats
    answered: Floats
    frame_tokens: Ints
    text_tokens: Ints
    start: float
    end: float
    busy: dict[str, float]
    steps: int
    log: list[tuple[str, float, float, tuple[tuple[int, int], ...], tuple[int, ...]]] = field(default_factory=list)

    @property
    def delay(self) -> Floats:
        """Seconds from a frame's arrival until its text is complete."""
        return self.answered - self.arrived

    @property
    def makespan(self) -> float:
        """Seconds from the first session's arrival until all is over."""
        return self.end - self.start

    def on_time(self, deadline: float) -> float:
        """Share of frames whose text is complete within `deadline` seconds."""
        return float((self.delay <= deadline).mean())


def summarise_streams(run: StreamRun, deadline: float) -> dict[str, float]:
    """Figures of a run: seconds, shares and rates."""
    delay = run.delay
    return {
        "makespan": run.makespan,
        "delay_mean": float(delay.mean()),
        "delay_p50": float(np.quantile(delay, 0.5)),
        "delay_p99": float(np.quantile(delay, 0.99)),
        "on_time": run.on_time(deadline),
        "frames_per_second": len(delay) / run.makespan,
        "text_tokens_per_second": float(run.text_tokens.sum()) / run.makespan,
        "steps": float(run.steps),
        **{f"busy_{device}": seconds / run.makespan for device, seconds in run.busy.items()},
    }
