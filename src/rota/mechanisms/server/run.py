"""Starts the server, and stops it without losing what is running: first no new requests, then the end of those there are."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, TextIO

import uvicorn

from rota.errors import InputError
from rota.mechanisms.server.app import make_app
from rota.mechanisms.server.front import Front
from rota.mechanisms.server.logs import event, log_to

#: Seconds for answers to be sent after running requests were ended, and then for the engine's step to end.
GRACE = 5.0
#: Seconds between looks at connections while shutting down.
GLANCE = 0.2
BACKLOG = 2048


class Running(NamedTuple):
    """A server at work: its address, and what a signal would do, to be called from any thread."""

    address: str
    stop: Callable[[], None]


def serve(
    front: Front, *, host: str = "127.0.0.1", port: int = 8000, keys: Sequence[str] = (), log: TextIO | None = None,
    ready: Callable[[Running], None] | None = None,
) -> bool:  # fmt: skip
    """Serve until a signal (SIGINT, SIGTERM) or the engine's failure; whether it ended well.

    The first signal lets running requests finish for `Limits.shutdown_seconds`, then ends them with an error; a second one
    ends them at once. Clients that do not take their answers, and a step that does not end, are waited for `GRACE` seconds each.

    Parameters
    ----------
    front : Front
    host, port
        Port 0 takes a free one.
    keys : sequence of str
    log : file, optional
        Where log lines go; standard error by default.
    ready : callable, optional
        Called when it takes requests.

    Raises
    ------
    InputError
        If the address cannot be used.
    """
    log_to(log or sys.stderr)
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    try:
        return asyncio.run(_serve(front, keys, listener, address, ready))
    finally:
        listener.close()


async def _serve(
    front: Front, keys: Sequence[str], listener: socket.socket, address: str, ready: Callable[[Running], None] | None
) -> bool:
    front.start()
    config = uvicorn.Config(
        make_app(front, keys), log_config=None, access_log=False, server_header=False, lifespan="off", timeout_keep_alive=30
    )
    server = _Server(config, front)
    watch = asyncio.create_task(server.follow_engine())
    tell = asyncio.create_task(server.tell_when_ready(address, ready))
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in (watch, tell):
            task.cancel()
        ended = await front.stop(GRACE)
    stats = front.thread.stats
    event(
        "stopped", requests=stats.requests, finished=stats.finished, aborted=front.aborted, generated_tokens=stats.generated_tokens,
        kv_blocks_held=stats.blocks - stats.free_blocks, step_ended=ended,
    )  # fmt: skip
    return ended and front.thread.failure is None


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call it in the loop's thread, if the loop still runs."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises
    ------
    InputError
        If the address cannot be used.
    """
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise InputError(f"cannot listen on {host} port {port} ({error.strerror}); choose another --host or --port") from None
    return listener


class _Server(uvicorn.Server):
    """uvicorn, with our way to stop."""

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self._front = front

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM call `stop` meanwhile, if this is the main thread."""
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.stop)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, and also close connections that were accepted at the last moment, or have become idle since.

        In the end, answers that nobody takes are given up.
        """
        closing = asyncio.create_task(self._close_idle())
        try:
            await super().shutdown(sockets)
        finally:
            closing.cancel()
        stuck = list(self.server_state.tasks)
        for task in stuck:
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(*stuck, asyncio.sleep(0), return_exceptions=True)

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(GLANCE)
            for connection in list(self.server_state.connections):
                if not connection.transport.is_closing():
                    connection.shutdown()

    def stop(self) -> None:
        """Take no more requests; called again, end those that run."""
        loop = asyncio.get_running_loop()
        if self._front.draining:
            self._end_all()
            return
        self._front.draining = True
        seconds = self._front.limits.shutdown_seconds
        event("stopping", running=self._front.thread.outstanding, seconds=seconds)
        self.should_exit = True
        loop.call_later(seconds, self._end_all)

    def _end_all(self) -> None:
        self._front.abort_all()
        asyncio.get_running_loop().call_later(GRACE, self._force)

    def _force(self) -> None:
        self.force_exit = True

    async def follow_engine(self) -> None:
        """Stop when the engine has."""
        await self._front.failed.wait()
        self._front.draining = True
        self.should_exit = True
        asyncio.get_running_loop().call_later(GRACE, self._force)

    async def tell_when_ready(self, address: str, ready: Callable[[Running], None] | None) -> None:
        """Say that requests are taken, once they are."""
        while not self.started:
            await asyncio.sleep(0.01)
        front = self._front
        stats = front.thread.stats
        event(
            "serving", address=address, model=front.model, policy=front.engine.core.policy.name, kv_blocks=stats.blocks,
            block_size=front.engine.core.limits.block_size, max_model_len=front.engine.max_len,
        )  # fmt: skip
        if ready is not None:
            loop = asyncio.get_running_loop()
            ready(Running(address, partial(_call_in, loop, self.stop)))
