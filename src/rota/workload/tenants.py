"""Requests of several tenants who press for more than their share in different ways: the suites by which fair schedulers are judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rota.errors import InputError
from rota.workload.lengths import Spread
from rota.workload.trace import Floats, Trace

#: Lengths of most suites [Sheng et al., OSDI 2024].
USUAL = Spread.fixed(256)


@dataclass(frozen=True, slots=True)
class Tenant:
    """How one tenant asks.

    Parameters
    ----------
    rate : float
        Mean requests per second while it asks; `until` at the end, changing evenly (None: as `rate`).
    until : float or None
    on, off : float
        It asks for `on` seconds, is silent for `off`, and so on.
    prompt, output : Spread
        Tokens.
    """

    rate: float
    until: float | None = None
    on: float = math.inf
    off: float = 0.0
    prompt: Spread = USUAL
    output: Spread = USUAL

    def arrivals(self, rng: np.random.Generator, seconds: float, load: float) -> Floats:
        """A Poisson process with that rate, times `load`."""
        last = self.rate if self.until is None else self.until
        most = max(self.rate, last) * load
        at = np.cumsum(rng.exponential(1 / most, int(most * seconds * 1.1 + 6 * math.sqrt(most * seconds) + 10)))
        at = at[at < seconds]
        rate = (self.rate + (last - self.rate) * at / seconds) * load
        asks = np.ones(len(at), np.bool_) if self.off == 0 else at % (self.on + self.off) < self.on
        return at[asks & (rng.random(len(at)) * most < rate)]


#: By name. Rates are for an engine that serves some 2.5 requests of 256 + 256 tokens per second, such as a 7B model on an A10.
SUITES: dict[str, tuple[Tenant, ...]] = {
    "overload": (Tenant(1.5), Tenant(3.0)),
    "on-off": (Tenant(3.0, on=60.0, off=60.0), Tenant(3.0)),
    "increasing": (Tenant(0.5), Tenant(0.0, until=4.0)),
    "short-long": (
        Tenant(8.0, prompt=Spread.fixed(64), output=Spread.fixed(64)),
        Tenant(1.5, prompt=Spread.fixed(512), output=Spread.fixed(512)),
    ),
}


def tenants(suite: str = "overload", seconds: float = 600.0, load: float = 1.0, seed: int = 0) -> Trace:
    """Requests of the tenants of a suite.

    Parameters
    ----------
    suite : str
        ``overload``: two ask for more than half each, one of them for twice as much as the other. ``on-off``: one pauses every other
        minute. ``increasing``: one asks for little, the other for ever more. ``short-long``: many short requests against few long ones.
    seconds : float
        How long they go on asking.
    load : float
        Multiplies all rates.
    seed : int

    Raises
    ------
    InputError
        If there is no such suite, a number makes no sense, or nobody asks for anything.
    """
    if suite not in SUITES:
        raise InputError(f"suite must be one of {', '.join(SUITES)}, not {suite!r}")
    if seed < 0:
        raise InputError(f"seed must not be negative ({seed})")
    for name, value in (("seconds", seconds), ("load", load)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be a positive number, not {value:g}")
    rng = np.random.default_rng(seed)
    columns = []
    for index, tenant in enumerate(SUITES[suite]):
        arrival = tenant.arrivals(rng, seconds, load)
        n = len(arrival)
        columns.append((arrival, tenant.prompt.tokens(rng, n), tenant.output.tokens(rng, n), np.full(n, index, np.int64)))
    arrival, prompt, output, who = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    if len(arrival) == 0:
        raise InputError(f"no request arrives within {seconds:g} s; raise seconds or load")
    order = np.argsort(arrival, kind="stable")
    return Trace(
        arrival=arrival[order], prompt=prompt[order], output=output[order], tenant=who[order], name=f"tenants {suite}",
        source=f"generated: {len(SUITES[suite])} tenants for {seconds:g} s, load {load:g}, seed {seed}",
    )  # fmt: skip
