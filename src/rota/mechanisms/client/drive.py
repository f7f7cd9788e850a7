"""Sends the requests of a trace at their times, and makes a `Run` of what came back, with the columns that the simulator fills."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from rota.mechanisms.client.prompts import Prompt
from rota.mechanisms.client.record import Record, Row
from rota.mechanisms.client.server import Answer, Server
from rota.results.latency import gap_histogram
from rota.results.run import Floats, Run
from rota.workload.trace import Trace

Progress = Callable[[int, int], None]
#: Prompts are made so long before they are sent, seconds.
LEAD = 0.05


async def drive(
    trace: Trace, server: Server, model: str, prompt: Callable[[int], Prompt], record: Record, *, options: Mapping[str, Any],
    max_concurrency: int | None = None, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Send what `record` does not have yet; rows go into it as answers end. Cancelling leaves it as it is by then.

    Parameters
    ----------
    trace : Trace
        A request that depends on another follows its end after the trace's delay.
    server, model, prompt
    record : Record
    options : mapping
        More fields of each request's body.
    max_concurrency : int, optional
        Requests under way at once; others wait, and are counted from when they should have been sent.
    """
    missing = [row for row in range(len(trace)) if row not in record.rows]
    if not missing:
        return
    ends = {row: asyncio.Event() for row in range(len(trace))}
    for row in record.rows:
        ends[row].set()
    free = trace.after is None
    firsts = [float(trace.arrival[row]) for row in missing if free or trace.after[row] < 0]  # type: ignore[index]
    offset = min(firsts, default=0.0)
    start = time.perf_counter()
    seats = asyncio.Semaphore(max_concurrency or len(missing))

    async def one(row: int) -> None:
        before = -1 if trace.after is None else int(trace.after[row])
        if before < 0:
            due = float(trace.arrival[row]) - offset
        else:
            await ends[before].wait()
            due = time.perf_counter() - start + float(trace.delay[row])  # type: ignore[index]
        await asyncio.sleep(max(0.0, due - LEAD - (time.perf_counter() - start)))
        content = prompt(row)
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - start)))
        async with seats:
            answer = await server.ask(model, content, int(trace.output[row]), options)
        record.add(_row(row, due + offset, start - offset, answer, trace))
        ends[row].set()
        if progress is not None:
            progress(len(record.rows), len(trace))

    await asyncio.gather(*(one(row) for row in missing))


def measured(trace: Trace, record: Record, label: str, deployment: str, meta: Mapping[str, object]) -> Run:
    """The run that a record holds. Requests that are not in it never arrived; those that got an error are rejected."""
    n = len(trace)
    floats: dict[str, Floats] = {name: np.full(n, math.nan) for name in ("arrival", "first_token", "finish")}
    max_tbt, rejected = np.zeros(n), np.zeros(n, dtype=np.bool_)
    prompt, output, cached = trace.prompt.copy(), trace.output.copy(), np.zeros(n, dtype=np.int64)
    for i, row in record.rows.items():
        for name, column in floats.items():
            value = getattr(row, name)
            column[i] = math.nan if value is None else value
        max_tbt[i] = max(row.gaps, default=0.0)
        rejected[i] = bool(row.error)
        prompt[i], output[i], cached[i] = row.prompt or prompt[i], row.output or output[i], row.cached
    floats["finish"][rejected] = math.nan
    gaps = np.array([gap for row in record.rows.values() if not row.error for gap in row.gaps])
    zeros = np.zeros(n, dtype=np.int64)
    done = ~rejected & np.isfinite(floats["finish"])
    return Run(
        policy=label, trace=trace.name, deployment=deployment, arrival=floats["arrival"], first_scheduled=np.full(n, math.nan),
        first_token=floats["first_token"], finish=floats["finish"], max_tbt=max_tbt, prompt=prompt, output=output, preemptions=zeros,
        recomputed=zeros.copy(), cached=cached, replica=zeros.copy(), rejected=rejected,
        tbt_histogram=gap_histogram(gaps), totals={"decode_tokens": float((output[done] - 1).sum())}, timeline={},
        tenant=trace.tenant, program=trace.program, meta=dict(meta),
    )  # fmt: skip


def _row(number: int, due: float, start: float, answer: Answer, trace: Trace) -> Row:
    """Times on the trace's clock, to the microsecond."""
    times = answer.times
    whole = not answer.error
    return Row(
        request=number, arrival=round(due, 6), first_token=round(times[0] - start, 6) if times else None,
        finish=round(times[-1] - start, 6) if times and whole else None, prompt=answer.prompt, output=answer.output, cached=answer.cached,
        gaps=[round(after - before, 6) for before, after in pairwise(times)], status=answer.status, error=answer.error,
    )  # fmt: skip
