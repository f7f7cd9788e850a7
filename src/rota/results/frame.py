"""Runs as data frames (polars), and data frames as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rota.errors import InputError
from rota.files import atomic
from rota.results.latency import e2e, max_tbt, queueing, tpot, ttft
from rota.results.programs import missed
from rota.results.run import Run
from rota.results.slo import SLO
from rota.results.summary import Summary, summarise

if TYPE_CHECKING:
    import polars

FORMATS = (".parquet", ".csv", ".json", ".jsonl")


def requests_frame(run: Run) -> polars.DataFrame:
    """One row per request: its lengths, its times and the latencies that follow from them (seconds; null where undefined)."""
    import polars as pl

    columns = {
        "policy": pl.Series([run.policy]).extend_constant(run.policy, len(run.arrival) - 1),
        "request": range(len(run.arrival)),
        "arrival": run.arrival,
        "prompt": run.prompt,
        "output": run.output,
        "replica": run.replica,
        "rejected": run.rejected,
        "cached": run.cached,
        "preemptions": run.preemptions,
        "recomputed": run.recomputed,
        "first_scheduled": run.first_scheduled,
        "first_token": run.first_token,
        "finish": run.finish,
        "queueing": queueing(run),
        "ttft": ttft(run),
        "tpot": tpot(run),
        "max_tbt": max_tbt(run),
        "e2e": e2e(run),
    }
    if run.tenant is not None:
        columns["tenant"] = run.tenant
    if run.program is not None:
        columns |= {"program": run.program, "missed": missed(run)}
    return pl.DataFrame(columns).fill_nan(None)


def summary_frame(runs: Iterable[Run], slo: SLO | None = None, *, warmup: float = 0.0) -> polars.DataFrame:
    """One row per run: policy, trace, deployment, seed and all figures of `summarise` (null where undefined)."""
    return rows_frame(_labels(run) | summarise(run, slo, warmup=warmup) for run in runs)


def rows_frame(rows: Iterable[Mapping[str, object]]) -> polars.DataFrame:
    """A frame of dictionaries that may differ in keys."""
    import polars as pl

    return pl.DataFrame(list(rows), infer_schema_length=None).fill_nan(None)


def write_frame(frame: polars.DataFrame, path: str | Path) -> None:
    """Write a frame in the format that the file's ending names (.parquet, .csv, .json, .jsonl), whole or not at all.

    Raises
    ------
    InputError
        If the ending is another, or nothing can be written there.
    """
    suffix = check_format(path)
    with atomic(path) as temporary:
        if suffix == ".parquet":
            frame.write_parquet(temporary)
        elif suffix == ".csv":
            frame.write_csv(temporary)
        elif suffix == ".jsonl":
            frame.write_ndjson(temporary)
        else:
            frame.write_json(temporary)


def check_format(path: str | Path) -> str:
    """The ending of `path` in lower case, if it is one of `FORMATS`."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: unknown table format {suffix or '(no ending)'}; use one of {', '.join(FORMATS)}")
    return suffix


def _labels(run: Run) -> dict[str, object]:
    return {"policy": run.policy, "trace": run.trace, "deployment": run.deployment, "seed": run.meta.get("seed")}


__all__ = ["FORMATS", "Summary", "check_format", "requests_frame", "rows_frame", "summary_frame", "write_frame"]
