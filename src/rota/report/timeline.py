"""A run's event log in the Chrome trace format, which https://ui.perfetto.dev and chrome://tracing open.

Every replica is a process; every event of the log a slice, from its start to its end, with what it computed as arguments.
Micro-batches of a pipeline overlap, so a replica has as many rows ("lanes") as slices are ever in flight at once. Counters show
decodes, prompt tokens and KV blocks per event, and KV use and queue of the whole run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rota.errors import InputError
from rota.files import atomic
from rota.results.run import Floats, Ints, Run

_COUNTERS = {"kv": "KV use (%)", "waiting": "queue (requests)"}


def write_timeline(path: str | Path, run: Run) -> int:
    """Write the event log of `run` and return the number of trace events.

    Raises
    ------
    InputError
        If the run has no log (simulate with ``log=True``) or the file cannot be written.
    """
    count = 0
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","otherData":')
        json.dump({"policy": run.policy, "trace": run.trace, "deployment": run.deployment}, file)
        file.write(',"traceEvents":[\n')
        for event in trace_events(run):
            file.write(",\n" if count else "")
            json.dump(event, file, separators=(",", ":"))
            count += 1
        file.write("\n]}\n")
    return count


def trace_events(run: Run) -> Iterator[dict[str, object]]:
    """Metadata (M), slices (X) and counters (C), times in microseconds."""
    if run.log is None:
        raise InputError(f"{run.policy}: the run has no event log; simulate again with log=True (--timeline does)")
    start, end = (np.asarray(run.log[name], dtype=np.float64) for name in ("start", "end"))
    replica, decodes, prefill, steps = (
        np.asarray(run.log[name], dtype=np.int64) for name in ("replica", "decodes", "prefill_tokens", "steps")
    )
    lanes = assign_lanes(start, end, replica)
    for r in np.unique(replica).tolist():
        yield {"ph": "M", "pid": r, "name": "process_name", "args": {"name": f"{run.policy} replica {r}"}}
        for lane in np.unique(lanes[replica == r]).tolist():
            yield {"ph": "M", "pid": r, "tid": lane, "name": "thread_name", "args": {"name": f"steps {lane}"}}
    blocks = np.asarray(run.log.get("blocks", np.full(len(start), -1)), dtype=np.int64)
    columns = (start, end, replica, decodes, prefill, steps, lanes, blocks)
    for s, e, r, d, p, n, lane, held in zip(*(column.tolist() for column in columns), strict=True):
        yield {
            "ph": "X",
            "pid": r,
            "tid": lane,
            "ts": s * 1e6,
            "dur": (e - s) * 1e6,
            "name": _name(d, p),
            "args": {"decodes": d, "prefill_tokens": p, "steps": n, "ms_per_step": (e - s) * 1e3 / max(n, 1)},
        }
        yield {"ph": "C", "pid": r, "ts": s * 1e6, "name": "decodes", "args": {"sequences": d}}
        yield {"ph": "C", "pid": r, "ts": s * 1e6, "name": "prefill tokens per step", "args": {"tokens": p / max(n, 1)}}
        if held >= 0:
            yield {"ph": "C", "pid": r, "ts": s * 1e6, "name": "KV blocks", "args": {"held": held}}
    yield from _run_counters(run, int(replica.max(initial=0)) + 1)


def assign_lanes(start: Floats, end: Floats, replica: Ints) -> Ints:
    """For each slice the lowest row of its replica in which it overlaps nothing, int64 (n,)."""
    lanes = np.zeros(len(start), dtype=np.int64)
    for r in np.unique(replica):
        rows = np.flatnonzero(replica == r)
        rows = rows[np.argsort(start[rows], kind="stable")]
        busy = np.maximum.accumulate(end[rows])
        if (start[rows][1:] >= busy[:-1] - 1e-9).all():
            continue  # one after the other: everything is in row 0
        until: list[float] = []
        for row in rows.tolist():
            lane = next((i for i, free in enumerate(until) if free <= start[row] + 1e-9), len(until))
            until[lane : lane + 1] = [float(end[row])]
            lanes[row] = lane
    return lanes


def _name(decodes: int, prefill: int) -> str:
    kinds = [f"prefill {prefill}" if prefill else "", f"decode {decodes}" if decodes else ""]
    return " + ".join(kind for kind in kinds if kind) or "idle"


def _run_counters(run: Run, pid: int) -> Iterator[dict[str, object]]:
    times = run.timeline.get("time")
    known = {name: title for name, title in _COUNTERS.items() if name in run.timeline}
    if times is None or not known:
        return
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": f"{run.policy} all replicas"}}
    for name, title in known.items():
        scale = 100.0 if name == "kv" else 1.0
        for t, value in zip(times.tolist(), (run.timeline[name] * scale).tolist(), strict=True):
            yield {"ph": "C", "pid": pid, "ts": t * 1e6, "name": title, "args": {"value": value}}
