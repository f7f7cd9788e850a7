"""Capacity against closed forms, and the search against what it promises of its bracket."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rota.errors import InputError
from rota.results.slo import SLO
from rota.studies.capacity import bracket, capacity
from rota.studies.replicate import Interrupted
from tests.studies.servers import STEP, OneAtATime, SteadyServer, steady_trace

SERVICE = 50 * STEP


def closed_form(limit: float, n: int = 200) -> float:
    """Request i of equal ones at rate r waits i (S - 1/r); the p99 over n of them is at i = 0.99 (n - 1)."""
    return 1 / (SERVICE - limit / (0.99 * (n - 1)))


@pytest.mark.parametrize("limit", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("start", [0.01, 1.0, 300.0])
def test_capacity_is_the_closed_form_wherever_the_search_starts(limit: float, start: float) -> None:
    slo = SLO.parse(f"p99 queueing={limit}")
    row = capacity(steady_trace(), SteadyServer(), [OneAtATime()], slo, start=start).rows[0]
    assert row.rate <= closed_form(limit) < row.fails_at
    assert row.fails_at <= row.rate * 1.025
    assert row.broken_by == "p99 queueing"
    assert row.trail[0].rate == start
    assert len(row.trail) <= 20


def test_request_limits_count_the_share_that_keeps_them() -> None:
    slo = SLO.parse("queueing=1, attain=90%")
    row = capacity(steady_trace(), SteadyServer(), [OneAtATime()], slo).rows[0]
    # request i waits i (S - 1/r), and nine tenths of 200 are those up to i = 179
    assert row.rate <= 1 / (SERVICE - 1.0 / 179) < row.fails_at
    assert row.broken_by == "attainment"


def test_policies_and_replications_share_processes() -> None:
    slo = SLO.parse("p99 queueing=1")
    result = capacity(steady_trace(), SteadyServer({"cpu": 0.2}), [OneAtATime("a"), OneAtATime("b")], slo, seeds=3, jobs=2)
    assert [row.policy for row in result.rows] == ["a", "b"]
    assert result.rows[0].trail == result.rows[1].trail
    assert result.rows[0].band.n == 3
    assert result.rows[0].band.low < result.rows[0].rate < result.rows[0].band.high
    assert result.frame().height == 2
    assert result.trail_frame().height == sum(len(row.trail) for row in result.rows)


def test_an_objective_that_nothing_meets_and_one_that_everything_meets() -> None:
    never = capacity(steady_trace(20), SteadyServer(), [OneAtATime()], SLO.parse("p50 e2e=0.1")).rows[0]
    assert (never.rate, never.broken_by) == (0.0, "p50 e2e")
    always = capacity(steady_trace(20), SteadyServer(), [OneAtATime()], SLO.parse("p50 e2e=1000")).rows[0]
    assert (always.rate, always.fails_at, always.broken_by) == (math.inf, math.inf, "")


def test_bracket_ignores_a_lucky_rate_above_a_failing_one() -> None:
    from rota.studies.capacity import Probe

    trail = [Probe(1.0, True, {}), Probe(2.0, False, {}), Probe(4.0, True, {}), Probe(1.5, True, {})]
    assert bracket(trail) == (1.5, 2.0)


def test_interrupt_keeps_finished_policies() -> None:
    def stop(done: int, total: int, label: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        capacity(steady_trace(20), SteadyServer(), [OneAtATime("a"), OneAtATime("b")], SLO.parse("p99 queueing=1"), progress=stop)
    assert [row.policy for row in caught.value.partial.rows] == ["a"]
    assert caught.value.partial.incomplete == "stopped after 1 of 2 searches"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be between 0 and 1"),
        ({"start": -1.0}, "must be positive"),
        ({"start": math.nan}, "must be positive"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        capacity(steady_trace(4), SteadyServer(), [OneAtATime()], SLO.parse("ttft=1"), **options)  # type: ignore[arg-type]


def test_a_trace_without_time_has_no_rate() -> None:
    trace = steady_trace(4).with_columns(arrival=np.zeros(4))
    with pytest.raises(InputError, match="there is no rate to change"):
        capacity(trace, SteadyServer(), [OneAtATime()], SLO.parse("ttft=1"))
