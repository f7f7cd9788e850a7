"""Whole numbers out of text, each line with its number, so that an error can say where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rota.errors import InputError
from rota.workload.shop.validate import LARGEST


class Line(NamedTuple):
    """One line of numbers."""

    number: int
    values: list[int]


def whole(word: str, where: str, line: int) -> int:
    """One whole number; ``5.0`` is one too.

    Raises
    ------
    InputError
        Names file and line.
    """
    try:
        found = int(word)
    except ValueError:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{where}:{line}: {word!r} is not a number") from None
        if value != int(value):
            raise InputError(f"{where}:{line}: {word} is not a whole number; scale all times by the same factor first") from None
        found = int(value)
    if abs(found) > LARGEST:
        raise InputError(f"{where}:{line}: {word} is too large; numbers go up to {LARGEST}, so choose a coarser unit")
    return found


def natural(value: int, what: str, where: str, line: int) -> int:
    """The number, if it is not negative.

    Raises
    ------
    InputError
        Names file and line.
    """
    if value < 0:
        raise InputError(f"{where}:{line}: {what} {value} is negative")
    return value


def number_lines(lines: Sequence[tuple[int, str]], where: str) -> Iterator[Line]:
    """The lines that are not empty and no comment (#), as numbers."""
    for number, text in lines:
        words = text.partition("#")[0].replace(",", " ").split()
        if words:
            yield Line(number, [whole(word, where, number) for word in words])


def numbered(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, from 1."""
    return list(enumerate(text.splitlines(), 1))


def matrix(lines: Sequence[Line], rows: int, columns: int, what: str, where: str, end: int) -> list[list[int]]:
    """Rows of so many columns each, however the numbers are broken into lines.

    Parameters
    ----------
    end : int
        Last line of the file.

    Raises
    ------
    InputError
        If numbers are missing (the file is cut off), left over or negative.
    """
    flat = [(value, line.number) for line in lines for value in line.values]
    need = rows * columns
    if len(flat) < need:
        row, column = divmod(len(flat), columns)
        raise InputError(
            f"{where}:{end}: the file ends in row {row + 1} of {rows} of the {what}, after {column} of {columns} numbers; is it cut off?"
        )
    if len(flat) > need:
        raise InputError(f"{where}:{flat[need][1]}: there are more numbers than {rows} rows of {columns} for the {what}")
    checked = [natural(value, what.removesuffix("s"), where, line) for value, line in flat]
    return [checked[i * columns : (i + 1) * columns] for i in range(rows)]
