"""Measured steps of an engine, as a cost model is told of them, and the file in which they are kept while a sweep goes on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

from rota.errors import InputError


class StepSample(NamedTuple):
    """One step and what it took.

    Attributes
    ----------
    decodes, context : int
        Sequences that took one token, and the sum of their contexts, that token included.
    chunks : tuple of (int, int)
        Prompt chunks as (tokens cached before, new tokens).
    layers : tuple of int
        Half-open layer range of the chunks; (0, 0) without any.
    emitted : int
        Chunks that ended with a token.
    seconds : float
        Of computing it; NaN where only the rest is known.
    around : float
        Seconds that passed beside: the policy's plan and everybody's bookkeeping. NaN where it is not known.
    """

    decodes: int
    context: int
    chunks: tuple[tuple[int, int], ...]
    layers: tuple[int, int]
    emitted: int
    seconds: float
    around: float

    @property
    def new(self) -> int:
        """Tokens in chunks."""
        return sum(n for _, n in self.chunks)

    @property
    def kind(self) -> str:
        """``"decode"``, ``"prefill"``, ``"mixed"``, or ``"layers"`` where chunks pass only a part of them."""
        if self.chunks and self.layers[0] > 0:
            return "layers"
        return "mixed" if self.decodes and self.chunks else "prefill" if self.chunks else "decode"

    def held_out(self, seed: int) -> bool:
        """Whether this shape of step is among the 30% that a fit does not see."""
        return zlib.crc32(f"{seed}/{self[:5]}".encode()) < 0.3 * 2**32


class SampleFile:
    """Measured steps in a file of JSON lines that grows with every measurement and can be taken up again.

    Parameters
    ----------
    path : Path or None
        Continued if it exists; None keeps everything in memory only.
    head : mapping
        What is measured, and how; a file that was begun otherwise is refused.

    Attributes
    ----------
    fitted, held_out : list of StepSample
    count : int
        Calls of `add`, those of earlier runs included.
    notes : dict
        What `note` was told.

    Raises
    ------
    InputError
        If the file is another measurement's or cannot be read or written.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any]) -> None:
        self.fitted: list[StepSample] = []
        self.held_out: list[StepSample] = []
        self.count = 0
        self.notes: dict[str, Any] = {}
        self._head: dict[str, Any] = json.loads(json.dumps(dict(head)))
        self._path, self._file = path, None if path is None else self._open(path)

    def add(self, fitted: Sequence[StepSample], held_out: Sequence[StepSample] = ()) -> None:
        """Keep what one measurement has given."""
        self._take(fitted, held_out)
        self._write([fitted, held_out])

    def note(self, name: str, value: object) -> None:
        """Keep a fact for whoever goes on."""
        self.notes[name] = value
        self._write({name: value})

    def remove(self) -> None:
        """The measurement is complete: nobody will go on with it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _open(self, path: Path) -> TextIO:
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]  # not the half of one
            if lines:
                self._read(path, lines)
            path.write_text("".join(lines) or json.dumps(self._head) + "\n", encoding="utf-8")
            return path.open("a", encoding="utf-8", buffering=1)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{path}: cannot be used to keep measurements ({why}); choose another --output") from None

    def _read(self, path: Path, lines: Sequence[str]) -> None:
        try:
            begun = json.loads(lines[0])
            changed = [key for key in self._head if begun.get(key) != self._head[key]]
            for line in () if changed else lines[1:]:
                content = json.loads(line)
                if isinstance(content, dict):
                    self.notes |= content
                else:
                    fitted, held_out = content
                    self._take([_sample(fields) for fields in fitted], [_sample(fields) for fields in held_out])
        except (ValueError, TypeError, AttributeError):
            raise InputError(f"{path}: holds no measurements of this program; move it away, or choose another --output") from None
        if changed:
            raise InputError(
                f"{path}: was begun with another {changed[0]} ({begun.get(changed[0])}); delete it to begin anew, or choose another --output"
            )

    def _take(self, fitted: Sequence[StepSample], held_out: Sequence[StepSample]) -> None:
        self.fitted += fitted
        self.held_out += held_out
        self.count += 1

    def _write(self, content: object) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(content) + "\n")
        except OSError as error:
            raise InputError(f"{self._path}: could not be written ({error.strerror}); free space, and run the command again") from None

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def _sample(fields: list[Any]) -> StepSample:
    decodes, context, chunks, (low, high), emitted, seconds, around = fields
    return StepSample(decodes, context, tuple((past, new) for past, new in chunks), (low, high), emitted, seconds, around)
