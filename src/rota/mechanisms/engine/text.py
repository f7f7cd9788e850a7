"""From tokens to text as they come: whole characters only, and nothing that a stop text may yet take back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

#: What decoders write for bytes that are not, or not yet, a character.
UNKNOWN = "\ufffd"


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer; `tokenizers.Tokenizer` is one."""

    def decode(self, ids: Sequence[int]) -> str: ...


class TokenText:
    """The text of one growing answer.

    A token's text may depend on those before it, so the last few are decoded again together with it.

    Parameters
    ----------
    tokenizer : Tokenizer
    stop : sequence of str
        Texts that end the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._context = 0  # first token that is decoded again
        self._shown = 0  # tokens before this one are in the text already
        self._held = ""  # text that a stop text may begin in
        self._stopped = False

    def push(self, token: int) -> tuple[str, bool]:
        """Take a token; text that can be shown now, and whether a stop text has ended the answer (just before it)."""
        self._ids.append(token)
        known = self._tokenizer.decode(self._ids[self._context : self._shown])
        both = self._tokenizer.decode(self._ids[self._context :])
        if len(both) <= len(known) or both.endswith(UNKNOWN):
            return "", False
        self._context, self._shown = self._shown, len(self._ids)
        return self._release(both[len(known) :])

    def rest(self) -> str:
        """What was held back, at the end of an answer that no stop text ended; nothing after one that did."""
        if self._stopped:
            return ""
        known = self._tokenizer.decode(self._ids[self._context : self._shown])
        text = self._held + self._tokenizer.decode(self._ids[self._context :])[len(known) :]
        self._held, self._context, self._shown = "", len(self._ids), len(self._ids)
        return text

    def _release(self, new: str) -> tuple[str, bool]:
        if not self._stop:
            return new, False
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self._stopped, self._held = True, ""
            return text[: min(found)], True
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
