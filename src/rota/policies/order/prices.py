"""What service costs tenants: tokens at a price, and a counter for each of them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import H_KNOWN, H_PROMPT
from rota.jit import njit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Rows of `charge`'s accounts.
ACCOUNT_ROWS = 4


def cost_of(prompt: float, output: float, per_prompt: float, per_output: float, product: float, square: float, fixed: float) -> float:
    """What a request with so many prompt and output tokens has cost so far. See `Cost`."""
    return per_prompt * prompt + per_output * output + product * prompt * output + square * output * output + fixed


_compiled_cost = njit(cache=True)(cost_of)


class Cost(NamedTuple):
    """Prices, none below 0.

    Attributes
    ----------
    per_prompt, per_output : float
        Of a token; output costs more because it is made one token at a time.
    product, square : float
        Of prompt times output tokens, and of the square of output tokens: tokens cost more the longer the context.
    fixed : float
        Of a request.
    """

    per_prompt: float
    per_output: float
    product: float = 0.0
    square: float = 0.0
    fixed: float = 0.0

    def __call__(self, prompt: float, output: float) -> float:
        """Cost of a request with so many tokens."""
        return cost_of(prompt, output, *self)


#: Prices of the paper: an output token is twice an input token.
PAPER_COST = Cost(1.0, 2.0)
#: Fitted to measured time [Sheng et al., OSDI 2024].
QUADRATIC = Cost(0.210, 0.101, 0.00399, 0.00325, 1.146)


class Counters(MutableMapping[int, float]):
    """A counter for each tenant, in an array where compiled code can add to them.

    Attributes
    ----------
    array : float64 (m,)
    place : dict of int to int
        Of each tenant's counter in it.
    """

    def __init__(self) -> None:
        self.array = np.zeros(8)
        self.place: dict[int, int] = {}
        self._free = list(range(8))

    def __getitem__(self, tenant: int) -> float:
        return self.array.item(self.place[tenant])

    def __setitem__(self, tenant: int, value: float) -> None:
        if tenant not in self.place:
            if not self._free:
                self._free.extend(range(len(self.array), 2 * len(self.array)))
                self.array = np.concatenate((self.array, np.zeros_like(self.array)))
            self.place[tenant] = self._free.pop()
        self.array[self.place[tenant]] = value

    def __delitem__(self, tenant: int) -> None:
        self._free.append(self.place.pop(tenant))

    def __iter__(self) -> Iterator[int]:
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)


@njit(cache=True)
def charge(
    held: Ints, accounts: Floats, counters: Floats, per_prompt: float, per_output: float, product: float, square: float, fixed: float
) -> None:
    """Charge what running requests have got since they were last looked at.

    Parameters
    ----------
    held : int64 (n, HELD_COLUMNS)
        As `EngineView.held`.
    accounts : float64 (ACCOUNT_ROWS, >= n)
        Of the same requests: cost counted, which is brought up to date, output tokens predicted (0 for none), weight of the tenant,
        and place of its counter.
    counters : float64 (m,)
    per_prompt, per_output, product, square, fixed : float
        See `Cost`.
    """
    for i in range(len(held)):
        prompt = held[i, H_PROMPT]
        output = max(held[i, H_KNOWN] - prompt, accounts[1, i])
        cost = _compiled_cost(prompt, output, per_prompt, per_output, product, square, fixed)
        counters[int(accounts[3, i])] += (cost - accounts[0, i]) / accounts[2, i]
        accounts[0, i] = cost
