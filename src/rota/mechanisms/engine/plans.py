"""Checking a plan against the contract's rules I1 to I7 and changing queues and blocks as it says. Nothing here takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rota.contracts.serving import DECODE, PREFILL, REJECTED, WAITING, StepPlan, Work
from rota.mechanisms.engine.sequences import Seq, is_held

if TYPE_CHECKING:
    from rota.mechanisms.engine.core import EngineCore


def apply_plan(core: EngineCore, plan: StepPlan) -> None:
    """Carry out everything in `plan` but its computation.

    Raises
    ------
    PlanRejected
        With the broken rule's name. The engine is then part-way through the plan and of no further use.
    """
    _pin(core, plan)
    if core.ghosts and not plan.padded:
        core.release_ghosts()
    gone = _evict_and_reject(core, plan)
    _pause(core, plan, gone)
    _schedule(core, plan, gone)


def _pin(core: EngineCore, plan: StepPlan) -> None:
    for key, sid, n_tokens in plan.pin:
        if "pin" not in core.policy.requires or sid not in core.seqs:
            core.refuse(9, f"pinned without requiring 'pin', or unknown (pin {key})", sid)
        before = core.pins.pop(key, [])
        core.pins[key] = core.pool.match_prefix(core.seqs[sid], n_tokens // core.pool.size)
        core.pool.hold(core.pins[key])
        core.pool.let_go(before)
    for key in plan.unpin:
        if key not in core.pins:
            core.refuse(9, f"pin {key} is released but not held")
        core.pool.let_go(core.pins.pop(key))


def _evict_and_reject(core: EngineCore, plan: StepPlan) -> set[int]:
    gone: set[int] = set()
    for sid in plan.evict:
        seq = core.seqs.get(sid)
        if seq is None or not is_held(seq):
            core.refuse(7, "only running sequences can be evicted", sid)
        else:
            core.evict(seq, sid in plan.swap)
            gone.add(sid)
    for sid in plan.swap:
        if "swap" not in core.policy.requires or sid not in plan.evict or plan.swap.count(sid) > 1:
            core.refuse(7, "swapped without requiring 'swap' or being evicted, or twice", sid)
    for sid in plan.reject:
        seq = core.seqs.get(sid)
        if seq is None or seq.phase != WAITING:
            core.refuse(7, "only waiting sequences can be rejected", sid)
        else:
            core.waiting.remove(seq)
            core.pool.forget_kept(seq)
            seq.phase = REJECTED
            seq.finished_at = core.now
            core.rejected.append(seq)
            del core.seqs[sid]
            gone.add(sid)
    return gone


def _pause(core: EngineCore, plan: StepPlan, gone: set[int]) -> None:
    for sid in plan.pause:
        seq = core.decodes.pop(sid, None)
        if seq is None or not plan.decode or sid in gone:
            core.refuse(6, "only decoding sequences can be paused, once, in a step that decodes", sid)
        else:
            core.paused.append(seq)


def _schedule(core: EngineCore, plan: StepPlan, gone: set[int]) -> None:
    tokens = len(core.decodes) if plan.decode else 0
    seen: set[int] = set()
    shared: tuple[int, int] | None = None
    for item in plan.work:
        seq = core.seqs.get(item.sid)
        if seq is None:
            core.refuse(7 if item.sid in gone else 1, "not known, or no longer", item.sid)
            return
        if item.sid in gone or item.sid in seen:
            core.refuse(7 if item.sid in gone else 1, "evicted and scheduled in one plan, or listed twice", item.sid)
        if seq.phase == DECODE:
            core.refuse(6, "it decodes in the standing set and cannot be listed", item.sid)
        if seq.phase not in (WAITING, PREFILL):
            core.refuse(1, "neither waiting nor in prefill", item.sid)
        seen.add(item.sid)
        if seq.phase == WAITING:
            if len(core.held) >= core.limits.max_seqs:
                core.refuse(3, f"more than {core.limits.max_seqs} sequences held", item.sid)
            core.admit(seq)
        _check_amount(core, seq, item)
        if item.layers is not None:
            if shared is not None and item.layers != shared:
                core.refuse(2, f"layers {item.layers} beside {shared}; all ranged items of a plan share one range", item.sid)
            shared = item.layers
        tokens += item.n_tokens
    if tokens > core.limits.max_step_tokens:
        core.refuse(3, f"{tokens} tokens in a step of at most {core.limits.max_step_tokens}")


def _check_amount(core: EngineCore, seq: Seq, item: Work) -> None:
    left = seq.n_known - seq.n_computed
    if not 1 <= item.n_tokens <= left:
        core.refuse(2, f"{item.n_tokens} tokens of {left} left", seq.sid)
    if seq.layer_cursor and item.n_tokens != seq.chunk:
        core.refuse(2, f"{item.n_tokens} tokens while a chunk of {seq.chunk} is open", seq.sid)
    lo, hi = item.layers or (0, core.limits.n_layers)
    if lo != seq.layer_cursor or not lo < hi <= core.limits.n_layers:
        core.refuse(2, f"layers {lo} to {hi}, but layer {seq.layer_cursor} is next of {core.limits.n_layers}", seq.sid)
