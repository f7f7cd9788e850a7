"""Rota's batching policies inside vLLM: `RotaScheduler` is a class for vLLM's ``--scheduler-cls``.

The policy decides who computes how much; vLLM's own scheduler carries it out, and keeps its queues, its KV cache manager and the outputs
that its workers expect. vLLM's scheduler is not a public interface: this was written for and tested with vLLM 0.32.
"""

from __future__ import annotations

import os
import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import FCFSRequestQueue

from rota.contracts.serving import DECODE, PREFILL, WAITING, BatchPolicy, Limits, StepPlan
from rota.errors import InputError, PlanRejected
from rota.mechanisms.adapters.vllm_limits import CAPABILITIES, check_policy, check_vllm
from rota.mechanisms.adapters.vllm_view import Cache, Seq, View
from rota.policies.registry import parse_policy

#: Names the policy; vLLM's ``--additional-config '{"rota_policy": "..."}'`` does so too, and comes first.
VARIABLE = "ROTA_POLICY"
#: As many tokens as there are.
ALL = 1 << 40
#: Seconds to rest where a policy lets everybody wait for a time to come.
REST = 0.001


class RotaScheduler(AsyncScheduler):
    """vLLM's scheduler, doing what a Rota policy plans.

    Raises
    ------
    InputError, UnsupportedPolicy
        At the start: no policy or an unknown one, one that needs what vLLM cannot do, or settings of vLLM that contradict it.
    """

    waiting: Any  # vLLM's queue

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rota_policy = policy = _policy(self.vllm_config)
        check_vllm(self, hook=hasattr(AsyncScheduler, "_reserve_prefill_lookahead"))
        check_policy(policy, self)
        self.scheduler_reserve_full_isl = False  # whether a prompt is let in is the policy's decision
        self._began = time.time()
        limits = Limits(
            n_layers=self.vllm_config.model_config.get_num_layers(self.parallel_config), block_size=self.block_size,
            blocks=self.kv_cache_manager.block_pool.num_gpu_blocks - 1, max_seqs=policy.max_seqs,
            max_step_tokens=policy.max_step_tokens or self.max_num_scheduled_tokens, max_len=self.max_model_len,
            tp=self.parallel_config.tensor_parallel_size, capabilities=CAPABILITIES,
        )  # fmt: skip
        self._cache = Cache(self.kv_cache_manager, self.block_size, self.max_model_len)
        self._view = View(limits, self._cache, lambda: time.time() - self._began)
        self._seqs: dict[str, Seq] = {}
        self._gone: list[Seq] = []
        self._programs: dict[int, tuple[int, float]] = {}
        self._granted: dict[str, int] | None = {}
        self._next_sid = 0
        self._evicting = False
        policy.start(limits)

    # -- what vLLM tells its scheduler

    def add_request(self, request: Any) -> None:
        """A request arrives."""
        known = request.request_id in self.requests
        super().add_request(request)
        if known:
            return
        seq = Seq(self._next_sid, request, self._cache, request.arrival_time - self._began)
        self._next_sid += 1
        if seq.program >= 0:
            seq.turn, seq.program_arrival = self._programs.get(seq.program, (0, seq.arrival))
            self._programs[seq.program] = seq.turn + 1, seq.program_arrival
        self._seqs[request.request_id] = self._view.seqs[seq.sid] = seq
        if self.rota_policy.follows:
            self._view.arrived.append(seq)

    def _free_request(self, request: Any, delay_free_blocks: bool = False) -> Any:
        """A request is over: answered, or aborted. Under a policy that `follows`, one that waited is gone when its turn comes."""
        seq = self._seqs.pop(request.request_id)
        if self.rota_policy.follows and not seq.running:
            seq.gone = True
            self._gone.append(seq)
        else:
            self._end(seq)
        return super()._free_request(request, delay_free_blocks)

    def _preempt_request(self, request: Any, timestamp: float, drop_stale_output: bool = False) -> None:
        super()._preempt_request(request, timestamp, drop_stale_output)
        seq = self._seqs[request.request_id]
        seq.running = False
        self._cache.release(seq)
        if self.rota_policy.follows and not self._evicting:  # vLLM's own doing: the policy learns of it as of an arrival
            self._view.arrived.append(seq)

    def _reserve_prefill_lookahead(self, request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
        """vLLM asks here, for each request, whether it may compute so many tokens in this step."""
        if self._granted is None:
            return num_new_tokens
        return min(num_new_tokens, self._granted.get(request.request_id, 0))

    def schedule(self, throttle_prefills: bool = False) -> Any:
        """Ask the policy, and let vLLM schedule what it says."""
        if self._pause_state != PauseState.UNPAUSED:  # who runs may end, nobody is let in
            self._granted = None
            return super().schedule(throttle_prefills)
        plan = self._decide()
        queue, blocks = self.waiting, self.kv_cache_manager.block_pool
        joining = [self._view.seqs[item.sid] for item in plan.work if self._view.seqs[item.sid].phase == WAITING]
        self._granted = self._grants(plan)
        # cached prefixes are held before any block is taken, so that nobody's new block is somebody's prefix
        hits = [block for seq in joining for block in self._cache.hits(seq.request)] if self.rota_policy.prefix_caching else []
        blocks.touch(hits)
        self.waiting = FCFSRequestQueue(seq.request for seq in joining)
        try:
            output = super().schedule(throttle_prefills)
        finally:
            self.waiting = queue
            blocks.free_blocks(reversed(hits))
        queue.remove_requests([seq.request for seq in joining])
        for name in self._granted:
            if name not in output.num_scheduled_tokens:
                raise self._refused(4, "vLLM found no room for its tokens", self._seqs[name].sid)
        now = self._view.now
        for seq in joining:
            seq.running = True
            seq.first_scheduled = min(now, seq.first_scheduled) if seq.first_scheduled == seq.first_scheduled else now
        for item in plan.work:
            self._cache.reserve(self._view.seqs[item.sid], item.reserve_to)
        return output

    # -- the policy

    def _decide(self) -> StepPlan:
        """Ask the policy until there is something to compute, or nothing to do."""
        view = self._view
        while True:
            self._look()
            plan = self.rota_policy.plan(view)
            view.arrived.clear()
            for seq in view.finished:
                del view.seqs[seq.sid]
            view.finished.clear()
            self._evict(plan)
            self._reject(plan)
            plan = plan._replace(work=tuple(item for item in plan.work if not self._left(item.sid)))
            self._look()
            if plan.work or (plan.decode and view.decodes):
                return plan
            if plan.evict or plan.reject or view.finished:
                continue
            busy = any(request.num_in_flight_tokens for request in self.running)
            if not busy and plan.wake_at == float("inf") and (view.queue or view.held_seqs):
                raise self._refused(8, f"an empty plan although {len(view.queue)} requests wait and nothing else will happen")
            if not busy and self.requests:
                time.sleep(REST)
            return plan

    def _look(self) -> None:
        """Bring the view up to date. A request whose grammar is still being compiled is not in the queue yet."""
        blocked = self._is_blocked_waiting_status
        ready = [r for r in self.waiting if not blocked(r.status) or self._handle_blocked_waiting_request(r)]
        ready = [r for r in ready if r.request_id not in self.grammar_compile_error_reqs]
        self._view.look(self._gone + [self._seqs[r.request_id] for r in ready], [self._seqs[r.request_id] for r in self.running])

    def _evict(self, plan: StepPlan) -> None:
        for sid in plan.evict:
            seq = self._view.seqs.get(sid)
            if seq is None or not seq.running:
                raise self._refused(7, "only running sequences can be evicted", sid)
            self.running.remove(seq.request)
            self._evicting = True
            # a token that is under way is dropped and computed again, so that the sequence may resume at once
            self._preempt_request(seq.request, time.monotonic(), drop_stale_output=True)
            self._evicting = False

    def _reject(self, plan: StepPlan) -> None:
        for sid in plan.reject:
            if not self._left(sid):
                seq = self._view.seqs.get(sid)
                if seq is None or seq.phase != WAITING:
                    raise self._refused(7, "only waiting sequences can be rejected", sid)
                self.grammar_compile_error_reqs.add(seq.request.request_id)  # vLLM's way to end a request with an error

    def _left(self, sid: int) -> bool:
        """Whether it was aborted while it waited; its turn has come now."""
        seq = self._view.seqs.get(sid)
        if seq is None or not seq.gone:
            return False
        self._gone.remove(seq)
        seq.gone = False
        self._end(seq)
        return True

    def _end(self, seq: Seq) -> None:
        seq.running = False
        seq.finished_at = self._view.now
        self._cache.release(seq)
        if self.rota_policy.follows:
            self._view.finished.append(seq)
        else:
            del self._view.seqs[seq.sid]

    def _grants(self, plan: StepPlan) -> dict[str, int]:
        """Tokens that each request computes in this step."""
        view = self._view
        granted: dict[str, int] = {}
        if plan.decode:
            granted = {seq.request.request_id: 1 for seq in view.decodes if seq.sid not in plan.pause}
        tokens = len(granted)
        for item in plan.work:
            seq = view.seqs.get(item.sid)
            if seq is None or seq.in_flight or seq.request.request_id in granted or seq.phase not in (WAITING, PREFILL):
                rule = 6 if seq is not None and seq.phase == DECODE else 1
                raise self._refused(rule, "cannot be listed as work: unknown, in decode, or listed twice", item.sid)
            left = seq.n_known - seq.n_computed - seq.n_reusable
            if not 1 <= item.n_tokens <= left or item.layers is not None:
                raise self._refused(2, f"{item.n_tokens} tokens of {left} left, layers {item.layers}", item.sid)
            # the rest of a prompt stays the rest where the same step has just filled more of its prefix
            granted[seq.request.request_id] = ALL if item.n_tokens == left else item.n_tokens
            tokens += item.n_tokens
        if tokens > view.limits.max_step_tokens:
            raise self._refused(3, f"{tokens} tokens in a step of at most {view.limits.max_step_tokens}")
        return granted

    def _refused(self, rule: int, what: str, sid: int = -1) -> PlanRejected:
        about = f"sequence {sid}: " if sid >= 0 else ""
        return PlanRejected(f"I{rule}", f"{about}{what} (policy {self.rota_policy.name}, t={self._view.now:.6g} s)")


def _policy(config: Any) -> BatchPolicy:
    additional = config.additional_config if isinstance(config.additional_config, dict) else {}
    text = additional.get("rota_policy") or os.environ.get(VARIABLE)
    if not text:
        raise InputError(f"no policy given; set {VARIABLE}, as in {VARIABLE}=sarathi:max_num_batched_tokens=512 (rota policies lists all)")
    return parse_policy(text)

