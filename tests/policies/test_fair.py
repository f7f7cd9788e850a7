"""Orders of tenants: counters against a recount from scratch, the rule of choice, equivalences, and memory that does not grow."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rota.contracts.check import _problem
from rota.errors import InputError
from rota.mechanisms.simulator import simulate
from rota.policies.admission.aggressive import Aggressive
from rota.policies.batching.composed import COMPOSITIONS, Composed
from rota.policies.order import vtc
from rota.policies.order.prices import PAPER_COST, QUADRATIC
from rota.policies.order.vtc import VTC
from rota.policies.registry import make_policy
from rota.policies.victim.latest import LatestArrival
from rota.workload.trace import Trace
from tests.policies.snapshot import Snapshot
from tests.simulator.scenarios import scenarios
from tests.simulator.test_modes import NO_SHRINK, assert_same

SOME = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINK)
FEW = settings(SOME, max_examples=16)
TOKENS = {"sarathi": 24, "orca-paged": None, "vllm-v0": 128, "vllm-v1": 24}


def made(name, batching, **options):
    return make_policy(name, batching=batching, max_num_seqs=6, max_num_batched_tokens=TOKENS[batching], **options)


def composed(order, seqs, batching="vllm-v0"):
    tokens = TOKENS[batching]
    return Composed(order, Aggressive(0.0), LatestArrival(), batching=batching, max_num_seqs=seqs, max_num_batched_tokens=tokens)


def with_tenants(scenario, tenants=4):
    n = len(scenario.trace)
    scenario.trace = scenario.trace.with_columns(tenant=np.random.default_rng(n).integers(0, tenants, n))
    return scenario


class Recounted(VTC):
    """VTC that checks itself against the definition at every choice: nothing here is kept up to date, all is summed up anew."""

    def start(self, limits):
        super().start(limits)
        self.begun, self.lifted, self.choices = {}, {}, 0

    def __deepcopy__(self, memo):
        return self  # so that the test sees what the engine used

    def queue(self, view):
        taken = set()
        for seq in super().queue(view):
            for tenant, counter in self.counters.items():
                weight = self.weights[tenant] if tenant < len(self.weights) else 1.0
                served = [view.seq(sid) for sid, owner in self.begun.items() if owner == tenant]
                cost = sum(self.cost(s.n_prompt, s.n_known - s.n_prompt) for s in served)
                assert counter == pytest.approx(self.lifted.get(tenant, 0.0) + cost / weight)
            waiting = [s for s in view.waiting if s.sid not in taken]
            assert self.counters[seq.tenant] == min(self.counters[s.tenant] for s in waiting)
            assert seq.sid == next(s.sid for s in waiting if s.tenant == seq.tenant)
            taken.add(seq.sid)
            self.choices += len({s.tenant for s in waiting}) > 1
            yield seq

    def leaves(self, seq, admitted):
        if admitted:
            self.begun[seq.sid] = seq.tenant
        super().leaves(seq, admitted)

    def _lift(self):
        before = dict(self.counters)
        new = list(self._arrived)
        least = min((before[t] for t in self._queued if t not in new), default=before.get(self._last, 0.0))
        super()._lift()
        for tenant in new:
            assert self.counters[tenant] >= max(least, before.get(tenant, 0.0))
            self.lifted[tenant] = self.lifted.get(tenant, 0.0) + self.counters[tenant] - before.get(tenant, 0.0)
        if new and len(new) < len(self._queued):
            assert all(self.counters[t] == max(least, before.get(t, 0.0)) for t in new)


@SOME
@given(scenarios(plain=True))
@pytest.mark.parametrize("cost", [PAPER_COST, QUADRATIC])
def test_counters_equal_a_recount_and_the_smallest_comes_next(cost, scenario):
    with_tenants(scenario)
    for batching in COMPOSITIONS:
        order = Recounted(cost, (1.0, 2.0, 0.5))
        simulate(scenario.trace, composed(order, 6, batching), scenario.engine)
        assert not order._queued and len(order._running) <= 6 and not order._evicted  # the last to finish are not reported any more


def test_the_recount_has_something_to_check():
    trace, engine = _problem(np.random.default_rng(3), make_policy("layered"))
    trace = trace.with_columns(tenant=np.arange(len(trace)) % 3, arrival=np.zeros(len(trace)))
    order = Recounted(QUADRATIC)
    simulate(trace, composed(order, 3), engine)
    assert order.choices > 5


@SOME
@given(scenarios())
def test_alone_a_tenant_is_served_as_by_the_host(scenario):
    for batching in COMPOSITIONS:
        host = made("aggressive", batching)
        expected = simulate(scenario.trace, host, scenario.engine, replicas=scenario.replicas)
        for name in ("vtc", "rate-limit"):
            options = dict(requests_per_minute=1000) if name == "rate-limit" else dict(predict=True)
            assert_same(expected, simulate(scenario.trace, made(name, batching, **options), scenario.engine, replicas=scenario.replicas), name)


@FEW
@given(scenarios())
def test_jumps_and_snapshots_change_nothing(scenario):
    with_tenants(scenario)
    for batching in COMPOSITIONS:
        for name, options in (("vtc", dict(weights="1/3")), ("vtc", dict(predict=True, cost="quadratic", admission="past-future")),
                              ("rate-limit", dict(requests_per_minute=2))):  # fmt: skip
            policy = made(name, batching, **options)
            run = {"replicas": scenario.replicas, "router": scenario.router}
            jumps = simulate(scenario.trace, policy, scenario.engine, **run)
            assert_same(simulate(scenario.trace, policy, scenario.engine, compress=False, **run), jumps, f"{name} on {batching}")
            assert_same(simulate(scenario.trace, Snapshot(policy), scenario.engine, **run), jumps, f"{name} on {batching}")
            assert np.isfinite(jumps.finish[~jumps.rejected]).all()


def many_tenants(n=1500):
    """Tenants that come once, among a few that come often and ask for much."""
    rng = np.random.default_rng(5)
    often = rng.random(n) < 0.4
    tenant = np.where(often, rng.integers(0, 8, n), np.arange(n) + 10)
    _, engine = _problem(np.random.default_rng(0), make_policy("layered"))
    prompt, output = rng.integers(1, 40, n), np.where(often, 30, rng.integers(1, 8, n))
    return Trace(arrival=np.cumsum(rng.exponential(1.5e-2, n)), prompt=prompt, output=output, tenant=tenant), engine


class Watched(VTC):
    def __deepcopy__(self, memo):
        return self

    def queue(self, view):
        for seq in super().queue(view):
            self.most = max(getattr(self, "most", 0), len(self.counters))
            yield seq


def test_forgetting_absent_tenants_changes_no_decision(monkeypatch):
    trace, engine = many_tenants()
    runs, most = [], []
    for slack in (0, 10**9):
        monkeypatch.setattr(vtc, "SLACK", slack)
        order = Watched()
        runs.append(simulate(trace, composed(order, 4), engine))
        most.append(order.most)
    assert_same(*runs, "forgetting")
    assert most[0] < most[1] / 5, most


def test_idling_earns_no_credit():
    """Tenant 1 comes when tenant 0 has been served for long: from then on they take turns, and tenant 1 does not catch up first."""
    n = 60
    tenant = np.where(np.arange(n) < 40, 0, 1)
    arrival = np.where(tenant == 0, 0.0, 0.15)
    _, engine = _problem(np.random.default_rng(0), make_policy("layered"))
    trace = Trace(arrival=np.sort(arrival), prompt=np.full(n, 10), output=np.full(n, 10), tenant=tenant)
    run = simulate(trace, make_policy("vtc", max_num_seqs=1), engine)
    order = np.argsort(run.first_scheduled)
    turns = tenant[order][np.argmax(tenant[order]) :]
    assert 5 < np.argmax(tenant[order]) < 35
    assert set(np.diff(turns[:20])) == {-1, 1}


def test_rate_limits_hold_back_and_let_go():
    trace = Trace(arrival=np.zeros(10), prompt=np.full(10, 5), output=np.full(10, 5), tenant=np.repeat([0, 1], [7, 3]))
    _, engine = _problem(np.random.default_rng(0), make_policy("layered"))
    run = simulate(trace, make_policy("rate-limit", requests_per_minute=3), engine)
    minutes = (run.first_scheduled // 60).astype(int).tolist()
    assert minutes == [0, 0, 0, 1, 1, 1, 2, 0, 0, 0]
    np.testing.assert_allclose(run.first_scheduled[3] , 60.0, atol=0.01)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (dict(weights="1/x"), "such as 1/2/1, not '1/x'"),
        (dict(weights="1/0"), "positive numbers, not 1/0"),
        (dict(cost="cubic"), "linear or quadratic"),
        (dict(output_price=-1), "output_price must be a number of at least 0"),
        (dict(admission="bold"), "admission must be one of aggressive"),
    ],
)
def test_options_that_make_no_sense(text, says):
    with pytest.raises(InputError, match=says):
        make_policy("vtc", **text)
