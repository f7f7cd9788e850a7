"""Traces as files in the plain format, and files that are either whole or not there."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rota.errors import InputError
from rota.workload.trace import REQUEST_COLUMNS, Trace

if TYPE_CHECKING:
    import polars as pl

FORMATS = (".csv", ".jsonl", ".parquet")


def trace_frame(trace: Trace) -> pl.DataFrame:
    """A trace as a data frame of the plain format: one row per request, one column per column that the trace has."""
    import polars as pl

    columns: dict[str, object] = {name: getattr(trace, name) for name in REQUEST_COLUMNS if getattr(trace, name) is not None}
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
    return write_whole(path, trace_bytes(trace, path.suffix.lower()))


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file so that it is either complete or not there."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name in it")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot write here ({error.strerror}); choose a folder you may write to") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0o022)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"{path}: could not be written ({error.strerror}); free space or write elsewhere") from None
    finally:
        Path(name).unlink(missing_ok=True)
    return path
