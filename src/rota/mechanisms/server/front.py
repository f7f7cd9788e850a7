"""Between HTTP and the engine: who may come in, what becomes of a prompt, and the answers as they grow."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from rota.errors import InputError
from rota.mechanisms.engine import Engine, Output
from rota.mechanisms.server.chat import ChatTemplate
from rota.mechanisms.server.errors import ApiError
from rota.mechanisms.server.logs import event
from rota.mechanisms.server.metrics import Metrics
from rota.mechanisms.server.schema import CompletionRequest, Sampling
from rota.mechanisms.server.thread import EngineStopped, EngineThread, Event, Ticket

#: Texts of more characters are tokenized beside the event loop.
LONG_TEXT = 20_000
RETRY_MOST = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server takes.

    Parameters
    ----------
    max_outstanding : int
        Answers in the engine or waiting for it; a request beyond that gets 429.
    max_body : int
        Bytes of a request.
    shutdown_seconds : float
        How long running requests may go on after the server was told to stop.
    """

    max_outstanding: int = 1024
    max_body: int = 8 << 20
    shutdown_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value, least in (("max outstanding requests", self.max_outstanding, 1), ("body limit", self.max_body, 1024)):
            if value < least:
                raise InputError(f"{name}: {value} is below {least}; give more")
        if not 0 <= self.shutdown_seconds < math.inf:
            raise InputError(f"shutdown time: {self.shutdown_seconds:g} s is not a time to wait; give 0 or more")


class Front:
    """One engine's front. `start` needs a running event loop.

    Parameters
    ----------
    engine : Engine
    tokenizer : Tokenizer
    template : ChatTemplate or None
    model : str
        The name that clients use.
    limits : Limits, optional
    prepare : callable, optional
        See `EngineThread`.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate | None, model: str, limits: Limits | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._prepare = prepare
        self.engine, self.tokenizer, self.template, self.model = engine, tokenizer, template, model
        self.limits = limits or Limits()
        self.metrics = Metrics(model)
        self.created = int(time.time())
        self.draining = False
        self.failed = asyncio.Event()
        self.aborted: list[str] = []
        self._jobs: set[Job] = set()
        self._ends: deque[float] = deque(maxlen=64)
        self.token = lru_cache(1 << 16)(self._token)

    def start(self) -> None:
        """Give the engine its thread."""
        self.thread = EngineThread(self.engine, self._observe, self._fail, self._prepare)
        self.metrics.watch(self.thread)

    async def stop(self, seconds: float) -> bool:
        """Take the thread back; whether that has ended, within so many seconds."""
        return await self.thread.stop(seconds)

    def abort_all(self) -> None:
        """Running requests end with an error; the server does not wait for them any longer."""
        for job in list(self._jobs):
            self.forget(job)  # another signal does not end it again
            self.aborted.append(job.name)
            job.abort(ApiError(503, "the server is shutting down", code="shutting_down"))

    # -- prompts

    async def prompts(self, request: CompletionRequest) -> list[list[int]]:
        """Token ids of each prompt."""
        return [await self.encode(prompt, special=True) if isinstance(prompt, str) else prompt for prompt in request.prompts]

    async def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text; `special`: with what the tokenizer puts around it."""
        if len(text) <= LONG_TEXT:
            return list(self.tokenizer.encode(text, add_special_tokens=special).ids)
        encoding = await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=special)
        return list(encoding.ids)

    def _token(self, token: int) -> tuple[str, bytes]:
        """The text and the bytes of one token, which may be part of a character."""
        raw = self.tokenizer.id_to_token(token)
        if raw is None:
            return "", b""
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        data = bytes(_BYTES[c] for c in raw) if "\ufffd" in text and all(c in _BYTES for c in raw) else text.encode()
        return text, data

    # -- answers

    async def submit(
        self, name: str, prompts: Sequence[list[int]], request: Sampling, most: int | None, logprobs: int | None
    ) -> Job:  # fmt: skip
        """Hand prompts to the engine, n times each.

        Raises
        ------
        ApiError
            404 for another model, 503 while shutting down, 429 beyond `Limits.max_outstanding`, 400 for what the engine refuses.
        """
        n = request.n or 1
        answers = len(prompts) * n
        self._admit(request, answers)
        # users are not counted: any number of them may come, and policies only tell them apart
        user = 0 if request.user is None else zlib.crc32(request.user.encode()) & 0x7FFFFFFF
        events: asyncio.Queue[Event] = asyncio.Queue()
        tickets = [
            Ticket(prompt, request.params(most, logprobs, answer), request.priority or 0, user, events, number * n + answer)
            for number, prompt in enumerate(prompts) for answer in range(n)
        ]  # fmt: skip
        job = Job(self, name, tickets, events)
        self._jobs.add(job)
        try:
            refusals = await asyncio.gather(*(self.thread.submit(ticket) for ticket in tickets), return_exceptions=True)
        except asyncio.CancelledError:
            job.close()
            raise
        for refusal in refusals:
            if refusal is not None:
                job.close()
                raise _as_api_error(refusal)
        return job

    def check_model(self, model: str) -> None:
        """Raise `ApiError` unless `model` is the one served here."""
        if model != self.model:
            raise ApiError(404, f"the model {model!r} is not served here; use {self.model!r}", param="model", code="model_not_found")

    def _admit(self, request: Sampling, answers: int) -> None:
        if self.thread.failure is not None:
            raise ApiError(503, "the engine has stopped; restart the server", code="engine_stopped")
        if self.draining:
            raise ApiError(503, "the server is shutting down; try another one", code="shutting_down", retry_after=5)
        most, running = self.limits.max_outstanding, self.thread.outstanding
        if answers > most:
            raise ApiError(400, f"{answers} answers asked for at once (prompts times n), and at most {most} are given", param="n")
        if running + answers > most:
            message = f"{running} requests are running or waiting, and at most {most} may; try again later"
            raise ApiError(429, message, code="overloaded", retry_after=self._retry_after())

    def _retry_after(self) -> int:
        """Seconds in which, by the last answers, one will end."""
        if len(self._ends) < 2:
            return 1
        pace = (time.monotonic() - self._ends[0]) / len(self._ends)
        return max(1, min(RETRY_MOST, math.ceil(pace)))

    def _observe(self, ticket: Ticket, output: Output, now: float) -> None:
        self.metrics.observe(ticket, output, now)
        if output.finish is not None:
            self._ends.append(now)

    def _fail(self, error: Exception) -> None:
        event("engine failed", logging.ERROR, error=f"{type(error).__name__}: {error}")
        logging.getLogger("rota.server").error("traceback", exc_info=error)
        self.failed.set()

    def forget(self, job: Job) -> None:
        """A job is over."""
        self._jobs.discard(job)


