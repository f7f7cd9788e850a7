"""From a shape to what Hugging Face calls it: ``config.json``, and the name and size of every weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from rota.catalog import load_model
from rota.catalog.shapes import ModelShape
from rota.errors import InputError


class Family(NamedTuple):
    """One architecture: its ``model_type`` and class, and the constants that a shape does not tell."""

    model_type: str
    architecture: str
    rope_theta: float
    eps: float
    biased: bool = False  # query, key and value projections
    head_norms: bool = False  # RMSNorm on each query and key head


_FAMILIES = {
    "mixtral": Family("mixtral", "MixtralForCausalLM", 1e6, 1e-5),
    "mistral": Family("mistral", "MistralForCausalLM", 1e6, 1e-5),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM", 1e6, 1e-6, biased=True),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM", 1e6, 1e-6, head_norms=True),
    "llama-3": Family("llama", "LlamaForCausalLM", 5e5, 1e-5),
    "llama": Family("llama", "LlamaForCausalLM", 1e4, 1e-5),
    "yi": Family("llama", "LlamaForCausalLM", 5e6, 1e-5),
}
_QWEN_MOE = Family("qwen3_moe", "Qwen3MoeForCausalLM", 1e6, 1e-6, head_norms=True)
#: A Llama that a laptop serves: 125.2 million parameters. No published model has this shape.
SMALL = ModelShape(
    name="llama-125m", layers=12, hidden=768, heads=12, kv_heads=12, head_dim=64, ffn=1728, vocab=32000, max_len=2048,
    source="a small Llama for measurements", weight_bytes=2.0,
)  # fmt: skip
SMALLEST = 64


def named_shape(name: str) -> ModelShape:
    """A model of the catalog, or `SMALL`.

    Raises
    ------
    InputError
        If nothing has that name.
    """
    return SMALL if name.lower() == SMALL.name else load_model(name)


def family(shape: ModelShape) -> Family:
    """The architecture of a shape, by its name.

    Raises
    ------
    InputError
        If the shape is of a kind that no family here has.
    """
    name = shape.name.lower()
    if not shape.gated or shape.kv_lora or shape.shared_ffn or shape.dense_layers or name.startswith("gpt"):
        raise InputError(f"{shape.name}: only Llama, Mistral, Mixtral, Qwen2 and Qwen3 shapes can be made; try llama-3-8b or mixtral-8x7b")
    if shape.experts:
        return _QWEN_MOE if name.startswith("qwen3") else _FAMILIES["mixtral"]
    if name.startswith("qwen2"):
        return _FAMILIES["qwen2"]
    return next((known for prefix, known in _FAMILIES.items() if name.startswith(prefix)), _FAMILIES["llama"])


def scaled(
    shape: ModelShape, *, layers: int | None = None, hidden: int | None = None, vocab: int | None = None, experts: int | None = None,
    max_len: int | None = None,
) -> ModelShape:  # fmt: skip
    """A shape made smaller (or larger) that keeps its proportions: query heads per KV head, and feed-forward widths per `hidden`.

    Raises
    ------
    InputError
        If a number is too small or does not divide.
    """
    for name, value, least in (("layers", layers, 1), ("vocab", vocab, 1), ("experts", experts, 2), ("max-len", max_len, 2)):
        if value is not None and value < least:
            raise InputError(f"--{name} must be at least {least}, not {value}")
    if experts is not None and not shape.experts:
        raise InputError(f"--experts: {shape.name} has no experts; leave it out, or take a sparse shape such as mixtral-8x7b")
    changes: dict[str, int] = {}
    if hidden is not None:
        changes = _widths(shape, hidden)
    if experts is not None:
        changes |= {"experts": experts, "experts_per_token": min(shape.experts_per_token, experts)}
    given = {"layers": layers, "vocab": vocab, "max_len": max_len}
    changes |= {key: value for key, value in given.items() if value is not None}
    return replace(shape, **changes)  # type: ignore[arg-type]


def _widths(shape: ModelShape, hidden: int) -> dict[str, int]:
    if hidden < SMALLEST or hidden % SMALLEST:
        raise InputError(f"--hidden must be a multiple of {SMALLEST}, not {hidden}")
    head_dim = min(shape.head_dim, hidden // 4)
    while hidden % head_dim:
        head_dim //= 2
    heads = hidden // head_dim
    kv_heads = max(1, heads * shape.kv_heads // shape.heads)
    while heads % kv_heads:
        kv_heads -= 1
    wide = {"ffn": shape.ffn, "expert_ffn": shape.expert_ffn}
    return {
        "hidden": hidden, "head_dim": head_dim, "heads": heads, "kv_heads": kv_heads,
        **{key: max(SMALLEST, round(width * hidden / shape.hidden / SMALLEST) * SMALLEST) for key, width in wide.items() if width},
    }  # fmt: skip


def hf_config(shape: ModelShape, dtype: str, begin: int, end: int) -> dict[str, object]:
    """The contents of ``config.json``; `begin` and `end` are the ids of the tokens that start and end a text."""
    kind = family(shape)
    config: dict[str, object] = {
        "architectures": [kind.architecture], "model_type": kind.model_type, "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim, "intermediate_size": shape.ffn or shape.expert_ffn, "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_len, "rms_norm_eps": kind.eps, "rope_theta": kind.rope_theta, "hidden_act": "silu",
        "tie_word_embeddings": shape.tied, "attention_dropout": 0.0, "initializer_range": 0.02, "torch_dtype": dtype,
        "bos_token_id": begin, "eos_token_id": end, "use_cache": True,
    }  # fmt: skip
    if kind.model_type == "llama":
        config |= {"attention_bias": False, "mlp_bias": False}
    if kind.head_norms:
        config |= {"attention_bias": False}
    if kind.model_type in ("mistral", "mixtral"):
        config |= {"sliding_window": shape.window or None}
    if kind.model_type == "mixtral":
        config |= {"num_local_experts": shape.experts, "num_experts_per_tok": shape.experts_per_token}
    if kind is _QWEN_MOE:
        config |= {
            "num_experts": shape.experts, "num_experts_per_tok": shape.experts_per_token, "moe_intermediate_size": shape.expert_ffn,
            "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        }  # fmt: skip
    return config


def weights(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and size of every weight, in the order of the layers; norms end in ``norm.weight``."""
    yield "model.embed_tokens.weight", (shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        yield from _layer(shape, f"model.layers.{layer}")
    yield "model.norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocab, shape.hidden)


def _layer(shape: ModelShape, layer: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    kind = family(shape)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield f"{layer}.input_layernorm.weight", (shape.hidden,)
    for name, width in (("q", queries), ("k", keys), ("v", keys)):
        yield f"{layer}.self_attn.{name}_proj.weight", (width, shape.hidden)
        if kind.biased:
            yield f"{layer}.self_attn.{name}_proj.bias", (width,)
    if kind.head_norms:
        yield f"{layer}.self_attn.q_norm.weight", (shape.head_dim,)
        yield f"{layer}.self_attn.k_norm.weight", (shape.head_dim,)
    yield f"{layer}.self_attn.o_proj.weight", (shape.hidden, queries)
    yield f"{layer}.post_attention_layernorm.weight", (shape.hidden,)
    if not shape.experts:
        yield from _feed_forward(f"{layer}.mlp", ("gate_proj", "up_proj", "down_proj"), shape.hidden, shape.ffn)
        return
    block, names = (
        ("mlp", ("gate_proj", "up_proj", "down_proj")) if kind is _QWEN_MOE else ("block_sparse_moe", ("w1", "w3", "w2"))
    )
    yield f"{layer}.{block}.gate.weight", (shape.experts, shape.hidden)
    for expert in range(shape.experts):
        yield from _feed_forward(f"{layer}.{block}.experts.{expert}", names, shape.hidden, shape.expert_ffn)


def _feed_forward(block: str, names: tuple[str, str, str], hidden: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    gate, up, down = names
    yield f"{block}.{gate}.weight", (width, hidden)
    yield f"{block}.{up}.weight", (width, hidden)
    yield f"{block}.{down}.weight", (hidden, width)


def parameters(shape: ModelShape) -> int:
    """Weights in all."""
    total = 0
    for _, size in weights(shape):
        count = 1
        for side in size:
            count *= side
        total += count
    return total
