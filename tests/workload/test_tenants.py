"""Suites of tenants: who asks how often, when and for what."""

import numpy as np
import pytest

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.tenants import SUITES, Tenant, tenants


def counts(trace, edges):
    """Requests of each tenant between edges, seconds."""
    return [np.histogram(trace.arrival[trace.tenant == t], edges)[0] for t in range(2)]


def test_the_rates_of_each_suite():
    low, high = counts(tenants("overload", 4000.0), [0, 4000])
    np.testing.assert_allclose([low[0], high[0]], [6000, 12000], rtol=0.04)
    paused, steady = counts(tenants("on-off", 2400.0), np.arange(0, 2401, 60))
    assert paused[1::2].sum() == 0
    np.testing.assert_allclose([paused[::2].mean(), steady.mean()], [180, 180], rtol=0.06)
    calm, rising = counts(tenants("increasing", 4000.0), np.linspace(0, 4000, 5))
    np.testing.assert_allclose(calm, 500, rtol=0.2)
    np.testing.assert_allclose(rising, [500, 1500, 2500, 3500], rtol=0.15)
    trace = tenants("short-long", 100.0)
    assert set(zip(trace.tenant.tolist(), trace.prompt.tolist(), trace.output.tolist(), strict=True)) == {(0, 64, 64), (1, 512, 512)}


@pytest.mark.parametrize("suite", SUITES)
def test_load_multiplies_and_seeds_differ(suite):
    one, two = tenants(suite, 900.0), tenants(suite, 900.0, load=2.0)
    assert 1.8 < len(two) / len(one) < 2.2
    assert not np.array_equal(one.arrival, tenants(suite, 900.0, seed=1).arrival)
    np.testing.assert_array_equal(one.arrival, load_trace(f"tenants:suite={suite},seconds=900").arrival)


def test_rates_that_change_evenly():
    at = Tenant(4.0, until=0.0).arrivals(np.random.default_rng(0), 1000.0, 1.0)
    np.testing.assert_allclose(len(at), 2000, rtol=0.06)
    np.testing.assert_allclose((at < 500).mean(), 0.75, atol=0.03)


@pytest.mark.parametrize(
    ("text", "says"),
    [("suite=odd", "suite must be one of overload, on-off"), ("seconds=0", "seconds must be a positive number"),
     ("load=-1", "load must be a positive number"), ("seconds=1e-9", "no request arrives"), ("prompt=3", "no option 'prompt'")],
)  # fmt: skip
def test_options_that_make_no_sense(text, says):
    with pytest.raises(InputError, match=says):
        load_trace(f"tenants:{text}")
