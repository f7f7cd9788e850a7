"""Python's garbage collector beside an engine: what is there when the engine begins stays, and is not looked at again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def settled_heap() -> Iterator[None]:
    """While this lasts, collections leave out all objects that were there before.

    A full collection visits every object it knows. With PyTorch and compiled kernels loaded there are half a million, which takes tenths of a
    second, and meanwhile no request gets a token. This is for whom the process belongs to, a command: it concerns all of it, and does not nest.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
