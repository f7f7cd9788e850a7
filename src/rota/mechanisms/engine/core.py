"""Sequences, blocks and plans of one engine, without time and without a model.

`EngineCore` shows its policy a view, checks each plan against the rules of `rota.contracts.serving` and carries it out up to the point where
tokens have to be computed: `begin` says what is to be computed, `complete` takes the tokens that came of it. Whoever drives it (the
engine, a replayed log) knows the time and where tokens come from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

from rota.contracts.serving import ARRIVAL, DECODE, FINISH, FINISHED, PREFILL, REJECTED, BatchPolicy, Limits, StepPlan
from rota.errors import PlanRejected, UnsupportedPolicy
from rota.mechanisms.engine.blocks import BlockPool, Copy
from rota.mechanisms.engine.plans import apply_plan
from rota.mechanisms.engine.sequences import ArrivalQueue, PriorityQueue, Seq
from rota.mechanisms.engine.view import View

#: What this engine can be asked for (`rota.contracts.serving.CAPABILITIES`).
CAPABILITIES = frozenset({"chunk", "hybrid", "layers", "prefix_cache", "priority", "padded", "pause", "pin", "swap"})
#: Programs whose turns are counted; the longest silent one is forgotten beyond that.
MOST_PROGRAMS = 1 << 16


class Row(NamedTuple):
    """What one sequence computes in a step: `n_tokens` from position `start` on, in `layers`.

    `emits`: all its known tokens have passed the last layer with this step, so that the next one is chosen.
    """

    seq: Seq
    start: int
    n_tokens: int
    layers: tuple[int, int]
    emits: bool
    decode: bool


class EngineCore:
    """The part of an engine that decides nothing and computes nothing, but keeps everything in order.

    Parameters
    ----------
    policy : BatchPolicy
        Copied.
    n_layers, blocks, block_size, max_len : int
    prefill_fit : tuple of float
        `Limits.prefill`, for policies that pin.
    compress : bool
        False asks the policy before every step, whatever its plans say about repetition.
    host_blocks : int
        Blocks of host memory, for a policy that swaps.

    Attributes
    ----------
    copies_out, copies_in : list of Copy
        What has to be copied to the host and, after that, back, before the next step computes.

    Raises
    ------
    UnsupportedPolicy
        If the policy requires what no such engine can do.
    """

    def __init__(
        self, policy: BatchPolicy, *, n_layers: int, blocks: int, block_size: int, max_len: int,
        prefill_fit: tuple[float, float, float] = (0.0, 0.0, 0.0), compress: bool = True,
        host_blocks: int = 0,
    ) -> None:  # fmt: skip
        missing = sorted(policy.requires - CAPABILITIES)
        if missing:
            raise UnsupportedPolicy(f"policy {policy.name} needs {', '.join(missing)}, which this engine cannot do; choose another policy")
        if "pin" in policy.requires and not policy.prefix_caching:
            raise UnsupportedPolicy(f"policy {policy.name} needs pin without a prefix cache; turn prefix caching on")
        self.policy = copy.deepcopy(policy)
        self.limits = Limits(
            n_layers=n_layers, block_size=block_size, blocks=blocks, max_seqs=policy.max_seqs,
            max_step_tokens=policy.max_step_tokens or 1 << 40, max_len=max_len, capabilities=CAPABILITIES, prefill=prefill_fit,
        )  # fmt: skip
        self.pool = BlockPool(blocks, block_size, policy.max_seqs, max_len // block_size + 2, policy.prefix_caching, host_blocks)
        self.copies_out: list[Copy] = []
        self.copies_in: list[Copy] = []
        self.waiting: ArrivalQueue | PriorityQueue = PriorityQueue() if policy.order == "priority" else ArrivalQueue()
        self.seqs: dict[int, Seq] = {}
        self.held: dict[int, Seq] = {}  # in order of admission, finished ones of a padded batch included
        self.prefills: dict[int, Seq] = {}
        self.decodes: dict[int, Seq] = {}  # the standing set
        self.paused: list[Seq] = []
        self.ghosts: list[Seq] = []
        self.leaving: list[Seq] = []  # cancelled, but not ended yet
        self.pins: dict[int, list[int]] = {}
        self.arrived: list[Seq] = []
        self.finished: list[Seq] = []
        self.rejected: list[Seq] = []  # since the driver last looked
        self._programs: dict[int, tuple[int, float]] = {}  # turns so far and first arrival, the longest silent one first
        self.now = 0.0
        self.plan = StepPlan()
        self.left = 0  # steps for which the plan may yet hold
        self.waits = False  # the last plan was empty: ask again when something happens
        self.admissions = 0
        self._compress = compress
        self._completed = False  # the last step completed a prompt
        self._ended = False  # or ended a request
        self.view = View(self)
        self.policy.start(self.limits)

    # -- what happens to the engine

    def arrive(self, seq: Seq) -> None:
        """A request joins the queue, as the next turn of its program if it has one."""
        seq.lookup = self.pool.reusable
        self.seqs[seq.sid] = seq
        if seq.program >= 0:
            seq.turn, seq.program_arrival = self._programs.pop(seq.program, (0, seq.arrival))
            self._programs[seq.program] = seq.turn + 1, seq.program_arrival
            if len(self._programs) > MOST_PROGRAMS:
                del self._programs[next(iter(self._programs))]
        self.waiting.add(seq, evicted=False)
        if self.policy.follows:
            self.arrived.append(seq)

    def cancel(self, seq: Seq, now: float) -> bool:
        """A client has hung up: the sequence ends and gives its blocks back. Whether it did so at once; if not, see `ended_late`.

        Policies know nothing of clients. One that keeps books on the queue (`follows`) would go on counting a sequence that vanished from
        it, so that one ends when it is scheduled, without being computed. And a chunk that is between two layer ranges is let through.
        """
        self.left = 0
        self.waits = False
        if (seq.sid in self.held and seq.layer_cursor) or (seq.sid not in self.held and self.policy.follows):
            seq.leaving = True
            self.leaving.append(seq)
            return False
        self._remove(seq, now)
        return True

    def ended_late(self, now: float) -> list[Seq]:
        """Cancelled sequences that could not end at once and now have."""
        ended = [seq for seq in self.leaving if self._may_end(seq)]
        for seq in ended:
            self.leaving.remove(seq)
            if seq.sid in self.seqs and seq.phase != FINISHED:
                self._remove(seq, now)
        return ended

    def _may_end(self, seq: Seq) -> bool:
        if seq.sid in self.held:
            return not seq.layer_cursor
        return seq.phase in (FINISHED, REJECTED) or not self.policy.follows

    def _remove(self, seq: Seq, now: float) -> None:
        if seq.sid in self.held:
            self.drop(seq)
            self.end(seq, now)
            self.give_back([seq])
        else:
            self.waiting.remove(seq)
            self.pool.forget_kept(seq)
            seq.phase, seq.finished_at = FINISHED, now
            del self.seqs[seq.sid]

    def decide(self, now: float) -> StepPlan:
        """Ask the policy and apply its plan. Afterwards `left` counts the steps it holds for, none if it is empty."""
        self.now = now
        if self.ghosts and not self.decodes and not self.prefills:
            self.release_ghosts()
        plan = self.policy.plan(self.view)
        self.plan = plan
        apply_plan(self, plan)
        self.arrived.clear()
        for seq in self.finished:  # only now: the plan may pin them
            del self.seqs[seq.sid]
        self.finished.clear()
        if plan.work or (plan.decode and self.decodes):
            self.left = max(1, plan.repeat) if self._compress else 1
            self.waits = False
        else:
            self.rejoin_paused()
            self.left = 0
            self.waits = not (plan.evict or plan.reject or plan.pin or plan.unpin)
        return plan

    def still_holds(self, now: float, next_arrival: float) -> bool:
        """Whether the plan may run again as it is."""
        plan = self.plan
        if self.left <= 0 or self._completed or plan.pause or (self._ended and plan.wake & FINISH):
            return False
        if (plan.wake & ARRIVAL and next_arrival <= now) or plan.wake_at <= now:
            return False
        need = self.decode_need() if plan.decode else 0
        if plan.decode and ((not self.decodes and not plan.work) or self.pool.free - need < plan.headroom):
            return False
        for sid, n_tokens, reserve_to, layers in plan.work:
            seq = self.seqs.get(sid)
            if layers is not None or seq is None or seq.n_known - seq.n_computed < n_tokens:
                return False
            need += max(0, self.pool.count(max(reserve_to, seq.n_computed + n_tokens)) - seq.n_blocks)
        return self.pool.free >= need

    # -- one step

    def begin(self) -> list[Row]:
        """Take the blocks of the step that the plan describes. Decodes come first among its rows."""
        plan, pool = self.plan, self.pool
        for sid, n_tokens, reserve_to, _ in plan.work:
            seq = self.seqs[sid]
            blocks = pool.count(max(reserve_to, seq.n_computed + n_tokens))
            if blocks - seq.n_blocks > pool.free:
                self.refuse(4, "there are not enough free KV blocks", sid)
            pool.grow(seq, blocks)
            if seq.kept:
                self.copies_in.append(pool.swap_in(seq))
        depth = self.limits.n_layers
        rows = []
        if plan.decode:
            if self.decode_need() > pool.free:
                self.refuse(4, "there are not enough free KV blocks for the standing decode set")
            size = pool.size
            for seq in self.decodes.values():
                if seq.n_computed == seq.n_blocks * size:
                    pool.grow(seq, seq.n_blocks + 1)
                rows.append(Row(seq, seq.n_computed, 1, (0, depth), True, True))
        for sid, n_tokens, _, layers in plan.work:
            seq = self.seqs[sid]
            if seq.leaving and layers is None:
                continue
            lo, hi = layers or (0, depth)
            emits = hi == depth and seq.n_computed + n_tokens == seq.n_known
            rows.append(Row(seq, seq.n_computed, n_tokens, (lo, hi), emits, False))
        return rows

    def complete(self, rows: Sequence[Row], tokens: Sequence[int], ends: Sequence[bool], now: float) -> None:
        """The step is done: `tokens` are what its emitting rows chose, and `ends` whether that was their last."""
        self.now = now
        self.left -= 1
        self._completed = self._ended = False
        ending: list[Seq] = []
        at = 0
        for ghost in self.ghosts if self.plan.decode else ():
            ghost.n_known += 1
        for seq, _, n_tokens, layers, emits, decode in rows:
            if not decode and not self._advance(seq, n_tokens, layers):
                continue
            if decode:
                seq.n_computed += 1
            self.pool.commit(seq)
            if not emits:
                continue
            if not decode:
                self._completed = True
                del self.prefills[seq.sid]
                self.decodes[seq.sid] = seq
                seq.phase = DECODE
                if math.isnan(seq.first_token):
                    seq.first_token = now
            seq.tokens.append(tokens[at])
            seq.n_known += 1
            if ends[at]:
                self.drop(seq)
                self.end(seq, now)
                if self.plan.padded:
                    self.ghosts.append(seq)
                    self.held[seq.sid] = seq
                else:
                    ending.append(seq)
            at += 1
        self.rejoin_paused()
        self.give_back(ending)

    def _advance(self, seq: Seq, n_tokens: int, layers: tuple[int, int]) -> bool:
        """Whether a chunk has passed its last layer."""
        if layers[1] < self.limits.n_layers:
            seq.layer_cursor, seq.chunk = layers[1], n_tokens
            return False
        seq.layer_cursor = seq.chunk = 0
        seq.n_computed += n_tokens
        return True

    # -- how sequences come and go

    def admit(self, seq: Seq) -> None:
        """From the queue into prefill, with what the prefix cache has of it."""
        self.waiting.remove(seq)
        self.held[seq.sid] = self.prefills[seq.sid] = seq
        seq.phase = PREFILL
        seq.admitted = self.admissions
        self.admissions += 1
        self.pool.admit(seq)
        if math.isnan(seq.first_scheduled):
            seq.first_scheduled = self.now

    def evict(self, seq: Seq, swap: bool) -> None:
        """Put a sequence back into the queue; its generated tokens stay known, and its KV is dropped or swapped out."""
        self.drop(seq)
        if swap:
            if self.pool.count(seq.n_computed) > self.pool.host_free:
                self.refuse(4, "there are not enough free host blocks to swap to", seq.sid)
            self.copies_out.append(self.pool.swap_out(seq))
        else:
            seq.recomputed += seq.n_computed
        self.pool.release(seq)
        seq.n_computed = seq.layer_cursor = seq.chunk = 0
        seq.preemptions += 1
        self.waiting.add(seq, evicted=True)

    def drop(self, seq: Seq) -> None:
        """Take a held sequence off the lists it is on."""
        del self.held[seq.sid]
        self.prefills.pop(seq.sid, None)
        self.decodes.pop(seq.sid, None)

    def end(self, seq: Seq, now: float) -> None:
        """A held sequence is over."""
        seq.phase, seq.finished_at = FINISHED, now
        self._ended = True
        if self.policy.follows:
            self.finished.append(seq)
        else:
            del self.seqs[seq.sid]

    def give_back(self, ended: list[Seq]) -> None:
        """Release the blocks of those that ended, in order of admission: with a prefix cache the order matters."""
        for seq in sorted(ended, key=lambda s: s.admitted):
            self.pool.release(seq)

    def release_ghosts(self) -> None:
        """The padded batch is over: its finished rows give up their seats and blocks."""
        for seq in self.ghosts:
            del self.held[seq.sid]
            self.pool.release(seq)
        self.ghosts.clear()

    def rejoin_paused(self) -> None:
        """Paused sequences are part of the standing set again."""
        for seq in self.paused:
            self.decodes[seq.sid] = seq
        self.paused.clear()

    def decode_need(self) -> int:
        """Blocks that the standing set takes in its next step."""
        size = self.pool.size
        return sum(seq.n_computed == seq.n_blocks * size for seq in self.decodes.values())

    def refuse(self, rule: int, what: str, sid: int = -1) -> None:
        """Raise `PlanRejected`."""
        about = f"sequence {sid}: " if sid >= 0 else ""
        raise PlanRejected(f"I{rule}", f"{about}{what} (policy {self.policy.name}, t={self.now:.6g} s)")
