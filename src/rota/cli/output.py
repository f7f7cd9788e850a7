"""Where results go: tables, JSON, files that can be written, and the command line that reports repeat."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rota.errors import InputError

_invocation = "rota"


def check_outputs(**paths: str | None) -> None:
    """Find out before the work that its results can be written, each to a file of its own."""
    from rota.files import check_writable

    seen: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        target = check_writable(path).resolve()
        if target in seen:
            raise InputError(f"--{option} and --{seen[target]} both write {path}; give them different files")
        seen[target] = option


def print_json(value: object) -> None:
    """Print JSON that every parser accepts: NaN and infinities become null."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


class Figure(str):
    """Text that stands for a number, and is aligned as one."""


def print_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Print dictionaries as an aligned table, numbers to the right; wider than the terminal rather than cut."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    heads = [name.replace("_", " ") for name in names]
    widths = [max(len(line[i]) for line in (heads, *cells)) for i in range(len(names))]
    numeric = [all(isinstance(row.get(name), int | float | Figure) for row in rows) for name in names]
    for line in (heads, *cells):
        parts = [
            text.rjust(width) if right else text.ljust(width) for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        sys.stdout.write("  ".join(parts).rstrip() + "\n")


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def set_invocation(arguments: Sequence[str]) -> None:
    """Remember the command line, which reports repeat."""
    global _invocation
    _invocation = shlex.join(["rota", *arguments])


def invocation() -> str:
    """The command line that is running, ready to be pasted into a shell."""
    return _invocation
