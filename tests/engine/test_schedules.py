"""The master oracle: whatever a policy plans and whoever else is served, a request's tokens are those it gets alone."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.engine.schedules import TABLES, alone, check, what, workloads
from tests.engine.tiny import make

from rota.mechanisms.engine import Engine, ModelClock, SamplingParams  # isort: skip
from rota.mechanisms.engine.model_runner import load_runner  # isort: skip
from rota.errors import UnsupportedPolicy  # isort: skip
from rota.policies.registry import make_policy, policy_names  # isort: skip


@pytest.fixture(scope="session")
def runners(tmp_path_factory):
    """Double precision; one dense model, one with a window, one with experts."""
    found = []
    for name in ("qwen3", "mistral", "mixtral"):
        folder = tmp_path_factory.mktemp(name)
        make(name, folder)
        found.append(load_runner(folder, dtype="float64", device="auto"))
    return found


@settings(max_examples=320)
@given(workload=workloads())
def test_any_schedule_gives_every_request_the_tokens_it_gets_alone(runners, workload):
    check(runners[workload[-1]], workload)


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_serves_every_request_its_own_tokens(runners, name):
    rng = np.random.default_rng(5)
    common = rng.integers(0, 97, 12).tolist()
    requests = []
    for i in range(9):
        prompt = common[: 4 * (i % 4)] + rng.integers(0, 97, 1 + 2 * i).tolist()
        params = SamplingParams(max_tokens=3 + i % 4, temperature=float(i % 2), seed=i)
        requests.append((prompt, params, what(alone(runners[0], prompt, params))))
    try:
        engine = Engine(runners[0], make_policy(name), blocks=14, block_size=4, clock=ModelClock(TABLES))
    except UnsupportedPolicy:
        assert name in ("oracle-lengths", "batchllm", "neo", "apex")
        return
    for i, (prompt, params, _) in enumerate(requests):
        engine.add_request(prompt, params, arrival=1e-3 * i, tenant=i % 2, program=i % 3, priority=i % 2)
    found = {sid: [] for sid in range(len(requests))}
    while engine.has_work:
        for output in engine.step():
            found[output.sid].append(output)
    for sid, (_, _, expected) in enumerate(requests):
        assert what(found[sid]) == expected
