"""A study's tasks on a Ray cluster: one run is one task, and comes back as it would from a process here.

Ray is imported when a cluster is asked for, not before.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Any, TypeVar

from rota import __version__
from rota.errors import InputError, RotaError, portable

#: Seconds to wait for somebody to answer at the cluster's address.
PATIENCE = 5.0

T = TypeVar("T")
R = TypeVar("R")


class RayTasks:
    """Runs a function over items on a Ray cluster; stands where a study takes a number of processes.

    Parameters
    ----------
    address : str
        ``local`` starts a cluster on this machine, which ends with the program; ``auto`` finds the one that runs here; ``HOST:PORT`` is a
        cluster of which this machine is a node; ``ray://HOST:PORT`` any other, through Ray's client.
    most : int, optional
        Tasks under way at once; by default one per CPU of the cluster.

    Raises
    ------
    InputError
        If Ray is not installed, nobody answers at the address, or the cluster's nodes lack this version of Rota.
    """

    def __init__(self, address: str, most: int | None = None) -> None:
        self.address = address
        self._ray = ray = connect(address, most)
        try:
            theirs = ray.get(ray.remote(_version).remote())
        except Exception as error:
            raise InputError(f"the Ray cluster at {address} cannot run Rota ({_line(error)}); install rota {__version__} on its nodes") from None
        if theirs != __version__:
            raise InputError(f"the Ray cluster at {address} has rota {theirs}; install {__version__}, which runs here, on its nodes")
        self.most = most or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index, function(item))`` as they finish; whatever is under way is cancelled when the caller stops early.

        Raises
        ------
        Exception
            As the function raised it.
        RotaError
            If the cluster is lost. A task whose node is lost is tried again elsewhere.
        """
        ray = self._ray
        task = ray.remote(_answer)
        todo = iter(enumerate(items))
        working: dict[Any, int] = {}
        try:
            while True:
                for i, item in islice(todo, self.most - len(working)):
                    working[task.remote(ray.cloudpickle.dumps((function, item)))] = i
                if not working:
                    return
                ready, _ = ray.wait(list(working), timeout=0.5)
                for reference in ready:
                    succeeded, result = pickle.loads(ray.get(reference))
                    if not succeeded:
                        raise result
                    yield working.pop(reference), result
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise RotaError(f"the Ray cluster at {self.address} was lost ({_line(error)}); start it again, or leave out --ray") from None
        finally:
            for reference in working:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._ray.shutdown()


def connect(address: str, most: int | None) -> Any:
    """The `ray` module, connected. See `RayTasks` for addresses and errors."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # it would repeat itself beside our one line
    try:
        import ray
    except ImportError as error:
        raise InputError(f"--ray needs Ray ({error}); install it: pip install 'rota[ray]'") from None
    _check_answers(address)
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": most}
    try:
        ray.init(address, **options)
    except Exception as error:
        raise InputError(
            f"no Ray cluster at {address} ({_line(error)}); start one (ray start --head), set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it "
            "wants a token, or use --ray local"
        ) from None
    return ray


def _check_answers(address: str) -> None:
    """Ray itself retries for minutes where nobody listens."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise InputError(f"--ray takes local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address} ({error}); start one (ray start --head), or use --ray local") from None


def _version() -> str:
    return __version__


def _answer(question: bytes) -> bytes:
    """What a task does. Bytes both ways, so that arrays are the caller's own and not views of Ray's memory."""
    try:
        function, item = pickle.loads(question)
        return pickle.dumps((True, function(item)))
    except Exception as error:
        return pickle.dumps((False, portable(error)))


def _line(error: BaseException) -> str:
    """The first line of an error, or of what it wraps, without Ray's advice on its own internals."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[0].strip().rstrip(".")[:200] if lines else type(error).__name__
