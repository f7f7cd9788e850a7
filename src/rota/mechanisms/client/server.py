"""One OpenAI-compatible server as a client sees it: what it serves, and one streamed completion with the times of its tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp

from rota.errors import InputError
from rota.mechanisms.client.prompts import Prompt

#: Guessed where a server does not say how large its vocabulary is.
USUAL_VOCAB = 30_000


class Served(NamedTuple):
    """What ``/v1/models`` says; 0 for what it does not."""

    model: str
    max_len: int
    vocab: int


@dataclass(slots=True)
class Answer:
    """What came back of one request. Times are of `time.perf_counter`.

    Attributes
    ----------
    status : int
        Of HTTP; 0 if there was no answer at all.
    error : str
        Why there is no whole answer; empty if there is.
    times : list of float
        When each token (or piece of several) arrived.
    prompt, output, cached : int
        Tokens, as the server counts them; 0 where it does not.
    """

    sent: float
    status: int = 0
    error: str = ""
    times: list[float] = field(default_factory=list)
    prompt: int = 0
    output: int = 0
    cached: int = 0


class Server:
    """A server to measure; use as an asynchronous context manager.

    Parameters
    ----------
    url : str
        With or without ``/v1`` at the end.
    key : str, optional
    chat : bool
        Use ``/v1/chat/completions``, with text.
    timeout : float
        Seconds for one answer.
    """

    def __init__(self, url: str, *, key: str | None = None, chat: bool = False, timeout: float = 3600.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._chat, self._timeout = chat, aiohttp.ClientTimeout(total=timeout)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Server:
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def served(self, model: str | None) -> Served:
        """The model `model`, or the first one.

        Raises
        ------
        InputError
            If the server cannot be reached, wants a key, or has no such model.
        """
        try:
            async with self._session.get(f"{self.url}/v1/models") as answer:
                if answer.status != 200:
                    raise InputError(f"{self.url}/v1/models answers {answer.status}; give the right --url, and --api-key if it wants one")
                cards = {str(card["id"]): card for card in (await answer.json())["data"]}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise InputError(f"{self.url}: no server can be reached ({error}); start one (rota serve), or give another --url") from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.url}/v1/models: the answer is not OpenAI's; give the address of an OpenAI-compatible server") from None
        if not cards or (model is not None and model not in cards):
            raise InputError(f"{self.url}: serves {', '.join(cards) or 'no model'}; give one of them as --model")
        name = model if model is not None else next(iter(cards))
        return Served(name, _number(cards[name], "max_model_len"), _number(cards[name], "vocab_size"))

    async def ask(self, model: str, prompt: Prompt, max_tokens: int, options: Mapping[str, Any]) -> Answer:
        """One request, answered piece by piece. What goes wrong is told in the answer."""
        path = "chat/completions" if self._chat else "completions"
        content = {"messages": [{"role": "user", "content": prompt}]} if self._chat else {"prompt": prompt}
        body = {
            "model": model, **content, "max_tokens": max_tokens, "stream": True, "stream_options": {"include_usage": True}, **options,
        }  # fmt: skip
        data = json.dumps(body).encode()
        answer = Answer(time.perf_counter())
        try:
            headers = {"Content-Type": "application/json"}
            async with self._session.post(f"{self.url}/v1/{path}", data=data, headers=headers) as response:
                answer.status = response.status
                if response.status != 200:
                    answer.error = _message(await response.text())
                    return answer
                await self._read(response, answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        except (ValueError, AttributeError, KeyError) as error:
            answer.error = f"the answer is not OpenAI's: {error}"
        return answer

    async def _read(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        """Take the time of every event that brings a token."""
        ended = False
        async for line in response.content:
            now = time.perf_counter()
            if not line.startswith(b"data:"):
                continue
            text = line[5:].strip()
            if text == b"[DONE]":
                ended = True
                break
            event = json.loads(text)
            if "error" in event:
                answer.error = str(event["error"].get("message", "error") if isinstance(event["error"], dict) else event["error"])
                return
            if event.get("usage"):
                _count(event["usage"], answer)
            if any(_brings_token(choice) for choice in event.get("choices", ())):
                answer.times.append(now)
        if not ended:
            answer.error = "the answer broke off"
        elif not answer.times:
            answer.error = "an answer without tokens"
        answer.output = answer.output or len(answer.times)


def _brings_token(choice: Mapping[str, Any]) -> bool:
    """A first delta with nothing but a role brings none."""
    delta = choice.get("delta")
    return delta is None or "role" not in delta or bool(delta.get("content"))


def _count(usage: Mapping[str, Any], answer: Answer) -> None:
    answer.prompt, answer.output = _number(usage, "prompt_tokens"), _number(usage, "completion_tokens")
    answer.cached = _number(usage.get("prompt_tokens_details") or {}, "cached_tokens")


def _number(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) else 0


def _message(text: str) -> str:
    """The message in an error's body."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
