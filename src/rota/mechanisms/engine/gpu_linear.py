"""Matrix products on a GPU with what comes before and after: weights as they are (cuBLAS), or of 8 bits (Triton)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from rota.mechanisms.engine.gpu_rows import gated, rms_norm
from rota.mechanisms.engine.weights import Linear, quantise_weight

#: Outputs and inputs of a tile, and the rows up to which 8-bit weights are unpacked on the way; beyond, once for all of them.
OUTPUTS, INPUTS, FEW = 128, 128, 128
#: Programs that keep a GPU busy, and tiles under way in each.
PROGRAMS, STAGES = 256, 3


class GpuLinear(Linear):
    """What all formats share: norm and gate in one pass each."""

    def normed(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self(rms_norm(x, weight, eps))

    def gated(self, x: Tensor) -> Tensor:
        return self(gated(x))

    def gated_added(self, to: Tensor, x: Tensor) -> Tensor:
        return self.added(to, gated(x))


class GpuDense(GpuLinear):
    """Weights as they are, (in, out), which cuBLAS reads a little faster; what is added to a product enters it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.t().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self._weight if self._bias is None else torch.addmm(self._bias, x, self._weight)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        return to.addmm_(x, self._weight) if self._bias is None else to.add_(self(x))


@triton.jit
def _products(
    x, weight, parts, n, INS: tl.constexpr, OUTS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
    SHARE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(2)
    found = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(part * SHARE, min((part + 1) * SHARE, INS), STEP):
        i = start + tl.arange(0, STEP)
        w = tl.load(weight + o.to(tl.int64)[None, :] * INS + i[:, None], mask=(o < OUTS)[None, :] & (i < INS)[:, None], other=0)
        rows = tl.load(x + r.to(tl.int64)[:, None] * INS + i[None, :], mask=(r < n)[:, None] & (i < INS)[None, :], other=0.0)
        found += tl.dot(rows, w.to(rows.dtype), input_precision=PRECISION)
    to = (part * n + r).to(tl.int64)[:, None] * OUTS + o[None, :]
    tl.store(parts + to, found, mask=(r < n)[:, None] & (o < OUTS)[None, :])


@triton.jit
def _finish(
    parts, scale, bias, out, n, PARTS: tl.constexpr, OUTS: tl.constexpr, STEP: tl.constexpr, BIAS: tl.constexpr, ADDED: tl.constexpr
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * STEP + tl.arange(0, STEP)
    inside = o < OUTS
    found = tl.zeros((STEP,), tl.float32)
    for part in range(PARTS):
        found += tl.load(parts + (part * n + r) * OUTS + o, mask=inside, other=0.0)
    found *= tl.load(scale + o, mask=inside, other=0.0)
    if BIAS:
        found += tl.load(bias + o, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        found += tl.load(out + r * OUTS + o, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + r * OUTS + o, found.to(out.dtype.element_ty), mask=inside)


class GpuInt8(GpuLinear):
    """Weights of 8 bits with one scale per output."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._scale = quantise_weight(weight)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x, None)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        return self._product(x, to)

    def _product(self, x: Tensor, to: Tensor | None) -> Tensor:
        (outs, ins), n = self._weight.shape, len(x)
        if n > FEW:
            y = functional.linear(x, self._weight.to(x.dtype) * self._scale.to(x.dtype)[:, None], self._bias)
            return y if to is None else to.add_(y)
        tiles = triton.cdiv(outs, OUTPUTS)
        share = triton.cdiv(ins, max(1, min(8, PROGRAMS // tiles, ins // (4 * INPUTS))) * INPUTS) * INPUTS
        n_parts, block = triton.cdiv(ins, share), min(64, max(16, triton.next_power_of_2(n)))
        x = x.contiguous()
        parts, out = x.new_empty(n_parts, n, outs, dtype=torch.float32), x.new_empty(n, outs) if to is None else to
        _products[(tiles, triton.cdiv(n, block), n_parts)](
            x, self._weight, parts, n, INS=ins, OUTS=outs, ROWS=block, BLOCK=OUTPUTS, STEP=INPUTS, SHARE=share,
            PRECISION="ieee" if x.dtype == torch.float32 else "tf32", num_warps=4, num_stages=STAGES if x.dtype != torch.float32 else 2,
        )  # fmt: skip
        _finish[(n, triton.cdiv(outs, 1024))](
            parts, self._scale, self._bias if self._bias is not None else parts, out, n,
            PARTS=n_parts, OUTS=outs, STEP=1024, BIAS=self._bias is not None, ADDED=to is not None,
        )  # fmt: skip
        return out


#: As `rota.mechanisms.engine.weights.FORMATS`.
GPU_FORMATS = {"plain": GpuDense, "int8": GpuInt8}
