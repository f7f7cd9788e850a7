"""How tenants fare beside each other: service at a price per token, its largest gap between tenants that both had work waiting, Jain's index.

Service counts a prompt when its request is first scheduled and outputs evenly between first and last token; what eviction makes the engine
compute again is no service.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

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


def jain(run: Run) -> float:
    """Jain's fairness index over tenants' generation speeds: 1 when equal, 1/k when one of k tenants gets everything.

    A tenant's speed is its output tokens divided by the summed E2E time of its requests; an unfinished request has no tokens.
    Source: Jain, Chiu and Hawe, DEC-TR-301, 1984. NaN with fewer than two tenants.
    """
    names, index = tenants_of(run)
    if len(names) < 2:
        return float("nan")
    done = np.isfinite(run.finish) & ~run.rejected
    tokens = np.bincount(index, weights=np.where(done, run.output, 0))
    time = np.bincount(index, weights=np.where(done, run.finish - run.arrival, 0.0))
    return index_of(np.divide(tokens, time, out=np.zeros_like(tokens), where=time > 0))


def index_of(shares: Floats) -> float:
    """Jain's index of what each got; NaN if nobody got anything."""
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum())) if shares.any() else float("nan")


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
    names, index = tenants_of(run)
    if not 2 <= len(names) <= MOST_TENANTS or len(run.arrival) > MOST_REQUESTS:
        return float("nan")
    times = np.concatenate([run.arrival, run.first_scheduled, run.first_token, run.finish])
    times = np.unique(times[np.isfinite(times)])
    before, after = service(run, times, prices)
    if weights is not None:
        before, after = before / weights[:, None], after / weights[:, None]
    change = np.zeros((len(names), len(times)), np.int64)
    begun = np.isfinite(run.first_scheduled)
    np.add.at(change, (index[begun], np.searchsorted(times, run.arrival[begun])), 1)
    np.add.at(change, (index[begun], np.searchsorted(times, run.first_scheduled[begun])), -1)
    waits = np.cumsum(change, 1)[:, :-1] > 0  # from each time to the next
    gap = 0.0
    for u, v in combinations(range(len(names)), 2):
        both = np.flatnonzero(waits[u] & waits[v])
        if len(both) == 0:
            continue
        ahead_first, ahead_last = (after[u] - after[v])[both], (before[u] - before[v])[both + 1]
        starts = np.flatnonzero(np.diff(both, prepend=-2) > 1)
        high = np.maximum.reduceat(np.maximum(ahead_first, ahead_last), starts)
        low = np.minimum.reduceat(np.minimum(ahead_first, ahead_last), starts)
        gap = max(gap, float((high - low).max()))
    return gap


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
