"""Which of several engines gets a request: the one place where that is decided, for simulated replicas and for real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rota.errors import InputError

ROUTERS = ("round-robin", "random", "least-outstanding", "least-queued", "program")


def check_router(router: str, replicas: int) -> None:
    """Refuse names that are no router's, and fleets of nothing.

    Raises
    ------
    InputError
    """
    if replicas < 1:
        raise InputError(f"replicas must be at least 1, not {replicas}")
    if router not in ROUTERS:
        raise InputError(f"unknown router {router!r}; choose one of {', '.join(ROUTERS)}")


def choose(
    router: str, replicas: int, count: int, drawn: int, outstanding: Callable[[], Sequence[int]], queued: Callable[[], Sequence[int]]
) -> int:
    """The replica for a request; the lowest number on a tie.

    Parameters
    ----------
    router : str
        One of `ROUTERS`. ``program`` chooses for a program's first turn, as for requests without one; who calls keeps its later turns there.
    replicas : int
    count : int
        Requests routed before.
    drawn : int
        A random number below `replicas`, for ``random``.
    outstanding, queued : callable
        Per replica: requests that have not ended, and requests that wait for their first step. Asked only if the router looks at them.
    """
    if router == "round-robin":
        return count % replicas
    if router == "random":
        return drawn
    loads = list(queued() if router == "least-queued" else outstanding())
    return loads.index(min(loads))
