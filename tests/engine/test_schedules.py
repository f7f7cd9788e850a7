"""The master oracle: whatever a policy plans and whoever else is served, a request's tokens are those it gets alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.schedules import RandomPolicy
from tests.engine.tiny import make

from rota.cost.tables import StepTables  # isort: skip
from rota.mechanisms.engine import Engine, ModelClock, SamplingParams  # isort: skip
from rota.mechanisms.engine.model_runner import load_runner  # isort: skip
from rota.errors import UnsupportedPolicy  # isort: skip
from rota.policies.registry import make_policy, policy_names  # isort: skip

TABLES = StepTables(layer=np.arange(65) * 1e-5, head=np.arange(9) * 1e-5, n_layers=4, decode_byte_s=1e-7, prefill_flop_s=1e-9)
KINDS = [
    dict(temperature=0.0),
    dict(temperature=1.0),
    dict(temperature=0.8, top_k=7, top_p=0.9),
    dict(temperature=1.3, min_p=0.05, repetition_penalty=1.3),
    dict(temperature=0.0, presence_penalty=0.7, frequency_penalty=0.4),
    dict(temperature=0.9, top_p=0.6, logit_bias={3: 2.0}, logprobs=2),
]


@pytest.fixture(scope="session")
def runners(tmp_path_factory):
    """Double precision; one dense model, one with a window, one with experts."""
    found = []
    for name in ("qwen3", "mistral", "mixtral"):
        folder = tmp_path_factory.mktemp(name)
        make(name, folder)
        found.append(load_runner(folder, dtype="float64", device="cpu"))
    return found


def alone(runner, prompt, params):
    """The request by itself, its prompt in one piece."""
    engine = Engine(runner, make_policy("orca-paged"), blocks=64, block_size=4, clock=ModelClock(TABLES))
    engine.add_request(prompt, params)
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def what(outputs):
    return [(o.token, o.finish, o.logprob and round(o.logprob, 9)) for o in outputs]


@st.composite
def workloads(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 5))
    common = rng.integers(0, 97, 24).tolist()
    requests = []
    for _ in range(n):
        shared = int(rng.integers(0, 20)) if rng.random() < 0.6 else 0
        prompt = common[:shared] + rng.integers(0, 97, int(rng.integers(1, 14))).tolist()
        kind = KINDS[rng.integers(len(KINDS))]
        params = SamplingParams(max_tokens=int(rng.integers(1, 8)), seed=int(rng.integers(1 << 40)), **kind)
        requests.append((prompt, params, float(rng.exponential(3e-3)), rng.random() < 0.15))
    spare, host = draw(st.sampled_from([0, 1, 4, 40])), draw(st.sampled_from([None, 3, 8, 60]))
    return requests, draw(st.integers(0, 2**32 - 1)), draw(st.booleans()), spare, host, draw(st.integers(0, 2))


@settings(max_examples=320)
@given(workload=workloads())
def test_any_schedule_gives_every_request_the_tokens_it_gets_alone(runners, workload):
    requests, seed, caching, spare, host, which = workload
    runner = runners[which]
    expected = [what(alone(runner, prompt, params)) for prompt, params, _, _ in requests]
    blocks = max(-(-(len(prompt) + params.max_tokens) // 4) for prompt, params, _, _ in requests) + spare
    policy = RandomPolicy(seed, caching, swaps=host is not None)
    engine = Engine(runner, policy, blocks=blocks, block_size=4, clock=ModelClock(TABLES), host_blocks=host or 0)
    rng = np.random.default_rng(seed)
    leaving = {}
    for prompt, params, arrival, cancelled in requests:
        sid = engine.add_request(prompt, params, arrival=arrival)
        if cancelled:
            leaving[sid] = int(rng.integers(0, 30))
    found = {sid: [] for sid in range(len(requests))}
    steps = 0
    while engine.has_work:
        for sid in [sid for sid, step in leaving.items() if step == steps]:
            engine.cancel(sid)
        for output in engine.step():
            found[output.sid].append(output)
        steps += 1
        assert steps < 5000
    for sid, outputs in found.items():
        if outputs[-1].finish == "cancelled":
            assert sid in leaving
            assert what(outputs[:-1]) == expected[sid][: len(outputs) - 1]
        else:
            assert what(outputs) == expected[sid]
    assert engine.core.pool.free == blocks
    assert engine.core.pool.host_free == (host or 0)
    assert not runner._open


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
