"""Rotary position embedding: the frequencies of each scaling scheme, and the rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rota.mechanisms.engine.config import DecoderConfig


def frequencies(config: DecoderConfig) -> tuple[Tensor, float]:
    """Radians per position of each pair of dimensions, float32 (head_dim / 2,), and what cosine and sine are multiplied by."""
    rope, dim = config.rope, config.shape.head_dim
    pairs = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    plain = 1.0 / rope.theta**pairs
    if rope.kind == "default":
        return plain, 1.0
    factor = rope.scaling.number("factor")
    if rope.kind == "linear":
        return plain / factor, 1.0
    before = rope.scaling.integer("original_max_position_embeddings", default=config.shape.max_len)
    if rope.kind == "llama3":
        return _llama3(plain, factor, before, rope.scaling.number("low_freq_factor"), rope.scaling.number("high_freq_factor")), 1.0
    scaling = rope.scaling
    low = _dimension(scaling.number("beta_fast", default=32.0), dim, rope.theta, before)
    high = _dimension(scaling.number("beta_slow", default=1.0), dim, rope.theta, before)
    if scaling.flag("truncate", default=True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    magnitude = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    if scaling.find("mscale")[0] and scaling.find("mscale_all_dim")[0] and factor > 1:
        one, other = scaling.number("mscale"), scaling.number("mscale_all_dim")
        magnitude = (0.1 * one * math.log(factor) + 1.0) / (0.1 * other * math.log(factor) + 1.0)
    return plain / factor * ramp + plain * (1 - ramp), scaling.number("attention_factor", default=magnitude)


def _llama3(plain: Tensor, factor: float, before: int, low: float, high: float) -> Tensor:
    """Long wavelengths are stretched, short ones kept, those between blended."""
    wavelength = 2 * math.pi / plain
    blend = ((before / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * plain / factor + blend * plain


def _dimension(rotations: float, dim: int, theta: float, length: int) -> float:
    """The (fractional) pair that turns so many times over a length."""
    return dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(theta))


def angles(positions: Tensor, freq: Tensor, factor: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's rotations, (n, 1, head_dim)."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    turns = positions.to(exact)[:, None] * freq.to(exact)[None, :]
    both = torch.cat([turns, turns], dim=-1)[:, None, :]
    return (both.cos() * factor).to(dtype), (both.sin() * factor).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the dimension pairs (i, i + half) of every head of x (n, heads, head_dim)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos + turned * sin
