"""What a client may ask of one request's tokens: how they are chosen and when to stop. Names and ranges as in OpenAI's API and vLLM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rota.errors import InputError

#: Most alternatives per token that log-probabilities are given for.
MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one request are chosen.

    Parameters
    ----------
    max_tokens : int or None
        Most tokens to generate; None for as many as the model's length allows. Policies see it.
    temperature : float
        0 takes the likeliest token; 1 draws from the model's own distribution.
    top_k : int
        Draw among so many likeliest tokens; 0 for all.
    top_p : float
        Draw among the fewest likeliest tokens that together have this probability.
    min_p : float
        Draw among tokens at least this share as likely as the likeliest.
    repetition_penalty : float
        Divides positive logits, multiplies negative ones, of tokens in prompt or answer.
    presence_penalty, frequency_penalty : float
        Taken off the logits of tokens in the answer: once, and per occurrence.
    logit_bias : mapping of int to float
        Added to the logits of these tokens.
    stop : tuple of str
        Texts that end the answer; they are not part of it. Needs a tokenizer in the engine.
    stop_token_ids : tuple of int
        Tokens that end the answer, beside the model's end-of-sequence tokens.
    ignore_eos : bool
        Go on behind the model's end-of-sequence tokens.
    logprobs : int or None
        Log-probabilities of the chosen token and so many of the likeliest, from the unmodified distribution. None for none.
    seed : int or None
        Same seed, same prompt, same tokens, whatever else the engine does. None: the engine derives one from the request's number.

    Raises
    ------
    InputError
        For a value out of range; the message names the parameter.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1, 1 << 31)
        _within("temperature", self.temperature, 0.0, 100.0)
        _whole("top_k", self.top_k, 0, 1 << 31)
        _within("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise InputError("top_p must be above 0; use temperature=0 for the likeliest token")
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        for token, bias in self.logit_bias.items():
            _whole("logit_bias token", token, 0, 1 << 31)
            _within(f"logit_bias of token {token}", bias, -100.0, 100.0)
        if any(not isinstance(text, str) or not text for text in self.stop):
            raise InputError("stop must hold texts of at least one character")
        for token in self.stop_token_ids:
            _whole("stop_token_ids", token, 0, 1 << 31)
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0, MOST_LOGPROBS)
        if self.seed is not None:
            _whole("seed", self.seed, -(1 << 63), (1 << 64) - 1)

    @property
    def modifies(self) -> bool:
        """Whether logits are changed before anything is drawn."""
        penalised = self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0
        return penalised or bool(self.logit_bias)


def _within(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
