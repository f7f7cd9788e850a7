"""One simulated engine: a policy, a state, and the exchange of plans between them."""

from __future__ import annotations

import copy
from typing import NoReturn, cast

import numpy as np

from rota.contracts import columns as col
from rota.contracts.serving import CAPABILITIES, BatchPolicy, Limits, OraclePolicy, StepPlan
from rota.cost.engine import EngineSpec
from rota.cost.model import CostModel
from rota.errors import PlanRejected, UnsupportedPolicy
from rota.jit import uninterrupted
from rota.mechanisms.simulator import kernel
from rota.mechanisms.simulator.blocks import pin, unpin
from rota.mechanisms.simulator.reference import bind
from rota.mechanisms.simulator.state import (
    BAD,
    BUDGET,
    DONE,
    LAST_FINISHED,
    N_ARRIVED,
    N_FINISHED,
    N_PINS,
    NOW,
    UNTIL,
    WAKE_AT,
    State,
    new_state,
)
from rota.mechanisms.simulator.view import Pinned, SimView
from rota.workload.trace import Trace

_RULES = {
    1: "sequence {sid} is unknown, listed twice, or inside a running step",
    2: "sequence {sid} was given tokens or layers it does not have left",
    3: "more tokens in the step or more sequences held than the limits allow (at sequence {sid})",
    4: "there are not enough free KV blocks, or host blocks to swap to (at sequence {sid}; -1 is the standing decode set)",
    6: "sequence {sid} cannot be listed or paused: it decodes in the standing set, or does not",
    7: "sequence {sid} cannot be evicted, rejected or scheduled in its present phase",
}
#: Plans after which a compiled run comes back to Python, to look at progress and Ctrl-C.
BUDGET_PLANS = 100_000


