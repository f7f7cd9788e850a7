"""Answers as OpenAI's API words them: whole, or piece by piece as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rota.mechanisms.engine import Output
from rota.mechanisms.server.errors import ApiError
from rota.mechanisms.server.front import Front, Job

DONE = b"data: [DONE]\n\n"
CLIENT_GONE = 499
Json = dict[str, Any]
T = TypeVar("T")


class Form(Protocol):
    """How one kind of answer is written."""

    whole: str
    piece: str

    def opening(self, index: int) -> Json | None:
        """A choice to stream before the first token."""

    def choice(self, index: int, text: str, outputs: Sequence[Output], *, piece: bool) -> Json:
        """A choice: an answer, or with `piece` its part that these outputs bring."""


class CompletionForm:
    """``/v1/completions``.

    Parameters
    ----------
    front : Front
    logprobs : bool
    echoes : sequence of str
        What each answer begins with: the prompts, if they are to be repeated; ``""`` each otherwise.
    """

    whole = piece = "text_completion"

    def __init__(self, front: Front, logprobs: bool, echoes: Sequence[str]) -> None:
        self._front, self._logprobs, self._echoes = front, logprobs, echoes
        self._lengths = [len(echo) for echo in echoes]

    def opening(self, index: int) -> Json | None:
        return {"index": index, "text": self._echoes[index], "logprobs": None, "finish_reason": None} if self._echoes[index] else None

    def choice(self, index: int, text: str, outputs: Sequence[Output], *, piece: bool) -> Json:
        logprobs = self._logged(index, outputs) if self._logprobs else None
        shown = text if piece else self._echoes[index] + text
        return {"index": index, "text": shown, "logprobs": logprobs, "finish_reason": outputs[-1].finish}

    def _logged(self, index: int, outputs: Sequence[Output]) -> Json:
        token, offsets = self._front.token, []
        for output in outputs:
            offsets.append(self._lengths[index])
            self._lengths[index] += len(token(output.token)[0])
        return {
            "tokens": [token(output.token)[0] for output in outputs],
            "token_logprobs": [output.logprob for output in outputs],
            "top_logprobs": [{token(other)[0]: value for other, value in output.top} for output in outputs],
            "text_offset": offsets,
        }


class ChatForm:
    """``/v1/chat/completions``."""

    whole, piece = "chat.completion", "chat.completion.chunk"

    def __init__(self, front: Front, logprobs: bool) -> None:
        self._front, self._logprobs = front, logprobs

    def opening(self, index: int) -> Json | None:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def choice(self, index: int, text: str, outputs: Sequence[Output], *, piece: bool) -> Json:
        logprobs = {"content": [self._logged(output) for output in outputs], "refusal": None} if self._logprobs else None
        said = {"delta": {"content": text}} if piece else {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": outputs[-1].finish}

    def _logged(self, output: Output) -> Json:
        alternatives = [self._entry(token, value) for token, value in output.top]
        return self._entry(output.token, output.logprob) | {"top_logprobs": alternatives}

    def _entry(self, token: int, logprob: float | None) -> Json:
        text, data = self._front.token(token)
        return {"token": text, "logprob": logprob, "bytes": list(data)}


def head(front: Front, job: Job, kind: str) -> Json:
    """What every answer begins with."""
    return {"id": job.name, "object": kind, "created": int(time.time()), "model": front.model}


async def collect(front: Front, job: Job, form: Form) -> Json:
    """The whole answer."""
    outputs: list[list[Output]] = [[] for _ in job.tickets]
    async for index, output in job:
        outputs[index].append(output)
    choices = [
        form.choice(index, "".join(output.text for output in said), said, piece=False) for index, said in enumerate(outputs)
    ]  # fmt: skip
    return head(front, job, form.whole) | {"choices": choices, "usage": job.usage}


async def pieces(front: Front, job: Job, form: Form, usage: bool) -> AsyncIterator[bytes]:
    """The answer as server-sent events, one for each token; an error becomes the last but one of them."""
    start = head(front, job, form.piece)
    rest: Json = {"usage": None} if usage else {}
    for index in range(len(job.tickets)):
        opening = form.opening(index)
        if opening is not None:
            yield _event(start | {"choices": [opening]} | rest)
    try:
        async for index, output in job:
            yield _event(start | {"choices": [form.choice(index, output.text, [output], piece=True)]} | rest)
    except ApiError as error:
        yield _event(error.body)
    else:
        if usage:
            yield _event(start | {"choices": [], "usage": job.usage})
    yield DONE


def _event(content: Json) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Server-sent events until they end or the client goes; then the job is closed, at once."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], job: Job, log: Json) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._job, self._log = events, job, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_present(receive, self._send(send))
        except (ClientGone, OSError):  # OSError: the connection broke while something was being sent
            pass
        finally:
            self._job.close()
            self._log.update(self._job.log_fields())

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._events:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class ClientGone(Exception):
    """The client has closed the connection."""


async def while_present(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is given up when the client disconnects.

    Raises
    ------
    ClientGone
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(request: Request, front: Front, job: Job, form: Form, log: Json) -> Json | None:
    """The whole answer, or None if the client has gone meanwhile."""
    try:
        return await while_present(request.receive, collect(front, job, form))
    except ClientGone:
        return None
    finally:
        job.close()
        log.update(job.log_fields())
