"""VTC's bound on every suite, and what first come, first served does there."""

from functools import cache

import numpy as np
import pytest

from rota.cost.deployment import Deployment
from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from rota.results.fairness import PRICES, served, service_gap
from rota.workload.tenants import SUITES, tenants

SECONDS = 150.0


@cache
def engine():
    return Deployment("llama-2-7b", "a10", max_model_len=2048).engine(2048)


def run(suite, policy, load=1.0):
    return simulate(tenants(suite, SECONDS, load), parse_policy(policy), engine())


@pytest.mark.parametrize("suite", SUITES)
def test_the_gap_is_bounded_and_work_is_not_lost(suite):
    fair, first = run(suite, "vtc"), run(suite, "aggressive")
    memory = engine().blocks * engine().block_size
    bound = 2 * max(PRICES[0] * fair.prompt.max(), PRICES[1] * memory)
    assert 0 < service_gap(fair) <= bound < service_gap(first)
    assert served(fair, SECONDS).sum() > 0.97 * served(first, SECONDS).sum()


def test_shares_follow_weights():
    shares = served(run("overload", "vtc:weights=1/2", load=2.0), SECONDS)
    assert shares[1] / shares[0] == pytest.approx(2, rel=0.06)
    even = served(run("overload", "vtc:cost=quadratic", load=2.0), SECONDS)
    assert even[1] / even[0] == pytest.approx(1, rel=0.1)


def test_predictions_narrow_the_gap_where_tokens_come_late():
    plain, predicting = run("short-long", "vtc"), run("short-long", "vtc:predict=true")
    assert service_gap(predicting) < service_gap(plain)
    assert np.isfinite(predicting.finish).all()
