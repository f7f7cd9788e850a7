"""Disciplines of streaming sessions by name."""

from __future__ import annotations

import difflib

from rota.contracts.streams import StreamPolicy
from rota.errors import InputError
from rota.policies.streams.decoupled import GapIsolated, GroupDecoupled, Overlapped
from rota.policies.streams.interleave import Interleave

DISCIPLINES = {one.name: one for one in (Interleave, Overlapped, GroupDecoupled, GapIsolated)}


def stream_policy(name: str, *, max_num_seqs: int = 256, max_num_batched_tokens: int = 2048) -> StreamPolicy:
    """A discipline by name.

    Raises
    ------
    InputError
        For an unknown name, and for options that cannot be.
    """
    if name not in DISCIPLINES:
        near = difflib.get_close_matches(name, DISCIPLINES, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown discipline {name!r}{hint}; choose from {', '.join(DISCIPLINES)}")
    return DISCIPLINES[name](max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens)
