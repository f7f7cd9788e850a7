"""Rows of a long study in a file, one JSON object a line, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from rota.errors import InputError

R = TypeVar("R")


@dataclass(slots=True)
class RowLog(Generic[R]):
    """The rows so far, kept in a file if one is given. For a study's own rows, derive from it and set `row` and `study`.

    Parameters
    ----------
    path : Path, optional
    settings : mapping
        What rows depend on; the file's first line.
    rows : list of `row`
    """

    path: Path | None
    settings: Mapping[str, Any]
    rows: list[R]

    #: The dataclass of a row.
    row: ClassVar[type]
    #: What makes such rows, for messages.
    study: ClassVar[str]

    @classmethod
    def open(cls, path: str | Path | None, settings: Mapping[str, Any]) -> Self:
        """Take up what is there, or begin.

        Raises
        ------
        InputError
            If the file holds something else, or rows made with other settings.
        """
        if path is None:
            return cls(None, settings, [])
        file = Path(path)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        # a line that was being written when the run was killed has no end
        lines = text[: text.rfind("\n") + 1].splitlines()
        head = json.dumps({"settings": settings})
        if lines and not lines[0].startswith('{"settings"'):
            raise InputError(f"{file}:1: is not a log of {cls.study}; choose another file")
        if lines and lines[0] != head:
            raise InputError(f"{file}: was made with other settings ({lines[0][13:-1]}); use these, or choose another file")
        rows = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                rows.append(cls.row(**json.loads(line)))
            except (ValueError, TypeError):
                raise InputError(f"{file}:{number}: is not a row of {cls.study}; remove the line, or choose another file") from None
        file.write_text("\n".join([head, *lines[1:]]) + "\n", encoding="utf-8")
        return cls(file, settings, rows)

    def add(self, row: R) -> None:
        """Keep a row."""
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")  # type: ignore[call-overload]
