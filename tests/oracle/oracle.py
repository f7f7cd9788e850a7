"""An independent, step-by-step simulator in plain Python, written from the specification alone to hold the real one to account.

No event compression, no arrays: every step is planned, priced and carried out by itself. `simulate_oracle` is the door.
Ties are settled as the contract says: at one instant steps complete first, then requests arrive (in row order), then engines plan.
Recomputed tokens count what an eviction drops; reused prefix tokens count among them, for they were computed when dropped.
"""

import math
from bisect import insort

from tests.oracle.blocks import Blocks
from tests.oracle.costs import Costs
from tests.oracle.policies import POLICIES

#: Steps without any token after which sequences are taken to evict each other for ever.
LIVELOCK = 10_000


class Request:
    def __init__(self, sid, trace):
        def column(name, default):
            values = getattr(trace, name)
            return default if values is None else values[sid].item()

        self.sid = sid
        self.arrival = trace.arrival[sid].item()
        self.prompt, self.output = trace.prompt[sid].item(), trace.output[sid].item()
        self.priority = column("priority", 0)
        self.max_new = column("max_new", None)
        self.after, self.delay = column("after", -1), column("delay", 0.0)
        self.ids = ()
        if trace.hash_ids is not None:
            self.ids = tuple(trace.hash_ids[trace.hash_start[sid] : trace.hash_start[sid + 1]].tolist())
            self.run = trace.hash_block
        self.known = self.prompt
        self.computed = self.committed = 0
        self.blocks = []
        self.decoding = self.in_flight = self.rejected = False
        self.first_scheduled = self.first_token = self.finish = math.nan
        self.times = []
        self.preemptions = self.recomputed = self.cached = 0
        self.replica = -1

    def key(self, j, size):
        """Content of block `j`: the whole prefix up to its end. Tokens without a hash id are this request's own."""
        end = (j + 1) * size
        if self.ids and end <= len(self.ids) * self.run:
            return (self.ids[: -(-end // self.run)], j)
        return (self.sid, j)

    @property
    def generated(self):
        return len(self.times)


class Engine:
    """One replica: a queue, running sequences in admission order, blocks, and at most `pp` steps in flight."""

    def __init__(self, spec, plan, options, index):
        self.spec, self.plan, self.options, self.index = spec, plan, options, index
        self.costs = Costs(spec.tables)
        self.blocks = Blocks(spec.blocks, spec.block_size, options["enable_prefix_caching"], spec.offload_blocks)
        self.by_priority = options["scheduling_policy"] == "priority"
        self.waiting, self.running, self.flying = [], [], []
        self.padding = []  # finished sequences that keep their rows
        self.cohort = None
        self.reload = 0.0  # seconds for copies from host memory in the step that starts
        self.joined = False
        self.unfinished = 0
        self.stage_free = [0.0] * spec.pp
        self.evicted_now = set()
        self.ask_again = False  # only this engine's own events make it plan: an arrival, a step's end, a free first stage

    # -- what policies do -------------------------------------------------------------------------------------------------
    def idle_running(self):
        return [r for r in self.running if not r.in_flight]

    def by_arrival(self):
        return sorted(self.idle_running(), key=lambda r: (r.arrival, r.sid))

    def enqueue(self, req, head=False):
        if self.by_priority:
            insort(self.waiting, req, key=lambda r: (r.priority, r.arrival, r.sid))
        elif head:
            self.waiting.insert(0, req)
        else:
            self.waiting.append(req)

    def evict(self, req):
        assert not req.in_flight
        self.running.remove(req)
        self.blocks.release(req)
        req.preemptions += 1
        req.recomputed += req.computed
        req.computed = req.committed = 0
        req.decoding = False
        self.evicted_now.add(req)
        self.enqueue(req, head=True)

    def reject(self, req):
        self.waiting.remove(req)
        req.rejected = True
        self.unfinished -= 1

    def admit(self, req, hits=()):
        self.waiting.remove(req)
        self.running.append(req)
        self.blocks.hold(req, hits)
        req.computed = req.cached = len(hits) * self.spec.block_size
        req.committed = len(hits)

    # -- time -------------------------------------------------------------------------------------------------------------
    def can_start(self, now):
        return self.ask_again and len(self.flying) < self.spec.pp and self.stage_free[0] <= now

    def start(self, now):
        """Ask the policy; start its step if there is one."""
        self.evicted_now = set()
        before = len(self.waiting), len(self.running)
        items = self.plan(self)
        self.reload = self.blocks.fulfil() * self.spec.block_size * self.spec.reload
        if not items:  # evictions or rejections alone are progress: ask again at once, but vLLM v1 waits for a step in flight
            waits = self.plan is POLICIES["vllm-v1"][0] and self.flying and self.evicted_now
            self.ask_again = not waits and before != (len(self.waiting), len(self.running))
            return
        for item in items:
            req = item.req
            assert 1 <= item.n <= req.known - req.computed
            assert not req.in_flight
            assert req in self.running
            assert len(req.blocks) * self.spec.block_size >= req.computed + item.n, "computes without blocks"
            whole = item.layers is None or item.layers[1] == self.spec.tables.n_layers
            item.emits = whole and req.computed + item.n == req.known
            req.in_flight = True
            if math.isnan(req.first_scheduled):
                req.first_scheduled = now
        assert len({item.req for item in items}) == len(items)
        self.flying.append((self._end(now, items), items))

    def _end(self, now, items):
        rows = [r.known + r.padded_for for r in self.padding]
        if self.spec.pp == 1:
            end = now + self.costs.step_time(items, rows) + self.reload
            self.stage_free[0] = end
            return end
        return self._pipeline_end(now, items)

    def _pipeline_end(self, now, items):
        t, pp = self.spec.tables, self.spec.pp
        tokens = sum(i.n for i in items)
        share = self.costs.layers_time(items) / pp
        head = self.costs.device_time(items) - self.costs.layers_time(items)
        ready = now
        for s in range(pp):
            stage = max(share + (head if s == pp - 1 else 0.0), t.launch / pp)
            if s == 0:
                stage += t.cpu + t.cpu_per_seq * len(items) + self.reload
            self.stage_free[s] = max(ready, self.stage_free[s]) + stage
            ready = self.stage_free[s] + t.send + t.send_per_token * tokens
        return self.stage_free[-1]

    def complete(self, now):
        """Carry out the effects of the step that ends now. Returns the requests it finished."""
        _, items = self.flying.pop(0)
        self.ask_again = True
        finished = []
        for item in items:
            req = item.req
            req.in_flight = False
            if item.layers is None or item.layers[1] == self.spec.tables.n_layers:
                req.computed += item.n
            if item.emits:
                req.times.append(now)
                req.known += 1
                req.decoding = True
            self.blocks.commit(req)
        for row in self.padding:
            row.padded_for += 1
        padded = self.options["padded"]
        for req in [r for r in self.running if r.generated == r.output]:
            req.finish = now
            self.running.remove(req)
            finished.append(req)
            self.unfinished -= 1
            if padded:
                req.padded_for = 0
                self.padding.append(req)
            else:
                self.blocks.release(req)
        if not self.running:
            for row in self.padding:
                self.blocks.release(row)
            self.padding = []
        return finished


def route(router, engines, n_routed):
    if router == "round-robin":
        return engines[n_routed % len(engines)]
    if router == "least-outstanding":
        return min(engines, key=lambda e: (e.unfinished, e.index))
    if router == "least-queued":
        return min(engines, key=lambda e: (len(e.waiting), e.index))
    raise ValueError(f"the oracle has no router {router}")


def simulate_oracle(trace, policy_name, options, engine_spec, replicas=1, router="round-robin"):
    """Serve `trace` step by step and return a dict of lists, one entry per request.

    Parameters
    ----------
    trace : rota.workload.trace.Trace
    policy_name : str
        A key of `tests.oracle.policies.POLICIES`.
    options : dict
        Over the policy's defaults there, in vLLM's names.
    engine_spec : rota.cost.engine.EngineSpec
    replicas : int
    router : str
        ``"round-robin"``, ``"least-outstanding"`` or ``"least-queued"``.

    Returns
    -------
    dict
        ``arrival``, ``first_scheduled``, ``first_token``, ``finish``, ``max_tbt`` (s), ``preemptions``, ``recomputed``, ``cached``,
        ``replica``, ``rejected``, ``gaps`` (list of each request's token gaps, s), and ``engines`` for looking inside.
    """
    plan, defaults = POLICIES[policy_name]
    unknown = set(options) - set(defaults)
    assert not unknown, f"{policy_name} has no option {unknown}"
    common = {"enable_prefix_caching": False, "scheduling_policy": "fcfs", "padded": False}
    engines = [Engine(engine_spec, plan, common | defaults | options, i) for i in range(replicas)]
    requests = [Request(i, trace) for i in range(len(trace))]
    followers = {}
    for req in requests:
        if req.after >= 0:
            followers.setdefault(req.after, []).append(req)
    arrivals = [(r.arrival, r.sid) for r in requests if r.after < 0]
    arrivals.sort()
    n_routed, quiet, now = 0, 0, 0.0

    def release_followers(req):
        for child in followers.pop(req.sid, ()):
            child.arrival = now + child.delay
            insort(arrivals, (child.arrival, child.sid))

    while True:
        for engine in engines:
            while engine.flying and engine.flying[0][0] <= now:
                quiet = 0 if any(item.emits for item in engine.flying[0][1]) else quiet + 1
                assert quiet < LIVELOCK, "livelock: step after step, and never a token"
                for req in engine.complete(now):
                    release_followers(req)
        while arrivals and arrivals[0][0] <= now:
            req = requests[arrivals.pop(0)[1]]
            engine = route(router, engines, n_routed)
            n_routed += 1
            req.replica = engine.index
            engine.unfinished += 1
            engine.enqueue(req)
            engine.ask_again = True
        for engine in engines:
            while engine.can_start(now):
                engine.start(now)
        for req in requests if followers else ():
            if req.rejected and req.sid in followers:
                release_followers(req)
        times = [arrivals[0][0]] if arrivals else []
        for engine in engines:
            times += [end for end, _ in engine.flying]
            if engine.stage_free[0] > now:
                times.append(engine.stage_free[0])
        if not times:
            break
        now = max(now, min(times))
    assert all(not e.waiting and not e.running for e in engines), "stuck: sequences remain and nothing can happen"
    for engine in engines:
        assert engine.blocks.free == engine.spec.blocks, "blocks leaked"
    return columns(requests) | {"engines": engines}


def columns(requests):
    gaps = [[b - a for a, b in zip(r.times, r.times[1:], strict=False)] for r in requests]
    return {
        **{name: [getattr(r, name) for r in requests]
           for name in ("arrival", "first_scheduled", "finish", "preemptions", "recomputed", "cached", "replica", "rejected")},
        "first_token": [r.times[0] if r.times else math.nan for r in requests],
        "max_tbt": [max(g, default=0.0) for g in gaps],
        "gaps": gaps,
    }  # fmt: skip
