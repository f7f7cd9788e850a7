"""Small serving problems with host memory, and a policy that watches what its engine does with both tiers."""

from copy import deepcopy
from dataclasses import replace

from hypothesis import strategies as st

from rota.contracts.offload import HOST_ATTENTION, OffloadPlan
from rota.contracts.serving import DECODE
from rota.cost.host import HostCosts
from tests.simulator.scenarios import scenarios

HOST = HostCosts(floor=1.3e-5, context_s=7.1e-6, latency=2.3e-6, send_s=1.9e-6, back_s=0.7e-6, kv_s=1.1e-6)


@st.composite
def offload_scenarios(draw):
    """A `Scenario` on one stage, with more host memory than device memory or less, and a fast or a slow host."""
    scenario = draw(scenarios(pipeline=False))
    slow = draw(st.sampled_from([0.05, 1.0, 6.0]))
    tables = replace(scenario.engine.tables, host=HOST.scaled(slow))
    scenario.engine = replace(
        scenario.engine, tables=tables, host_blocks=draw(st.sampled_from([3, 30, scenario.engine.blocks + 60, 900]))
    )
    scenario.replicas, scenario.router = 1, "round-robin"
    return scenario


class OneTier:
    """A policy of the main simulator as one of two tiers that never uses the second."""

    def __init__(self, inner):
        self._inner = inner
        self.name, self.order, self.prefix_caching, self.follows = inner.name, inner.order, inner.prefix_caching, inner.follows
        self.max_seqs, self.max_step_tokens = inner.max_seqs, inner.max_step_tokens
        self.requires = inner.requires | {HOST_ATTENTION}

    def start(self, limits):
        self._inner.start(limits)

    def plan(self, view):
        return OffloadPlan(self._inner.plan(view))


class Watched:
    """Passes on another policy's plans, and before each checks what the engine says of its tiers against what it must be."""

    def __init__(self, inner, overlaps=None):
        self._inner = inner
        self.name, self.order, self.prefix_caching, self.follows = inner.name, inner.order, inner.prefix_caching, inner.follows
        self.max_seqs, self.max_step_tokens, self.requires = inner.max_seqs, inner.max_step_tokens, inner.requires
        self.overlaps = set() if overlaps is None else overlaps

    def __deepcopy__(self, memo):
        return Watched(deepcopy(self._inner, memo), self.overlaps)  # what it saw is for the test

    def start(self, limits):
        self._inner.start(limits)

    def plan(self, view):
        size, limits = view.limits.block_size, view.limits
        device, host = {s.sid: s for s in view.running}, {s.sid: s for s in view.hosted}
        assert not device.keys() & host.keys(), "a sequence's KV is on one tier"
        assert len(device) + len(host) == view.n_running
        assert sum(s.kv_blocks for s in device.values()) == limits.blocks - view.free_blocks
        assert sum(s.kv_blocks for s in host.values()) == view.host_blocks - view.free_host_blocks
        assert view.free_blocks >= 0
        assert view.free_host_blocks >= 0
        for s in (*device.values(), *host.values()):
            assert s.kv_blocks * size >= s.n_computed, "all of it"
            assert s.n_computed == s.n_known - 1 or s.phase != DECODE
        assert not any(s.in_flight for s in device.values())
        assert view.n_decode == sum(s.phase == DECODE for s in device.values())
        plan = self._inner.plan(view)
        if host:
            self.overlaps.add(plan.overlap)
        return plan


def policies():
    """Those that split attention, in all their forms, with few seats."""
    from rota.policies.registry import make_policy

    yield make_policy("neo", max_num_seqs=9)
    yield make_policy("neo", max_num_seqs=9, max_num_batched_tokens=160)
    for overlap in ("auto", "pipelined", "async", "barrier"):
        yield make_policy("apex", max_num_seqs=9, overlap=overlap)
    yield make_policy("apex", max_num_seqs=9, host_load=0.2)


def passes_by_hand(layers, linear, attention, head, host, known, steps, device_rows):
    """An independent telling of asynchronous overlap: times at which each host sequence emits within so many passes.

    The device walks through layer 0, 1, ..., head, once a pass. Whoever stands in front of a layer with its attention of the layer before
    done is taken along; the host serves requests one after the other, in the order in which they come, one call for those of a layer.
    """
    at, server = 0.0, 0.0
    position = [0] * len(known)  # the next stop: a layer, or `layers` for the head
    ready = [0.0] * len(known)
    known = list(known)
    emitted = [[] for _ in known]
    for _ in range(steps):
        if not device_rows:
            at = max(at, min(ready))
        out = []
        for stop in range(layers + 1):
            aboard = [i for i in range(len(known)) if position[i] == stop and ready[i] <= at]
            if stop == layers:
                at += head(device_rows + len(aboard))
                out = aboard
                continue
            if not aboard and not device_rows:
                continue
            at += linear(device_rows + len(aboard))
            if aboard:
                server = max(server, at + host.latency + host.send_s * len(aboard)) + host.floor
                for i in aboard:
                    server += host.context_s * known[i]
                    ready[i] = server + host.latency + host.back_s
                    position[i] = stop + 1
            at += attention
        for i in out:
            emitted[i].append(at)
            known[i] += 1
            position[i], ready[i] = 0, 0.0
    return emitted, at
