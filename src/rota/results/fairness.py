"""How tenants fare beside each other: service at a price per token, its largest gap between tenants that both had work waiting, Jain's index.

Service counts a prompt when its request is first scheduled and outputs evenly between first and last token; what eviction makes the engine
compute again is no service.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError
from rota.results.latency import e2e, percentile, ttft
from rota.results.run import Floats, Ints, Run

#: Price of a prompt token and of an output token [Sheng et al., Fairness in Serving Large Language Models, OSDI 2024].
PRICES = (1.0, 2.0)
#: Beyond these, service is not compared pair by pair.
MOST_TENANTS, MOST_REQUESTS = 16, 50_000


def tenants_of(run: Run) -> tuple[Ints, Ints]:
    """(the tenants, the position among them of each request's); none without a tenant column."""
    if run.tenant is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if len(run.tenant) != len(run.arrival):
        raise InputError(f"tenant column has {len(run.tenant)} rows, the run {len(run.arrival)}; give one per request")
    names, index = np.unique(run.tenant, return_inverse=True)
    return names, index


def jain(run: Run, prices: tuple[float, float] = PRICES) -> float:
    """Jain's fairness index over the rates at which tenants are served while they compete: 1 when equal, 1/k when one of k gets everything.

    A tenant's rate is its service, in priced tokens per second, over all time in which it and at least one other have requests waiting; those
    that never compete do not count. Source: Jain, Chiu and Hawe, DEC-TR-301, 1984.

    Returns
    -------
    float
        NaN where fewer than two ever compete, and as for `service_gap`.
    """
    if not _comparable(run):
        return float("nan")
    times, _, after, waits = _competition(run, prices)
    compete = waits & (waits.sum(0) >= 2)
    seconds = (compete * np.diff(times)).sum(1)
    rate = (compete * np.diff(after, axis=1)).sum(1)[seconds > 0] / seconds[seconds > 0]
    if len(rate) < 2 or not rate.any():
        return float("nan")
    return float(rate.sum() ** 2 / (len(rate) * (rate**2).sum()))


def service(run: Run, times: Floats, prices: tuple[float, float] = PRICES) -> tuple[Floats, Floats]:
    """What each tenant has been served by `times`, in priced tokens.

    Parameters
    ----------
    run : Run
        With a tenant column.
    times : float64 (m,)
        Seconds, ascending, with everything that happened between the first and the last of them at one of them or between two.
    prices : (float, float)
        Of a prompt token and of an output token.

    Returns
    -------
    before, after : float64 (tenants, m)
        Just before and just after each time.
    """
    names, index = tenants_of(run)
    jump, rate = np.zeros((len(names), len(times))), np.zeros((len(names), len(times)))
    last = len(times) - 1

    def at(when: Floats) -> Ints:
        return np.minimum(np.searchsorted(times, when), last)

    begun, done = np.isfinite(run.first_scheduled), np.isfinite(run.finish) & np.isfinite(run.first_token)
    np.add.at(jump, (index[begun], at(run.first_scheduled[begun])), prices[0] * run.prompt[begun])
    first, end, who = at(run.first_token[done]), at(run.finish[done]), index[done]
    np.add.at(jump, (who, first), prices[1])
    rest, span = prices[1] * (run.output[done] - 1), times[end] - times[first]
    speed = np.divide(rest, span, out=np.zeros(len(span)), where=span > 0)
    np.add.at(rate, (who, first), speed)
    np.add.at(rate, (who, end), -speed)
    np.add.at(jump, (who, end), np.where(span > 0, 0.0, rest))
    grown = np.cumsum(np.cumsum(rate, 1)[:, :-1] * np.diff(times), 1)
    after = np.cumsum(jump, 1) + np.concatenate([np.zeros((len(names), 1)), grown], 1)
    return after - jump, after


def served(run: Run, until: float, prices: tuple[float, float] = PRICES) -> Floats:
    """What each tenant has been served by then, float64 (tenants,), in priced tokens."""
    names, index = tenants_of(run)
    begun, first = run.first_scheduled <= until, run.first_token <= until
    span = run.finish - run.first_token
    part = np.divide(until - run.first_token, span, out=np.ones(len(span)), where=span > 0).clip(0, 1)
    worth = prices[0] * run.prompt * begun + np.where(first, prices[1] * (1 + (run.output - 1) * part), 0.0)
    return np.bincount(index, worth, len(names)).astype(np.float64)


def service_gap(run: Run, prices: tuple[float, float] = PRICES, weights: Floats | None = None) -> float:
    """Largest difference in service between two tenants over any time in which both have requests waiting all along, priced tokens.

    Parameters
    ----------
    run : Run
    prices : (float, float)
        Of a prompt token and of an output token.
    weights : float64 (tenants,), optional
        Service is divided by it, by tenant in ascending order.

    Returns
    -------
    float
        0 if never two wait at once; NaN without a tenant column, with one tenant, or beyond `MOST_TENANTS` or `MOST_REQUESTS`.
    """
    if not _comparable(run):
        return float("nan")
    _, before, after, waits = _competition(run, prices)
    if weights is not None:
        before, after = before / weights[:, None], after / weights[:, None]
    gap = 0.0
    for u, v in combinations(range(len(waits)), 2):
        both = np.flatnonzero(waits[u] & waits[v])
        if len(both) == 0:
            continue
        ahead_first, ahead_last = (after[u] - after[v])[both], (before[u] - before[v])[both + 1]
        starts = np.flatnonzero(np.diff(both, prepend=-2) > 1)
        high = np.maximum.reduceat(np.maximum(ahead_first, ahead_last), starts)
        low = np.minimum.reduceat(np.minimum(ahead_first, ahead_last), starts)
        gap = max(gap, float((high - low).max()))
    return gap


def _comparable(run: Run) -> bool:
    names, _ = tenants_of(run)
    return 2 <= len(names) <= MOST_TENANTS and len(run.arrival) <= MOST_REQUESTS


def _competition(run: Run, prices: tuple[float, float]) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """All times at which something happens, service just before and after them, and who has requests waiting from each to the next."""
    names, index = tenants_of(run)
    times = np.concatenate([run.arrival, run.first_scheduled, run.first_token, run.finish])
    times = np.unique(times[np.isfinite(times)])
    before, after = service(run, times, prices)
    change = np.zeros((len(names), len(times)), np.int64)
    begun = np.isfinite(run.first_scheduled)
    np.add.at(change, (index[begun], np.searchsorted(times, run.arrival[begun])), 1)
    np.add.at(change, (index[begun], np.searchsorted(times, run.first_scheduled[begun])), -1)
    return times, before, after, np.cumsum(change, 1)[:, :-1] > 0


def tenant_rows(run: Run, prices: tuple[float, float] = PRICES) -> list[dict[str, float]]:
    """A row for each tenant: requests, finished ones, tokens, service and its share, mean and P99 TTFT, mean E2E (seconds)."""
    names, index = tenants_of(run)
    done = np.isfinite(run.finish) & ~run.rejected
    worth = np.where(done, prices[0] * run.prompt + prices[1] * run.output, 0.0)
    rows = []
    for k, name in enumerate(names):
        mine, ended = index == k, (index == k) & done
        waits, whole = ttft(run)[ended], e2e(run)[ended]
        rows.append({
            "tenant": int(name), "requests": int(mine.sum()), "finished": int(ended.sum()), "prompt_tokens": int(run.prompt[ended].sum()),
            "output_tokens": int(run.output[ended].sum()), "service": float(worth[mine].sum()),
            "service_share": float(worth[mine].sum() / (worth.sum() or np.nan)), "ttft_mean": float(waits.mean()) if len(waits) else float("nan"),
            "ttft_p99": percentile(waits, 99), "e2e_mean": float(whole.mean()) if len(whole) else float("nan"),
        })  # fmt: skip
    return rows
