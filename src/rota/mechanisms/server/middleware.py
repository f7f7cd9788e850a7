"""What surrounds every HTTP request: an identity, a log line, the key, and limits on the body."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rota.mechanisms.server.errors import ApiError
from rota.mechanisms.server.logs import event
from rota.mechanisms.server.metrics import Metrics

#: Seconds that a client may take to send the next piece of a body.
BODY_PATIENCE = 30.0
_NAME = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def error_response(error: ApiError) -> JSONResponse:
    """An error as HTTP."""
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


class Observed:
    """Outermost: gives each request an id (the client's ``X-Request-Id``, if it is one), counts it and writes its log line.

    What ``scope["state"]["log"]`` holds in the end goes into the line.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Sequence[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _NAME.fullmatch(given) else uuid.uuid4().hex
        fields: dict[str, object] = {}
        scope.setdefault("state", {}).update(request_id=name, log=fields)
        start, status = time.monotonic(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, tell)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.http(path, status)
            quiet = path in ("/health", "/metrics") and status == 200
            event(
                "request", logging.DEBUG if quiet else logging.INFO, id=name, method=scope["method"], path=scope["path"][:200],
                status=status, client=(scope.get("client") or ("",))[0], seconds=time.monotonic() - start, **fields,
            )  # fmt: skip


class Guarded:
    """Refuses requests to ``/v1`` without a key, if there are keys, and bodies that are too large or too slow."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], max_body: int, patience: float = BODY_PATIENCE) -> None:
        self._app, self._keys, self._max_body, self._patience = app, [key.encode() for key in keys], max_body, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            if scope["path"].startswith("/v1"):
                self._check_key(headers)
            size = headers.get("content-length", "0")
            if not size.isdigit() or int(size[:20]) > self._max_body:
                raise self._too_large()
            await self._app(scope, self._limited(receive, scope), send)
        except ApiError as error:
            await error_response(error)(scope, receive, send)

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # every key is compared, so that the time says nothing about which came close
        matches = [hmac.compare_digest(given.strip().encode("latin-1"), key) for key in self._keys]
        if kind.lower() != "bearer" or not any(matches):
            raise ApiError(401, "no valid API key; send it as Authorization: Bearer KEY", code="invalid_api_key")

    def _limited(self, receive: Receive, scope: MutableMapping[str, Any]) -> Receive:
        seen, complete = 0, False

        async def limited() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._patience)
            except TimeoutError:
                raise ApiError(408, f"the body did not arrive within {self._patience:g} s; send it faster") from None
            seen += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if seen > self._max_body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._max_body:,} bytes; send a shorter prompt", code="body_too_large")
