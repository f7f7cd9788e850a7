"""The same requests at another pace, or fewer of them. Every function returns a new `Trace`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError
from rota.workload.trace import REQUEST_COLUMNS, Floats, Ints, Trace


def independent(trace: Trace) -> Floats:
    """Arrival times, in seconds, of the requests that wait for no other one."""
    return trace.arrival if trace.after is None else trace.arrival[trace.after < 0]


def mean_rate(trace: Trace) -> float:
    """Independent arrivals less one, over the time from first to last, per second; NaN if they take no time."""
    free = independent(trace)
    span = float(free[-1] - free[0])
    return (len(free) - 1) / span if span > 0 else math.nan


def head(trace: Trace, n: int) -> Trace:
    """The first `n` requests, or all if there are fewer. Programs that this cuts off end with their last turn that is left.

    Raises
    ------
    InputError
        If `n` is below 1.
    """
    if n < 1:
        raise InputError(f"limit must be at least 1, not {n}")
    if n >= len(trace):
        return trace
    columns: dict[str, Any] = {
        name: None if (values := getattr(trace, name)) is None else values[:n]
        for name in REQUEST_COLUMNS
    }
    if trace.hash_ids is not None and trace.hash_start is not None:
        columns["hash_start"] = trace.hash_start[: n + 1]
        columns["hash_ids"] = trace.hash_ids[: trace.hash_start[n]]
    if trace.tool is not None and trace.program is not None:
        columns["tool"] = np.where(last_turns(trace.program[:n]), -1, trace.tool[:n])
    return replace(trace, **columns)


def last_turns(program: Ints) -> NDArray[np.bool_]:
    """Which rows are the last of their program; False for rows of none."""
    last = np.zeros(len(program), np.bool_)
    _, from_end = np.unique(program[::-1], return_index=True)
    last[len(program) - 1 - from_end] = True
    return last & (program >= 0)


def at_once(trace: Trace) -> Trace:
    """The same requests, all at time 0: an offline job.

    Raises
    ------
    InputError
        If some requests wait for others.
    """
    if trace.after is not None:
        raise InputError(f"{trace.name}: some requests follow others, so it cannot be an offline job; take another trace")
    return replace(trace, arrival=np.zeros(len(trace)))


def take(trace: Trace, rows: Ints) -> Trace:
    """The requests of these rows, in this order. Arrivals must still ascend, and no request may follow another.

    Raises
    ------
    InputError
        If requests follow others, or `rows` breaks the order of arrivals.
    """
    if trace.after is not None:
        raise InputError(f"{trace.name}: requests follow others, so they can be neither picked nor put into another order")
    columns: dict[str, Any] = {
        name: None if (values := getattr(trace, name)) is None else values[rows]
        for name in REQUEST_COLUMNS
    }
    if trace.hash_ids is not None and trace.hash_start is not None:
        length = np.diff(trace.hash_start)[rows]
        start = np.concatenate([[0], np.cumsum(length)])
        at = np.arange(start[-1]) + np.repeat(trace.hash_start[rows] - start[:-1], length)
        columns |= {"hash_ids": trace.hash_ids[at], "hash_start": start}
    return replace(trace, **columns)


def within(trace: Trace, longest: int) -> Trace:
    """Only the requests whose prompt and output together are at most `longest` tokens.

    Raises
    ------
    InputError
        If none is, or if some requests follow others.
    """
    keep = trace.prompt + trace.output <= longest
    if keep.all():
        return trace
    if trace.after is not None:
        raise InputError(
            f"{trace.name}: requests follow others, so long ones cannot be left out; raise max_model_len, or limit programs by max_total"
        )
    if not keep.any():
        raise InputError(f"{trace.name}: every request is longer than {longest} tokens; raise max_model_len or take another model")
    notes = trace.notes | {"left out": f"{int((~keep).sum()):,} of {len(trace):,} requests, longer than {longest:,} tokens"}
    return replace(take(trace, np.flatnonzero(keep)), notes=notes)


def faster(trace: Trace, factor: float) -> Trace:
    """Arrivals `factor` times as frequent. Think and tool times (`delay`) stay as they are.

    Raises
    ------
    InputError
        If `factor` is not a positive number.
    """
    if not 0 < factor < math.inf:
        raise InputError(f"scale must be a positive number, not {factor:g}")
    return replace(trace, arrival=trace.arrival / factor)


def at_rate(trace: Trace, rate: float) -> Trace:
    """Arrivals stretched or squeezed to a mean of `rate` requests (or, in programs, first requests) per second.

    Their pattern, with all its bursts, is kept; so are think and tool times.

    Raises
    ------
    InputError
        If `rate` is not a positive number, or all requests arrive at once.
    """
    if not 0 < rate < math.inf:
        raise InputError(f"rate must be a positive number of requests per second, not {rate:g}")
    own = mean_rate(trace)
    if math.isnan(own):
        raise InputError(f"{trace.name}: all requests arrive at once, so there is no rate to change; use arrivals='poisson'")
    return faster(trace, rate / own)


def ramp(trace: Trace, rates: Sequence[float]) -> Trace:
    """The same requests at rates that follow each other, an equal number of independent arrivals at each.

    Each gap is the trace's own, stretched or squeezed; so are not think and tool times.

    Parameters
    ----------
    trace : Trace
    rates : sequence of float
        Independent arrivals (of requests; of programs, where requests follow each other) per second.

    Raises
    ------
    InputError
        If a rate is not a positive number, there are fewer arrivals than rates, or all arrive at once.
    """
    own = mean_rate(trace)
    free = np.arange(len(trace)) if trace.after is None else np.flatnonzero(trace.after < 0)
    for rate in rates:
        if not 0 < rate < math.inf:
            raise InputError(f"rate must be a positive number of requests per second, not {rate:g}")
    if math.isnan(own):
        raise InputError(f"{trace.name}: all requests arrive at once, so there is no rate to change")
    if not rates or len(free) < len(rates):
        raise InputError(f"{trace.name}: {len(free)} independent arrivals are too few for {len(rates)} rates; give a longer trace")
    gaps = np.diff(trace.arrival[free], prepend=trace.arrival[free[0]])
    arrival = trace.arrival.copy()
    arrival[free] = np.cumsum(gaps * own / np.asarray(rates)[ramp_step(len(free), len(rates))])
    return replace(trace, arrival=arrival)


def ramp_step(n: int, rates: int) -> Ints:
    """Which of so many rates each of `n` independent arrivals comes at."""
    return np.arange(n) * rates // n


def poisson_arrivals(trace: Trace, rate: float, seed: int = 0) -> Trace:
    """The same requests in the same order, arriving as a Poisson process of `rate` per second.

    Raises
    ------
    InputError
        If `rate` is not a positive number, or some requests wait for others.
    """
    if not 0 < rate < math.inf:
        raise InputError(f"rate must be a positive number of requests per second, not {rate:g}")
    if trace.after is not None:
        raise InputError(f"{trace.name}: some requests follow others, so their arrivals cannot be replaced; leave out arrivals")
    gaps = np.random.default_rng(seed).exponential(1.0 / rate, len(trace))
    return replace(trace, arrival=np.cumsum(gaps))
