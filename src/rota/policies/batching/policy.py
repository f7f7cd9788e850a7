"""What all batching policies here share: their attributes, the facts they take from an engine's limits, and checks of options."""

from __future__ import annotations

import math
import operator
from typing import ClassVar

from rota.contracts.serving import Limits
from rota.errors import InputError


class Batching:
    """A first-come policy without a prefix cache, until a subclass says otherwise. See `rota.contracts.serving.BatchPolicy`."""

    name: ClassVar[str]
    #: One line for lists, and where the technique was published.
    title: ClassVar[str]
    paper: ClassVar[str]

    requires: frozenset[str] = frozenset()
    order: str = "fcfs"
    prefix_caching: bool = False
    max_seqs: int
    max_step_tokens: int = 0
    follows: bool = False

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits; `longest` is the most known tokens with which a request can still run alone."""
        self.limits = limits
        self.block_size = limits.block_size
        self.capacity = limits.blocks * limits.block_size
        self.longest = self.capacity - 1


def whole(name: str, value: object, least: int = 1) -> int:
    """An option that must be a whole number of at least `least`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return number


def share(name: str, value: object) -> float:
    """An option that must be at least 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value < 1):
        raise InputError(f"{name} must be a number from 0 to below 1, not {value!r}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """An option that must be True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {value!r}")
    return value


def step_tokens(value: object, max_num_seqs: int) -> int:
    """`max_num_batched_tokens`, which must allow every sequence a token."""
    tokens = whole("max_num_batched_tokens", value)
    if tokens < max_num_seqs:
        raise InputError(
            f"max_num_batched_tokens={tokens} is below max_num_seqs={max_num_seqs}, so not every sequence could decode; "
            f"raise the first or lower the second"
        )
    return tokens
