"""Tiny models of every architecture with random weights, saved by transformers as real checkpoints."""

from pathlib import Path

import numba
import numpy as np
import pytest

from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.sequences import Seq

torch = pytest.importorskip("torch", reason="the engine's model tests need PyTorch (extra engine)")
pytest.importorskip("safetensors", reason="the engine's model tests need safetensors (extra engine)")
transformers = pytest.importorskip("transformers", reason="the engine is compared with transformers (pip install transformers)")

numba.set_num_threads(1)  # tiny products gain nothing from more
torch.set_num_threads(1)

#: Tokens in a block.
SIZE = 4
SMALL = dict(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, initializer_range=0.25,  # far from uniform logits; wider weights would blow rounding up beyond 1e-4
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)
MODELS = {
    "llama": ("LlamaConfig", dict(SMALL)),
    "llama-tied-bias": ("LlamaConfig", dict(SMALL, tie_word_embeddings=True, attention_bias=True, num_key_value_heads=4)),
    "llama-llama3-rope": ("LlamaConfig", dict(SMALL, rope_parameters=LLAMA3)),
    "llama-yarn": ("LlamaConfig", dict(SMALL, rope_parameters=YARN)),
    "llama-linear-rope": ("LlamaConfig", dict(SMALL, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0))),
    "qwen2": ("Qwen2Config", dict(SMALL)),
    "qwen2-window": ("Qwen2Config", dict(SMALL, use_sliding_window=True, sliding_window=7, max_window_layers=2)),
    "qwen3": ("Qwen3Config", dict(SMALL, head_dim=16)),
    "mistral": ("MistralConfig", dict(SMALL, sliding_window=9)),
    "mixtral": ("MixtralConfig", dict(SMALL, num_local_experts=5, num_experts_per_tok=2)),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        dict(SMALL, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=16, norm_topk_prob=True, mlp_only_layers=[1]),
    ),
    "qwen3-moe-unnormalised": ("Qwen3MoeConfig", dict(SMALL, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24, head_dim=8)),
}


def make(name: str, folder: Path, seed: int = 0):
    """Save a model, and return transformers' own form of it."""
    kind, options = MODELS[name]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**options)).eval()
    with torch.no_grad():  # biases and norms that do nothing would prove nothing
        for key, value in model.named_parameters():
            if key.endswith("bias") or "norm" in key:
                value.add_(0.3 * torch.randn_like(value))
    model.save_pretrained(folder)
    return model


def sequence(tokens, slot=0):
    """A request that no engine knows, with a block table."""
    seq = Seq(slot, list(tokens), 0.0, 10, SamplingParams())
    seq.slot = slot
    return seq


def prompt_logits(runner, tokens, pieces):
    """Logits of every position of a prompt that is computed in chunks of these lengths, each through two layer ranges."""
    tables = np.arange(40, dtype=np.int32)[::-1].copy().reshape(1, -1)
    seq, found, start, half = sequence(tokens), [], 0, runner.n_layers // 2
    for n in pieces:
        runner.forward([Row(seq, start, n, (0, half), False, False)], tables)
        x = runner.forward([Row(seq, start, n, (half, runner.n_layers), True, False)], tables)
        found.append(runner.decoder.logits(x))
        start += n
    while start < len(tokens):
        found.append(runner.decoder.logits(runner.forward([Row(seq, start, 1, (0, runner.n_layers), True, True)], tables)))
        start += 1
    return torch.cat(found)
