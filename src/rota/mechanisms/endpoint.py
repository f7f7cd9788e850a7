"""A language model behind an OpenAI-compatible endpoint: one question, one answer, over plain HTTP.

Only the standard library is used. A busy server (429, 5xx) is asked again after a while; what asking again cannot cure raises at once.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from rota.errors import InputError

#: Seconds before each further try, where the server does not say how long.
PAUSES = (1.0, 4.0, 16.0)
_LONGEST_PAUSE = 120.0


class NoAnswer(Exception):
    """The model was reached and did not answer in time or in the form of the interface."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served.

    Parameters
    ----------
    url : str
        Up to the version, such as ``http://localhost:8000/v1``.
    model : str
    key : str
        Sent as a bearer token; empty for none. Never shown.
    timeout_s : float
        For one answer.
    max_tokens : int or None
        Longest answer; None for the server's own limit.
    temperature : float or None
        None for the server's own.
    pauses : tuple of float
        Seconds before each further try.

    Raises
    ------
    InputError
        If the address is not one.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 300.0
    max_tokens: int | None = None
    temperature: float | None = 0.0
    pauses: tuple[float, ...] = PAUSES

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{self.url}: is not an address; give one such as http://localhost:8000/v1")
        if not self.timeout_s > 0:
            raise InputError(f"the time for an answer must be a positive number of seconds, not {self.timeout_s:g}")

    def ask(self, prompt: str) -> str:
        """The model's answer.

        Raises
        ------
        NoAnswer
            If there was none in time, or it has no text.
        InputError
            If the server cannot be reached, refuses the request, or stays busy.
        """
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        said = self._post(json.dumps(body).encode())
        try:
            text = json.loads(said)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise NoAnswer(f"not a chat completion: {said[:80]!r}") from None
        if not isinstance(text, str):
            raise NoAnswer("the answer has no text")
        return text

    def _post(self, body: bytes) -> bytes:
        address = f"{self.url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for pause in (*self.pauses, None):
            request = urllib.request.Request(address, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:
                    return bytes(reply.read())
            except urllib.error.HTTPError as error:
                if pause is None or (error.code != 429 and error.code < 500):
                    raise InputError(f"{address}: {error.code} {error.reason}: {_excerpt(error)}") from None
                time.sleep(_retry_after(error, pause))
            except TimeoutError:
                raise NoAnswer(f"none within {self.timeout_s:g} s") from None
            except urllib.error.URLError as error:
                if isinstance(error.reason, TimeoutError):
                    raise NoAnswer(f"none within {self.timeout_s:g} s") from None
                raise InputError(f"{address}: cannot be reached ({error.reason}); is the server running?") from None
            except (OSError, HTTPException) as error:
                raise NoAnswer(f"the connection broke ({error or type(error).__name__})") from None
        raise AssertionError("the last try returns or raises")


def _excerpt(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(200).decode(errors="replace").strip() or "no reason given"
    except OSError:
        return "no reason given"


def _retry_after(error: urllib.error.HTTPError, pause: float) -> float:
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE) if asked.isdigit() else pause
