"""A Hugging Face ``config.json`` as a `ModelShape`, by field names: dense, sparse (experts) and latent-attention transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rota.catalog.fields import Fields
from rota.catalog.formats import dtype_bytes, kv_bytes, quantised_bytes
from rota.catalog.shapes import ModelShape
from rota.errors import InputError


class Family(NamedTuple):
    """What a ``model_type`` implies without the file saying so."""

    gated: bool = True  # three feed-forward matrices, not two
    tied: bool = False  # the head shares the embedding unless tie_word_embeddings says otherwise
    four_times: bool = False  # the feed-forward width is 4 x hidden unless given
    one_kv_head: bool = False  # one KV head unless multi_query is false


_PLAIN = Family(gated=False)
_GPT = Family(gated=False, tied=True, four_times=True)
_FALCON = Family(gated=False, tied=True, four_times=True, one_kv_head=True)
_GEMMA = Family(tied=True)
FAMILIES = {
    "bloom": _GPT,
    "codegen": Family(gated=False, four_times=True),
    "cohere": _GEMMA,
    "cohere2": _GEMMA,
    "falcon": _FALCON,
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": _GPT,
    "gpt_bigcode": _FALCON,
    "gpt_neo": _GPT,
    "gpt_neox": _PLAIN,
    "gptj": Family(gated=False, four_times=True),
    "mpt": _GPT,
    "nemotron": _PLAIN,
    "opt": Family(gated=False, tied=True),
    "phi": _PLAIN,
    "RefinedWeb": _FALCON,
    "RefinedWebModel": _FALCON,
    "starcoder2": Family(gated=False, tied=True),
}

_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_FFN = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")
_MAX_LEN = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "model_max_length")
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk", "moe_top_k")


def read_config(path: Path) -> ModelShape:
    """The shape that a ``config.json`` describes.

    Biases, and norms beyond two per layer, are not counted (below 0.1% of the weights). Of a multimodal model only the language
    model is. Layers that are dense in a sparse model count as leading ones, wherever they are.

    Parameters
    ----------
    path : Path
        The file. The shape is named after its directory (in the hub's cache, after the repository), or after the file if that is
        not called ``config.json``.

    Raises
    ------
    InputError
        If the file is not readable JSON, lacks a field, holds a senseless value, or describes something other than a decoder-only
        transformer. The message names the file and the field.
    """
    return shape_of(_json(path), _name(path), str(path))


def shape_of(values: Mapping[str, object], name: str, where: str) -> ModelShape:
    """As `read_config`, of the parsed JSON object; `where` starts the error messages."""
    outer = Fields(values, where)
    config = outer.table("text_config") if isinstance(values.get("text_config"), dict) else outer
    family = config.text("model_type", default=outer.text("model_type", default=""))
    _refuse_other_kinds(config, family)
    layers, hidden, heads = config.integer(*_LAYERS), config.integer(*_HIDDEN), config.integer(*_HEADS)
    latent = _latent_attention(config)
    max_len = _max_len(config, family)
    window, window_layers = _sliding_window(config, family, layers, max_len)
    experts = _experts(config, layers)
    dense = experts.dense_layers if experts.total else layers
    weight_bytes, expert_bytes, cache_bytes = _bytes(outer, config, experts.total)
    head_dim = latent.nope_dim + latent.rope_dim if latent.kv_lora else _head_dim(config, hidden, heads)
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads if latent.kv_lora else _kv_heads(config, family, heads),
        head_dim=head_dim,
        ffn=_ffn(config, family, hidden) if dense else 0,
        vocab=config.integer("vocab_size", "padded_vocab_size"),
        max_len=max_len,
        source=where,
        gated=_traits(family).gated,
        tied=config.flag("tie_word_embeddings", default=outer.flag("tie_word_embeddings", default=_traits(family).tied)),
        experts=experts.total,
        experts_per_token=experts.per_token,
        expert_ffn=experts.width,
        shared_ffn=experts.shared,
        dense_layers=experts.dense_layers,
        kv_lora=latent.kv_lora,
        rope_dim=latent.rope_dim,
        q_lora=latent.q_lora,
        nope_dim=latent.nope_dim,
        v_head_dim=latent.v_head_dim,
        window=window,
        window_layers=window_layers,
        weight_bytes=weight_bytes,
        expert_weight_bytes=expert_bytes,
        kv_bytes=cache_bytes,
    )


def _name(path: Path) -> str:
    if path.name != "config.json":
        return path.stem
    folder = path.absolute().parent
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name or path.stem


def _json(path: Path) -> Mapping[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a Hugging Face config.json") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError):
        raise InputError(f"{path}: not a JSON text file; give the path of a Hugging Face config.json") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, not an object with fields; give a Hugging Face config.json")
    return values


def _refuse_other_kinds(config: Fields, family: str) -> None:
    if config.flag("is_encoder_decoder", default=False):
        raise InputError(f"{config.where}: field is_encoder_decoder is true; only decoder-only models can be simulated")
    for field in ("ssm_cfg", "mamba_d_state", "mamba_num_heads", "state_size", "linear_num_key_heads", "attn_layer_period"):
        if config.find(field)[0]:
            raise InputError(
                f"{config.where}: field {field} marks a state-space or linear-attention model; only transformers work"
            )
    other = set(_layer_types(config)) - {"full_attention", "sliding_attention"}
    if other:
        raise InputError(f"{config.where}: field layer_types has {min(other)!r}; only full_ and sliding_attention are known")


def _traits(family: str) -> Family:
    return FAMILIES.get(family, Family())


def _layer_types(config: Fields) -> tuple[str, ...]:
    return config.texts("layer_types")


def _head_dim(config: Fields, hidden: int, heads: int) -> int:
    head_dim = config.integer("head_dim", default=0)
    if not head_dim and hidden % heads:
        raise InputError(f"{config.where}: {heads} attention heads do not divide hidden_size {hidden}; add field head_dim")
    return head_dim or hidden // heads


def _kv_heads(config: Fields, family: str, heads: int) -> int:
    # These families say only that all queries share one head, whatever number the file holds; Falcon's second generation counts.
    old = _traits(family).one_kv_head and not config.flag("new_decoder_architecture", default=False)
    one = old and config.flag("multi_query", default=True)
    kv_heads = 1 if one else config.integer(*_KV_HEADS, default=heads)
    if heads % kv_heads:
        raise InputError(f"{config.where}: field {config.find(*_KV_HEADS)[0]} is {kv_heads}, which does not divide {heads} heads")
    return kv_heads


def _ffn(config: Fields, family: str, hidden: int) -> int:
    return config.integer(*_FFN, default=4 * hidden) if _traits(family).four_times else config.integer(*_FFN)


def _max_len(config: Fields, family: str) -> int:
    return config.integer(*_MAX_LEN, default=2048) if family in ("falcon", "bloom") else config.integer(*_MAX_LEN)


class _Latent(NamedTuple):
    kv_lora: int = 0
    rope_dim: int = 0
    q_lora: int = 0
    nope_dim: int = 0
    v_head_dim: int = 0


def _latent_attention(config: Fields) -> _Latent:
    if not config.find("kv_lora_rank")[0]:
        return _Latent()
    return _Latent(
        kv_lora=config.integer("kv_lora_rank"),
        rope_dim=config.integer("qk_rope_head_dim"),
        q_lora=config.integer("q_lora_rank", default=0),
        nope_dim=config.integer("qk_nope_head_dim"),
        v_head_dim=config.integer("v_head_dim"),
    )


class _Experts(NamedTuple):
    total: int = 0
    per_token: int = 0
    width: int = 0
    shared: int = 0
    dense_layers: int = 0


def _experts(config: Fields, layers: int) -> _Experts:
    experts = config.integer(*_EXPERTS, default=0, least=0)
    if experts < 2:
        return _Experts()
    per_token = config.integer(*_EXPERTS_PER_TOKEN)
    if per_token > experts:
        field = config.find(*_EXPERTS_PER_TOKEN)[0]
        raise InputError(f"{config.where}: field {field} is {per_token}, more than the {experts} experts")
    width = config.integer("moe_intermediate_size", *_FFN)
    shared = config.integer("n_shared_experts", "num_shared_experts", default=0, least=0) * width
    return _Experts(
        total=experts,
        per_token=per_token,
        width=width,
        shared=config.integer("shared_expert_intermediate_size", default=shared, least=0),
        dense_layers=_dense_layers(config, layers),
    )


def _dense_layers(config: Fields, layers: int) -> int:
    leading = config.integer("first_k_dense_replace", default=0, least=0)
    every = config.integer("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step", default=1)
    named = config.values.get("mlp_only_layers") or []
    if not isinstance(named, list):
        raise config.wrong("mlp_only_layers", named, "a list of layer numbers")
    dense = sum(layer < leading or layer in named or (layer + 1) % every != 0 for layer in range(layers))
    if dense == layers:
        fields = "first_k_dense_replace, decoder_sparse_step, mlp_only_layers"
        raise InputError(f"{config.where}: these fields leave no layer with experts: {fields}")
    return dense


def _sliding_window(config: Fields, family: str, layers: int, max_len: int) -> tuple[int, int]:
    """Window length and the number of layers that have it; (0, 0) if no request can outgrow the window."""
    window = config.integer("sliding_window", default=0, least=0)
    if not window or window >= max_len or not config.flag("use_sliding_window", default=True):
        return 0, 0
    kinds = _layer_types(config)
    if kinds:
        count = kinds.count("sliding_attention")
    elif family in ("gemma2", "gpt_oss"):
        count = math.ceil(layers / 2)
    elif config.find("sliding_window_pattern")[0] or family in ("gemma3", "gemma3_text"):
        count = layers - layers // config.integer("sliding_window_pattern", default=6)
    elif family.startswith("qwen"):
        count = max(0, layers - config.integer("max_window_layers", default=0, least=0))
    else:
        count = layers
    return (window, count) if count else (0, 0)


def _bytes(outer: Fields, config: Fields, experts: int) -> tuple[float, float, float]:
    """Bytes per weight, per routed-expert weight (0: the same) and per cached KV element."""
    plain = dtype_bytes(config if config.find("torch_dtype", "dtype")[0] else outer)
    holder = outer if outer.values.get("quantization_config") else config
    if not holder.values.get("quantization_config"):
        return plain, 0.0, 2.0
    scheme = holder.table("quantization_config")
    packed = quantised_bytes(scheme)
    if experts and scheme.find("quant_method")[1] == "mxfp4":
        return plain, packed, kv_bytes(scheme)
    return packed, 0.0, kv_bytes(scheme)
