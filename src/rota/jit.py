"""Numba's `njit`, with machine code on disk that is thrown away when any compiled source changes, not only the function's own.

Numba keeps the code beside each source and looks at that file's time stamp alone, although functions compile what they call into
themselves: after an update that touches one file, others would go on running what it said before. Divisions are not checked for zero.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numba
from numba.core.caching import CacheImpl

__all__ = ["njit", "uninterrupted"]

_PACKAGE = Path(__file__).resolve().parent
#: What compiled functions of other files may call or read.
_SHARED = ("contracts/*.py", "cost/kernel.py", "results/run.py", "mechanisms/simulator/*.py", "mechanisms/engine/intrinsics.py",
           "mechanisms/engine/softmax.py", "policies/batching/compiled.py", "policies/solvers/disjunctive.py",
           "policies/solvers/tabu.py")  # fmt: skip


def njit(*args: Any, **options: Any) -> Any:
    """`numba.njit`, without a branch to an exception at every division."""
    return numba.njit(*args, error_model="numpy", **options)


def uninterrupted(function: Callable[..., Any], *args: Any) -> Any:
    """Call a compiled function that takes functions; Ctrl-C during the call is raised when it returns.

    Numba looks at such arguments with Python code that it calls from C, and there it loses a `KeyboardInterrupt` or stumbles over it with
    a `TypeError`.
    """
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        return function(*args)
    presses = 0

    def wait(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:  # whoever insists does not have to wait, as while something is compiled
            usual(number, frame)

    signal.signal(signal.SIGINT, wait)
    try:
        return function(*args)
    finally:
        signal.signal(signal.SIGINT, usual)
        if presses:
            usual(signal.SIGINT, None)


@cache
def _stamp() -> str:
    """Digest of all sources that end up in compiled functions of other files."""
    digest = hashlib.sha256()
    for pattern in _SHARED:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _stamped(locator: Any) -> Any:
    """The same place for cached code, for this package's functions only, with the digest in its stamp."""

    class Stamped(locator):  # type: ignore[misc]
        def get_source_stamp(self) -> tuple[object, str]:
            return super().get_source_stamp(), _stamp()

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            inside = Path(py_file).resolve().is_relative_to(_PACKAGE)
            return super().from_function(py_func, py_file) if inside else None

    return Stamped


if not any(locator.__name__ == "Stamped" for locator in CacheImpl._locator_classes):
    CacheImpl._locator_classes = [*map(_stamped, CacheImpl._locator_classes), *CacheImpl._locator_classes]
