"""What the study of Past-Future measures, on a run in closed form."""

import dataclasses

import numpy as np
import pytest

from rota.studies.reproduce.past_future import MTPOT, TTFT, capacity, steady
from tests.results.fifo import fifo_run


def test_the_steady_state_is_between_the_first_third_and_the_last_question():
    run = fifo_run(90, seed=3, rate=1.8)
    run = dataclasses.replace(run, preemptions=np.arange(90) % 2)
    late = run.first_token - run.arrival > TTFT
    run.max_tbt[5::7] = 2 * MTPOT
    figures = steady(run)
    begin, end = np.sort(run.finish)[30], run.arrival[-1]
    chosen = [i for i in range(90) if begin < run.finish[i] <= end]
    assert 20 < len(chosen) < 60
    span = end - begin
    assert figures["throughput"] == pytest.approx(sum(run.output[i] for i in chosen) / span)
    smooth = [i for i in chosen if run.max_tbt[i] <= MTPOT or run.output[i] == 1]
    assert figures["smooth"] == pytest.approx(sum(run.output[i] for i in smooth) / span)
    assert figures["goodput"] < figures["smooth"] < figures["throughput"]
    assert figures["goodput"] == pytest.approx(sum(run.output[i] for i in smooth if not late[i]) / span)
    assert figures["gated"] == 0
    assert figures["evictions"] == pytest.approx(np.mean([i % 2 for i in chosen]))


def test_within_the_limits_all_that_is_served_counts():
    figures = steady(fifo_run(90, seed=3, rate=0.1))
    assert figures["gated"] == figures["goodput"] == figures["throughput"] > 0


def test_capacity_ends_where_the_limits_first_break():
    assert capacity([5.0, 6.0, 0.0, 7.0], [10, 12, 14, 16]) == 12
    assert capacity([0.0, 6.0], [10, 12]) == 0
    assert capacity([5.0, 6.0], [10, 12]) == 12
