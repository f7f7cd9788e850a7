"""The KV tensors of all layers, cut into blocks. Which sequence holds which block is `rota.mechanisms.engine.blocks`' affair."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Blocks that are gathered for one copy between device and host.
AT_ONCE = 16


class PagedKV:
    """Keys and values of all layers.

    Parameters
    ----------
    layers, blocks, block_size, kv_heads, head_dim : int
    dtype : torch.dtype
    device : torch.device

    Attributes
    ----------
    keys, values : list of Tensor
        Per layer, (blocks, kv_heads, block_size, head_dim): what one head reads of one block lies in a row.
    arrays : list of (array, array)
        The same memory for compiled kernels, bfloat16 as uint16; empty unless on a CPU.
    """

    def __init__(
        self, layers: int, blocks: int, block_size: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block_size = block_size
        shape = (blocks, kv_heads, block_size, head_dim)
        self.arrays: list[tuple[NDArray[Any], NDArray[Any]]] = []
        if device.type == "cpu":  # NumPy asks for huge pages, which matters to whoever reads all over them
            number = np.dtype(np.uint16) if dtype == torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype
            # written now: a page that the system hands out at its first use would cost a request its time
            self.arrays = [(np.full(shape, 0, number), np.full(shape, 0, number)) for _ in range(layers)]
            self.keys = [torch.from_numpy(keys).view(dtype) for keys, _ in self.arrays]
            self.values = [torch.from_numpy(values).view(dtype) for _, values in self.arrays]
        else:
            self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
            self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]

    def allocate_host(self, blocks: int) -> None:
        """Make room for so many blocks in host memory (pinned if the cache is on a GPU), a block's keys and values of all layers in a row."""
        pages = self.keys[0]
        shape = (blocks, 2 * len(self.keys), *pages.shape[1:])
        self._host = torch.zeros(shape, dtype=pages.dtype, pin_memory=pages.is_cuda)

    def copy_out(self, device: list[int], host: list[int]) -> None:
        """Copy blocks to the host, so many at a time that the copy in between stays small."""
        for at in range(0, len(host), AT_ONCE):
            index = torch.tensor(device[at : at + AT_ONCE], device=self.keys[0].device)
            found = torch.stack([pages[index] for pages in (*self.keys, *self.values)], dim=1)
            for block, content in zip(host[at : at + AT_ONCE], found, strict=True):
                self._host[block].copy_(content, non_blocking=True)

    def copy_in(self, device: list[int], host: list[int]) -> None:
        """Copy blocks back."""
        for at in range(0, len(host), AT_ONCE):
            index = torch.tensor(device[at : at + AT_ONCE], device=self.keys[0].device)
            found = torch.stack([self._host[block].to(index.device, non_blocking=True) for block in host[at : at + AT_ONCE]])
            for i, pages in enumerate((*self.keys, *self.values)):
                pages[index] = found[:, i]

    def write(self, layer: int, blocks: Tensor, offsets: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put row i's key and value (n, kv_heads, head_dim) at position ``offsets[i]`` of block ``blocks[i]``; both as they are kept."""
        dtype = self.keys[layer].dtype
        kept = k.to(dtype), v.to(dtype)
        self.keys[layer][blocks, :, offsets], self.values[layer][blocks, :, offsets] = kept
        return kept[0].to(k.dtype), kept[1].to(v.dtype)

    def read(self, layer: int, blocks: Tensor, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `n` positions in these blocks, (kv_heads, n, head_dim), in this type."""
        return self._joined(self.keys[layer], blocks, n).to(dtype), self._joined(self.values[layer], blocks, n).to(dtype)

    def _joined(self, pages: Tensor, blocks: Tensor, n: int) -> Tensor:
        found = pages[blocks]  # (blocks, kv_heads, block_size, head_dim)
        return found.transpose(0, 1).reshape(found.shape[1], -1, found.shape[3])[:, :n]
