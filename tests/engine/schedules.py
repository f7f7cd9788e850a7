"""A policy that plans at random whatever the contract allows: chunks, layer ranges, evictions, swaps, pauses, reservations."""

import numpy as np

from rota.contracts.serving import DECODE, StepPlan, Work


class RandomPolicy:
    """Legal plans drawn from a seed.

    It keeps one open cohort, as the contract wants of layer ranges: a sequence whose chunk is open goes on with the same tokens.
    """

    name = "random"
    requires = frozenset({"chunk", "hybrid", "layers", "pause", "prefix_cache"})
    order = "fcfs"
    max_step_tokens = 64
    follows = False

    def __init__(self, seed, prefix_caching, max_seqs=4, swaps=False):
        self.seed, self.prefix_caching, self.max_seqs, self.swaps = seed, prefix_caching, max_seqs, swaps
        self.requires = RandomPolicy.requires | ({"swap"} if swaps else set())

    def start(self, limits):
        self.limits = limits
        self.rng = np.random.default_rng(self.seed)
        self.cohort = []
        self.empty = 0

    def plan(self, view):
        rng = self.rng
        evict = self._evict(view)
        ledger = view.ledger()
        for sid in evict:
            ledger.evict(sid)
        self.cohort = [item for item in self.cohort if item.sid not in evict]
        decoding = [s for s in view.running if s.phase == DECODE and s.sid not in evict]
        pause, tokens = [], 0
        for seq in decoding:
            if rng.random() < 0.15 or not ledger.reserve(seq.sid, seq.n_computed + 1):
                pause.append(seq.sid)
            else:
                tokens += 1
        depth = self.limits.n_layers
        work = [] if evict else self._work(view, ledger)
        if not work and tokens == 0 and not evict:
            return self._unstick(view)
        self.empty = 0
        if work:
            self.cohort = work if (work[0].layers or (0, depth))[1] < depth else []
        repeat = int(rng.integers(1, 4)) if not work else 1
        return StepPlan(tuple(work), evict=tuple(evict), pause=tuple(pause), repeat=repeat, swap=self._swap(view, evict))

    def _evict(self, view):
        return [s.sid for s in view.running if self.rng.random() < (0.1 if self.swaps else 0.04)]

    def _swap(self, view, evict):
        """Most of the evicted ones, as far as the host has room."""
        free, chosen = view.free_host_blocks, []
        for sid in evict if self.swaps else ():
            blocks = -(-view.seq(sid).n_computed // self.limits.block_size)
            if blocks and blocks <= free and self.rng.random() < 0.8:
                free -= blocks
                chosen.append(sid)
        return tuple(chosen)

    def _work(self, view, ledger):
        """The open cohort's next layers, or a new one: unfinished prompts and new ones, some of their tokens, some layers."""
        rng, depth = self.rng, self.limits.n_layers
        if self.cohort:
            lo = self.cohort[0].layers[1]
            hi = int(rng.integers(lo + 1, depth + 1))
            return [item._replace(layers=(lo, hi)) for item in self.cohort]
        work, seats = [], self.max_seqs - view.n_running
        room = self.max_step_tokens - self.max_seqs  # until the cohort's last layers everyone else may have come to decode
        for seq in [*view.prefills, *view.waiting]:
            fresh = seq.n_computed == 0 and seq.kv_blocks == 0
            done = seq.n_reusable if fresh else seq.n_computed
            n = min(int(rng.integers(1, seq.n_known - done + 1)) if rng.random() < 0.7 else seq.n_known - done, room)
            if n < 1 or rng.random() < 0.2 or (fresh and seats == 0):
                continue
            reserve = seq.n_known if rng.random() < 0.3 else 0
            if not ledger.reserve(seq.sid, max(reserve, done + n)):
                continue
            seats -= fresh
            room -= n
            work.append(Work(seq.sid, n, reserve))
        if work and rng.random() < 0.6:
            hi = int(rng.integers(1, depth + 1))
            work = [item._replace(layers=(0, hi)) for item in work]
        return work

    def _unstick(self, view):
        """Nothing was drawn: try again, and where memory is the reason, make room."""
        self.empty += 1
        if self.empty > 3 and view.n_running > 1:
            last = view.running[-1].sid
            self.cohort = [item for item in self.cohort if item.sid != last]
            return StepPlan(decode=False, evict=(last,), swap=self._swap(view, [last]))
        return StepPlan(decode=False, wake_at=view.now + 1e-3)
