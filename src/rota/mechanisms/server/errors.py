"""Errors as OpenAI's API reports them."""

from __future__ import annotations

from typing import Any

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "internal_error", 503: "overloaded_error"}


class ApiError(Exception):
    """A request that gets an error instead of an answer.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        What is wrong, and what to do.
    param : str, optional
        The field that is wrong.
    code : str, optional
        A word for programs.
    retry_after : int, optional
        Seconds after which it may work.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
