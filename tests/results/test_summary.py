import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.errors import InputError
from rota.results.slo import SLO
from rota.results.summary import summarise

from .fifo import fifo_run


def test_latencies_equal_a_loop_over_requests():
    run = fifo_run(300, stall=0.5)
    figures = summarise(run)
    ttft = [f - a for f, a in zip(run.first_token, run.arrival, strict=True)]
    e2e = [f - a for f, a in zip(run.finish, run.arrival, strict=True)]
    tpot = [(e - f) / (o - 1) for e, f, o in zip(run.finish, run.first_token, run.output, strict=True) if o > 1]
    for name, values in (("ttft", ttft), ("e2e", e2e), ("tpot", tpot)):
        assert figures[f"{name}_mean"] == pytest.approx(sum(values) / len(values), rel=1e-12)
        assert figures[f"{name}_max"] == max(values)
        values.sort()
        for q in (50, 90, 95, 99):
            rank = q / 100 * (len(values) - 1)
            low = int(rank)
            exact = values[low] + (rank - low) * (values[min(low + 1, len(values) - 1)] - values[low])
            assert figures[f"{name}_p{q}"] == pytest.approx(exact, rel=1e-12)


def test_token_gaps():
    figures = summarise(fifo_run(300, pace=0.02, stall=0.5))
    assert figures["tbt_p50"] == pytest.approx(0.02, rel=0.002)
    assert figures["tbt_p95"] == pytest.approx(0.52, rel=0.002)
    assert figures["tbt_max"] == pytest.approx(0.52)
    assert figures["tbt_mean"] == pytest.approx(0.07, rel=0.1)


def test_throughput_is_over_first_arrival_to_last_finish():
    run = fifo_run(50)
    span = run.finish[-1] - run.arrival[0]
    figures = summarise(run)
    assert figures["makespan"] == pytest.approx(span)
    assert figures["request_throughput"] == pytest.approx(50 / span)
    assert figures["output_throughput"] == pytest.approx(run.output.sum() / span)
    assert figures["total_throughput"] == pytest.approx((run.output.sum() + run.prompt.sum()) / span)


def test_goodput_counts_requests_that_keep_every_limit():
    run = fifo_run(400, rate=0.4, stall=0.3)
    figures = summarise(run, SLO.parse("ttft=2, tbt=0.1, e2e=4"))
    good = 0
    for i in range(400):
        keeps_gaps = run.output[i] == 1 or run.max_tbt[i] <= 0.1
        good += keeps_gaps and run.first_token[i] - run.arrival[i] <= 2 and run.finish[i] - run.arrival[i] <= 4
    assert 0 < good < 400
    assert figures["slo_attainment"] == good / 400
    assert figures["goodput"] == pytest.approx(good / figures["makespan"])


def test_goodput_under_percentiles_is_all_or_nothing():
    run = fifo_run(100)
    figures = summarise(run)
    over, under = figures["ttft_p99"] * 1.01, figures["ttft_p99"] * 0.99
    met = summarise(run, SLO.parse(f"p99 ttft={over}"))
    missed = summarise(run, SLO.parse(f"p99 ttft={under}"))
    assert (met["slo_met"], met["goodput"]) == (1.0, figures["request_throughput"])
    assert (missed["slo_met"], missed["goodput"]) == (0.0, 0.0)


def test_energy_by_hand():
    run = fifo_run(20)
    figures = summarise(run)
    flops = moved = 0.0
    for p, o in zip(run.prompt.tolist(), run.output.tolist(), strict=True):
        contexts = [p + k for k in range(1, o)]
        flops += 32 * (4e8 * (p + o - 1) + 1.6e4 * (p * (p + 1) / 2 + sum(contexts)))
        moved += 4e8 * 32 * o + 32 * 4096.0 * (p + sum(contexts))
    joules = 80.0 * figures["makespan"] + 5e-13 * flops + 6e-11 * moved
    assert figures["energy"] == pytest.approx(joules, rel=1e-9)
    tokens = run.prompt.sum() + run.output.sum()
    assert figures["joule_per_token"] == pytest.approx(joules / tokens, rel=1e-9)
    assert figures["usd_per_million_tokens"] == pytest.approx(0.001 * figures["makespan"] / tokens * 1e6)


def test_idle_power_counts_every_replica():
    run = fifo_run(20)
    one = summarise(run)["energy"]
    run.meta["replicas"] = 3
    assert summarise(run)["energy"] - one == pytest.approx(2 * 80 * summarise(run)["makespan"])


def test_memory_figures():
    run = fifo_run(10)
    run.preemptions[:] = 1
    run.recomputed[3] = 70
    run.cached[:] = run.prompt * 2  # reuse after eviction may exceed the prompt
    figures = summarise(run)
    assert figures["preemptions_per_request"] == 1.0
    assert figures["recomputed_tokens"] == 70
    assert figures["prefix_hit_rate"] == 1.0
    assert figures["kv_peak"] == 0.5
    assert figures["kv_mean"] == pytest.approx(run.timeline["kv"].mean())


def test_warmup_drops_the_first_arrivals_only():
    run = fifo_run(100)
    figures = summarise(run, warmup=0.25)
    assert figures["requests"] == 75
    assert figures["ttft_mean"] == pytest.approx((run.first_token - run.arrival)[25:].mean())
    assert figures["energy"] == summarise(run)["energy"]
    with pytest.raises(InputError, match="warm-up"):
        summarise(run, warmup=1.0)


def test_rejected_and_unfinished_requests_are_neither_fast_nor_good():
    run = fifo_run(100)
    for column in (run.first_scheduled, run.first_token, run.finish):
        column[:10] = np.nan
    run.rejected[:10] = True
    figures = summarise(run, SLO.parse("e2e=1e9"))
    assert (figures["finished"], figures["rejected"]) == (90, 10)
    assert figures["slo_attainment"] == 0.9
    assert np.isfinite(figures["ttft_p99"])


def test_a_run_in_which_nothing_finished_has_no_latency():
    run = fifo_run(5)
    for column in (run.first_scheduled, run.first_token, run.finish):
        column[:] = np.nan
    run.tbt_histogram[:] = 0
    figures = summarise(run, SLO.parse("ttft=1"))
    assert figures["goodput"] == 0
    assert figures["slo_met"] == 0
    assert np.isnan(figures["e2e_mean"])
    assert np.isnan(figures["request_throughput"])


def test_without_constants_there_is_no_energy():
    run = fifo_run(5)
    run.meta.clear()
    figures = summarise(run)
    assert np.isnan([figures["energy"], figures["usd_per_million_tokens"], figures["kv_peak"]]).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 50))
def test_scaling_time_scales_every_latency(factor, seed):
    run = fifo_run(40, seed=seed, stall=0.2)
    names = ("arrival", "first_scheduled", "first_token", "finish", "max_tbt")
    slow = dataclasses.replace(run, **{name: getattr(run, name) * factor for name in names})
    before, after = summarise(run), summarise(slow)
    for key in ("ttft_p99", "e2e_p50", "tpot_mean", "queueing_p90", "tbt_mean", "max_tbt_p95", "makespan"):
        assert after[key] == pytest.approx(factor * before[key], rel=1e-9)
    assert after["output_throughput"] == pytest.approx(before["output_throughput"] / factor, rel=1e-9)
