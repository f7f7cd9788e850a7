"""The same work on several threads, for compiled code, which does not hold Python's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def in_threads(work: Callable[[int, threading.Event], None], workers: int) -> None:
    """Run `work(0, stop)`, ..., `work(workers - 1, stop)` at once; when one raises, or Ctrl-C comes, `stop` is set for the others."""
    stop = threading.Event()
    if workers == 1:
        work(0, stop)
        return
    with ThreadPoolExecutor(workers) as threads:
        running = [threads.submit(work, worker, stop) for worker in range(workers)]
        try:
            for one in running:
                one.result()
        finally:
            stop.set()
