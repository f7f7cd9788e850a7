"""Typed reading of one table of a TOML or JSON file. Every complaint names the file and the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rota.errors import InputError

#: No size in these files is anywhere near this.
MOST = 10**9


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping read from `where`, whose values are taken out by one of several names, checked. Null counts as absent.

    Parameters
    ----------
    values : mapping
    where : str
        What error messages start with, such as the path of the file.
    """

    values: Mapping[str, object]
    where: str

    def find(self, *names: str) -> tuple[str, object]:
        """The first of `names` that is present and not null, with its value; ``("", None)`` if there is none."""
        for name in names:
            if self.values.get(name) is not None:
                return name, self.values[name]
        return "", None

    def wrong(self, name: str, value: object, wanted: str) -> InputError:
        shown = repr(value)
        return InputError(f"{self.where}: field {name} must be {wanted}, not {shown[:60]}")

    def missing(self, *names: str) -> InputError:
        others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
        return InputError(f"{self.where}: field {names[0]}{others} is missing; add it to the file")

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`; the default, if there is one, where none of the names is present."""
        name, value = self.find(*names)
        if not name:
            if default is None:
                raise self.missing(*names)
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise self.wrong(name, value, f"a whole number from {least} to {MOST}")
        return value

    def number(self, *names: str, default: float | None = None, zero: bool = False) -> float:
        """A finite number above zero (or not below it, with `zero`)."""
        name, value = self.find(*names)
        if not name:
            if default is None:
                raise self.missing(*names)
            return default
        valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not valid or not isinstance(value, int | float) or value < 0 or (value == 0 and not zero):
            raise self.wrong(name, value, "a number of at least 0" if zero else "a number above 0")
        return float(value)

    def text(self, *names: str, default: str | None = None) -> str:
        name, value = self.find(*names)
        if not name:
            if default is None:
                raise self.missing(*names)
            return default
        if not isinstance(value, str) or not value:
            raise self.wrong(name, value, "a text in quotes")
        return value

    def flag(self, *names: str, default: bool) -> bool:
        name, value = self.find(*names)
        if not name:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty if absent."""
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, value, "a list of texts")
        return tuple(value)

    def table(self, name: str) -> Fields:
        """A nested table; its complaints name `name` too."""
        value = self.values.get(name)
        if value is None:
            raise self.missing(name)
        if not isinstance(value, dict):
            raise self.wrong(name, value, "a table")
        return Fields(value, f"{self.where}: {name}")

    def only(self, *names: str) -> None:
        """Refuse fields that nobody reads: mostly slips of the pen."""
        for name in self.values:
            if name not in names:
                raise InputError(f"{self.where}: unknown field {name}; known are {', '.join(names)}")
