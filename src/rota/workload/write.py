"""Traces as files in the plain format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rota.errors import InputError
from rota.files import atomic
from rota.workload.trace import REQUEST_COLUMNS, Trace

if TYPE_CHECKING:
    import polars as pl

FORMATS = (".csv", ".jsonl", ".parquet")


def trace_frame(trace: Trace) -> pl.DataFrame:
    """A trace as a data frame of the plain format: one row per request, one column per column that the trace has."""
    import polars as pl

    columns: dict[str, object] = {name: getattr(trace, name) for name in REQUEST_COLUMNS if getattr(trace, name) is not None}
    if trace.tool is not None:
        columns["tool"] = [trace.tools[i] if i >= 0 else None for i in trace.tool]
    if trace.hash_ids is not None and trace.hash_start is not None:
        runs = np.split(trace.hash_ids, trace.hash_start[1:-1])
        columns["hash_ids"] = pl.Series(values=[row.tolist() for row in runs], dtype=pl.List(pl.Int64))
        columns["hash_block"] = np.full(len(trace), trace.hash_block)
    return pl.DataFrame(columns)


def trace_bytes(trace: Trace, kind: str) -> bytes:
    """The contents of a plain trace file.

    Parameters
    ----------
    trace : Trace
    kind : str
        ``".csv"``, ``".jsonl"`` or ``".parquet"``.

    Raises
    ------
    InputError
        If `kind` is none of them.
    """
    import polars as pl

    if kind not in FORMATS:
        raise InputError(f"traces are written as {', '.join(FORMATS)}, not {kind or 'without ending'}; rename the file")
    frame, buffer = trace_frame(trace), io.BytesIO()
    if kind == ".parquet":
        frame.write_parquet(buffer)
    elif kind == ".jsonl":
        frame.write_ndjson(buffer)
    else:
        if "hash_ids" in frame.columns:
            frame = frame.with_columns(pl.col("hash_ids").cast(pl.List(pl.String)).list.join(" "))
        frame.write_csv(buffer)
    return buffer.getvalue()


def write_trace(trace: Trace, path: str | Path) -> Path:
    """Write a trace in the plain format, whole or not at all.

    Parameters
    ----------
    trace : Trace
    path : str or Path
        Its ending, ``.csv``, ``.jsonl`` or ``.parquet``, says how.

    Raises
    ------
    InputError
        If the ending is unknown or the file cannot be written.
    """
    path = Path(path)
    data = trace_bytes(trace, path.suffix.lower())
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return path