class Engine:
    """A simulated engine (replica) under one policy.

    Parameters
    ----------
    trace, shared
        The requests and their shared columns (`state.request_columns`).
    policy : BatchPolicy
        Copied, so that replicas do not share state.
    spec : EngineSpec
    compress : bool
        False asks the policy before every step and crosses no stretch: the reference mode.
    compiled : bool
        Use the policy's compiled twin where it has one.

    Raises
    ------
    UnsupportedPolicy
        If the policy requires what this engine cannot do.
    """

    def __init__(
        self, trace: Trace, shared: dict[str, np.ndarray], policy: BatchPolicy, spec: EngineSpec, *, compress: bool, compiled: bool,
        log: bool, seed: int, chains: tuple[np.ndarray, np.ndarray],
    ) -> None:  # fmt: skip
        capabilities = CAPABILITIES - {"host_attention"} - ({"layers", "padded"} if spec.pp > 1 else set())
        missing = sorted(policy.requires - capabilities)
        if missing:
            raise UnsupportedPolicy(
                f"policy {policy.name} needs {', '.join(missing)}, which the simulator does not offer with "
                f"pipeline_parallel_size={spec.pp}; choose another policy or pipeline_parallel_size=1"
            )
        shares = sorted(policy.requires & {"pin", "shared_attention"})
        if shares and not policy.prefix_caching:
            raise UnsupportedPolicy(f"policy {policy.name} needs {', '.join(shares)} without a prefix cache; turn prefix caching on")
        self.policy = copy.deepcopy(policy)
        if "oracle" in policy.requires:
            cast(OraclePolicy, self.policy).tell(trace)
        self._pins: Pinned = {}
        self._shared = shared
        most_tokens = policy.max_step_tokens or 1 << 40
        self.limits = Limits(
            n_layers=spec.tables.n_layers, block_size=spec.block_size, blocks=spec.blocks, max_seqs=policy.max_seqs,
            max_step_tokens=most_tokens, max_len=spec.max_len, tp=spec.tp, pp=spec.pp, capabilities=capabilities,
            prefill=CostModel(spec.tables).prefill_fit(spec.max_len, most_tokens) if "pin" in policy.requires else (0.0, 0.0, 0.0),
            reload=spec.reload if spec.offload_blocks else float("inf"),
        )  # fmt: skip
        self.policy.start(self.limits)
        self.set_state(new_state(
            trace, shared, spec, max_seqs=policy.max_seqs, max_step_tokens=most_tokens, caching=policy.prefix_caching,
            priority=policy.order == "priority", follows=policy.follows,
            shared_attention="shared_attention" in policy.requires, swap="swap" in policy.requires,
            compress=compress, log=log, seed=seed, chains=chains,
        ))  # fmt: skip
        twin = getattr(self.policy, "twin", None) if compiled else None
        self._twin = twin() if twin else None

    def set_state(self, state: State) -> None:
        """Replace arrays of the state (a longer log, an inbox)."""
        self.state = state
        self.ref, self._table = bind(state)
        self._view = SimView(state, self.ref, self.limits, self._shared, self._pins)

    def run(self, until: float = float("inf"), plans: int = BUDGET_PLANS) -> int:
        """Advance to time `until`, or for so many plans. Returns a status of `kernel`."""
        self.state.flt[UNTIL] = until
        while True:
            status = self._run_twin(plans) if self._twin else self._run_python(plans)
            if status == kernel.LOG_FULL:
                self.set_state(self.state._replace(log=np.concatenate([self.state.log, np.zeros_like(self.state.log)])))
                continue
            if status == kernel.STUCK:
                raise PlanRejected("I8", f"policy {self.policy.name} returned an empty plan at t={self.state.flt[NOW]:.6g} s although "
                                   f"{self.state.ctl[col.N_WAITING]} requests wait and nothing else will happen")  # fmt: skip
            return status

    def _run_twin(self, plans: int) -> int:
        assert self._twin is not None
        self.state.ctl[BUDGET] = plans
        status, rule = uninterrupted(kernel.run_twin, self._twin[0], self._twin[1], self.ref)
        if rule:
            self._reject(rule)
        return int(status)

    def _run_python(self, plans: int) -> int:
        view, out, flt, ref = self._view, memoryview(self.state.out), self.state.flt, self.ref
        plan_of, resume, ctl = self.policy.plan, kernel.resume, self.state.ctl
        capacity, follows = len(out), self.policy.follows
        status = kernel.advance(ref)
        for _ in range(plans):
            if status != kernel.NEED_PLAN:
                return status if status < kernel.RULE else self._reject(status - kernel.RULE)
            plan = plan_of(view)  # type: ignore[arg-type]
            if follows:
                ctl[N_ARRIVED] = ctl[N_FINISHED] = 0
            if plan.pin or plan.unpin:
                self._pin(plan)
            if plan.swap:
                self._check_swap(plan)
            _write(plan, out, flt, capacity)
            status = resume(ref)
        return kernel.PAUSED if status == kernel.NEED_PLAN else status

    def _pin(self, plan: StepPlan) -> None:
        """Carry out the plan's pins, then its releases."""
        pins, ref = self._pins, self.ref
        for key, sid, tokens in plan.pin:
            if "pin" not in self.policy.requires or not 0 <= sid < len(self.state.seq):
                raise PlanRejected("I9", f"policy {self.policy.name} pins sequence {sid} without requiring 'pin', or it is unknown")
            before = pins.get(key)
            pins[key] = sid, pin(ref, sid, tokens // self.limits.block_size)
            if before:
                unpin(ref, *before)
        for key in plan.unpin:
            if key not in pins:
                raise PlanRejected("I9", f"policy {self.policy.name} releases pin {key}, which it does not hold")
            unpin(ref, *pins.pop(key))
        self.state.ctl[N_PINS] = len(pins)

    def _check_swap(self, plan: StepPlan) -> None:
        for sid in plan.swap:
            if "swap" not in self.policy.requires or sid not in plan.evict or plan.swap.count(sid) > 1:
                raise PlanRejected("I7", f"policy {self.policy.name} swaps sequence {sid} without requiring 'swap' or evicting it, or twice")

    def _reject(self, rule: int) -> NoReturn:
        sid = int(self.state.ctl[BAD])
        raise PlanRejected(f"I{rule}", f"{_RULES[rule].format(sid=sid)} (policy {self.policy.name}, t={self.state.flt[NOW]:.6g} s)")

    @property
    def first_turns(self) -> np.ndarray | None:
        """Row of the first turn of each request's program, where the trace has programs."""
        return self._shared.get("first")

    @property
    def done(self) -> int:
        """Requests that have ended here."""
        return int(self.state.ctl[DONE])

    def ended_by(self, time: float) -> int:
        """Requests that have ended here by `time`, which the last step may have passed."""
        late = self.state.ctl[LAST_FINISHED] if self.state.flt[NOW] > time else 0
        return int(self.state.ctl[DONE] - late)


def _write(plan: StepPlan, out: memoryview, flt: np.ndarray, capacity: int) -> None:
    """Lay a plan out as `rota.contracts.columns` says."""
    work, decode, evict, reject, pause, padded, repeat, wake, headroom, wake_at, held, released, swap = plan
    out[0] = 1 if decode else 0
    out[1] = repeat
    out[2] = wake
    out[3] = headroom
    out[4] = 1 if padded else 0
    out[8] = len(work)
    out[9] = len(held) + len(released) if held or released else 0
    at = col.HEADER
    if not (evict or reject or pause):
        out[5] = out[6] = out[7] = 0
    else:
        out[5] = len(evict)
        out[6] = len(reject)
        out[7] = len(pause)
        if at + len(evict) + len(reject) + len(pause) + col.WORK_SIZE * len(work) > capacity:
            raise PlanRejected("I3", "the plan lists more sequences than the engine can hold")
        for sids in (evict, reject, pause):
            for sid in sids:
                out[at] = sid
                at += 1
        for i, sid in enumerate(evict) if swap else ():
            if sid in swap:
                out[col.HEADER + i] = sid + col.SWAPPED
    if work and at + col.WORK_SIZE * len(work) > capacity:
        raise PlanRejected("I3", "the plan lists more sequences than the engine can hold")
    for sid, tokens, reserve_to, layers in work:
        out[at] = sid
        out[at + 1] = tokens
        out[at + 2] = reserve_to
        if layers is None:
            out[at + 3] = out[at + 4] = 0
        else:
            out[at + 3], out[at + 4] = layers
        at += 5
    flt[WAKE_AT] = wake_at
