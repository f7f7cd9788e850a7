"""Steps that overlap device and host: against closed forms, against an independent telling, and against bounds, under random costs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rota.contracts import columns as col
from rota.contracts.serving import DECODE
from rota.cost.engine import EngineSpec
from rota.cost.host import HostCosts
from rota.cost.tables import StepTables
from rota.mechanisms.simulator import split
from rota.mechanisms.simulator import state as state_of
from rota.mechanisms.simulator.offload import NO_WORK, NOBODY, new_split_state
from rota.policies.offload.apex import pipelining_pays
from rota.workload.trace import Trace
from tests.simulator.two_tiers import passes_by_hand

RANDOM = dict(derandomize=True, deadline=None, max_examples=200)
SECONDS = st.floats(1e-5, 1e-2)


class Engine:
    """Decodes alone: so many on the device, the rest on the host, all of one context."""

    def __init__(self, rows, hosts, tables, context=100):
        n = rows + hosts
        trace = Trace(arrival=np.zeros(n), prompt=np.full(n, context), output=np.full(n, 10**6))
        spec = EngineSpec(tables=tables, blocks=10**7, block_size=16, max_len=10**7, host_blocks=10**7)
        self.s = new_split_state(n, state_of.request_columns(trace, spec), spec, seed=0)
        self.s.seq[:, col.PHASE] = DECODE
        self.s.seq[:, col.COMPUTED] = context - 1
        self.s.seq[:, col.BLOCKS] = 10**6
        self.s.tim[:, [col.FIRST_TOKEN, col.LAST_TOKEN]] = 0.0
        self.device, self.host = np.arange(rows), np.arange(rows, n)
        self.totals = np.array([spec.blocks, spec.host_blocks])

    def run(self, kind, steps, first=None, second=NOBODY):
        self.s.ctl[split.LEFT] = steps
        self.s.num[[split.ARRIVAL_AT, split.WAKE_AT]] = np.inf
        split.run_steps(self.s, kind, self.device, self.host if first is None else first, second, NO_WORK, self.totals)
        return float(self.s.num[split.NOW])

    @property
    def emitted(self):
        return self.s.seq[:, col.KNOWN] - self.s.seq[:, col.PROMPT]


def tables(linear, attention, each, layers, head=0.0, latency=0.0, slope=0.0, per_token=0.0):
    """Costs that do not depend on contexts: `attention` of the device in all, `each` of the host per sequence of context 100."""
    n = np.arange(64)
    host = HostCosts(floor=0.0, context_s=each / 100, latency=latency, send_s=per_token, back_s=per_token)
    return StepTables(layer=np.where(n > 0, linear + slope * n, 0.0), head=np.where(n > 0, head, 0.0), n_layers=layers,
                      decode_floor=attention, decode_byte_s=0.0, host=host)  # fmt: skip


@settings(**RANDOM)
@given(linear=SECONDS, attention=SECONDS, each=st.floats(1e-6, 1e-1), rows=st.integers(0, 9), hosts=st.integers(1, 24),
       layers=st.sampled_from([1, 2, 7, 32]), steps=st.integers(1, 120), slope=st.sampled_from([0.0, 1e-5]),
       latency=st.sampled_from([0.0, 3e-5]))  # fmt: skip
def test_asynchronous_overlap_as_told_by_hand(linear, attention, each, rows, hosts, layers, steps, slope, latency):
    priced = tables(linear, attention, each, layers, head=2e-4, latency=latency, slope=slope, per_token=1e-6)
    engine = Engine(rows, hosts, priced)
    ended = engine.run(split.ASYNC, steps)
    emitted, at = passes_by_hand(
        layers, lambda n: linear + slope * n, attention if rows else 0.0, lambda n: 2e-4 if n else 0.0, priced.host, [100] * hosts, steps, rows
    )
    assert ended == pytest.approx(at, rel=1e-9)
    assert engine.emitted[rows:].tolist() == [len(times) for times in emitted]
    last = [times[-1] if times else 0.0 for times in emitted]
    np.testing.assert_allclose(engine.s.tim[rows:, col.LAST_TOKEN], last, rtol=1e-9)
    assert (engine.emitted[:rows] == steps).all()


@settings(**RANDOM)
@given(linear=SECONDS, attention=SECONDS, each=st.floats(1e-6, 1e-2), rows=st.integers(1, 9), hosts=st.integers(1, 40),
       layers=st.sampled_from([1, 4, 16]), steps=st.integers(1, 200))  # fmt: skip
def test_asynchronous_overlap_keeps_to_its_bound(linear, attention, each, rows, hosts, layers, steps):
    """Tokens per layer cycle are at most b_g + N_C (T_l + T_a), N_C being the host's rate at the contexts of the beginning."""
    engine = Engine(rows, hosts, tables(linear, attention, each, layers))
    seconds = engine.run(split.ASYNC, steps)
    cycles = seconds / (linear + attention)
    bound = rows + (linear + attention) / each
    assert engine.emitted.sum() * layers <= bound * cycles * (1 + 1e-9)
    assert (engine.emitted[:rows] == steps).all(), "those on the device are never held up"
    assert seconds == pytest.approx(steps * layers * (linear + attention))


