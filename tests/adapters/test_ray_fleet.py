"""Engines as Ray actors behind the router: on the cost model's clock they are the simulator's replicas, request by request."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="the Ray adapter needs Ray (extra ray)")

from rota.cost.engine import EngineSpec  # noqa: E402
from rota.cost.tables import StepTables  # noqa: E402
from rota.errors import InputError, RotaError  # noqa: E402
from rota.mechanisms.adapters.ray_fleet import Fleet  # noqa: E402
from rota.mechanisms.engine import Choice, Engine, ModelClock, SamplingParams  # noqa: E402
from rota.mechanisms.simulator import simulate  # noqa: E402
from rota.policies.registry import parse_policy  # noqa: E402
from rota.workload.trace import Trace  # noqa: E402

POLICY = "sarathi:max_num_seqs=6,max_num_batched_tokens=24"


class Counting:
    """A model that counts: after token t comes t + 1."""

    max_len, vocab, end_tokens, n_layers = 160, 1 << 30, frozenset(), 4

    def allocate(self, blocks, block_size):
        pass

    def run(self, rows, tables):
        return [Choice(row.seq.tokens[-1] + 1) for row in rows if row.emits]

    def forget(self, seq):
        pass


class Choosy(Counting):
    """Every token tells the seed of its request."""

    def run(self, rows, tables):
        return [Choice(row.seq.seed % 1000) for row in rows if row.emits]


def spec():
    tokens = np.arange(64)
    tables = StepTables(
        layer=np.where(tokens > 0, 2e-4 + 3e-5 * tokens, 0.0), head=np.where(tokens > 0, 1e-4 + 1e-5 * tokens, 0.0), n_layers=4,
        decode_byte_s=1.7e-6, prefill_flop_s=4.1e-8, cpu=7e-5,
    )  # fmt: skip
    return EngineSpec(tables=tables, blocks=24, block_size=8, max_len=160)


def modelled(engine_spec, runner=Counting):
    """An engine that keeps the simulator's hours."""
    return Engine(
        runner(), parse_policy(POLICY), blocks=engine_spec.blocks, block_size=engine_spec.block_size, clock=ModelClock(engine_spec.tables),
        compress=False,
    )  # fmt: skip


def timed(runner):
    """An engine in real time."""
    return Engine(runner(), parse_policy(POLICY), blocks=24, block_size=8)


@pytest.fixture(autouse=True)
def _end():
    ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["x"]))
    yield
    ray.shutdown()


@pytest.mark.parametrize("router", ["round-robin", "least-outstanding", "least-queued", "program"])
def test_a_fleet_routes_and_serves_as_the_simulator_says(router):
    rng = np.random.default_rng(3)
    n = 60
    program = np.sort(rng.integers(0, 20, n)) if router == "program" else None
    trace = Trace(
        arrival=np.cumsum(rng.exponential(8e-3, n)), prompt=rng.integers(1, 90, n), output=rng.integers(1, 50, n), program=program
    )  # fmt: skip
    run = simulate(trace, parse_policy(POLICY), spec(), replicas=3, router=router, compress=False, compiled=False)
    fleet = Fleet(partial(modelled, spec()), 3, router)
    outputs, where = [], []
    for i in range(n):
        at = float(trace.arrival[i])
        outputs += fleet.run_until(at)
        params = SamplingParams(max_tokens=int(trace.output[i]), temperature=0.0)
        number = fleet.add_request(
            [1] * int(trace.prompt[i]), params, arrival=at, program=-1 if program is None else int(program[i])
        )  # fmt: skip
        where.append(fleet.replica_of(number))
    outputs += fleet.run_until(float("inf"))
    assert not fleet.has_work
    assert where == run.replica.tolist()
    assert len(set(where)) == 3
    ends = {output.sid: output.time for output in outputs if output.finish}
    assert [ends[i] for i in range(n)] == run.finish.tolist()
    for i in range(n):
        assert [output.token for output in outputs if output.sid == i] == list(range(2, 2 + trace.output[i]))


def test_tokens_do_not_depend_on_where_a_request_runs():
    told = []
    for replicas, router in ((1, "round-robin"), (2, "least-outstanding")):
        fleet = Fleet(partial(timed, Choosy), replicas, router, seed=5)
        numbers = [fleet.add_request([1, 2, 3], SamplingParams(max_tokens=4)) for _ in range(8)]
        assert {fleet.replica_of(number) for number in numbers} == set(range(replicas))
        outputs = _finish(fleet)
        told.append([[output.token for output in outputs if output.sid == number] for number in numbers])
        fleet.close()
    assert told[0] == told[1]
    assert len({tuple(tokens) for tokens in told[0]}) > 4


def test_a_lost_replica_is_one_clear_error():
    fleet = Fleet(partial(timed, Counting), 2, "round-robin")
    for _ in range(4):
        fleet.add_request([1, 2, 3], SamplingParams(max_tokens=100))
    ray.kill(fleet._replicas[1])
    with pytest.raises(RotaError, match="replica 1 of 2 was lost with 2 requests"):
        _finish(fleet)


def _finish(fleet):
    outputs = []
    while fleet.has_work:
        outputs += fleet.step()
    return outputs


def test_a_bad_request_is_refused_and_takes_no_place():
    fleet = Fleet(partial(timed, Counting), 2, "round-robin")
    with pytest.raises(InputError, match="the prompt is empty"):
        fleet.add_request([])
    assert not fleet.has_work
    assert fleet.add_request([1], SamplingParams(max_tokens=1)) == 0


def test_routers_are_checked_before_anything_is_started():
    with pytest.raises(InputError, match="unknown router"):
        Fleet(partial(timed, Counting), 2, "nearest")
