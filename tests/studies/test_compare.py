"""Comparisons: paired replications, the same answer from any number of processes, and what an interrupt leaves."""

from __future__ import annotations

import numpy as np
import pytest

from rota.errors import InputError, RotaError
from rota.results.latency import queueing
from rota.results.slo import SLO
from rota.studies.compare import compare
from rota.studies.replicate import Interrupted
from tests.studies.servers import OneAtATime, SteadyServer, lindley, random_trace, steady_trace


def test_waiting_times_follow_lindleys_recursion() -> None:
    trace = random_trace(3)
    found = compare(trace, SteadyServer(), [OneAtATime()])
    np.testing.assert_allclose(queueing(found.runs["one"][0]), lindley(trace), atol=1e-9)


def test_replications_are_paired_and_the_first_is_nominal() -> None:
    found = compare(random_trace, SteadyServer({"cpu": 0.3}), [OneAtATime("a"), OneAtATime("b")], seeds=4, seed=7)
    for i in range(4):
        first, second = found.runs["a"][i], found.runs["b"][i]
        np.testing.assert_array_equal(first.arrival, random_trace(7 + i).arrival)
        np.testing.assert_array_equal(first.finish, second.finish)
    np.testing.assert_allclose(queueing(found.runs["a"][0]), lindley(random_trace(7)), atol=1e-9)
    assert found.versus("a", "b", "ttft_p99").tie
    assert found.conditions["replications"] == 4


def test_cost_error_widens_the_band_of_a_recorded_trace_and_can_be_left_out() -> None:
    trace = random_trace(1)
    wide = compare(trace, SteadyServer({"cpu": 0.3}), [OneAtATime()], seeds=4)
    none = compare(trace, SteadyServer({"cpu": 0.3}), [OneAtATime()], seeds=4, cost_error=False)
    assert wide.bands["one"]["e2e_mean"].high > 1.2 * wide.bands["one"]["e2e_mean"].low
    assert none.bands["one"]["e2e_mean"].high == none.bands["one"]["e2e_mean"].low


def test_processes_give_what_one_process_gives() -> None:
    policies = [OneAtATime("a"), OneAtATime("b")]
    alone = compare(random_trace, SteadyServer(), policies, seeds=2, jobs=1)
    shared = compare(random_trace, SteadyServer(), policies, seeds=2, jobs=2)
    for label in alone.labels:
        for one, two in zip(alone.runs[label], shared.runs[label], strict=True):
            np.testing.assert_array_equal(one.finish, two.finish)
            np.testing.assert_array_equal(one.tbt_histogram, two.tbt_histogram)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_run_is_one_line_from_any_process(jobs: int) -> None:
    class_ = OneAtATime("greedy")
    class_.max_seqs = 0
    with pytest.raises(RotaError, match="greedy"):
        compare(steady_trace(4), SteadyServer(), [class_, OneAtATime()], jobs=jobs)


def test_progress_counts_every_run() -> None:
    seen: list[tuple[int, int, str]] = []
    compare(steady_trace(4), SteadyServer(), [OneAtATime("a"), OneAtATime("b")], seeds=2, progress=lambda *at: seen.append(at))
    assert seen == [(1, 4, "a"), (2, 4, "b"), (3, 4, "a"), (4, 4, "b")]


@pytest.mark.parametrize(("stop_after", "labels", "replications"), [(1, ["a"], 1), (2, ["a", "b"], 1), (5, ["a", "b"], 2)])
def test_an_interrupt_keeps_what_is_complete(stop_after: int, labels: list[str], replications: int) -> None:
    def stop(done: int, total: int, label: str) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        compare(steady_trace(4), SteadyServer(), [OneAtATime("a"), OneAtATime("b")], seeds=3, progress=stop)
    partial = caught.value.partial
    assert partial.labels == labels
    assert partial.replications == replications
    assert partial.conditions["incomplete"].startswith(f"stopped after {replications} of 3")


def test_an_objective_that_is_given_is_used() -> None:
    slo = SLO.parse("e2e=0.5001")
    assert compare(steady_trace(), SteadyServer(), [OneAtATime()], slo=slo).summaries["one"][0]["slo_attainment"] == 1.0
    slo = SLO.parse("e2e=0.4999")
    assert compare(steady_trace(), SteadyServer(), [OneAtATime()], slo=slo).summaries["one"][0]["slo_attainment"] == 0.0


@pytest.mark.parametrize(
    ("policies", "options", "message"),
    [
        ([], {}, "no policy given"),
        ([OneAtATime(), OneAtATime()], {}, "given twice"),
        ([OneAtATime()], {"seeds": 0}, "seeds must be at least 1"),
        ([OneAtATime()], {"jobs": 0}, "jobs must be at least 1"),
        ([OneAtATime()], {"replicas": 0}, "replicas must be at least 1"),
        ([OneAtATime()], {"router": "psychic"}, "unknown router 'psychic'"),
    ],
)
def test_options_that_make_no_sense(policies: list[OneAtATime], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(steady_trace(4), SteadyServer(), policies, **options)  # type: ignore[arg-type]
