"""Muon: momentum whose update of every matrix is made orthogonal before it is applied (Keller Jordan and others, 2024).

torch has one too, which computes in bfloat16; on processors without such arithmetic that is slower than the rest of a step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

#: Coefficients of the quintic iteration as published: singular values between 0 and 1 come near 1 in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon:
    """An optimiser of matrices.

    Parameters
    ----------
    matrices : iterable of Tensor
        Two-dimensional weights; those of one size are treated at once.
    momentum : float
    decay : float
        Share of a weight that is taken off per step, times the rate.
    """

    def __init__(self, matrices: Iterable[Tensor], momentum: float = 0.95, decay: float = 0.1) -> None:
        self._groups: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            self._groups.setdefault(matrix.shape, []).append(matrix)
        self._averages = {shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()}
        self._momentum, self._decay = momentum, decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move all matrices along their gradients."""
        for shape, group in self._groups.items():
            gradients = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            average = self._averages[shape]
            average.lerp_(gradients, 1 - self._momentum)
            updates = orthogonal(gradients.lerp(average, self._momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, update in zip(group, updates, strict=True):
                matrix.mul_(1 - rate * self._decay).add_(update, alpha=-rate * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with the same singular vectors and singular values near 1."""
    a, b, c = QUINTIC
    x: Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
