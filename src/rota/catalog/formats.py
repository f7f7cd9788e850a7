"""Bytes per weight of the number formats and quantisation schemes that a Hugging Face ``config.json`` can name."""

from __future__ import annotations

from rota.catalog.fields import Fields
from rota.errors import InputError

#: An fp32 checkpoint counts 2 bytes: serving engines load it as bf16 or fp16.
DTYPE_BYTES = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "half": 2.0,
    "float32": 2.0,
    "float": 2.0,
    "auto": 2.0,
    "float8_e4m3fn": 1.0,
    "float8_e5m2": 1.0,
}


def grouped_bytes(bits: int, group: int, scale_bits: int) -> float:
    """Bytes per weight of `bits` bits with `scale_bits` of scale and zero point for every `group` weights (none if `group` < 1).

    >>> grouped_bytes(4, 32, 8)
    0.53125
    """
    return (bits + (scale_bits / group if group > 0 else 0.0)) / 8


def dtype_bytes(config: Fields) -> float:
    """Bytes per weight by ``torch_dtype`` (``dtype`` in newer files); 2 if the file does not say."""
    name, value = config.find("torch_dtype", "dtype")
    if not name:
        return 2.0
    key = str(value).removeprefix("torch.").lower()
    if key not in DTYPE_BYTES:
        raise InputError(f"{config.where}: field {name} is {value!r}, which is none of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[key]


def quantised_bytes(scheme: Fields) -> float:
    """Bytes per quantised weight of a ``quantization_config`` table, scales and zero points included.

    Raises
    ------
    InputError
        If the method is unknown or its bits are missing or impossible.
    """
    method = scheme.text("quant_method", default="").lower()
    if not method and (scheme.find("load_in_4bit")[0] or scheme.find("load_in_8bit")[0]):
        method = "bitsandbytes"
    if method in ("fp8", "fbgemm_fp8", "ptpc_fp8"):
        return 1.0
    if method == "mxfp4":
        return grouped_bytes(4, 32, 8)
    if method in ("gptq", "awq", "auto-round", "auto_round", "gptq_marlin", "awq_marlin"):
        bits = _bits(scheme, "bits", "w_bit")
        group = scheme.integer("group_size", "q_group_size", default=128, least=-1)
        return grouped_bytes(bits, group, 16 + bits)
    if method == "compressed-tensors":
        return _compressed_tensors(scheme)
    if method == "bitsandbytes":
        return grouped_bytes(4, 64, 32) if scheme.flag("load_in_4bit", "_load_in_4bit", default=False) else 1.0
    if method == "modelopt":
        return _modelopt(scheme)
    raise InputError(
        f"{scheme.where}: field quant_method is {method!r}; known are fp8, fbgemm_fp8, mxfp4, gptq, awq, auto-round, "
        "compressed-tensors, bitsandbytes and modelopt (without quantization_config, weights count as torch_dtype)"
    )


def _bits(scheme: Fields, *names: str) -> int:
    bits = scheme.integer(*names)
    if bits not in (2, 3, 4, 5, 6, 8, 16):
        raise scheme.wrong(scheme.find(*names)[0], bits, "one of 2, 3, 4, 5, 6, 8 and 16")
    return bits


def _compressed_tensors(scheme: Fields) -> float:
    groups = scheme.table("config_groups")
    if not groups.values:
        raise InputError(f"{groups.where} is empty; it must hold at least one group of weights")
    weights = groups.table(next(iter(groups.values))).table("weights")
    return grouped_bytes(_bits(weights, "num_bits"), weights.integer("group_size", default=0, least=-1), 16)


def _modelopt(scheme: Fields) -> float:
    inner = scheme.table("quantization") if "quantization" in scheme.values else scheme
    algorithm = inner.text("quant_algo").upper()
    if algorithm in ("FP8", "INT8", "W8A8"):
        return 1.0
    if algorithm == "NVFP4":
        return grouped_bytes(4, 16, 8)
    if algorithm in ("INT4_AWQ", "W4A16_AWQ", "W4A8_AWQ"):
        return grouped_bytes(4, inner.integer("group_size", default=128), 16)
    raise inner.wrong("quant_algo", algorithm, "one of FP8, INT8, NVFP4 and W4A16_AWQ")


def kv_bytes(scheme: Fields) -> float:
    """Bytes per cached KV element that a ``quantization_config`` asks for; 2 if it does not say."""
    if scheme.find("kv_cache_scheme")[0] and isinstance(scheme.values["kv_cache_scheme"], dict):
        return _bits(scheme.table("kv_cache_scheme"), "num_bits") / 8
    inner = scheme.table("quantization") if isinstance(scheme.values.get("quantization"), dict) else scheme
    return 1.0 if str(inner.find("kv_cache_quant_algo")[1]).upper() in ("FP8", "INT8") else 2.0
