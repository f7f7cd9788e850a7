"""What a decoder looks like, from a Hugging Face ``config.json``: the models this engine can run are this one decoder, configured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rota.catalog.fields import Fields
from rota.catalog.huggingface import shape_of
from rota.catalog.shapes import ModelShape
from rota.errors import InputError

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "mixtral", "qwen3_moe")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding.

    Parameters
    ----------
    theta : float
        Base of the wavelengths.
    kind : str
        ``"default"``, ``"linear"``, ``"llama3"`` or ``"yarn"``.
    scaling : Fields
        The parameters of that kind.
    """

    theta: float
    kind: str
    scaling: Fields


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """One decoder.

    Parameters
    ----------
    family : str
        The ``model_type``.
    shape : ModelShape
    eps : float
        Of the norms.
    rope : Rope
    windows : tuple of int
        Sliding window of each layer, tokens; 0 for full attention.
    sparse : tuple of bool
        Which layers have experts.
    norm_topk : bool
        Whether the weights of a token's experts are scaled to sum to one.
    end_tokens : frozenset of int
    """

    family: str
    shape: ModelShape
    eps: float
    rope: Rope
    windows: tuple[int, ...]
    sparse: tuple[bool, ...]
    norm_topk: bool
    end_tokens: frozenset[int]


def read_decoder(folder: Path) -> DecoderConfig:
    """The decoder that a Hugging Face directory holds.

    Raises
    ------
    InputError
        If ``config.json`` is missing, or describes what this engine cannot run; the message names the field.
    """
    path = folder / "config.json"
    values = _json(path)
    fields = Fields(values, str(path))
    family = fields.text("model_type")
    if family not in FAMILIES:
        raise InputError(f"{path}: model_type {family!r} cannot be run, only simulated; the engine runs {', '.join(FAMILIES)}")
    if fields.values.get("quantization_config"):
        raise InputError(f"{path}: the weights are quantised; the engine reads plain weights and quantises them itself")
    if fields.text("hidden_act", default="silu") != "silu":
        raise InputError(f"{path}: hidden_act must be 'silu', not {fields.values['hidden_act']!r}")
    shape = shape_of(values, folder.name, str(path))
    return DecoderConfig(
        family=family, shape=shape, eps=fields.number("rms_norm_eps", default=1e-6), rope=_rope(fields),
        windows=_windows(fields, family, shape.layers), sparse=_sparse(fields, shape),
        norm_topk=family == "mixtral" or fields.flag("norm_topk_prob", default=False), end_tokens=_end_tokens(folder, fields),
    )  # fmt: skip


def _json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a Hugging Face model directory") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, not an object")
    return values


def _rope(fields: Fields) -> Rope:
    """Either all in ``rope_parameters``, or in ``rope_theta`` and ``rope_scaling`` (files before transformers 5)."""
    name, _ = fields.find("rope_parameters", "rope_scaling")
    scaling = fields.table(name) if name else Fields({}, fields.where)
    kind = scaling.text("rope_type", "type", default="default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise InputError(f"{fields.where}: rope scaling {kind!r} is not known; only default, linear, llama3 and yarn are")
    theta = scaling.number("rope_theta", default=fields.number("rope_theta", default=10000.0))
    return Rope(theta, kind, scaling)


def _windows(fields: Fields, family: str, layers: int) -> tuple[int, ...]:
    window = fields.integer("sliding_window", default=0, least=0)
    if family.startswith("qwen") and not fields.flag("use_sliding_window", default=False):
        window = 0
    kinds = fields.texts("layer_types")
    if kinds:
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    first = fields.integer("max_window_layers", default=0, least=0) if family in ("qwen2", "qwen3") else 0
    return tuple(window if layer >= first and family != "llama" else 0 for layer in range(layers))


def _sparse(fields: Fields, shape: ModelShape) -> tuple[bool, ...]:
    every = fields.integer("decoder_sparse_step", default=1)
    named = fields.values.get("mlp_only_layers") or []
    assert isinstance(named, list)
    return tuple(shape.experts > 0 and i not in named and (i + 1) % every == 0 for i in range(shape.layers))


def _end_tokens(folder: Path, fields: Fields) -> frozenset[int]:
    """From ``generation_config.json``, which overrides ``config.json``."""
    value = fields.values.get("eos_token_id")
    path = folder / "generation_config.json"
    if path.exists():
        value = _json(path).get("eos_token_id") or value
    found = value if isinstance(value, list) else [value]
    return frozenset(token for token in found if isinstance(token, int))
