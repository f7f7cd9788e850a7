"""Temporal fusion against its closed form: equal requests at a fixed interval, steps of constant cost."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from rota.workload.trace import Trace

PROMPT = 40


def fused_makespan(n, interval, prefill, decode, tokens):
    """Seconds until the last of `n` requests has its last token, if there are seats for all.

    Request i joins at J_i, the first step boundary at or after its arrival i T, but a whole turn (P + D) after the one before. While
    somebody decodes, boundaries lie D apart, shifted by one P per request that has joined, so J_i = i P + D max(i, ceil(i (T - P) / D)).
    If T is at least P + (O - 1) D each request finds the engine idle and starts when it comes.
    """
    alone = prefill + (tokens - 1) * decode
    if interval >= alone:
        return (n - 1) * interval + alone
    last = n - 1
    joins = last * prefill + decode * max(last, math.ceil(last * (interval - prefill) / decode))
    return joins + alone


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.integers(0, 5000), st.integers(1, 40), st.integers(1, 25), st.integers(2, 60))
def test_the_fused_makespan_is_its_closed_form(n, interval, prefill, decode, tokens):
    """Times are multiples of 2**-10 s, so that nothing is rounded and arrivals that meet a boundary do so exactly."""
    unit = 2.0**-10
    cost = np.zeros(200)
    cost[1:PROMPT], cost[PROMPT:] = decode * unit, prefill * unit
    spec = EngineSpec(tables=StepTables(layer=cost, head=np.zeros(2), n_layers=1), blocks=20 * 7, block_size=16, max_len=PROMPT + 60)
    trace = Trace(arrival=np.arange(n) * interval * unit, prompt=np.full(n, PROMPT), output=np.full(n, tokens))
    run = simulate(trace, make_policy("flover", max_num_seqs=20), spec)
    assert run.finish.max() == fused_makespan(n, interval, prefill, decode, tokens) * unit


def test_one_seat_is_one_at_a_time():
    cost = np.zeros(200)
    cost[1:PROMPT], cost[PROMPT:] = 0.5, 2.0
    spec = EngineSpec(tables=StepTables(layer=cost, head=np.zeros(2), n_layers=1), blocks=100, block_size=16, max_len=80)
    trace = Trace(arrival=np.arange(5) * 3.0, prompt=np.full(5, PROMPT), output=np.array([7, 3, 1, 9, 2]))
    fused, single = (simulate(trace, make_policy(name, max_num_seqs=1), spec) for name in ("flover", "static"))
    np.testing.assert_array_equal(fused.finish, single.finish)
    assert fused.finish[0] == pytest.approx(2.0 + 6 * 0.5)
