"""Hugging Face config.json files as their publishers wrote them, less the fields that say nothing about size."""

from __future__ import annotations

from typing import Any

LLAMA: dict[str, Any] = {"model_type": "llama", "torch_dtype": "float16", "tie_word_embeddings": False}
LLAMA3: dict[str, Any] = {**LLAMA, "torch_dtype": "bfloat16", "num_key_value_heads": 8, "vocab_size": 128256}
QWEN2: dict[str, Any] = {
    "model_type": "qwen2",
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": 131072,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}
GPT_OSS: dict[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_experts_per_tok": 4,
    "experts_per_token": 4,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
    },
}


def _llama(base: dict[str, Any], hidden: int, layers: int, heads: int, ffn: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn}
    return {**base, **sizes, **more}


CONFIGS: dict[str, dict[str, Any]] = {
    "llama-2-7b": _llama(LLAMA, 4096, 32, 32, 11008, num_key_value_heads=32, vocab_size=32000, max_position_embeddings=4096),
    "llama-2-13b": _llama(LLAMA, 5120, 40, 40, 13824, num_key_value_heads=40, vocab_size=32000, max_position_embeddings=4096),
    "llama-2-70b": _llama(LLAMA, 8192, 80, 64, 28672, num_key_value_heads=8, vocab_size=32000, max_position_embeddings=4096),
    "llama-3-8b": _llama(LLAMA3, 4096, 32, 32, 14336, max_position_embeddings=8192),
    "llama-3-70b": _llama(LLAMA3, 8192, 80, 64, 28672, max_position_embeddings=8192),
    "llama-3.1-8b": _llama(LLAMA3, 4096, 32, 32, 14336, max_position_embeddings=131072),
    "llama-3.1-70b": _llama(LLAMA3, 8192, 80, 64, 28672, max_position_embeddings=131072),
    "llama-3.1-405b": _llama(LLAMA3, 16384, 126, 128, 53248, max_position_embeddings=131072),
    "llama-3.2-1b": _llama(LLAMA3, 2048, 16, 32, 8192, max_position_embeddings=131072, head_dim=64, tie_word_embeddings=True),
    "llama-3.2-3b": _llama(LLAMA3, 3072, 28, 24, 8192, max_position_embeddings=131072, head_dim=128, tie_word_embeddings=True),
    "yi-34b": _llama(LLAMA, 7168, 60, 56, 20480, num_key_value_heads=8, vocab_size=64000, max_position_embeddings=4096),
    "mistral-7b": _llama(
        {"model_type": "mistral", "torch_dtype": "bfloat16", "sliding_window": None, "tie_word_embeddings": False},
        4096,
        32,
        32,
        14336,
        num_key_value_heads=8,
        vocab_size=32768,
        max_position_embeddings=32768,
    ),  # fmt: skip
    "mistral-7b-v0.1": _llama(
        {"model_type": "mistral", "torch_dtype": "bfloat16", "sliding_window": 4096, "tie_word_embeddings": False},
        4096,
        32,
        32,
        14336,
        num_key_value_heads=8,
        vocab_size=32000,
        max_position_embeddings=32768,
    ),  # fmt: skip
    "mixtral-8x7b": _llama(
        {"model_type": "mixtral", "torch_dtype": "bfloat16", "sliding_window": None, "tie_word_embeddings": False},
        4096,
        32,
        32,
        14336,
        num_key_value_heads=8,
        vocab_size=32000,
        max_position_embeddings=32768,
        num_local_experts=8,
        num_experts_per_tok=2,
    ),  # fmt: skip
    "qwen2.5-7b": _llama(QWEN2, 3584, 28, 28, 18944, num_key_value_heads=4, max_window_layers=28),
    "qwen2.5-32b": _llama(QWEN2, 5120, 64, 40, 27648, num_key_value_heads=8, max_window_layers=70),
    "qwen2.5-72b": _llama(QWEN2, 8192, 80, 64, 29568, num_key_value_heads=8, max_window_layers=70),
    "qwen3-8b": _llama(
        {"model_type": "qwen3", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "head_dim": 128},
        4096,
        36,
        32,
        12288,
        num_key_value_heads=8,
        vocab_size=151936,
        max_position_embeddings=40960,
        use_sliding_window=False,
        sliding_window=None,
        max_window_layers=36,
    ),  # fmt: skip
    "qwen3-30b-a3b": _llama(
        {"model_type": "qwen3_moe", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "head_dim": 128},
        2048,
        48,
        32,
        6144,
        num_key_value_heads=4,
        vocab_size=151936,
        max_position_embeddings=40960,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        use_sliding_window=False,
        sliding_window=None,
        max_window_layers=48,
    ),  # fmt: skip
    "gpt-oss-20b": {
        **GPT_OSS,
        "num_hidden_layers": 24,
        "num_local_experts": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    },
    "gpt-oss-120b": {
        **GPT_OSS,
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 18,
    },
    "deepseek-v3": {
        "model_type": "deepseek_v3",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "moe_layer_freq": 1,
        "max_position_embeddings": 163840,
        "vocab_size": 129280,
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    },
    "falcon-180b": {
        "model_type": "falcon",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "hidden_size": 14848,
        "multi_query": True,
        "new_decoder_architecture": True,
        "num_attention_heads": 232,
        "num_hidden_layers": 80,
        "num_kv_heads": 8,
        "vocab_size": 65024,
    },
}
