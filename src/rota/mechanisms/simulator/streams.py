"""Streaming sessions, step by step: both lanes on one device, in hybrid batches, or each lane on a device of its own.

Every plan is checked against the rules of `rota.contracts.streams`, and every step priced from `StepTables`. With two devices a complete
frame's KV travels to the generation device before text may read it. The vision encoder is not priced, only a frame's tokens are.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np

from rota.contracts.serving import Limits
from rota.contracts.streams import StreamPlan, StreamPolicy
from rota.cost.engine import EngineSpec
from rota.cost.model import CostModel
from rota.errors import DoesNotFit, InputError, PlanRejected
from rota.mechanisms.simulator.sessions import Session
from rota.results.streams import StreamRun
from rota.workload.streams import Streams


class Device:
    """One device: which lanes it runs, and the step that it is in."""

    def __init__(self, name: str, perceives: bool, generates: bool) -> None:
        self.name, self.perceives, self.generates = name, perceives, generates
        self.plan: StreamPlan | None = None
        self.began, self.until, self.busy = 0.0, math.inf, 0.0


class View:
    """The `StreamView` of the device that asks."""

    def __init__(self, engine: _Engine, device: Device) -> None:
        self._engine = engine
        self.perceives, self.generates = device.perceives, device.generates

    @property
    def now(self) -> float:
        return self._engine.now

    @property
    def limits(self) -> Limits:
        return self._engine.limits

    @property
    def free_blocks(self) -> int:
        return self._engine.free

    @property
    def sessions(self) -> list[Session]:
        return list(self._engine.held.values())

    @property
    def waiting(self) -> Iterator[Session]:
        return iter(list(self._engine.waiting.values()))


def simulate_streams(
    streams: Streams, policy: StreamPolicy, engine: EngineSpec, *, devices: int = 1, transfer: float = 0.0, log: bool = False
) -> StreamRun:
    """Run sessions under a policy.

    Parameters
    ----------
    streams : Streams
    policy : StreamPolicy
    engine : EngineSpec
        Of one device.
    devices : int
        1: both lanes on one; 2: perception on the first, generation on the second. Each holds the KV of all sessions.
    transfer : float
        With two devices, seconds per token to pass a complete frame's KV on, which delays but takes no device time.
    log : bool
        Keep every step.

    Raises
    ------
    InputError
        A session longer than the model, or senseless options.
    DoesNotFit
        Not even one session's KV fits.
    PlanRejected
        The policy breaks a rule.
    """
    if devices not in (1, 2) or not 0 <= transfer < math.inf:
        raise InputError(f"devices must be 1 or 2, and transfer a time in seconds, not {devices} and {transfer}")
    longest = int(streams.max_tokens.max())
    if longest > engine.max_len:
        raise InputError(f"{streams.name}: a session declares {longest} tokens, more than the model's {engine.max_len}; give fewer or smaller frames")
    if -(-longest // engine.block_size) > engine.blocks:
        raise DoesNotFit(f"{engine.label}: one session's {longest} tokens do not fit {engine.blocks} KV blocks of {engine.block_size}; "
                         "give fewer or smaller frames, or a larger device")  # fmt: skip
    return _Engine(streams, policy, engine, devices, transfer, log).run()


class _Engine:
    def __init__(self, streams: Streams, policy: StreamPolicy, spec: EngineSpec, devices: int, transfer: float, log: bool) -> None:
        self.streams, self.policy, self.spec, self.transfer, self.log = streams, policy, spec, transfer, log
        self.cost = CostModel(spec.tables)
        self.limits = Limits(spec.tables.n_layers, spec.block_size, spec.blocks, policy.max_seqs, policy.max_step_tokens, spec.max_len)
        self.free = spec.blocks
        self.now = float(streams.arrival[0])
        self.waiting: dict[int, Session] = {}
        self.held: dict[int, Session] = {}
        self.known: dict[int, Session] = {}
        self.over = 0
        both = [Device("both", True, True)]
        self.devices = both if devices == 1 else [Device("perception", True, False), Device("generation", False, True)]
        self.owner = np.repeat(np.arange(len(streams)), np.diff(streams.frame_start))
        order = np.argsort(streams.frame_at, kind="stable")
        self.frames = list(zip(streams.frame_at[order].tolist(), self.owner[order].tolist(), strict=True))[::-1]
        self.arrivals = list(enumerate(streams.arrival.tolist()))[::-1]
        self.passing: deque[tuple[float, int, int]] = deque()  # (when, session, frames readable then): the link, first in first out
        self.link_free = 0.0
        self.perceived, self.first_text, self.answered = (np.full(len(streams.frame_at), np.nan) for _ in range(3))
        self.steps: list[tuple[str, float, float, tuple[tuple[int, int], ...], tuple[int, ...]]] = []
        self.n_steps = 0

    def run(self) -> StreamRun:
        self.policy.start(self.limits)
        while True:
            self._arrive()
            for device in self.devices:
                if device.plan is None:
                    self._ask(device)
            if self.over == len(self.streams):
                break
            self.now = self._next()
            for device in self.devices:
                if device.until <= self.now:
                    self._finish(device)
            while self.passing and self.passing[0][0] <= self.now:
                _, sid, frames = self.passing.popleft()
                self.known[sid]._readable = frames
        if self.free != self.spec.blocks:
            raise AssertionError(f"S9: {self.spec.blocks - self.free} KV blocks were never given back")
        s = self.streams
        return StreamRun(
            policy=self.policy.name, deployment=self.spec.label, session=self.owner, arrived=s.frame_at, perceived=self.perceived,
            first_text=self.first_text, answered=self.answered, frame_tokens=s.frame_tokens, text_tokens=s.text_tokens,
            start=float(s.arrival[0]), end=float(self.answered.max()), busy={d.name: d.busy for d in self.devices}, steps=self.n_steps,
            log=self.steps,
        )  # fmt: skip

    def _next(self) -> float:
        events = [device.until for device in self.devices]
        events += [self.passing[0][0]] if self.passing else []
        events += [self.frames[-1][0]] if self.frames else []
        events += [self.arrivals[-1][1]] if self.arrivals else []
        when = min(events)
        if when == math.inf:
            left = len(self.streams) - self.over
            raise PlanRejected("S8", f"policy {self.policy.name} has nothing in flight and nothing will arrive, but {left} sessions are not over")
        return when

    def _arrive(self) -> None:
        while self.arrivals and self.arrivals[-1][1] <= self.now:
            sid, _ = self.arrivals.pop()
            self.waiting[sid] = self.known[sid] = Session(self.streams, sid)
        while self.frames and self.frames[-1][0] <= self.now:
            self.known[self.frames.pop()[1]]._arrived += 1

    def _ask(self, device: Device) -> None:
        plan = self.policy.plan(View(self, device))
        self._admit(plan, device)
        self._check(plan, device)
        if not plan.perceive and not plan.generate:
            return
        coupled = self.policy.positions.coupled
        chunks, context = [], 0
        for sid, n in plan.perceive:
            session = self.held[sid]
            session._perceiving = n
            chunks.append((session._perceived + (session._text if coupled else 0), n))
        for sid in plan.generate:
            self.held[sid]._generating = True
            context += self.held[sid]._context()
        seconds = self.cost.step_seconds(len(plan.generate), context, chunks)
        device.plan, device.began, device.until = plan, self.now, self.now + seconds
        device.busy += seconds
        self.n_steps += 1
        if self.log:
            self.steps.append((device.name, self.now, device.until, tuple((sid, n) for sid, n in plan.perceive), plan.generate))

    def _admit(self, plan: StreamPlan, device: Device) -> None:
        if plan.admit and not device.perceives:
            raise PlanRejected("S7", "the generation device cannot admit sessions")
        for sid in plan.admit:
            session = self.waiting.pop(sid, None)
            if session is None:
                raise PlanRejected("S6", f"session {sid} is not waiting")
            self.free -= -(-session.max_tokens // self.spec.block_size)
            if self.free < 0:
                raise PlanRejected("S6", f"there are not enough free KV blocks for session {sid}")
            self.held[sid] = session
        if len(self.held) > self.limits.max_seqs:
            raise PlanRejected("S5", f"{len(self.held)} sessions held, more than {self.limits.max_seqs}")

    def _check(self, plan: StreamPlan, device: Device) -> None:
        if (plan.perceive and not device.perceives) or (plan.generate and not device.generates):
            raise PlanRejected("S7", f"the {device.name} device was given work of the other lane")
        watched, spoken = [item.sid for item in plan.perceive], list(plan.generate)
        for sids, lane in ((watched, "perceiving"), (spoken, "generating")):
            repeated = len(set(sids)) < len(sids)
            for at, sid in enumerate(sids):
                if sid not in self.held or getattr(self.held[sid], lane) or (repeated and sid in sids[:at]):
                    raise PlanRejected("S1", f"session {sid} is not held, listed twice, or inside a running step")
        if sum(item.n_tokens for item in plan.perceive) + len(spoken) > self.limits.max_step_tokens:
            raise PlanRejected("S5", f"more than {self.limits.max_step_tokens} tokens in the step")
        for sid, n in plan.perceive:
            session = self.held[sid]
            if not 1 <= n <= session.n_arrived - session.n_perceived:
                raise PlanRejected("S2", f"session {sid} was given {n} frame tokens, but has {session.n_arrived - session.n_perceived} left")
            if self.policy.positions.coupled and (sid in spoken or session.answered < session.complete or n > session.to_boundary):
                raise PlanRejected("S4", f"session {sid}: with coupled positions a frame has to wait for the text before it")
        for sid in spoken:
            session = self.held[sid]
            if session.answered >= session.readable:
                raise PlanRejected("S3", f"session {sid}: text of frame {session.answered} would read an incomplete frame")

    def _finish(self, device: Device) -> None:
        plan, device.plan, device.until = device.plan, None, math.inf
        assert plan is not None
        for sid, _ in plan.perceive:
            session = self.held[sid]
            before = session.complete
            for frame in range(before, before + session._perceive()):
                self.perceived[session._low + frame] = self.now
                self._pass_on(session, frame)
        for sid in plan.generate:
            session = self.held[sid]
            frame, first, last = session._write()
            if first:
                self.first_text[session._low + frame] = self.now
            if last:
                self.answered[session._low + frame] = self.now
            if session._over:
                del self.held[sid]
                self.free += -(-session.max_tokens // self.spec.block_size)
                self.over += 1

    def _pass_on(self, session: Session, frame: int) -> None:
        if len(self.devices) == 1 or not self.transfer:
            session._readable = frame + 1
            return
        tokens = session._ends[frame] - (session._ends[frame - 1] if frame else 0)
        self.link_free = max(self.link_free, self.now) + self.transfer * tokens
        self.passing.append((self.link_free, session.sid, frame + 1))
