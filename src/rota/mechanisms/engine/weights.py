"""Weights: reading them from safetensors, and the formats in which a matrix product takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from rota.errors import InputError

#: Weight formats by name: the tensors' type in memory, and in products.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64, "float16": torch.float16}


class Checkpoint:
    """The tensors of a Hugging Face directory, in one file or in shards. They are read when asked for.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        If there is no such file, or it is no safetensors file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = folder / "model.safetensors.index.json"
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        self._where = {}
        for name in names:
            try:
                shard = safe_open(folder / name, framework="pt")
                self._where.update(dict.fromkeys(shard.keys(), shard))
            except (OSError, SafetensorError) as error:
                raise InputError(f"{folder / name}: cannot be read as safetensors ({error}); is the download complete?") from None

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def get(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """One tensor.

        Raises
        ------
        InputError
            If it is missing or of another shape than config.json says.
        """
        if name not in self._where:
            raise InputError(f"{self.folder}: tensor {name} is missing; config.json and the weights do not belong together")
        tensor: Tensor = self._where[name].get_tensor(name)
        if shape is not None and tuple(tensor.shape) != shape:
            raise InputError(f"{self.folder}: tensor {name} has shape {tuple(tensor.shape)}, but config.json implies {shape}")
        return tensor


class Linear(Protocol):
    """A matrix product with packed weights: (n, in) to (n, out), in the input's type."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Dense:
    """Weights as they are."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)


class Int8:
    """Whole numbers of 8 bits with one scale per output, packed once; products in bfloat16, which is what PyTorch's kernel is fast in."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127.0
        self._weight = (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8).contiguous()
        self._scale = scale.to(torch.bfloat16)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.ops.aten._weight_int8pack_mm(x.to(torch.bfloat16).contiguous(), self._weight, self._scale).to(x.dtype)
        return y if self._bias is None else y + self._bias


def pack(weight: Tensor, bias: Tensor | None, weight_format: str) -> Linear:
    """A matrix in a format: ``"int8"``, or as it is."""
    if weight_format == "int8":
        return Int8(weight, bias)
    return Dense(weight.contiguous(), bias)
