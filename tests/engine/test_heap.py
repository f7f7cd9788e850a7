"""What an engine begins with is not collected again while it runs."""

from __future__ import annotations

import gc
import weakref

import pytest

from rota.mechanisms.engine.heap import settled_heap


class Ring:
    """Holds itself, so that only a collection frees it."""

    def __init__(self) -> None:
        self.me = self


def test_collections_leave_out_what_was_there_and_free_what_is_new() -> None:
    old = Ring()
    seen = weakref.ref(old)
    with settled_heap():
        del old
        new = weakref.ref(Ring())
        gc.collect()
        assert seen() is not None and new() is None
    gc.collect()
    assert seen() is None


def test_an_error_ends_it() -> None:
    with pytest.raises(ValueError, match="stop"), settled_heap():
        raise ValueError("stop")
    assert gc.get_freeze_count() == 0
