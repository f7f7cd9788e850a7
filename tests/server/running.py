"""Servers for tests: real HTTP on a port of its own."""

from __future__ import annotations

import faulthandler
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue
from typing import Any

from openai import OpenAI

from rota.mechanisms.server.front import Front
from rota.mechanisms.server.run import Running, serve


class Live:
    """A server that runs in a thread."""

    def __init__(self, front: Front, keys: Sequence[str] = ()) -> None:
        self.front = front
        self.log = io.StringIO()
        self.ended_well: bool | None = None
        self.clients: list[OpenAI] = []
        started: Queue[Running | BaseException] = Queue()

        def run() -> None:
            try:
                self.ended_well = serve(front, port=0, keys=keys, log=self.log, ready=started.put)
            except BaseException as error:
                started.put(error)
                raise

        self._thread = threading.Thread(target=run)
        self._thread.start()
        running = started.get(timeout=30)
        assert isinstance(running, Running), running
        self.address, self.stop = running

    def client(self, key: str = "none", **options: Any) -> OpenAI:
        """An official client, which is closed with the server."""
        self.clients.append(OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0, timeout=60, **options))
        return self.clients[-1]

    def held_blocks(self) -> int:
        stats = self.front.thread.stats
        return stats.blocks - stats.free_blocks

    def wait_idle(self, seconds: float = 10.0) -> None:
        """Until no request is left in the engine; fails if that takes too long."""
        wait_until(lambda: self.front.thread.outstanding == 0 and self.held_blocks() == 0, seconds)

    def lines(self, event: str = "request") -> list[dict[str, Any]]:
        return [line for text in self.log.getvalue().splitlines() if (line := json.loads(text))["event"] == event]

    def join(self, seconds: float = 60.0) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            faulthandler.dump_traceback(all_threads=True)  # says what it waits for
            raise AssertionError(f"the server did not stop; its log: {self.log.getvalue()[-2000:]}")


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@contextmanager
def live(front: Front, keys: Sequence[str] = ()) -> Iterator[Live]:
    """A server meanwhile; afterwards no KV may be held, and it must have stopped by itself."""
    server = Live(front, keys)
    try:
        yield server
    finally:
        server.stop()
        server.join()
        for client in server.clients:
            client.close()
    assert server.ended_well is False or server.held_blocks() == 0
