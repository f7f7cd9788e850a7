"""JSON lines: one object a line, wrong lines named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rota.errors import InputError


def json_rows(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their line numbers, from 1; empty lines are passed over.

    Raises
    ------
    InputError
        At a line that is no JSON object.
    """
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise InputError(f"{path}:{number}: is not valid JSON (cut off?); each line must be one whole object") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: is not a JSON object; each line must be one")
        yield number, row
