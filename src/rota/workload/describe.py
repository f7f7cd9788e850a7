"""What a trace is like, in a few figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rota.workload.prefix import ideal_hit_ratio
from rota.workload.trace import Trace
from rota.workload.transform import independent, mean_rate


def describe(trace: Trace) -> dict[str, object]:
    """The figures of a trace, in seconds and tokens.

    Returns
    -------
    dict
        ``name``, ``source``, ``requests``, ``programs`` (those that the trace names, else requests that follow no other),
        ``duration`` (first to last independent arrival), ``rate`` (independent arrivals per second), ``gap_cv`` (coefficient of
        variation of the gaps between them), ``{prompt,output}_{mean,p50,p90,p99,max}``, ``longest`` (prompt plus output),
        ``ideal_hit_ratio`` (share of prompt tokens that an unlimited prefix cache could reuse; NaN where the trace does not
        tell), `tool_times`, and the trace's notes.
    """
    free = independent(trace)
    gaps = np.diff(free)
    found: dict[str, object] = {
        "name": trace.name,
        "source": trace.source,
        "requests": len(trace),
        "programs": len(free) if trace.program is None else len(np.unique(trace.program[trace.program >= 0])),
        "duration": float(free[-1] - free[0]),
        "rate": mean_rate(trace),
        "gap_cv": float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else float("nan"),
    }
    for column in ("prompt", "output"):
        values: NDArray[np.int64] = getattr(trace, column)
        found[f"{column}_mean"] = float(values.mean())
        for level in (50, 90, 99):
            found[f"{column}_p{level}"] = float(np.percentile(values, level))
        found[f"{column}_max"] = int(values.max())
    found["longest"] = int((trace.prompt + trace.output).max())
    found["ideal_hit_ratio"] = float("nan") if trace.hash_ids is None else ideal_hit_ratio(trace)
    return found | tool_times(trace) | dict(trace.notes)


def tool_times(trace: Trace) -> dict[str, object]:
    """``calls_NAME`` and ``seconds_NAME`` (median until the next turn arrives) for each tool that is called."""
    found: dict[str, object] = {}
    if trace.tool is None or trace.after is None or trace.delay is None:
        return found
    later = np.flatnonzero(trace.after >= 0)
    called, seconds = trace.tool[trace.after[later]], trace.delay[later]
    for index, name in enumerate(trace.tools):
        if (called == index).any():
            found[f"calls_{name}"] = int((called == index).sum())
            found[f"seconds_{name}"] = float(np.median(seconds[called == index]))
    return found