def test_asynchronous_overlap_comes_near_its_bound():
    """Given enough host sequences, and a host slower than the device's attention, so that everybody is late."""
    linear, attention, each, layers, rows = 1e-3, 1e-4, 5e-4, 8, 4
    engine = Engine(rows, 60, tables(linear, attention, each, layers))
    seconds = engine.run(split.ASYNC, 2000)
    bound = rows + (linear + attention) / (each * (1 + engine.emitted[rows:].mean() / 2 / 100))  # contexts have grown
    assert engine.emitted.sum() * layers / (seconds / (linear + attention)) == pytest.approx(bound, rel=0.05)


@settings(**RANDOM)
@given(linear=SECONDS, attention=SECONDS, each=SECONDS, rows=st.integers(0, 9), hosts=st.integers(1, 9), layers=st.integers(1, 40))
def test_a_barrier_waits_for_the_host_in_every_layer(linear, attention, each, rows, hosts, layers):
    engine = Engine(rows, hosts, tables(linear, attention, each, layers, head=3e-4))
    seconds = engine.run(split.BARRIER, 1)
    own = attention if rows else 0.0
    assert seconds == pytest.approx(layers * (linear + max(own, hosts * each)) + 3e-4)
    assert (engine.emitted == 1).all()


@settings(**RANDOM)
@given(linear=SECONDS, attention=SECONDS, each=SECONDS, rows=st.integers(1, 9), first=st.integers(0, 9), second=st.integers(0, 9),
       layers=st.integers(1, 40), slope=st.sampled_from([0.0, 1e-4]))  # fmt: skip
def test_pipelining_as_two_resources_with_dependencies(linear, attention, each, rows, first, second, layers, slope):
    """Against a schedule of the device and the host that knows nothing but who waits for whom."""
    engine = Engine(rows, first + second, tables(linear, attention, each, layers, slope=slope))
    seconds = engine.run(split.PIPELINED, 1, engine.host[:first], engine.host[first:])
    size = [rows + first, second]
    own, host = [attention, 0.0], [first * each, second * each]
    cost = [linear + slope * n if n else 0.0 for n in size]
    at = cost[0]  # the first sub-batch's first linear layer
    for stage in range(2 * layers):
        j = stage % 2
        following = cost[1 - j] if stage < 2 * layers - 1 else 0.0
        at = max(at + own[j] + following, at + host[j])
    assert seconds == pytest.approx(at)


@settings(**RANDOM)
@given(linear=SECONDS, ratio=st.floats(0.05, 3.0), rows=st.integers(1, 200), speed=st.floats(0.2, 5.0))
def test_equation_6_tells_which_cycle_is_faster(linear, ratio, rows, speed):
    """Steps of both kinds are run; the host is given as much as fits into 2 T_l + T_a, in small pieces so that nothing is rounded away."""
    attention, layers = linear * ratio, 400
    threshold = 2 / ratio + 3 + ratio
    device_rate = rows / attention
    host_rate = device_rate / (threshold * speed)
    pieces = 200  # host sequences of a piece's size stand for one
    each = 1 / host_rate / pieces
    first, second = int((attention + linear) / each), int(linear / each)
    assume(first + second <= 20_000 and second >= 20)
    priced = tables(linear, attention, each, layers)
    alone = Engine(rows, 0, priced).run(split.SERIAL, 1)
    engine = Engine(rows, first + second, priced)
    engine.s.seq[:rows, col.KNOWN] = 100
    pipelined = engine.run(split.PIPELINED, 1, engine.host[:first], engine.host[first:])
    gain = (rows + (first + second) / pieces) / pipelined / (rows / alone)
    assume(abs(gain - 1) > 0.02)
    assert (gain > 1) == pipelining_pays(device_rate, host_rate, linear, attention)


def test_noise_and_launch_bound_a_pass():
    priced = replace(tables(1e-4, 1e-5, 1e-3, 4), launch=0.5)
    engine = Engine(3, 5, priced)
    assert engine.run(split.ASYNC, 4) == pytest.approx(2.0)
    noisy = replace(tables(1e-3, 1e-4, 1e-3, 4), noise=0.2)
    times = [Engine(3, 0, noisy).run(kind, 50) for kind in (split.SERIAL, split.ASYNC, split.BARRIER)]
    assert times[0] == pytest.approx(times[1])  # the same noise in every mode
    assert times[0] == pytest.approx(times[2])
    assert times[0] != pytest.approx(50 * 4 * 1.1e-3)
