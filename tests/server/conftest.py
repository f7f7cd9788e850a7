"""Servers that tests start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.extras import missing

collect_ignore_glob = ["test_*.py"] if missing() else []


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts servers (`tests.server.running.Live`), which are stopped at the end."""
    from tests.server.running import live

    with ExitStack() as stack:
        yield lambda front, keys=(): stack.enter_context(live(front, keys))
