"""BatchLLM: an offline job in groups of requests that share a prefix, ordered and batched for the time of the whole job."""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from rota.contracts.offline import Ints, Job
from rota.contracts.serving import ALWAYS, EngineView, Limits, StepPlan, Work
from rota.errors import InputError
from rota.policies.batching.policy import Batching, flag, whole
from rota.policies.offline.expected_use import ExpectedUse
from rota.policies.offline.groups import Group, ranks, shared_prefixes
from rota.policies.offline.progress import Progress
from rota.workload.trace import Trace

#: Sequences held at once where memory alone is to limit them; only sizes arrays.
NO_CAP = 4096


class BatchLLM(Batching):
    """Prefix groups one after the other, each prefix computed once and held, as many sequences as memory is predicted to take.

    The first member of a group computes the prefix; the others wait for it, and the next group begins beside them. A prefix is held
    from then on until its last member has ended. Where memory is short after all, the last prefix with no running member goes, and
    if there is none, the sequence admitted last.

    Parameters
    ----------
    grouping : bool
        Find what prompts share; otherwise every request is by itself, and only the prefix cache's own memory helps.
    ratio_order : bool
        Groups with the most output per prompt token first, so that their decodes run beside prompts of later ones; otherwise in
        order of appearance.
    memory_centric : bool
        Admit as long as the most that running sequences and held prefixes are expected to fill together stays within
        `memory_budget`, without a limit on sequences, and count only prompt tokens against `max_num_batched_tokens`. Otherwise
        `max_num_seqs` limits sequences, a prompt is admitted when it fits the free blocks, and decodes count too.
    shared_prefix_attention : bool
        Decode attention reads a prefix once for all that share it.
    max_num_batched_tokens : int
        Token budget of a step.
    max_num_seqs : int
        Most sequences held at once if not `memory_centric`.
    memory_budget : float
        Share of the KV blocks that expected use may fill.
    estimates : {"given", "limit", "oracle"}
        Output expected of a request: the job's estimate if it has one; or its limit; or the truth, for experiments, as the policy's
        name then says.
    expected_output : int
        Output tokens expected of a request for which the job says neither an estimate nor a limit.
    """

    name = "batchllm"
    title = "BatchLLM: offline jobs by prefix groups, memory-centric batches"
    paper = "Zheng et al., BatchLLM, MLSys 2026 (arXiv 2412.03594)"
    follows = True
    prefix_caching = True

    def __init__(
        self, *, grouping: bool = True, ratio_order: bool = True, memory_centric: bool = True, shared_prefix_attention: bool = True,
        max_num_batched_tokens: int = 2048, max_num_seqs: int = 256, memory_budget: float = 0.95, estimates: str = "given",
        expected_output: int = 256,
    ) -> None:  # fmt: skip
        self.grouping, self.ratio_order = flag("grouping", grouping), flag("ratio_order", ratio_order)
        self.memory_centric = flag("memory_centric", memory_centric)
        self.budget = whole("max_num_batched_tokens", max_num_batched_tokens)
        cap = whole("max_num_seqs", max_num_seqs)
        if not self.memory_centric and self.budget < cap:
            raise InputError(f"max_num_batched_tokens={self.budget} is below max_num_seqs={cap}, so not every sequence could decode")
        self.max_seqs = NO_CAP if self.memory_centric else cap
        self.max_step_tokens = self.budget + (NO_CAP if self.memory_centric else 0)
        if isinstance(memory_budget, bool) or not 0 < memory_budget < float("inf"):
            raise InputError(f"memory_budget must be a positive share of the KV blocks, not {memory_budget!r}")
        self.memory_budget = float(memory_budget)
        self.expected_output = whole("expected_output", expected_output)
        if estimates not in ("given", "limit", "oracle"):
            raise InputError(f"estimates must be 'given', 'limit' or 'oracle', not {estimates!r}")
        self.estimates = estimates
        wants = {"chunk", "hybrid", "prefix_cache"} | ({"pin"} if self.grouping else set())
        wants |= {"shared_attention"} if flag("shared_prefix_attention", shared_prefix_attention) else set()
        if estimates == "oracle":
            self.name = "batchllm-oracle"  # type: ignore[misc]
            wants.add("oracle")
        self.requires = frozenset(wants)
        self.job: Job | None = None

    def prepare(self, job: Job) -> None:
        """Group and order the job."""
        self.job = job
        n = len(job.prompt)
        self._grouped = shared_prefixes(job) if self.grouping else (np.arange(n), np.zeros(n, np.int64))
        limit = np.where(job.max_new > 0, job.max_new, self.expected_output)
        self._expect(job, limit if self.estimates == "limit" else np.where(job.estimate > 0, job.estimate, limit))

    def tell(self, trace: Trace) -> None:
        """The truth instead of estimates."""
        assert self.job is not None
        self._expect(self.job, trace.output)

    def _expect(self, job: Job, output: Ints) -> None:
        """Order the groups, and note how long each request is expected to become."""
        group, self._shared = self._grouped
        self._whole = job.prompt + output
        self._rank = ranks(group, self._shared, job.prompt, output).tolist() if self.ratio_order else group.tolist()

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        if self.job is None:
            raise InputError(f"policy {self.name} plans whole jobs and was told of none; let all requests arrive at once (--offline)")
        super().start(limits)
        self._progress = Progress(self._rank, self._shared.tolist(), limits.block_size)
        self._most = int(self.memory_budget * limits.blocks)
        self._spare = limits.blocks // 100
        self._evicting = False
        #: The next one was refused for lack of memory: that stands until something finishes or a prefix is there.
        self._refused = False

    def plan(self, view: EngineView) -> StepPlan:
        """One token for every decode, then chunks of unfinished prompts, then of new ones, group by group."""
        pin, unpin = self._progress.follow(view)
        if pin or view.finished:
            self._refused = False
        evicting, self._evicting = self._evicting, False
        if unpin:
            return StepPlan(decode=False, pin=pin, unpin=unpin)
        free = view.free_blocks - view.decode_need
        if free < 0:
            return self._make_room(view)._replace(pin=pin)
        budget = self.budget if self.memory_centric else self.budget - view.n_decode
        work: list[Work] = []
        left = 0
        for seq in view.prefills:
            if budget <= 0:
                break
            left = seq.n_known - seq.n_computed
            work.append(Work(seq.sid, min(left, budget)))
            budget -= work[-1].n_tokens
        if view.n_waiting and not evicting and not self._refused:
            begun = len(work)
            instead = self._admit(view, work, budget, free)
            if instead:
                return instead._replace(pin=pin)
            budget -= sum(item.n_tokens for item in work[begun:])
            if len(work) > begun:
                left = view.seq(work[-1].sid).n_known - view.seq(work[-1].sid).n_reusable
        if evicting or len(work) > 1 or (work and budget > 0):
            return StepPlan(tuple(work), pin=pin)
        return StepPlan(tuple(work), repeat=left // work[0].n_tokens if work else ALWAYS, pin=pin)

    def _admit(self, view: EngineView, work: list[Work], budget: int, free: int) -> StepPlan | None:
        """Add members of pending groups to `work`, in order; or what must be done first."""
        seats = self.max_seqs - view.n_running
        ledger, begun = view.ledger(), len(work)
        progress, pending = self._progress, self._progress.pending
        use = ExpectedUse(self._shared, self._whole, self.block_size, view.held, self.max_seqs) if self.memory_centric else None
        for at in range(len(pending) - 1, -1, -1):
            group = pending[at]
            while group.waiting and (group.ready or group.leader < 0):
                if budget <= 0 or seats == 0:
                    return None
                seq = view.seq(group.waiting[-1])
                known = seq.n_known
                if known > self.longest:
                    return StepPlan(decode=False, reject=(progress.reject(group),)) if len(work) == begun else None
                alone = not work and view.n_running == 0
                need = ledger.need(seq.sid, known)
                if alone and need > free:
                    return self._let_go([other for other in progress.held.values() if other is not group])
                expected = use.join(seq.sid, known) + progress.blocks_with(group) if use else 0
                if not alone and (need > free - self._spare or expected > self._most):
                    self._refused = True
                    return None
                n = min(known - seq.n_reusable, budget)
                work.append(Work(seq.sid, n, known))
                ledger.reserve(seq.sid, known)
                free -= need
                budget -= n
                seats -= 1
                progress.join(group)
            if not group.waiting:
                del pending[at]
        return None

    def _make_room(self, view: EngineView) -> StepPlan:
        """The next step's decodes lack blocks: let go of a prefix that nobody uses now, or evict the sequence admitted last."""
        idle = self._progress.idle()
        if idle:
            return self._let_go([max(idle, key=attrgetter("rank"))])
        self._refused = False
        sid = view.running[-1].sid
        self._progress.evict(sid)
        self._evicting = True
        return StepPlan(decode=False, evict=(sid,))

    def _let_go(self, groups: list[Group]) -> StepPlan:
        self._refused = False
        for group in groups:
            self._progress.close(group)
        return StepPlan(decode=False, unpin=tuple(group.rank for group in groups))
