"""What the disciplines share: text first, then frames, oldest first, under a token budget, one frame of a session at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rota.contracts.serving import Limits
from rota.contracts.streams import Perceive, Positions, SessionView, StreamPlan, StreamView
from rota.policies.batching.policy import step_tokens, whole


class StreamBatching:
    """Options of a discipline.

    Parameters
    ----------
    max_num_seqs : int
        Most sessions held at once.
    max_num_batched_tokens : int
        Most tokens of a step: a text token of every session that may write one, and frame tokens with what is left.
    """

    name: str
    title: ClassVar[str]
    positions: Positions

    def __init__(self, *, max_num_seqs: int = 256, max_num_batched_tokens: int = 2048) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self.max_step_tokens = step_tokens(max_num_batched_tokens, self.max_seqs)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        self.limits = limits


def compose(policy: StreamBatching, view: StreamView, may_perceive: Callable[[SessionView], bool]) -> StreamPlan:
    """The step of the device that asks; `may_perceive` says whether a session's next frame may be computed now."""
    left = policy.max_step_tokens
    generate: tuple[int, ...] = ()
    if view.generates:
        generate = tuple(s.sid for s in view.sessions if not s.generating and s.answered < s.readable)
        left -= len(generate)
    if not view.perceives:
        return StreamPlan(generate=generate)
    admitted = _admissions(policy, view)
    ready = [s for s in (*view.sessions, *admitted) if not s.perceiving and s.to_boundary > 0 and may_perceive(s)]
    perceive = []
    for session in sorted(ready, key=lambda s: (s.frame_arrival, s.sid)):
        n = min(session.to_boundary, left)
        if n < 1:
            break
        perceive.append(Perceive(session.sid, n))
        left -= n
    return StreamPlan(tuple(perceive), generate, tuple(s.sid for s in admitted))


def _admissions(policy: StreamBatching, view: StreamView) -> list[SessionView]:
    """First come first served, while there are seats and blocks for all that a session has declared."""
    admitted: list[SessionView] = []
    seats, free, size = policy.max_seqs - len(view.sessions), view.free_blocks, view.limits.block_size
    for session in view.waiting:
        free -= -(-session.max_tokens // size)
        if free < 0 or len(admitted) == seats:
            break
        admitted.append(session)
    return admitted
