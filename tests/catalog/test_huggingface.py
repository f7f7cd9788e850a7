"""config.json files: the published ones give the catalog's shapes; families, quantisation and broken files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rota.catalog import load_model, model_names
from rota.catalog.huggingface import shape_of
from rota.catalog.shapes import ModelShape
from rota.catalog.sizes import parameters, weight_bytes
from rota.errors import InputError
from tests.catalog.configs import CONFIGS

LLAMA = CONFIGS["llama-3-8b"]
MIXTRAL = CONFIGS["mixtral-8x7b"]


def write(folder: Path, config: object) -> Path:
    path = folder / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def shape(config: dict[str, Any], **changes: Any) -> ModelShape:
    return shape_of({**config, **changes}, "model", "config.json")


def without(config: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in fields}


def test_every_model_but_a_long_context_twin_has_its_config_here() -> None:
    assert set(model_names()) - set(CONFIGS) == {"yi-34b-200k"}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_config_gives_the_shape_of_the_catalog(name: str, tmp_path: Path) -> None:
    known = load_model(name)
    path = write(tmp_path, CONFIGS[name])
    read = load_model(path)
    assert read == load_model(tmp_path) == load_model(str(path))
    assert read.source == str(path)
    assert replace(read, name=known.name, source=known.source, aliases=known.aliases) == known


def test_name_comes_from_the_folder_the_hub_cache_or_the_file(tmp_path: Path) -> None:
    for place, name in (
        ("my-llama/config.json", "my-llama"),
        ("models--acme--Big-Llama/snapshots/0a1b2c/config.json", "Big-Llama"),
        ("tuned.json", "tuned"),
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(LLAMA))
        assert load_model(path).name == name


def test_older_field_names() -> None:
    gpt2 = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "n_inner": None,
        "vocab_size": 50257,
    }
    read = shape(gpt2)
    assert (read.hidden, read.layers, read.heads, read.kv_heads, read.head_dim, read.ffn) == (768, 12, 12, 12, 64, 3072)
    assert (read.gated, read.tied, read.max_len) == (False, True, 1024)
    assert parameters(read).total == pytest.approx(124.4e6, rel=0.01)  # less its learned positions and biases


def test_falcon_generations_count_kv_heads_differently() -> None:
    falcon7 = {
        "model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32, "num_kv_heads": 71,
        "multi_query": True, "new_decoder_architecture": False, "vocab_size": 65024, "torch_dtype": "bfloat16",
    }  # fmt: skip
    assert shape(falcon7).kv_heads == 1
    assert shape(falcon7, multi_query=False).kv_heads == 71
    assert parameters(shape(falcon7)).total == pytest.approx(6.92e9, rel=0.01)
    assert shape(CONFIGS["falcon-180b"]).kv_heads == 8


def test_gemma2_is_tied_and_windowed_in_every_other_layer() -> None:
    gemma2 = {
        "model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 256, "intermediate_size": 14336, "vocab_size": 256000, "max_position_embeddings": 8192,
        "sliding_window": 4096,
    }  # fmt: skip
    read = shape(gemma2)
    assert (read.tied, read.window, read.window_layers) == (True, 4096, 21)
    assert parameters(read).total == pytest.approx(9.24e9, rel=0.005)


def test_gemma3_multimodal_counts_its_language_model() -> None:
    text = {
        "model_type": "gemma3_text", "hidden_size": 3840, "num_hidden_layers": 48, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 15360, "vocab_size": 262208,
        "max_position_embeddings": 131072, "sliding_window": 1024, "sliding_window_pattern": 6,
    }  # fmt: skip
    read = shape({"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": text, "vision_config": {"hidden_size": 1152}})
    assert (read.window, read.window_layers, read.tied) == (1024, 40, True)
    assert parameters(read).total == pytest.approx(11.77e9, rel=0.01)


def test_phi3_and_qwen_windows() -> None:
    phi3 = {
        "model_type": "phi3", "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "intermediate_size": 8192, "vocab_size": 32064, "max_position_embeddings": 4096, "sliding_window": 2047,
    }  # fmt: skip
    assert (shape(phi3).window, shape(phi3).window_layers) == (2047, 32)
    assert parameters(shape(phi3)).total == pytest.approx(3.82e9, rel=0.005)
    assert shape(phi3, sliding_window=262144).window == 0  # no request can outgrow it
    qwen = CONFIGS["qwen2.5-7b"]
    windowed = shape(qwen, use_sliding_window=True, sliding_window=4096, max_window_layers=20)
    assert (windowed.window, windowed.window_layers) == (4096, 8)


def test_qwen2_moe_has_a_shared_expert() -> None:
    qwen = {
        "model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 60, "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "decoder_sparse_step": 1, "vocab_size": 151936, "max_position_embeddings": 8192,
        "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 32768, "torch_dtype": "bfloat16",
    }  # fmt: skip
    read = shape(qwen)
    assert (read.shared_ffn, read.ffn, read.dense_layers) == (5632, 0, 0)
    assert parameters(read).total == pytest.approx(14.3e9, rel=0.01)
    assert parameters(read).active == pytest.approx(2.7e9, rel=0.02)
    every_other = shape(qwen, decoder_sparse_step=2, mlp_only_layers=[1])
    assert (every_other.dense_layers, every_other.ffn) == (13, 5632)


def test_deepseek_v2_lite() -> None:
    lite = {
        "model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
        "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": None, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2,
        "num_experts_per_tok": 6, "first_k_dense_replace": 1, "moe_layer_freq": 1, "max_position_embeddings": 163840,
        "vocab_size": 102400, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    read = shape(lite)
    assert (read.q_lora, read.kv_lora, read.shared_ffn, read.dense_layers, read.head_dim) == (0, 512, 2816, 1, 192)
    assert parameters(read).total == pytest.approx(15.7e9, rel=0.01)
    assert parameters(read).active == pytest.approx(2.66e9, rel=0.01)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ({"quant_method": "fp8"}, 1.0),
        ({"quant_method": "fbgemm_fp8"}, 1.0),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, (4 + 20 / 128) / 8),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, (4 + 20 / 64) / 8),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 1.0),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1.0),
        ({"load_in_4bit": True}, (4 + 32 / 64) / 8),
        ({"quant_method": "mxfp4"}, 0.53125),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, (4 + 8 / 16) / 8),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, 1.0),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}, 1.0),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 128}}}},
            (4 + 16 / 128) / 8,
        ),
    ],
)
def test_quantisation_sets_bytes_per_weight(scheme: dict[str, Any], expected: float) -> None:
    read = shape(LLAMA, quantization_config=scheme)
    assert read.weight_bytes == pytest.approx(expected)
    assert read.kv_bytes == 2.0
    # Embedding and head stay at two bytes each.
    plain = parameters(read)
    outside = plain.embedding + plain.head + plain.norms
    assert weight_bytes(read) == pytest.approx(2 * outside + expected * (plain.total - outside))


def test_published_quantised_checkpoint_sizes() -> None:
    # Size of the one shard of TheBloke/Llama-2-7B-GPTQ (4 bits, groups of 128): 3.9 GB.
    read = shape(CONFIGS["llama-2-7b"], quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    assert weight_bytes(read) == pytest.approx(3.9e9, rel=0.01)


def test_mxfp4_packs_experts_only() -> None:
    read = shape(MIXTRAL, quantization_config={"quant_method": "mxfp4"})
    assert (read.weight_bytes, read.expert_weight_bytes) == (2.0, 0.53125)


def test_cache_formats() -> None:
    groups = {"config_groups": {"g": {"weights": {"num_bits": 8}}}}
    scheme = {"quant_method": "compressed-tensors", **groups, "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    assert shape(LLAMA, quantization_config=scheme).kv_bytes == 1.0
    modelopt = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    assert shape(LLAMA, quantization_config=modelopt).kv_bytes == 1.0


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", 2.0), ("torch.float16", 2.0), ("float32", 2.0), ("float8_e4m3fn", 1.0), (None, 2.0)]
)
def test_torch_dtype_sets_bytes_per_weight(dtype: str | None, expected: float) -> None:
    assert shape(LLAMA, torch_dtype=dtype).weight_bytes == expected
    assert shape(without(LLAMA, "torch_dtype"), dtype=dtype).weight_bytes == expected


@pytest.mark.parametrize(
    "field",
    ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"],
)
def test_missing_fields_are_named(field: str, tmp_path: Path) -> None:
    path = write(tmp_path, without(LLAMA, field))
    with pytest.raises(InputError, match=f"field {field} .*is missing") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "field hidden_size must be a whole number from 1"),
        ({"hidden_size": -4096}, "field hidden_size must be a whole number"),
        ({"hidden_size": "4096"}, "field hidden_size must be a whole number"),
        ({"hidden_size": 4096.0}, "field hidden_size must be a whole number"),
        ({"hidden_size": True}, "field hidden_size must be a whole number"),
        ({"hidden_size": 10**30}, "field hidden_size must be a whole number"),
        ({"num_attention_heads": 33}, "33 attention heads do not divide hidden_size 4096"),
        ({"num_key_value_heads": 5}, "field num_key_value_heads is 5, which does not divide 32 heads"),
        ({"tie_word_embeddings": "no"}, "field tie_word_embeddings must be true or false"),
        ({"torch_dtype": "int3"}, "field torch_dtype is 'int3'"),
        ({"sliding_window": -1}, "field sliding_window"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "field layer_types has 'linear_attention'"),
        ({"layer_types": "full"}, "field layer_types must be a list"),
        ({"is_encoder_decoder": True}, "field is_encoder_decoder"),
        ({"mamba_d_state": 16}, "field mamba_d_state"),
        ({"num_local_experts": 8}, "field num_experts_per_tok .* is missing"),
        ({"num_local_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok is 9, more than the 8 experts"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": 3}, "field mlp_only_layers must be a list"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "first_k_dense_replace": 32}, "no layer with experts"),
        ({"kv_lora_rank": 512}, "field qk_rope_head_dim is missing"),
        ({"quantization_config": "fp8"}, "field quantization_config must be a table"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantization_config: field quant_method is 'magic'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: field bits .* is missing"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 7}}, "field bits must be one of"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "field config_groups is missing"),
        ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}}}, "config_groups is empty"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "INT1"}}, "field quant_algo must be one of"),
    ],
)
def test_senseless_fields_are_named_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, {**LLAMA, **changes})
    with pytest.raises(InputError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: not valid JSON"),
        ('{\n  "hidden_size": 4096,\n  "num_hidden_layers" 32\n}', "line 3, column 23: not valid JSON"),
        ("[1, 2]", "holds a list, not an object"),
        ("null", "not an object"),
        ("{}", "field num_hidden_layers .* is missing"),
    ],
)
def test_malformed_files_are_named_by_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(write(tmp_path, text))


def test_a_binary_file_is_not_a_config(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\xfe\x00\x80binary")
    with pytest.raises(InputError, match="not a JSON text file"):
        load_model(path)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.text(max_size=5), st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["bits", "quant_method", "num_bits", "weights"]), st.integers(0, 9), max_size=2),
)  # fmt: skip
FIELDS = sorted(
    {field for config in CONFIGS.values() for field in config} | {"text_config", "kv_cache_scheme", "mlp_only_layers"}
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), st.dictionaries(st.sampled_from(FIELDS), ODD, min_size=1, max_size=4))
def test_any_field_may_hold_anything_without_a_crash(name: str, changes: dict[str, object]) -> None:
    complaint = ""
    try:
        read = shape_of({**CONFIGS[name], **changes}, "model", "config.json")
    except InputError as error:
        complaint = str(error)
    if complaint:
        assert complaint.startswith("config.json")
        assert "\n" not in complaint
        return
    assert 0 < parameters(read).active <= parameters(read).total
    assert weight_bytes(read) > 0
