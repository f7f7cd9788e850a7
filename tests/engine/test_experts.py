"""Experts touched per step: layered prefill routes each prompt token once per layer, chunks do too, but touch a layer's experts again."""

import pytest

from tests.engine.tiny import make, torch

from rota.mechanisms.engine import Engine, ModelClock, SamplingParams  # isort: skip
from rota.mechanisms.engine.model_runner import load_runner  # isort: skip
from rota.policies.registry import make_policy  # isort: skip
from tests.engine.test_schedules import TABLES  # isort: skip


def touched(runner, policy, prompt):
    """Per step and layer with experts: how many different ones its rows went to."""
    steps = []
    for i, experts in enumerate(runner.decoder.experts):
        experts.on_route = lambda chosen, i=i: steps[-1].__setitem__(i, chosen.unique().numel())
    engine = Engine(runner, policy, blocks=64, block_size=4, clock=ModelClock(TABLES))
    engine.add_request(prompt, SamplingParams(max_tokens=1, temperature=0.0))
    while engine.has_work:
        steps.append({})
        engine.step()
    return steps


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_experts_counted_by_hooks_are_those_that_transformers_routes_to(name, tmp_path):
    theirs = make(name, tmp_path)
    runner = load_runner(tmp_path, dtype="float32", device="cpu")
    prompt = torch.randint(0, 97, (48,), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.no_grad():
        routing = theirs(torch.tensor([prompt]), output_router_logits=True).router_logits
    chosen = [layer.topk(2, dim=-1).indices for layer in routing]
    layered = touched(runner, make_policy("layered", unit=12, stages=4), prompt)
    assert [list(step) for step in layered if step] == [[i] for i in range(len(chosen))]
    assert [n for step in layered for n in step.values()] == [c.unique().numel() for c in chosen]
    chunked = touched(runner, make_policy("sarathi", max_num_batched_tokens=12, max_num_seqs=4), prompt)
    assert chunked == [{i: c[at : at + 12].unique().numel() for i, c in enumerate(chosen)} for at in range(0, 48, 12)]
    per_layer = sum(n for step in layered for n in step.values()), sum(n for step in chunked for n in step.values())
    assert per_layer[0] < per_layer[1]
