"""Runs the requests of a trace through an engine in this process, and makes a `Run` of what came out, as the simulator does."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rota.errors import InputError
from rota.mechanisms.engine.engine import Engine, Output
from rota.mechanisms.engine.log import Entry, Stepped
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.sequences import Seq
from rota.results.latency import gap_histogram
from rota.results.run import Run
from rota.workload.trace import Trace

Progress = Callable[[int, int], None]
#: The trace begins so long after its requests have been handed over, seconds; the engine skips that.
LEAD = 1.0
#: How answers end that are whole.
ENDS = ("stop", "length")


class Drive:
    """A trace on its way through an engine, whose clock must be able to skip time in which nothing happens (`BusyClock`).

    Parameters
    ----------
    engine : Engine
        With a log, if totals are wanted.
    trace : Trace
        A request that depends on another follows its end after the trace's delay.
    prompt : callable
        From a row to its tokens.
    """

    def __init__(self, engine: Engine, trace: Trace, prompt: Callable[[int], Sequence[int]]) -> None:
        self._engine, self._trace = engine, trace
        self._prompts = [prompt(row) for row in range(len(trace))]
        self._rows: dict[int, int] = {}
        self._seqs: dict[int, Seq] = {}
        self._times: list[list[float]] = [[] for _ in range(len(trace))]
        self._finish: list[str | None] = [None] * len(trace)
        self._next: dict[int, list[int]] = defaultdict(list)
        after = np.full(len(trace), -1) if trace.after is None else trace.after
        for row, before in enumerate(after.tolist()):
            if before >= 0:
                self._next[before].append(row)
        self._first = [row for row, before in enumerate(after.tolist()) if before < 0]

    def run(self, progress: Progress | None = None) -> None:
        """Take all requests to their ends. Ctrl-C leaves what there is by then to `measured`."""
        shown = time.monotonic()
        ended = 0
        for ended in self.steps():
            if progress and time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                progress(ended, len(self._trace))
        if progress:
            progress(ended, len(self._trace))

    def steps(self) -> Iterator[int]:
        """The same step by step, for those who do something else in between: how many requests have ended."""
        engine, trace = self._engine, self._trace
        self._start = engine.clock.now() + LEAD - min((float(trace.arrival[row]) for row in self._first), default=0.0)
        for row in self._first:
            self._add(row, self._start + float(trace.arrival[row]))
        ended = 0
        while engine.has_work:
            for output in engine.step():
                ended += self._take(output)
            yield ended

    def _add(self, row: int, arrival: float) -> None:
        trace = self._trace
        params = SamplingParams(max_tokens=int(trace.output[row]), temperature=0.0, ignore_eos=True)
        sid = self._engine.add_request(
            self._prompts[row], params, arrival=arrival, priority=0 if trace.priority is None else int(trace.priority[row]),
            tenant=0 if trace.tenant is None else int(trace.tenant[row]), program=-1 if trace.program is None else int(trace.program[row]),
        )  # fmt: skip
        seq = self._engine.sequence(sid)
        assert seq is not None
        self._rows[sid], self._seqs[row] = row, seq

    def _take(self, output: Output) -> int:
        """Note an output; how many requests it ends."""
        row = self._rows[output.sid]
        if output.token >= 0:
            self._times[row].append(output.time)
        if output.finish is None:
            return 0
        self._finish[row] = output.finish
        trace = self._trace
        if trace.tool is not None and trace.tool[row] >= 0:
            self._engine.set_tool(output.sid, int(trace.tool[row]))
        for follower in self._next[row]:
            self._add(follower, output.time + (0.0 if trace.delay is None else float(trace.delay[follower])))
        return 1

    def measured(self, label: str, deployment: str, meta: dict[str, object], log: Sequence[Entry] = ()) -> Run:
        """What was measured so far, on the trace's clock. Requests that never arrived have no arrival."""
        trace, n = self._trace, len(self._trace)
        arrival, scheduled, first, finish = (np.full(n, math.nan) for _ in range(4))
        preemptions, recomputed, cached = (np.zeros(n, np.int64) for _ in range(3))
        max_tbt, rejected = np.zeros(n), np.zeros(n, np.bool_)
        gaps = [np.diff(times) for times in self._times]
        for row, seq in self._seqs.items():
            times, end = self._times[row], self._finish[row]
            arrival[row], scheduled[row] = seq.arrival - self._start, seq.first_scheduled - self._start
            if times:
                first[row] = times[0] - self._start
            if end in ENDS:
                finish[row] = times[-1] - self._start
            preemptions[row], recomputed[row], cached[row] = seq.preemptions, seq.recomputed, seq.cached
            max_tbt[row] = gaps[row].max(initial=0.0)
            rejected[row] = end is not None and end not in ENDS
        return Run(
            policy=label, trace=trace.name, deployment=deployment, arrival=arrival, first_scheduled=scheduled, first_token=first,
            finish=finish, max_tbt=max_tbt, prompt=trace.prompt, output=trace.output, preemptions=preemptions, recomputed=recomputed,
            cached=cached, replica=np.zeros(n, np.int64), rejected=rejected, tbt_histogram=gap_histogram(np.concatenate(gaps)),
            totals=totals_of(log), timeline={}, tenant=trace.tenant, program=trace.program, meta=meta,
        )  # fmt: skip


def totals_of(log: Sequence[Entry]) -> dict[str, float]:
    """What all steps of a log did together (`Run.totals`); chunks count in proportion to the layers that they pass."""
    steps = [entry for entry in log if isinstance(entry, Stepped)]
    depth = max((step.layers[1] for step in steps), default=1)
    chunks = [(past, new, (step.layers[1] - step.layers[0]) / depth) for step in steps for past, new in step.chunks]
    return {
        "busy": sum(step.time - step.start for step in steps),
        "steps": float(len(steps)),
        "decode_tokens": float(sum(step.decodes for step in steps)),
        "decode_context": float(sum(step.context for step in steps)),
        "prefill_tokens": sum(new * part for _, new, part in chunks),
        "prefill_area": sum((new * past + new * (new + 1) / 2) * part for past, new, part in chunks),
        "prefill_context": sum((past + new) * part for past, new, part in chunks),
        "shared_context": 0.0,
    }  # fmt: skip


def check_lengths(engine: Engine, trace: Trace) -> None:
    """Refuse a trace that this engine cannot hold.

    Raises
    ------
    InputError
        With the row, and what to do.
    """
    total = trace.prompt + trace.output
    most = min(engine.max_len, engine.core.limits.blocks * engine.core.limits.block_size)
    row = int(np.argmax(total))
    if total[row] > most:
        raise InputError(
            f"{trace.name}: {int((total > most).sum()):,} of {len(trace):,} requests are longer than the {most:,} tokens that this engine "
            f"holds (row {row}: {trace.prompt[row]:,} + {trace.output[row]:,}); add --drop-long to leave them out"
        )
