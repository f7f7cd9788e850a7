"""A simulated engine with KV on two tiers, for policies that split decode attention between device and host; step by step.

`simulate` hands over to `run_offload` when a policy requires ``host_attention``. Queues, blocks and the rules of
`rota.contracts.offload` are kept here, the steps themselves in `rota.mechanisms.simulator.split`.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from rota.contracts import columns as col
from rota.contracts.offload import ASYNC, BARRIER, DEVICE, HOST, HOST_ATTENTION, OVERLAPS, PIPELINED, OffloadPlan, OffloadPolicy
from rota.contracts.serving import ARRIVAL, DECODE, FINISH, FINISHED, PREFILL, REJECTED, WAITING, Limits, StepPlan
from rota.cost import kernel as cost_kernel
from rota.cost.engine import EngineSpec
from rota.errors import PlanRejected, UnsupportedPolicy
from rota.mechanisms.simulator import split
from rota.mechanisms.simulator import state as st
from rota.mechanisms.simulator.offload_view import SplitView
from rota.results.run import TBT_BINS
from rota.workload.trace import Trace

#: Capabilities of this engine.
OFFERED = frozenset({"chunk", "hybrid", "pause", HOST_ATTENTION})
#: Evictions without one request ending that are taken for a livelock.
MOST_EVICTIONS = 10_000
LOG_ROWS = 8192
NOBODY = np.zeros(0, np.int64)
NO_WORK = np.zeros((0, 2), np.int64)


class OffloadEngine:
    """One engine with two tiers under one policy.

    Parameters
    ----------
    trace, shared
        The requests and their shared columns (`state.request_columns`).
    policy : OffloadPolicy
        Copied.
    spec : EngineSpec
    compress : bool
        False asks the policy before every step.
    seed : int
        Of step-time noise.

    Raises
    ------
    UnsupportedPolicy
        If the policy requires what this engine cannot do.
    """

    def __init__(self, trace: Trace, shared: dict[str, np.ndarray], policy: OffloadPolicy, spec: EngineSpec, *, compress: bool, seed: int) -> None:
        extra = [what for what, wanted in (("a prefix cache", policy.prefix_caching), ("priority", policy.order != "fcfs")) if wanted]
        missing = sorted(policy.requires - OFFERED) + extra
        if missing or spec.pp > 1:
            reason = f"needs {', '.join(missing)}" if missing else f"splits attention, which pipeline_parallel_size={spec.pp} does not go with"
            raise UnsupportedPolicy(f"policy {policy.name} {reason}; the simulator of two tiers offers {', '.join(sorted(OFFERED))} on one stage")
        self.policy = copy.deepcopy(policy)
        self.limits = Limits(
            n_layers=spec.tables.n_layers, block_size=spec.block_size, blocks=spec.blocks, max_seqs=policy.max_seqs,
            max_step_tokens=policy.max_step_tokens or 1 << 40, max_len=spec.max_len, tp=spec.tp, capabilities=OFFERED,
        )  # fmt: skip
        self.policy.start(self.limits)
        self.compress = compress
        self.s = new_split_state(len(trace), shared, spec, seed)
        self.totals = np.array([spec.blocks, spec.host_blocks], np.int64)
        self.log: list[np.ndarray] = []
        self.tier = np.zeros(len(trace), np.int64)
        self.waiting: deque[int] = deque()
        self.running: dict[int, None] = {}  # in admission order, as `prefilling`
        self.prefilling: dict[int, None] = {}
        self.inbox: deque[int] = deque()
        self.releases: list[tuple[float, int]] = []
        self.delay = shared["delay"]
        self.arrived: list[int] = []
        self.finished: list[int] = []
        self.plans = self.done = self.evictions = 0
        self.stale = True
        self.view = SplitView(self, shared, spec)

    # ---- time ------------------------------------------------------------------------------------------------------------------------

    def run(self, sids: np.ndarray, progress: Callable[[int], None] | None = None) -> None:
        """Serve these requests (and those that follow them) to the end."""
        self.inbox.extend(int(sid) for sid in sids)
        num = self.s.num
        while True:
            if not self.waiting and not self.running:
                if math.isinf(self.next_arrival()):
                    break
                num[split.NOW] = max(num[split.NOW], self.next_arrival())
            self._deliver()
            plan = self.policy.plan(self.view)  # type: ignore[arg-type]
            self.plans += 1
            self.arrived.clear()
            self.finished.clear()
            if not self._apply(plan) and not (plan.step.evict or plan.step.reject or plan.move):
                self._wait(plan.step)
            if progress:
                progress(self.done)
        if (self.s.ctl[[split.FREE, split.HOST_FREE]] != self.totals).any():
            raise AssertionError(f"I9: KV blocks were never given back by {self.policy.name}")
        self._flush()

    def next_arrival(self) -> float:
        """Time of the next arrival that has not been taken in, or infinity."""
        static = float(self.s.tim[self.inbox[0], col.ARRIVED]) if self.inbox else math.inf
        return min(static, self.releases[0][0]) if self.releases else static

    def _deliver(self) -> None:
        now = self.s.num[split.NOW]
        while self.next_arrival() <= now:
            static = self.s.tim[self.inbox[0], col.ARRIVED] if self.inbox else math.inf
            first = not self.releases or static <= self.releases[0][0]
            sid = self.inbox.popleft() if first else heapq.heappop(self.releases)[1]
            self.s.seq[sid, col.PHASE] = WAITING
            self.waiting.append(sid)
            self.arrived.append(sid)

    def _wait(self, step: StepPlan) -> None:
        """An empty plan: nothing happens until the next arrival or the time that the policy named."""
        until = min(self.next_arrival(), step.wake_at)
        if math.isinf(until):
            self._reject("I8", f"an empty plan although {len(self.waiting)} requests wait, {len(self.running)} run, and nothing else will happen")
        self.s.num[split.NOW] = max(self.s.num[split.NOW], until)

    def _flush(self) -> None:
        self.log.append(self.s.log[: self.s.ctl[split.ROWS]].copy())
        self.s.ctl[split.ROWS] = 0

    # ---- plans -----------------------------------------------------------------------------------------------------------------------

    def _apply(self, plan: OffloadPlan) -> bool:
        """Check the plan and carry it out for as long as it holds. False if there was nothing to compute."""
        step = plan.step
        if plan.overlap not in OVERLAPS:
            self._reject("O3", f"overlap {plan.overlap!r} is none of {', '.join(OVERLAPS)}")
        if step.padded or step.pin or step.unpin:
            self._reject("I1", "padding and pins are not offered here")
        for sid in step.evict:
            self._evict(sid)
        for sid in step.reject:
            self._phase(sid, WAITING, "I7")
            self.waiting.remove(sid)
            self.s.seq[sid, col.PHASE] = REJECTED
            self._end(sid)
        for sid, tier in plan.move:
            self._move(sid, tier, step.evict)
        self._check_batches(plan)
        dev, first, second = self._decodes(plan)
        work = self._admit(plan, dev)
        hosts = len(first) + len(second)
        if not len(work) and not len(dev) and not hosts:
            return False
        self._check_room(dev, first, second, plan.overlap)
        left = max(1, step.repeat) if self.compress and not len(work) and not step.pause else 1
        while left > 0:
            left = self._steps(plan, left, dev, first, second, work)
            if left > 0:
                dev, first, second = self._decodes(plan)
                if not len(dev) and not len(first) + len(second):
                    break
                if not self._holds(step, dev, first, second, plan.overlap):
                    break
        return True

    def _steps(self, plan: OffloadPlan, left: int, dev: np.ndarray, first: np.ndarray, second: np.ndarray, work: np.ndarray) -> int:
        """Run the plan until something happens; returns for how many more steps it holds."""
        s, step = self.s, plan.step
        s.num[split.ARRIVAL_AT] = self.next_arrival() if step.wake & ARRIVAL else math.inf
        s.num[split.WAKE_AT] = step.wake_at
        s.ctl[split.LEFT], s.ctl[split.HEADROOM] = left, step.headroom
        split.run_steps(s, OVERLAPS.index(plan.overlap), dev, first, second, work, self.totals)
        now = s.num[split.NOW]
        self._compute(work, now)
        ended = s.ended[: s.ctl[split.ENDED]].tolist()
        for sid in ended:
            s.seq[sid, col.PHASE] = FINISHED
            del self.running[sid]
            self.finished.append(sid)
            self._end(sid)
        if ended:
            self.stale = True
        if s.ctl[split.ROWS] > LOG_ROWS // 2:
            self._flush()
        if (ended and step.wake & FINISH) or (step.wake & ARRIVAL and self.next_arrival() <= now) or now >= step.wake_at:
            return 0
        return int(s.ctl[split.LEFT])

    def _compute(self, work: np.ndarray, now: float) -> None:
        """The step's prompt tokens are computed; completed prompts emit a token and begin to decode."""
        s = self.s
        for sid, tokens in work.tolist():
            s.seq[sid, col.COMPUTED] += tokens
            if s.seq[sid, col.COMPUTED] == s.seq[sid, col.KNOWN]:
                del self.prefilling[sid]
                s.seq[sid, col.PHASE] = DECODE
                split.token(s, sid, now, split.HOST_FREE if self.tier[sid] else split.FREE)
            self.stale = True

    def _holds(self, step: StepPlan, dev: np.ndarray, first: np.ndarray, second: np.ndarray, overlap: str) -> bool:
        """Whether there are blocks for one more step of the plan."""
        short = split.needed(self.s, dev, False)
        free, host = self.s.ctl[split.FREE], self.s.ctl[split.HOST_FREE]
        if len(dev) and free - short < max(0, step.headroom):
            return False
        return bool(split.needed(self.s, first, overlap == ASYNC) + split.needed(self.s, second, False) <= host)

    def _check_room(self, dev: np.ndarray, first: np.ndarray, second: np.ndarray, overlap: str) -> None:
        if split.needed(self.s, dev, False) > self.s.ctl[split.FREE]:
            self._reject("I4", "not enough free KV blocks for the device's decodes")
        if split.needed(self.s, first, overlap == ASYNC) + split.needed(self.s, second, False) > self.s.ctl[split.HOST_FREE]:
            self._reject("I4", "not enough free KV blocks in host memory for the host's decodes")

    def _decodes(self, plan: OffloadPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Device decodes, and host decodes of the first and second sub-batch (all in the first if there are none)."""
        device, hosted = self.members()
        dev = device if plan.step.decode else NOBODY
        for sid in plan.step.pause:
            if sid not in device or not plan.step.decode:
                self._reject("I6", f"sequence {sid} cannot be paused: it is no device decode of this step")
        if plan.step.pause:
            dev = dev[~np.isin(dev, plan.step.pause)]
        if plan.overlap != PIPELINED:
            first = hosted if plan.overlap in (ASYNC, BARRIER) else NOBODY
            if plan.overlap == BARRIER:
                self._restart(first)
            return dev, first, NOBODY
        first, second = (np.array([sid for sid in batch if sid in self.running], np.int64) for batch in plan.batches)
        self._restart(first)
        self._restart(second)
        return dev, first, second

    def _check_batches(self, plan: OffloadPlan) -> None:
        listed = [sid for batch in plan.batches for sid in batch]
        if listed and plan.overlap != PIPELINED:
            self._reject("O3", f"sub-batches in a step that is {plan.overlap}")
        if len(set(listed)) != len(listed) or any(sid not in self.running or sid in self.prefilling or self.tier[sid] != HOST for sid in listed):
            self._reject("O3", "sub-batches list a sequence twice, or one that is no host decode")

    def _restart(self, sids: np.ndarray) -> None:
        """Open tokens of these host sequences begin again."""
        self.s.cursor[sids] = 0
        self.s.ready[sids] = 0.0
        self.s.seq[sids, col.FLIGHT] = 0

    def _admit(self, plan: OffloadPlan, dev: np.ndarray) -> np.ndarray:
        """Check the plan's prompt work and take its blocks."""
        s, seen, tokens = self.s, set(plan.step.evict), len(dev)
        work = plan.step.work
        if set(plan.to_host) - {item.sid for item in work}:
            self._reject("O2", "to_host names a sequence without work in this plan")
        copied = 0
        for sid, n, reserve_to, layers in work:
            phase = s.seq[sid, col.PHASE] if 0 <= sid < len(s.seq) else -1
            if sid in seen or phase not in (WAITING, PREFILL):
                self._reject("I7" if sid in plan.step.evict else "I6" if phase == DECODE else "I1", f"sequence {sid} cannot be given prompt work")
            seen.add(sid)
            left = s.seq[sid, col.KNOWN] - (s.seq[sid, col.COMPUTED] if phase == PREFILL else 0)
            if not 1 <= n <= left or layers is not None:
                self._reject("I2", f"sequence {sid} was given {n} tokens, with {left} left")
            if phase == WAITING:
                self._seat(sid)
            if sid in plan.to_host:
                if phase != WAITING or n != left:
                    self._reject("O2", f"only whole prompts leave their KV in host memory, and sequence {sid} has {left} tokens left")
                self.tier[sid] = HOST
                copied += n
            self._take(sid, -(-max(reserve_to, int(s.seq[sid, col.COMPUTED]) + n) // int(s.ctl[split.SIZE])))
            tokens += n
        if tokens > self.limits.max_step_tokens:
            self._reject("I3", f"{tokens} tokens in a step of at most {self.limits.max_step_tokens}")
        self._copy(copied)
        return np.array([(item.sid, item.n_tokens) for item in work], np.int64).reshape(-1, 2) if work else NO_WORK

    def _seat(self, sid: int) -> None:
        if len(self.running) >= self.limits.max_seqs:
            self._reject("I3", f"sequence {sid} is one more than {self.limits.max_seqs} held")
        self.waiting.remove(sid)
        self.running[sid] = self.prefilling[sid] = None
        self.stale = True
        self.tier[sid] = DEVICE
        s = self.s
        s.seq[sid, col.PHASE] = PREFILL
        s.seq[sid, col.COMPUTED] = s.seq[sid, col.BLOCKS] = 0
        if math.isnan(s.tim[sid, col.FIRST_SCHEDULED]):
            s.tim[sid, col.FIRST_SCHEDULED] = s.num[split.NOW]

    def _take(self, sid: int, blocks: int) -> None:
        """Give the sequence so many blocks on its tier."""
        s, pool = self.s, split.HOST_FREE if self.tier[sid] else split.FREE
        more = blocks - int(s.seq[sid, col.BLOCKS])
        if more > s.ctl[pool]:
            where = "in host memory" if self.tier[sid] else "on the device"
            self._reject("I4", f"sequence {sid} needs {more} KV blocks {where}, {s.ctl[pool]} are free")
        if more > 0:
            s.seq[sid, col.BLOCKS] += more
            s.ctl[pool] -= more

    def _copy(self, tokens: int) -> None:
        self.s.num[split.COPY] += tokens * self.limits.n_layers * self.view.spec.tables.host.kv_s

    def _evict(self, sid: int) -> None:
        s = self.s
        if sid not in self.running:
            self._reject("I7", f"sequence {sid} is not running, so it cannot be evicted")
        del self.running[sid]
        self.prefilling.pop(sid, None)
        self.stale = True
        s.own[sid, st.RECOMPUTED] += s.seq[sid, col.COMPUTED]
        s.ctl[split.HOST_FREE if self.tier[sid] else split.FREE] += s.seq[sid, col.BLOCKS]
        s.seq[sid, [col.BLOCKS, col.COMPUTED]] = 0
        s.seq[sid, col.PREEMPTIONS] += 1
        s.seq[sid, col.PHASE] = WAITING
        self._restart(np.array([sid]))
        self.tier[sid] = DEVICE
        self.waiting.appendleft(sid)
        self.evictions += 1
        if self.evictions > MOST_EVICTIONS:
            self._reject("I8", f"{self.evictions:,} evictions without one request ending: sequences take memory from each other in turns")

    def _move(self, sid: int, tier: int, evicted: tuple[int, ...]) -> None:
        s = self.s
        if tier not in (DEVICE, HOST) or sid in evicted or sid not in self.running or sid in self.prefilling or self.tier[sid] == tier:
            self._reject("O1", f"sequence {sid} cannot be moved to tier {tier}")
        blocks = int(s.seq[sid, col.BLOCKS])
        s.ctl[split.HOST_FREE if self.tier[sid] else split.FREE] += blocks
        s.seq[sid, col.BLOCKS] = 0
        self._restart(np.array([sid]))
        self.tier[sid] = tier
        self.stale = True
        self._take(sid, blocks)
        self._copy(int(s.seq[sid, col.COMPUTED]))
        s.ready[sid] = s.num[split.NOW] + s.num[split.COPY]

    def _end(self, sid: int) -> None:
        """The request is over: release those that wait for it."""
        self.done += 1
        self.evictions = 0
        if not self.delay.size:
            return
        child = int(self.s.own[sid, st.CHILD])
        while child >= 0:
            self.s.tim[child, col.ARRIVED] = self.s.num[split.NOW] + self.delay[child]
            heapq.heappush(self.releases, (float(self.s.tim[child, col.ARRIVED]), child))
            child = int(self.s.own[child, st.SIBLING])

    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Decoding sequences by tier, in admission order."""
        if self.stale:
            sids = np.fromiter((sid for sid in self.running if sid not in self.prefilling), np.int64)
            self._members = sids[self.tier[sids] == DEVICE], sids[self.tier[sids] == HOST]
            self.stale = False
        return self._members

    def _phase(self, sid: int, phase: int, rule: str) -> None:
        if not 0 <= sid < len(self.s.seq) or self.s.seq[sid, col.PHASE] != phase:
            self._reject(rule, f"sequence {sid} cannot be evicted, rejected or scheduled in its present phase")

    def _reject(self, rule: str, what: str) -> NoReturn:
        raise PlanRejected(rule, f"{what} (policy {self.policy.name}, t={self.s.num[split.NOW]:.6g} s)")


def new_split_state(n: int, shared: dict[str, np.ndarray], spec: EngineSpec, seed: int) -> split.SplitState:
    """An idle engine of `n` requests."""
    t, h = spec.tables, spec.tables.host
    ctl = np.zeros(16, np.int64)
    ctl[[split.FREE, split.HOST_FREE, split.SIZE]] = spec.blocks, spec.host_blocks, spec.block_size
    return split.SplitState(
        seq=shared["seq"], own=shared["own"], tim=shared["tim"], cursor=np.zeros(n, np.int64), ready=np.zeros(n), num=np.zeros(8), ctl=ctl,
        host=np.array([h.floor, h.context_s, h.latency, h.send_s, h.back_s]), cp=cost_kernel.pack(t, seed), layer=t.layer, head=t.head,
        expert=t.expert_bytes, decode_table=t.decode_table, prefill_table=t.prefill_table, prefill_long=t.prefill_long,
        acc=np.zeros(st.ACC + 3), hist=np.zeros(TBT_BINS, np.int64), log=np.zeros((LOG_ROWS, 8)), ended=np.zeros(n + 1, np.int64),
    )  # fmt: skip
