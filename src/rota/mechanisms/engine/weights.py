"""Weights: reading them from safetensors, and the formats in which a matrix product takes them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from rota.errors import InputError
from rota.mechanisms.engine.plain_rows import gate_rows, norm_rows
from rota.mechanisms.engine.quantise import quantise_gated, quantise_normed, quantise_rows

#: Types of activations and KV by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64, "float16": torch.float16}


EVERY, ROUND = 256, 32


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


class Linear(ABC):
    """A matrix product with packed weights: (n, in) to (n, out), in the input's type; with what comes before or after in a decoder."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...

    def normed(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The product with x's root-mean-square norm of this weight (in,)."""
        return self(functional.rms_norm(x, weight.shape, weight, eps))

    def gated(self, x: Tensor) -> Tensor:
        """The product with silu(x[:, :in]) * x[:, in:]."""
        gate, up = x.chunk(2, dim=-1)
        return self(functional.silu(gate) * up)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """`to`, which may be overwritten, + the product."""
        return to + self(x)

    def gated_added(self, to: Tensor, x: Tensor) -> Tensor:
        """`to`, which may be overwritten, + what `gated` gives."""
        return to + self.gated(x)


class Dense(Linear):
    """Weights as they are."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)


class Packed(Linear):
    """Single precision on a CPU, laid out for oneDNN once: up to twice as fast as `Dense` for a few dozen rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 16)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        more = rounded_up(len(x)) - len(x)
        return self._product(functional.pad(x, (0, 0, 0, more)) if more else x, len(x))

    def normed(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = self._room(x, x.shape[1])
        norm_rows(x.contiguous().numpy(), weight.numpy(), eps, out.numpy())
        return self._product(out, len(x))

    def gated(self, x: Tensor) -> Tensor:
        out = self._room(x, x.shape[1] // 2)
        gate_rows(x.contiguous().numpy(), out.numpy())
        return self._product(out, len(x))

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        return self(x).add_(to)

    def gated_added(self, to: Tensor, x: Tensor) -> Tensor:
        return self.gated(x).add_(to)

    def _room(self, x: Tensor, columns: int) -> Tensor:
        room = torch.empty(rounded_up(len(x)), columns)
        room[len(x) :] = 0
        return room

    def _product(self, x: Tensor, rows: int) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y[:rows]


class Int8(Linear):
    """Weights of 8 bits with one scale per output; rows in bfloat16, which is what PyTorch's kernel is fast in.

    The kernel is for decoding: from `MANY` rows on the weights are unpacked, and the product is one of floating point.
    """

    MANY = 32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, scale = quantise_weight(weight)
        self._scale = scale.to(torch.bfloat16)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) >= self.MANY:
            return functional.linear(x, self._weight.to(x.dtype)) * self._scale.to(x.dtype) + (0 if self._bias is None else self._bias)
        y = torch.ops.aten._weight_int8pack_mm(x.to(torch.bfloat16).contiguous(), self._weight, self._scale).to(x.dtype)
        return y if self._bias is None else y + self._bias


class Int8Rows(Linear):
    """Weights and rows of 8 bits, products in whole numbers (oneDNN): one scale per output and per row, so rows stay independent."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        whole, self._scale = quantise_weight(weight)
        self._zero = torch.zeros(len(whole), dtype=torch.int32)
        self._in = whole.shape[1]
        self._weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return self._scaled(*self._rounded(x))

    def normed(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        q, scale = self._room(x)
        quantise_normed(x.contiguous().numpy(), weight.numpy(), eps, q[: len(x)].numpy(), scale.numpy())
        return self._scaled(q, scale)

    def gated(self, x: Tensor) -> Tensor:
        return self._scaled(*self._rounded_gate(x))

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        return self._onto(to, *self._rounded(x))

    def gated_added(self, to: Tensor, x: Tensor) -> Tensor:
        return self._onto(to, *self._rounded_gate(x))

    def _room(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.empty(rounded_up(len(x)), self._in, dtype=torch.uint8), torch.empty(len(x), 1)

    def _rounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, scale = self._room(x)
        quantise_rows(x.contiguous().numpy(), q[: len(x)].numpy(), scale.numpy())
        return q, scale

    def _rounded_gate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, scale = self._room(x)
        quantise_gated(x.contiguous().numpy(), q[: len(x)].numpy(), scale.numpy())
        return q, scale

    def _product(self, q: Tensor) -> Tensor:
        """Before the rows' scales."""
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            q, 1.0, 128, self._weight, self._scale, self._zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return found

    def _scaled(self, q: Tensor, scale: Tensor) -> Tensor:
        y = self._product(q)[: len(scale)].mul_(scale)
        return y if self._bias is None else y + self._bias

    def _onto(self, to: Tensor, q: Tensor, scale: Tensor) -> Tensor:
        y = torch.addcmul(to, self._product(q)[: len(scale)], scale)
        return y if self._bias is None else y + self._bias


def rounded_up(rows: int) -> int:
    """So many rows oneDNN is given: it prepares a product when it first sees a number of rows, which takes longer than a few rows more, and
    forgets the oldest of a thousand. Up to `EVERY`, any number; then multiples of `ROUND`."""
    return rows if rows <= EVERY else -(-rows // ROUND) * ROUND


def runs_triton(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the engine's own kernels for GPUs can be used; without Triton, or in double precision, PyTorch does it all."""
    return device.type == "cuda" and dtype != torch.float64 and find_spec("triton") is not None


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, (out, in), and the scale of each output."""
    scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127.0
    return (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8).contiguous(), scale


#: How weights are kept: as in the checkpoint; 8 bits; 8 bits, and rows too.
FORMATS: dict[str, Callable[[Tensor, Tensor | None], Linear]] = {"plain": Dense, "int8": Int8, "w8a8": Int8Rows}


def pack(weight: Tensor, bias: Tensor | None, weight_format: str) -> Linear:
    """A matrix in one of `FORMATS`, as its device takes it best."""
    if runs_triton(weight.device, weight.dtype):
        from rota.mechanisms.engine.gpu_linear import GPU_FORMATS

        return GPU_FORMATS[weight_format](weight, bias)
    on_cpu = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if weight_format == "plain" and on_cpu and weight.dtype == torch.float32:
        return Packed(weight, bias)
    return FORMATS[weight_format](weight, bias)
