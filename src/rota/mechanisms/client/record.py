"""What a measurement has found so far, as a file of JSON lines that grows with every answer and can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rota.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One request. Times in seconds from the start of the trace; `gaps` are those between its tokens.

    `status` is that of HTTP, and `error` says why there is no whole answer.
    """

    request: int
    arrival: float
    first_token: float | None
    finish: float | None
    prompt: int
    output: int
    cached: int
    gaps: list[float]
    status: int
    error: str


class Record:
    """The rows of a measurement, in memory and, if there is a path, in a file.

    Parameters
    ----------
    path : Path or None
        Continued if it exists.
    head : mapping
        What is measured; a file that was begun with another head is refused.

    Raises
    ------
    InputError
        If the file is another measurement's or cannot be read or written.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any]) -> None:
        self.rows: dict[int, Row] = {}
        self._file: TextIO | None = None
        if path is None:
            return
        begun = path.is_file() and path.stat().st_size > 0
        try:
            if begun:
                self._read(path, head)
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise InputError(f"{path}: cannot be used ({error.strerror}); choose another --record") from None
        if not begun:
            self._file.write(json.dumps(dict(head)) + "\n")

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows[row.request] = row
        if self._file is not None:
            try:
                self._file.write(json.dumps(asdict(row)) + "\n")
            except OSError as error:
                raise InputError(f"{self._file.name}: could not be written ({error.strerror}); free space, and run the command again") from None

    def _read(self, path: Path, head: Mapping[str, Any]) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        try:
            found = json.loads(lines[0])
            changed = [key for key in head if found.get(key) != head[key]]
        except (ValueError, AttributeError):
            raise InputError(f"{path}: is no record of a measurement; choose another --record") from None
        if changed:
            raise InputError(f"{path}: records a measurement with another {changed[0]} ({found.get(changed[0])}); choose another --record")
        for number, line in enumerate(lines[1:], 2):
            try:
                row = Row(**json.loads(line))
            except (ValueError, TypeError):
                if number == len(lines):  # half a line: it was interrupted while writing
                    path.write_text("".join(lines[:-1]), encoding="utf-8")
                    return
                raise InputError(f"{path}: line {number} is no row of a measurement; repair or remove it") from None
            self.rows[row.request] = row

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
