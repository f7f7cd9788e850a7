"""A study's tasks on a Ray cluster: one run is one task, and comes back as it would from a process here.

Ray is imported when a cluster is asked for, not before.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from typing import Any, TypeVar

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
        ours = _version()
        try:
            theirs = ray.get(ray.remote(_version).remote())
        except Exception as error:
            raise InputError(f"the Ray cluster at {address} cannot run Rota ({_line(error)}); install rota {ours} on its nodes") from None
        if theirs != ours:
            raise InputError(f"the Ray cluster at {address} has rota {theirs}; install {ours}, which runs here, on its nodes")
        self._task = ray.remote(_answer)
        self._head = address if ":" in address else ray.get_runtime_context().gcs_address
        self._lost = False
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
        todo = iter(enumerate(items))
        working: dict[Any, int] = {}
        try:
            while True:
                with self._alive():
                    for i, item in islice(todo, self.most - len(working)):
                        working[self._task.remote(ray.cloudpickle.dumps((function, item)))] = i
                    ready, _ = ray.wait(list(working), timeout=1.0) if working else ([], [])
                    answers = [(working.pop(reference), pickle.loads(ray.get(reference))) for reference in ready]
                    if not answers and working:
                        _reach(self._head)
                for index, (succeeded, result) in answers:
                    if not succeeded:
                        raise result
                    yield index, result
                if not working and not answers:
                    return
        finally:
            for reference in () if self._lost else working:
                ray.cancel(reference, force=True)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """What goes wrong in here is the cluster's fault; Ray itself would wait for a minute, and then end this process."""
        try:
            yield
        except (self._ray.exceptions.RayError, OSError) as error:
            self._lost = isinstance(error, OSError)
            raise RotaError(f"the Ray cluster at {self.address} was lost ({_line(error)}); start it again, or leave out --ray") from None

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._ray.shutdown()


def connect(address: str, most: int | None) -> Any:
    """The `ray` module, connected. See `RayTasks` for addresses and errors."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody
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
    if not (host and colon and port.isdecimal() and int(port) < 1 << 16):
        raise InputError(f"--ray takes local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}")
    try:
        _reach(address)
    except OSError as error:
        raise InputError(f"no Ray cluster at {address} ({error}); start one (ray start --head), or use --ray local") from None


def _reach(address: str) -> None:
    """Raise OSError if nobody answers there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _version() -> str:
    return version("rota")


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
