"""A sparse mixture of experts: each row passes the few experts that its router scores highest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional


class Experts:
    """The router and its experts.

    Parameters
    ----------
    router : Tensor
        (experts, hidden).
    experts : sequence of callable
        Rows to rows.
    per_token : int
        Experts per row.
    normalise : bool
        Whether the chosen experts' weights are scaled to sum to one.

    Attributes
    ----------
    on_route : callable or None
        Called with every (rows, per_token) choice of experts: for counting.
    """

    def __init__(self, router: Tensor, experts: Sequence[Callable[[Tensor], Tensor]], per_token: int, normalise: bool) -> None:
        self._router, self._experts = router, experts
        self._per_token, self._normalise = per_token, normalise
        self.on_route: Callable[[Tensor], None] | None = None

    def block(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x + what the mixture makes of its norm."""
        return x + self(functional.rms_norm(x, weight.shape, weight, eps))

    def __call__(self, x: Tensor) -> Tensor:
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        scores = functional.linear(x, self._router).softmax(dim=-1, dtype=exact)
        weights, chosen = scores.topk(self._per_token, dim=-1)
        if self._normalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        if self.on_route is not None:
            self.on_route(chosen)
        out = torch.zeros_like(x)
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=len(self._experts)).tolist()
        at = 0
        for expert, n in zip(self._experts, counts, strict=True):
            if n:
                mine = order[at : at + n]
                rows = mine // self._per_token
                out.index_add_(0, rows, expert(x[rows]) * weights.view(-1)[mine, None].to(x.dtype))
                at += n
        return out
