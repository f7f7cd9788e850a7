"""Runs an engine in a thread of its own, between an event loop's requests and their answers.

The engine belongs to the thread: the loop leaves orders in a list and hears of outputs by callbacks, all those of a step at once.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rota.errors import InputError
from rota.mechanisms.engine import Engine, Output, SamplingParams, Stats

if TYPE_CHECKING:
    from rota.mechanisms.engine.sequences import Seq

#: How long a thread that has nothing to do may sleep, seconds.
NAP = 60.0


class EngineStopped(Exception):
    """The engine is shutting down, or an error has ended it."""


class Ticket:
    """One request to the engine.

    Attributes
    ----------
    sid : int
        The engine's number of it; -1 until it has one.
    seq : Seq or None
        Its state in the engine; numbers in it may be read at any time.
    submitted, first_token, last_token : float
        Seconds on the monotonic clock; NaN until then.
    n_tokens : int
        Of the answer so far.
    """

    def __init__(self, prompt: Sequence[int], params: SamplingParams, priority: int, tenant: int, events: asyncio.Queue[Event], index: int) -> None:
        self.prompt, self.params, self.priority, self.tenant = prompt, params, priority, tenant
        self.events, self.index = events, index
        self.sid = -1
        self.seq: Seq | None = None
        self.cancelled = self.ended = False
        self.submitted, self.first_token, self.last_token, self.n_tokens = time.monotonic(), math.nan, math.nan, 0
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


#: The number of a ticket among those that share a queue, and what happened to it.
Event = tuple[int, Output | Exception]
Observer = Callable[[Ticket, Output, float], None]
_Order = Callable[[], None]


class EngineThread:
    """An engine at work.

    Parameters
    ----------
    engine : Engine
        Nobody else may touch it from now on.
    observer : callable, optional
        Called in the event loop with each output, its ticket as it was before, and the time on the monotonic clock.
    on_failure : callable, optional
        Called in the event loop with the error that ended the engine.
    prepare : callable, optional
        Called first in the engine's thread, for settings that hold for one thread only.

    Attributes
    ----------
    stats : Stats
        As of the last step.
    failure : Exception or None
    """

    def __init__(
        self, engine: Engine, observer: Observer | None = None, on_failure: Callable[[Exception], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self._observer = observer
        self.stats: Stats = engine.stats()
        self.failure: Exception | None = None
        self.tickets: dict[int, Ticket] = {}
        self._unaccepted: set[Ticket] = set()
        self._on_failure = on_failure
        self._prepare = prepare
        self._loop = asyncio.get_running_loop()
        self._orders: list[_Order] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def outstanding(self) -> int:
        """Requests that have not ended."""
        return len(self.tickets) + len(self._unaccepted)

    async def submit(self, ticket: Ticket) -> None:
        """Hand a request in; its outputs then come through its queue.

        Raises
        ------
        InputError
            If the engine refuses it.
        EngineStopped
        """
        if self._stopping or self.failure is not None:
            raise EngineStopped("the engine has stopped")
        self._unaccepted.add(ticket)
        self._order(lambda: self._add(ticket))
        try:
            await ticket.accepted
        except asyncio.CancelledError:
            self.cancel(ticket)
            raise

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for the answer any more."""
        if not (ticket.cancelled or ticket.ended):
            ticket.cancelled = True
            if ticket.sid >= 0:
                self._order(lambda: self._cancel(ticket.sid))

    async def stop(self, seconds: float) -> bool:
        """End the thread; what is still in the engine is cancelled first. Whether it has ended within so many seconds: a step goes to its end."""
        for ticket in [*self.tickets.values(), *self._unaccepted]:
            self.cancel(ticket)
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _order(self, order: _Order) -> None:
        with self._wake:
            self._orders.append(order)
            self._wake.notify()

    # -- in the engine's thread

    def _run(self) -> None:
        engine = self.engine
        try:
            if self._prepare is not None:
                self._prepare()
            while True:
                orders, stopping = self._next_orders()
                for order in orders:
                    order()
                if stopping and not engine.has_work:
                    break
                outputs = engine.step()
                self.stats = engine.stats()
                if outputs:
                    self._call(self._deliver, outputs, time.monotonic())
            self.stats = engine.stats()
        except Exception as error:  # whatever it is, clients must hear of it
            self._call(self._fail, error)

    def _next_orders(self) -> tuple[list[_Order], bool]:
        """Wait until there is something to do."""
        with self._wake:
            while not self._orders and not self._stopping:
                idle = self.engine.next_event - self.engine.clock.now()
                if idle <= 0:
                    break
                self._wake.wait(min(idle, NAP))
            orders, self._orders = self._orders, []
            return orders, self._stopping

    def _add(self, ticket: Ticket) -> None:
        if ticket.cancelled:
            self._call(self._accept, ticket, -1, None)
            return
        try:
            sid = self.engine.add_request(ticket.prompt, ticket.params, priority=ticket.priority, tenant=ticket.tenant)
        except InputError as error:
            self._call(self._refuse, ticket, error)
            return
        self._call(self._accept, ticket, sid, self.engine.sequence(sid))

    def _cancel(self, sid: int) -> None:
        self.engine.cancel(sid)

    def _call(self, function: Callable[..., None], *values: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *values)

    # -- in the event loop

    def _accept(self, ticket: Ticket, sid: int, seq: Seq | None) -> None:
        self._unaccepted.discard(ticket)
        if sid >= 0:
            ticket.sid, ticket.seq = sid, seq
            self.tickets[sid] = ticket
            if ticket.cancelled:
                self._order(lambda: self._cancel(sid))
        if not ticket.accepted.done():
            ticket.accepted.set_result(None)

    def _refuse(self, ticket: Ticket, error: InputError) -> None:
        self._unaccepted.discard(ticket)
        ticket.ended = True
        if not ticket.accepted.done():
            ticket.accepted.set_exception(error)

    def _deliver(self, outputs: Sequence[Output], now: float) -> None:
        for output in outputs:
            ticket = self.tickets[output.sid]
            if self._observer is not None:
                self._observer(ticket, output, now)
            if output.token >= 0:
                ticket.n_tokens += 1
                ticket.last_token = now
                if ticket.n_tokens == 1:
                    ticket.first_token = now
            if output.finish is not None:
                ticket.ended = True
                del self.tickets[output.sid]
            ticket.events.put_nowait((ticket.index, output))

    def _fail(self, error: Exception) -> None:
        self.failure = error
        stopped = EngineStopped(f"the engine has stopped: {error}")
        for ticket in self.tickets.values():
            ticket.ended = ticket.cancelled = True
            ticket.events.put_nowait((ticket.index, stopped))
        for ticket in self._unaccepted:
            ticket.ended = True
            if not ticket.accepted.done():
                ticket.accepted.set_exception(stopped)
        self.tickets.clear()
        self._unaccepted.clear()
        if self._on_failure is not None:
            self._on_failure(error)
