"""The KV tensors of all layers, cut into blocks. Which sequence holds which block is `rota.mechanisms.engine.blocks`' affair."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """

    def __init__(
        self, layers: int, blocks: int, block_size: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block_size = block_size
        shape = (blocks, kv_heads, block_size, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]

    def write(self, layer: int, blocks: Tensor, offsets: Tensor, k: Tensor, v: Tensor) -> None:
        """Put row i's key and value (n, kv_heads, head_dim) at position ``offsets[i]`` of block ``blocks[i]``."""
        self.keys[layer][blocks, :, offsets] = k
        self.values[layer][blocks, :, offsets] = v

    def read(self, layer: int, blocks: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `n` positions in these blocks, (kv_heads, n, head_dim)."""
        return self._joined(self.keys[layer], blocks, n), self._joined(self.values[layer], blocks, n)

    def _joined(self, pages: Tensor, blocks: Tensor, n: int) -> Tensor:
        found = pages[blocks]  # (blocks, kv_heads, block_size, head_dim)
        return found.transpose(0, 1).reshape(found.shape[1], -1, found.shape[3])[:, :n]
