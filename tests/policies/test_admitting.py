"""Admission on a simulated engine: what must never happen, which policies must coincide, and that jumps and snapshots change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rota.contracts.check import _problem
from rota.errors import UnsupportedPolicy
from rota.mechanisms.simulator import engine as simulated
from rota.mechanisms.simulator import simulate
from rota.policies.batching.compositions import COMPOSITIONS
from rota.policies.registry import make_policy
from rota.workload.trace import Trace
from tests.policies.snapshot import Snapshot
from tests.simulator.scenarios import scenarios
from tests.simulator.test_modes import NO_SHRINK, assert_same

SOME = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINK)
FEW = settings(SOME, max_examples=16)
TOKENS = {"sarathi": 24, "orca-paged": None, "vllm-v0": 128, "vllm-v1": 24}
PARTS = {
    "oracle-lengths": {}, "past-future": dict(window=6, initial=20), "conservative": dict(overcommit=1.3),
    "lightllm": dict(router_token_ratio=0.5),
}
REDRAWING = "past-future", dict(window=6, initial=20, redraw=5e-3)  # fmt: skip


def made(name, batching, **options):
    return make_policy(name, batching=batching, max_num_seqs=6, max_num_batched_tokens=TOKENS[batching], **options)


def with_limits(scenario, seed=0):
    """The scenario with declared limits on outputs, which conservative admission goes by."""
    rng = np.random.default_rng(seed)
    output = scenario.trace.output
    scenario.trace = scenario.trace.with_columns(max_new=output + rng.integers(0, 20, len(output)))
    return scenario


@SOME
@given(scenarios())
def test_true_lengths_never_evict(scenario):
    for batching in COMPOSITIONS:
        run = simulate(scenario.trace, made("oracle-lengths", batching), scenario.engine, replicas=scenario.replicas)
        assert run.preemptions.sum() == 0, batching
        assert not run.rejected.any()
        assert np.isfinite(run.finish).all()


@pytest.mark.parametrize("batching", COMPOSITIONS)
def test_true_lengths_never_evict_where_every_token_counts(batching):
    """Blocks of one token and memory for two or three requests, in all sizes: an error of one token anywhere evicts somebody."""
    _, engine = _problem(np.random.default_rng(0), make_policy("layered"))
    aggressive = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        trace = Trace(arrival=np.zeros(8), prompt=rng.integers(1, 12, 8), output=rng.integers(1, 16, 8))
        need = int((trace.prompt + trace.output).max())
        for blocks in range(need, need + 24):
            tight = replace(engine, blocks=blocks, block_size=1)
            for tokens in (6, 10) if COMPOSITIONS[batching].chunked else (None,):
                options = dict(batching=batching, max_num_seqs=6, max_num_batched_tokens=tokens)
                assert simulate(trace, make_policy("oracle-lengths", **options), tight).preemptions.sum() == 0, (seed, blocks)
                aggressive += simulate(trace, make_policy("aggressive", **options), tight).preemptions.sum()
    assert aggressive > 50


@SOME
@given(scenarios())
def test_room_for_the_longest_output_never_evicts(scenario):
    with_limits(scenario)
    for batching in COMPOSITIONS:
        for peak in (False, True):
            run = simulate(scenario.trace, made("conservative", batching, peak=peak), scenario.engine)
            # one whose longest output does not fit runs alone, and its true output does
            assert run.preemptions.sum() == 0, (batching, peak)


@SOME
@given(scenarios())
def test_policies_that_must_coincide(scenario):
    with_limits(scenario)
    run = {"replicas": scenario.replicas}
    for batching in COMPOSITIONS:
        peak = simulate(scenario.trace, made("conservative", batching, peak=True), scenario.engine, **run)
        assert_same(peak, simulate(scenario.trace, made("lightllm", batching), scenario.engine, **run), "always busy")
        told = scenario.trace.with_columns(max_new=scenario.trace.output)
        assert_same(
            simulate(told, made("oracle-lengths", batching), scenario.engine, **run),
            simulate(told, made("conservative", batching, peak=True), scenario.engine, **run),
            "limits that are the truth",
        )
    host = make_policy("vllm-v0", max_num_seqs=6, max_num_batched_tokens=128)
    expected = simulate(scenario.trace, host, scenario.engine, compiled=False, **run)
    assert_same(expected, simulate(scenario.trace, made("aggressive", "vllm-v0"), scenario.engine, **run), "vLLM v0")


@SOME
@given(scenarios())
def test_with_ample_memory_admission_makes_no_difference(scenario):
    ample = replace(scenario.engine, blocks=20_000)
    for batching in COMPOSITIONS:
        expected = simulate(scenario.trace, made("aggressive", batching), ample)
        for name, options in PARTS.items():
            assert_same(expected, simulate(scenario.trace, made(name, batching, **options), ample), name)


@FEW
@given(scenarios())
def test_jumps_and_snapshots_change_nothing(scenario):
    with_limits(scenario)
    for batching in COMPOSITIONS:
        for name, options in (*PARTS.items(), REDRAWING):
            policy = made(name, batching, **options)
            run = {"replicas": scenario.replicas, "router": scenario.router}
            jumps = simulate(scenario.trace, policy, scenario.engine, **run)
            assert_same(simulate(scenario.trace, policy, scenario.engine, compress=False, **run), jumps, f"{name} on {batching}")
            assert_same(simulate(scenario.trace, Snapshot(policy), scenario.engine, **run), jumps, f"{name} on {batching}")
            assert np.isfinite(jumps.finish[~jumps.rejected]).all()


def test_an_oracle_needs_an_engine_that_knows_the_truth(monkeypatch):
    trace, engine = _problem(np.random.default_rng(0), make_policy("vllm-v0"))
    monkeypatch.setattr(simulated, "CAPABILITIES", simulated.CAPABILITIES - {"oracle"})
    with pytest.raises(UnsupportedPolicy, match="oracle-lengths needs oracle"):
        simulate(trace, make_policy("oracle-lengths"), engine)
