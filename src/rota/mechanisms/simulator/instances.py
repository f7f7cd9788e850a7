"""Several instances of a model on one device, each serving one request at a time: they share the device's bandwidth.

Processor sharing: a lone instance leaves the device idle for part of the time (its host work), so a few instances run at full speed
together; beyond `capacity` of them each gets an equal share. Memory is not modelled here: the caller says how many instances fit.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError

Floats = NDArray[np.float64]


def share_device(arrival: Floats, work: Floats, instances: int, capacity: float = 1.0) -> tuple[Floats, Floats]:
    """When requests start and finish, first come first served by whichever instance is free.

    Parameters
    ----------
    arrival : float64 (n,)
        Ascending, seconds.
    work : float64 (n,)
        Seconds that each request takes on a device of its own.
    instances : int
        Requests in service at once, at most.
    capacity : float
        Instances that the device carries at full speed, at least 1.

    Returns
    -------
    (start, finish) : float64 (n,) each

    Raises
    ------
    InputError
        If `instances` or `capacity` is below 1.
    """
    if instances < 1 or not 1 <= capacity < math.inf:
        raise InputError(f"instances and capacity must be at least 1, not {instances} and {capacity:g}")
    n = len(arrival)
    start, finish = np.zeros(n), np.zeros(n)
    active: list[tuple[float, int]] = []  # (service by which the request is done, request); all active ones are served alike
    now = served = 0.0
    following = done = 0
    while done < n:
        while following < n and len(active) < instances and arrival[following] <= now:
            heapq.heappush(active, (served + float(work[following]), following))
            start[following] = now
            following += 1
        speed = min(1.0, capacity / len(active)) if active else 0.0
        ends = now + (active[0][0] - served) / speed if active else math.inf
        arrives = float(arrival[following]) if following < n and len(active) < instances else math.inf
        if arrives < ends:
            served += (arrives - now) * speed
            now = arrives
        else:
            served, request = heapq.heappop(active)
            now = finish[request] = ends
            done += 1
    return start, finish
