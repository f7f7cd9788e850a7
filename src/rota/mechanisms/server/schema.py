"""What clients may send, as OpenAI defines it, with the sampling options that vLLM adds. Unknown fields are refused, as OpenAI does."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, ValidationError, model_validator

from rota.mechanisms.engine.parameters import MOST_LOGPROBS, SamplingParams
from rota.mechanisms.server.errors import ApiError

#: Answers to one HTTP request, over all its prompts.
MOST_ANSWERS = 128
MOST_STOPS, MOST_STOP_LENGTH = 16, 256
MOST_TOKENS = (1 << 31) - 1


def _whole(value: object) -> object:
    """A number as JSON Schema sees it: 8.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _all_whole(values: object) -> object:
    """As `_whole`, of every item of a list."""
    return [_whole(value) for value in values] if isinstance(values, list) and any(type(v) is float for v in values) else values


WHOLE = BeforeValidator(_whole)
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MOST_STOP_LENGTH)]
Token = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Tokens = Annotated[list[Token], Field(min_length=1), BeforeValidator(_all_whole)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Strict(BaseModel):
    """No field that is not here, no text for a number."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _needs(field: str, set_to: JsonValue, other: str, value: JsonValue) -> dict[str, JsonValue]:
    """A rule between two fields as JSON Schema: if `field` is as `set_to` describes, `other` is `value`."""
    return {
        "if": {"required": [field], "properties": {field: set_to}},
        "then": {"required": [other], "properties": {other: {"const": value}}},
    }  # fmt: skip


class StreamOptions(Strict):
    """What a stream contains beside the answer."""

    include_usage: bool | None = False
    include_obfuscation: bool | None = Field(False, description="Taken and ignored.")


class ResponseFormat(Strict):
    """Plain text; nothing else can be promised."""

    type: Literal["text"]


class Sampling(Strict):
    """What completions and chats have in common."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_needs("stream_options", {"type": "object"}, "stream", True)]})

    model: Name
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS), WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS), WHOLE] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenText, Bias], Field(max_length=1024, json_schema_extra={"additionalProperties": False})] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63), WHOLE] | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = Field(None, description="Whose request this is, for fair policies.")
    metadata: dict[str, JsonValue] | None = Field(None, description="Taken and ignored.")
    service_tier: str | None = Field(None, description="Taken and ignored.")
    store: bool | None = Field(None, description="Taken and ignored.")
    # of vLLM
    top_k: Annotated[int, Field(ge=-1, le=MOST_TOKENS), WHOLE] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    stop_token_ids: Annotated[list[Token], Field(max_length=256), BeforeValidator(_all_whole)] | None = None
    ignore_eos: bool | None = None
    priority: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31), WHOLE] | None = Field(
        None, description="Smaller runs first, where the policy looks at it."
    )

    def params(self, most: int | None, logprobs: int | None, answer: int) -> SamplingParams:
        """As the engine takes them, for the answer of this number."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingParams(
            max_tokens=most,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(0, self.top_k or 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            stop=tuple(stops),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            logprobs=logprobs,
            seed=None if self.seed is None else self.seed + answer,
        )

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        return self


class CompletionRequest(Sampling):
    """Body of ``/v1/completions``."""

    model_config = ConfigDict(json_schema_extra={"allOf": [
        _needs("stream_options", {"type": "object"}, "stream", True),
        {"not": {"required": ["echo", "logprobs"], "properties": {"echo": {"const": True}, "logprobs": {"type": "integer"}}}},
    ]})  # fmt: skip

    prompt: Annotated[str, StringConstraints(min_length=1)] | Annotated[
        list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=MOST_ANSWERS)
    ] | Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_ANSWERS)]  # fmt: skip
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS), WHOLE] | None = None
    echo: bool | None = None

    @model_validator(mode="after")
    def _prompts_have_no_logprobs(self) -> CompletionRequest:
        if self.echo and self.logprobs is not None:
            raise ValueError("log-probabilities of prompts are not computed; leave out echo or logprobs")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        first = self.prompt[0]
        return [self.prompt] if isinstance(first, int) else self.prompt  # type: ignore[return-value]


def _as_object(arguments: str) -> object:
    """The arguments of a call as templates expect them: an object, where the text is one."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


class TextPart(Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class FunctionCall(Strict):
    """A tool's name, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call that the assistant made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Annotated[int, WHOLE] | None = None


class Message(Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates expect it."""
        text = self.content if isinstance(self.content, str) or self.content is None else "\n".join(part.text for part in self.content)
        known: dict[str, Any] = self.model_dump(exclude_none=True, exclude={"content", "refusal"})
        for call in known.get("tool_calls", ()):
            call["function"]["arguments"] = _as_object(call["function"]["arguments"])
        return known | {"content": text or "", "role": "system" if self.role == "developer" else self.role}


class Function(Strict):
    """A tool that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(Strict):
    """See `Function`."""

    type: Literal["function"]
    function: Function


class ChatRequest(Sampling):
    """Body of ``/v1/chat/completions``."""

    model_config = ConfigDict(json_schema_extra={"allOf": [
        _needs("stream_options", {"type": "object"}, "stream", True), _needs("top_logprobs", {"type": "integer"}, "logprobs", True),
    ]})  # fmt: skip

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS), WHOLE] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = Field(None, description="Given to the chat template; calls come back as text.")
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = Field(None, description="Taken and ignored.")
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        return self


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], body: bytes) -> Body:
    """The request that a body holds.

    Raises
    ------
    ApiError
        400, naming the field and what is wrong with it.
    """
    try:
        found: Body = kind.model_validate_json(body)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)
        raise _described(first) from None


def _described(problems: list[Any]) -> ApiError:
    """The first problem; of a field that may have several forms, the one that came furthest."""
    field = problems[0]["loc"][0] if problems[0]["loc"] else None
    same = [problem for problem in problems if problem["loc"][:1] == problems[0]["loc"][:1]]
    deepest = max(same, key=lambda problem: sum(isinstance(step, int) for step in problem["loc"]))
    where = ".".join(str(step) for step in deepest["loc"] if isinstance(step, int) or str(step).isidentifier())
    message = str(deepest["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{where}: {message}" if where else message, param=None if field is None else str(field))
