"""Logs as JSON, one object a line: when, how serious, what happened, and its figures."""

from __future__ import annotations

import datetime
import json
import logging
import math
from typing import Any, TextIO

#: The server's own records; uvicorn's go to the same place.
LOGGER = logging.getLogger("rota.server")


class JsonLines(logging.Formatter):
    """Records as JSON lines; ``extra={"fields": {...}}`` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: _plain(value) for key, value in line.items()}, ensure_ascii=False, default=str)


def log_to(stream: TextIO, level: int = logging.INFO) -> None:
    """Send the records of the server and of uvicorn to `stream`, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name, least in (("rota.server", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False


def event(name: str, level: int = logging.INFO, **fields: object) -> None:
    """Write a record."""
    LOGGER.log(level, name, extra={"fields": fields})


def _plain(value: object) -> object:
    """Numbers rounded to microseconds; what JSON has no word for is null."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
