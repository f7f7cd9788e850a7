"""Service of tenants and the gaps between them, against sums over requests and a search through all stretches of time."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.errors import InputError
from rota.results.fairness import MOST_TENANTS, jain, served, service, service_gap, tenant_rows
from rota.results.summary import summarise

from .fifo import fifo_run


def run_of(n, tenants, seed, parallel=3):
    """A run in which up to `parallel` requests overlap, so that tenants wait and are served at once."""
    run = fifo_run(n, seed=seed, rate=5.0)
    rng = np.random.default_rng(seed)
    spread = rng.uniform(1, parallel, n)
    finish = run.first_token + (run.finish - run.first_token) * spread
    finish[run.output == 1] = run.first_token[run.output == 1]
    return dataclasses.replace(run, finish=finish, tenant=rng.integers(0, tenants, n))


def counted(run, tenant, time, including):
    """Straight from the definition, one request at a time; whether what happens at `time` itself counts."""
    total = 0.0
    for i in np.flatnonzero(run.tenant == tenant):
        def happened(when):
            return when < time or (including and when == time)

        total += run.prompt[i] * happened(run.first_scheduled[i]) + 2 * happened(run.first_token[i])
        span = run.finish[i] - run.first_token[i]
        if span > 0:
            total += 2 * (run.output[i] - 1) * np.clip((time - run.first_token[i]) / span, 0, 1)
    return total


@given(st.integers(2, 20), st.integers(1, 4), st.integers(0, 50))
def test_service_is_the_sum_over_requests(n, tenants, seed):
    run = run_of(n, tenants, seed)
    times = np.unique(np.concatenate([run.arrival, run.first_scheduled, run.first_token, run.finish]))
    before, after = service(run, times)
    for k, tenant in enumerate(np.unique(run.tenant)):
        np.testing.assert_allclose(before[k], [counted(run, tenant, t, False) for t in times])
        np.testing.assert_allclose(after[k], [counted(run, tenant, t, True) for t in times])
    for column, t in enumerate(times):
        np.testing.assert_allclose(served(run, t), after[:, column])


@settings(max_examples=40)
@given(st.integers(2, 10), st.integers(2, 3), st.integers(0, 80))
def test_the_gap_is_the_worst_of_all_stretches_of_waiting(n, tenants, seed):
    run = run_of(n, tenants, seed)
    names = np.unique(run.tenant)
    if len(names) < 2:
        return
    times = np.unique(np.concatenate([run.arrival, run.first_scheduled, run.first_token, run.finish]))
    middles = 0.5 * (times[:-1] + times[1:])
    worst = 0.0
    for u in names:
        for v in names[names > u]:
            waits = [
                all(((run.tenant == t) & (run.arrival < m) & (run.first_scheduled > m)).any() for t in (u, v)) for m in middles
            ]
            for i in range(len(middles)):
                for j in range(i, len(middles)):
                    if not all(waits[i : j + 1]):
                        break
                    for begin in ((times[i], True), *(((times[i + 1], False),) if j > i else ())):
                        for end in ((times[j + 1], False), *(((times[j], True),) if j > i else ())):
                            u_got = counted(run, u, *end) - counted(run, u, *begin)
                            v_got = counted(run, v, *end) - counted(run, v, *begin)
                            worst = max(worst, abs(u_got - v_got))
    assert service_gap(run) == pytest.approx(worst, abs=1e-6)


def test_a_run_says_what_its_tenants_got():
    run = run_of(60, 3, 1)
    rows = tenant_rows(run)
    assert [row["tenant"] for row in rows] == [0, 1, 2]
    assert sum(row["service"] for row in rows) == run.prompt.sum() + 2 * run.output.sum()
    assert sum(row["service_share"] for row in rows) == pytest.approx(1)
    figures = summarise(run)
    assert figures["service_gap"] == service_gap(run) > 0
    assert figures["jain"] == jain(run)
    assert service_gap(run, weights=np.full(3, 2.0)) == pytest.approx(service_gap(run) / 2)


def test_without_tenants_there_is_nothing_to_say():
    run = fifo_run(30)
    assert np.isnan(service_gap(run)) and np.isnan(jain(run)) and tenant_rows(run) == []
    many = dataclasses.replace(run, tenant=np.arange(30))
    assert np.isnan(service_gap(many)) and len(np.unique(many.tenant)) > MOST_TENANTS
    with pytest.raises(InputError, match="tenant column has 3 rows"):
        jain(dataclasses.replace(run, tenant=np.arange(3)))


def test_jain_index_of_equal_and_of_starved_tenants():
    """Two tenants with four requests each, all waiting from 0 s on, one request per second."""
    run = fifo_run(8)
    ones = np.ones(8, dtype=np.int64)

    def served_in(order):
        begin = np.argsort(order).astype(float)
        tenant = np.array([0, 0, 0, 0, 1, 1, 1, 1])
        return dataclasses.replace(
            run, arrival=np.zeros(8), first_scheduled=begin, first_token=begin + 0.5, finish=begin + 0.5, prompt=8 * ones, output=ones, tenant=tenant
        )

    # both wait until 6 s, when the last of tenant 0 begins; from 0 s on each begins three and ends three
    turns = served_in([0, 4, 1, 5, 2, 6, 3, 7])
    assert jain(turns) == pytest.approx(1.0)
    # until 4 s tenant 0 begins three and ends three, tenant 1 one
    ahead = served_in([0, 1, 4, 2, 3, 5, 6, 7])
    assert jain(ahead) == pytest.approx((30 + 10) ** 2 / (2 * (30**2 + 10**2)))
    # tenant 0 first: both wait until its last begins, at 3 s
    starved = served_in([0, 1, 2, 3, 4, 5, 6, 7])
    assert jain(starved) == pytest.approx(0.5)
    assert np.isnan(jain(dataclasses.replace(turns, arrival=turns.first_scheduled)))
