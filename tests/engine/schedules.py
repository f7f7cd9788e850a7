"""Random schedules: a policy that plans whatever the contract allows, requests to plan for, and what has to hold of their tokens."""

import numpy as np
from hypothesis import strategies as st

from rota.contracts.serving import DECODE, StepPlan, Work
from rota.cost.tables import StepTables
from rota.mechanisms.engine import Engine, ModelClock, SamplingParams
from rota.policies.registry import make_policy

TABLES = StepTables(layer=np.arange(65) * 1e-5, head=np.arange(9) * 1e-5, n_layers=4, decode_byte_s=1e-7, prefill_flop_s=1e-9)
KINDS = [
    dict(temperature=0.0),
    dict(temperature=1.0),
    dict(temperature=0.8, top_k=7, top_p=0.9),
    dict(temperature=1.3, min_p=0.05, repetition_penalty=1.3),
    dict(temperature=0.0, presence_penalty=0.7, frequency_penalty=0.4),
    dict(temperature=0.9, top_p=0.6, logit_bias={3: 2.0}, logprobs=2),
]


class RandomPolicy:
    """Legal plans drawn from a seed: chunks, layer ranges, evictions, swaps, pauses, reservations.

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


def alone(runner, prompt, params):
    """The request by itself, its prompt in one piece."""
    engine = Engine(runner, make_policy("orca-paged"), blocks=64, block_size=4, clock=ModelClock(TABLES))
    engine.add_request(prompt, params)
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def what(outputs):
    """What a client sees of a request."""
    return [(o.token, o.finish, o.logprob and round(o.logprob, 9)) for o in outputs]


def tokens(outputs):
    """The same without log-probabilities."""
    return [(o.token, o.finish) for o in outputs]


@st.composite
def workloads(draw):
    """Requests, a random policy's seed and settings, and which model."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 5))
    common = rng.integers(0, 97, 24).tolist()
    requests = []
    for _ in range(n):
        shared = int(rng.integers(0, 20)) if rng.random() < 0.6 else 0
        prompt = common[:shared] + rng.integers(0, 97, int(rng.integers(1, 14))).tolist()
        kind = KINDS[rng.integers(len(KINDS))]
        params = SamplingParams(max_tokens=int(rng.integers(1, 8)), seed=int(rng.integers(1 << 40)), **kind)
        requests.append((prompt, params, float(rng.exponential(3e-3)), rng.random() < 0.15))
    spare, host = draw(st.sampled_from([0, 1, 4, 40])), draw(st.sampled_from([None, 3, 8, 60]))
    return requests, draw(st.integers(0, 2**32 - 1)), draw(st.booleans()), spare, host, draw(st.integers(0, 2))


def check(runner, workload, said=what):
    """Under a random policy, every request of a workload gets the tokens that it gets alone, and no block is lost."""
    requests, seed, caching, spare, host, _ = workload
    expected = [said(alone(runner, prompt, params)) for prompt, params, _, _ in requests]
    blocks = max(-(-(len(prompt) + params.max_tokens) // 4) for prompt, params, _, _ in requests) + spare
    policy = RandomPolicy(seed, caching, swaps=host is not None)
    engine = Engine(runner, policy, blocks=blocks, block_size=4, clock=ModelClock(TABLES), host_blocks=host or 0)
    rng = np.random.default_rng(seed)
    leaving = {}
    for prompt, params, arrival, cancelled in requests:
        sid = engine.add_request(prompt, params, arrival=arrival)
        if cancelled:
            leaving[sid] = int(rng.integers(0, 30))
    found = {sid: [] for sid in range(len(requests))}
    steps = 0
    while engine.has_work:
        for sid in [sid for sid, step in leaving.items() if step == steps]:
            engine.cancel(sid)
        for output in engine.step():
            found[output.sid].append(output)
        steps += 1
        assert steps < 5000
    for sid, outputs in found.items():
        if outputs[-1].finish == "cancelled":
            assert sid in leaving
            assert said(outputs[:-1]) == expected[sid][: len(outputs) - 1]
        else:
            assert said(outputs) == expected[sid]
    assert engine.core.pool.free == blocks
    assert engine.core.pool.host_free == (host or 0)
    assert not runner._open
