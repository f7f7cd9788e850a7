"""Asking a policy again, from an engine's log: the same policy must plan the same, and the simulator can run the same requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rota.contracts.serving import BatchPolicy, StepPlan
from rota.errors import InputError
from rota.mechanisms.engine.core import EngineCore
from rota.mechanisms.engine.log import Arrived, Called, Cancelled, Ended, Entry, Planned, Stepped
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.sequences import Seq
from rota.workload.trace import Trace


def replay(
    entries: Iterable[Entry], policy: BatchPolicy, *, n_layers: int, blocks: int, block_size: int, max_len: int,
    prefill_fit: tuple[float, float, float] = (0.0, 0.0, 0.0),
    host_blocks: int = 0,
) -> list[StepPlan]:  # fmt: skip
    """The plans of a fresh `policy` at every moment at which the log's engine asked its own.

    The engine's state follows from the log's arrivals, cancellations and ends, and from the plans made here; so the first plan that
    differs from the log's is meaningful, and what comes after it may not be.

    Raises
    ------
    InputError
        If the log is not that of an engine of these sizes, or the plans have come to differ so much that it cannot go on.
    """
    entries = list(entries)
    ends = {entry.sid: entry for entry in entries if isinstance(entry, Ended)}
    core = EngineCore(policy, n_layers=n_layers, blocks=blocks, block_size=block_size, max_len=max_len, prefill_fit=prefill_fit,
                      host_blocks=host_blocks)  # fmt: skip
    seqs: dict[int, Seq] = {}
    plans = []
    for entry in entries:
        match entry:
            case Arrived():
                seqs[entry.sid] = _arriving(entry, ends, block_size)
                core.arrive(seqs[entry.sid])
            case Cancelled():
                core.cancel(seqs[entry.sid], entry.time)
            case Called():
                seqs[entry.sid].tool = entry.tool
            case Planned():
                plans.append(core.decide(entry.time))
                core.rejected.clear()
            case Stepped():
                if core.left < 1 and not plans[-1].work:
                    raise InputError(f"the log has a step at {entry.time:.6g} s that the replayed plans do not have; they differ before it")
                rows = core.begin()
                emitting = [row.seq for row in rows if row.emits]
                last = [_is_last(seq, ends) for seq in emitting]
                core.copies_out.clear()
                core.copies_in.clear()
                core.complete(rows, [0] * len(emitting), last, entry.time)
                core.ended_late(entry.time)
    return plans


def _arriving(entry: Arrived, ends: dict[int, Ended], block_size: int) -> Seq:
    end = ends.get(entry.sid)
    return Seq(
        entry.sid, [0] * entry.n_prompt, entry.arrival, entry.max_new, SamplingParams(), priority=entry.priority, tenant=entry.tenant,
        program=entry.program, keys=list(end.keys) if end else _private(entry, block_size),
    )  # fmt: skip


def _private(entry: Arrived, block_size: int) -> list[int]:
    """Block identities for a request whose end the log does not know: nobody else's."""
    return [-(entry.sid << 32) - i - 1 for i in range((entry.n_prompt + entry.max_new) // block_size + 1)]


def _is_last(seq: Seq, ends: dict[int, Ended]) -> bool:
    end = ends.get(seq.sid)
    return end is not None and end.reason in ("stop", "length") and seq.n_known + 1 == end.n_known


def as_trace(entries: Sequence[Entry], block_size: int, name: str = "engine log") -> Trace:
    """The requests that ended by themselves, for the simulator: arrivals, lengths, and which prefixes they share.

    Raises
    ------
    InputError
        If there are none.
    """
    ends = {entry.sid: entry for entry in entries if isinstance(entry, Ended) and entry.reason in ("stop", "length")}
    arrived = sorted((e for e in entries if isinstance(e, Arrived) and e.sid in ends), key=lambda e: (e.arrival, e.sid))
    if not arrived:
        raise InputError(f"{name}: no request has ended by itself; nothing can be simulated")
    keys = [ends[e.sid].keys for e in arrived]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(key for chain in keys for key in chain))}
    return Trace(
        arrival=np.array([e.arrival for e in arrived]),
        prompt=np.array([e.n_prompt for e in arrived], np.int64),
        output=np.array([ends[e.sid].n_known - e.n_prompt for e in arrived], np.int64),
        max_new=np.array([e.max_new for e in arrived], np.int64),
        priority=np.array([e.priority for e in arrived], np.int64),
        tenant=np.array([e.tenant for e in arrived], np.int64),
        hash_ids=np.array([numbers[key] for chain in keys for key in chain], np.int64),
        hash_start=np.concatenate([[0], np.cumsum([len(chain) for chain in keys])]),
        hash_block=block_size, name=name, source="event log of rota's engine",
    )  # fmt: skip
