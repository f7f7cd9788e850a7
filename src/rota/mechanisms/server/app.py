"""The HTTP application: paths, and what each does."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from rota.errors import InputError
from rota.mechanisms.server import replies
from rota.mechanisms.server.answers import CLIENT_GONE, ChatForm, CompletionForm, EventStream, Form, pieces, whole
from rota.mechanisms.server.errors import ApiError
from rota.mechanisms.server.front import Front, Job
from rota.mechanisms.server.metrics import CONTENT_TYPE
from rota.mechanisms.server.middleware import Guarded, Observed, error_response
from rota.mechanisms.server.schema import ChatRequest, CompletionRequest, Sampling, parse

PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics", "/openapi.json")
API_VERSION = "1"
#: Answers of an OpenAI server when nothing is said about their length.
COMPLETION_TOKENS = 16
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": replies.Error, "description": "Something in the request is wrong; the message says what."},
    401: {"model": replies.Error, "description": "No valid API key."},
    404: {"model": replies.Error, "description": "No such model or path."},
    408: {"model": replies.Error, "description": "The body did not arrive in time."},
    413: {"model": replies.Error, "description": "The body is too large."},
    429: {"model": replies.Error, "description": "Too many requests; Retry-After says when to try again."},
    503: {"model": replies.Error, "description": "The server is shutting down, or its engine has stopped."},
}
_READ_ERRORS: dict[int | str, dict[str, Any]] = {401: _ERRORS[401], 404: _ERRORS[404]}


def make_app(front: Front, keys: Sequence[str] = ()) -> ASGIApp:
    """The application.

    Parameters
    ----------
    front : Front
        Started.
    keys : sequence of str
        API keys; none lets everybody in.
    """

    app = FastAPI(title="Rota", version=API_VERSION, docs_url=None, redoc_url=None)
    _completions(app, front)
    _chat(app, front)
    _models(app, front)
    _operations(app, front)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        known = ApiError(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}")
        return JSONResponse(known.body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_response(ApiError(500, "an error in the server; its log says more"))

    app.openapi = lambda: _description(app, front)
    return Observed(Guarded(app, keys, front.limits.max_body), front.metrics, PATHS)


def _completions(app: FastAPI, front: Front) -> None:
    @app.post("/v1/completions", **_documented(CompletionRequest, replies.Completion))
    async def completions(request: Request) -> Response:
        """Continue a text, or several."""
        body = parse(CompletionRequest, await request.body())
        front.check_model(body.model)
        n = body.n or 1
        prompts = await front.prompts(body)
        echoes = [""] * (len(prompts) * n)
        if body.echo:
            texts = [prompt if isinstance(prompt, str) else front.tokenizer.decode(prompt) for prompt in body.prompts]
            echoes = [text for text in texts for _ in range(n)]
        most = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        job = await front.submit(f"cmpl-{uuid.uuid4().hex}", prompts, body, most, body.logprobs)
        return await _answer(request, front, job, CompletionForm(front, body.logprobs is not None, echoes), body)


def _chat(app: FastAPI, front: Front) -> None:
    @app.post("/v1/chat/completions", **_documented(ChatRequest, replies.ChatCompletion))
    async def chat(request: Request) -> Response:
        """Answer the last message of a conversation."""
        body = parse(ChatRequest, await request.body())
        front.check_model(body.model)
        if front.template is None:
            raise ApiError(400, f"{front.model} has no chat template; use /v1/completions, or serve it with --chat-template")
        tools = None if body.tool_choice == "none" or not body.tools else [tool.model_dump(exclude_none=True) for tool in body.tools]
        try:
            text = front.template.render([message.plain() for message in body.messages], tools)
        except InputError as error:
            raise ApiError(400, str(error), param="messages") from None
        tokens = await front.encode(text, special=False)
        most = body.max_completion_tokens or body.max_tokens
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        job = await front.submit(f"chatcmpl-{uuid.uuid4().hex}", [tokens], body, most, logprobs)
        return await _answer(request, front, job, ChatForm(front, bool(body.logprobs)), body)


async def _answer(request: Request, front: Front, job: Job, form: Form, body: Sampling) -> Response:
    log = request.scope["state"]["log"]
    log.update(job=job.name, stream=bool(body.stream))
    if body.user is not None:
        log["user"] = body.user
    if body.stream:
        return EventStream(pieces(front, job, form, body.wants_usage), job, log)
    answer = await whole(request, front, job, form, log)
    return Response(status_code=CLIENT_GONE) if answer is None else JSONResponse(answer)


def _models(app: FastAPI, front: Front) -> None:
    card = {
        "id": front.model, "object": "model", "created": front.created, "owned_by": "rota", "max_model_len": front.engine.max_len,
        "vocab_size": front.engine.runner.vocab,
    }  # fmt: skip

    @app.get("/v1/models", responses={200: {"model": replies.Models}, 401: _ERRORS[401]}, response_model=None)
    async def models() -> Response:
        """The model that is served."""
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{model:path}", responses={200: {"model": replies.Model}, **_READ_ERRORS}, response_model=None)
    async def model(model: str) -> Response:
        """One model."""
        front.check_model(model)
        return JSONResponse(card)


def _operations(app: FastAPI, front: Front) -> None:
    @app.get("/health", responses={200: {"model": replies.Health}, 503: {"model": replies.Health}}, response_model=None)
    async def health() -> Response:
        """Whether requests are taken."""
        status = "engine stopped" if front.thread.failure is not None else "shutting down" if front.draining else "ok"
        return JSONResponse({"status": status}, status_code=200 if status == "ok" else 503)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}, response_class=Response)
    async def metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(front.metrics.text(), media_type=CONTENT_TYPE)


def _documented(body: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """What FastAPI is told about a path whose body is parsed here."""
    event = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string", "contentMediaType": "application/json"}}}
    stream = {"text/event-stream": {"schema": event}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {
        "responses": {200: {"model": answer, "content": stream}, **_ERRORS}, "response_model": None,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }  # fmt: skip


def _description(app: FastAPI, front: Front) -> dict[str, Any]:
    """The OpenAPI description, with the bodies that are parsed here, and what this model makes of them."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes, description="OpenAI-compatible server")
        schemas = made["components"]["schemas"]
        for body in (CompletionRequest, ChatRequest):
            fields = body.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= fields.pop("$defs", {}) | {body.__name__: fields}
            fields["properties"]["model"] = {"type": "string", "enum": [front.model]}
        _bound(schemas["CompletionRequest"]["properties"]["prompt"], front.engine.runner.vocab - 1)
        app.openapi_schema = made
    described: dict[str, Any] = app.openapi_schema
    return described


def _bound(schema: Any, most: int) -> None:
    """Lower the largest number that a description allows, wherever it says one."""
    if isinstance(schema, dict):
        if "maximum" in schema:
            schema["maximum"] = most
        for inner in schema.values():
            _bound(inner, most)
    elif isinstance(schema, list):
        for inner in schema:
            _bound(inner, most)