@dataclass(eq=False, slots=True)
class Job:
    """The answers to one HTTP request: tickets that share a queue."""

    front: Front
    name: str
    tickets: list[Ticket]
    events: asyncio.Queue[Event]
    _open: int = field(init=False)

    def __post_init__(self) -> None:
        self._open = len(self.tickets)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Output]]:
        """Outputs as they come, each with the number of its answer, until all have ended.

        Raises
        ------
        ApiError
            If the engine or the server stops, or the policy finds that the request can never run.
        """
        while self._open:
            index, output = await self.events.get()
            if isinstance(output, ApiError):
                raise output
            if isinstance(output, Exception):
                raise ApiError(503, str(output), code="engine_stopped")
            if output.finish == "rejected":
                raise ApiError(400, "the request needs more KV cache than the engine has; shorten the prompt or max_tokens")
            if output.finish == "cancelled":
                raise ApiError(503, "the request was cancelled", code="cancelled")
            self._open -= output.finish is not None
            yield index, output
        self.front.forget(self)

    def abort(self, error: ApiError) -> None:
        """End it with an error."""
        self.events.put_nowait((0, error))

    def close(self) -> None:
        """Cancel what has not ended."""
        self.front.forget(self)
        for ticket in self.tickets:
            self.front.thread.cancel(ticket)

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens, as OpenAI counts them: a prompt once, however many answers it gets."""
        prompts = {id(ticket.prompt): len(ticket.prompt) for ticket in self.tickets}
        cached = {id(ticket.prompt): _cached(ticket) for ticket in reversed(self.tickets)}
        prompt, completion = sum(prompts.values()), sum(ticket.n_tokens for ticket in self.tickets)
        return {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(cached.values())},
        }  # fmt: skip

    def log_fields(self) -> dict[str, object]:
        """What the log says about it: tokens, and times in seconds."""
        seqs = [ticket.seq for ticket in self.tickets if ticket.seq is not None]
        firsts = [ticket.first_token - ticket.submitted for ticket in self.tickets if ticket.n_tokens]
        usage = self.usage
        ended = all(ticket.ended and not ticket.cancelled for ticket in self.tickets)
        return {
            "answers": len(self.tickets), "prompt_tokens": usage["prompt_tokens"], "completion_tokens": usage["completion_tokens"],
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"], "preemptions": sum(seq.preemptions for seq in seqs),
            "queue": min((seq.first_scheduled - seq.arrival for seq in seqs), default=math.nan),
            "ttft": min(firsts, default=math.nan), "outcome": "finished" if ended else "aborted",
        }  # fmt: skip


def _as_api_error(refusal: BaseException) -> BaseException:
    """What clients hear of a request that the engine did not take."""
    if isinstance(refusal, InputError):
        return ApiError(400, str(refusal))
    if isinstance(refusal, EngineStopped):
        return ApiError(503, str(refusal), code="engine_stopped")
    return refusal


def _cached(ticket: Ticket) -> int:
    return 0 if ticket.seq is None else min(ticket.seq.cached, len(ticket.prompt))


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level BPE writes for bytes: printable ones stand for themselves, the rest come after 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTES = _byte_letters()
