"""Reads trace files: CSV, JSON lines or Parquet, possibly gzipped, in any of `rota.workload.formats`.

Every wrong value is named by file, line and column. Arrival times become seconds; dates and Unix times count from the first one.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError
from rota.workload.formats import Format, detect, is_agent_trace, normalised
from rota.workload.jsonl import json_rows
from rota.workload.trace import Floats, Ints, Trace

if TYPE_CHECKING:
    import polars as pl

#: Numeric arrival times above this are seconds since 1970.
EPOCH = 1e8
#: Longest prompt or output that is taken for real, tokens.
MAX_TOKENS = 10**9
#: What some programs put before UTF-8 text.
BOM = b"\xef\xbb\xbf"
#: Columns of names.
_NAMED = ("program", "tool")
_INTEGERS = {"prompt": 1, "output": 1, "max_new": 1, "estimate": 1, "priority": -MAX_TOKENS, "tenant": 0, "after": -1, "hash_block": 1}


def read_trace(
    path: str | Path, *, rate: float | None = None, seed: int = 0, sort: bool = False, drop_invalid: bool = False
) -> Trace:
    """Read a trace file.

    Parameters
    ----------
    path : str or Path
        A ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet`` file, or one of the first four gzipped (``.gz``).
    rate : float, optional
        For a file without arrival times: those of a Poisson process with this rate, per second. Else the file's times are kept.
    seed : int
        Of that Poisson process.
    sort : bool
        Sort requests by arrival instead of refusing unsorted ones.
    drop_invalid : bool
        Leave out rows with wrong values instead of refusing them.

    Raises
    ------
    InputError
        If the file cannot be read or holds values that make no sense.

    Notes
    -----
    Agent traces, which have an own layout, are read by `rota.workload.agent_traces`.
    """
    path = Path(path)
    data = file_bytes(path)
    if _tells_of_agents(data):
        from rota.workload.agent_traces import read_agents

        return read_agents(path, _checked(path, data), rate=rate, seed=seed, sort=sort, drop_invalid=drop_invalid)
    return _Table.open(path, data).trace(rate, seed, sort, drop_invalid)


@dataclass(slots=True)
class _Table:
    """The rows of a file, and where each one stands in it."""

    where: str
    name: str
    frame: pl.DataFrame
    lines: Ints | None
    format: Format

    @classmethod
    def open(cls, path: Path, data: bytes) -> _Table:
        kinds = [suffix.lower() for suffix in path.suffixes]
        kind = next((s for s in reversed(kinds) if s != ".gz"), "")
        name = path.name.removesuffix(".gz").removesuffix(kind)
        lines: Ints | None = None
        if kind == ".parquet" or data[:4] == b"PAR1":
            frame = _parquet(path, data)
        else:
            text = _checked(path, data)
            frame, lines = _json_lines(path, text) if text.lstrip()[:1] == b"{" else _delimited(path, text)
        frame.columns = _names(frame.columns, path)
        found = detect(frame.columns, str(path))
        if frame.height == 0:
            raise InputError(f"{path}: has a header but no requests; give at least one row")
        return cls(str(path), name or path.name, frame, lines, found)

    def place(self, row: int) -> str:
        return f"{self.where}: row {row + 1}" if self.lines is None else f"{self.where}:{self.lines[row]}"

    def trace(self, rate: float | None, seed: int, sort: bool, drop_invalid: bool) -> Trace:
        names: dict[str, Any] = {"arrival": self._column(self.format.arrival), "prompt": self._column(self.format.prompt)}
        names["output"] = self._column(self.format.output)
        names |= {target: c for c, target in self.format.optional.items() if c in self.frame.columns}
        if names["arrival"] is None and rate is None:
            raise InputError(f"{self.where}: has no arrival times; give a rate (such as --rate 2) to draw Poisson arrivals")
        if "after" in names and (sort or drop_invalid):
            raise InputError(
                f"{self.where}: rows of a trace with a column after name each other, so none can be moved or left out"
            )
        bad = np.zeros(self.frame.height, bool)
        columns: dict[str, Any] = {}
        named: dict[str, tuple[str, ...]] = {}
        after = self._numbers("after", names.get("after"), bad, drop_invalid) if "after" in names else None
        dependent = after >= 0 if after is not None else None
        for target, column in names.items():
            if target in ("hash_ids", "after", *_NAMED) or column is None:
                continue
            columns[target] = self._numbers(target, column, bad, drop_invalid, dependent)
        if "max_new" in columns:
            short = columns["max_new"] < columns["output"]
            self._refuse(short, "max_new", self.frame[names["max_new"]], "is smaller than the output length", bad, drop_invalid)
        if after is not None:
            later = after >= np.arange(len(after))
            self._refuse(later, "after", self.frame[names["after"]], "must be the number (from 0) of an earlier row", bad, False)
            if "delay" not in columns:
                raise InputError(f"{self.where}: column after needs a column delay (seconds after that request's end)")
            columns["after"] = after.astype(np.int64)
        if names["arrival"] is None:
            assert rate is not None
            if not 0 < rate < np.inf:
                raise InputError(f"rate must be a positive number of requests per second, not {rate:g}")
            columns["arrival"] = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, self.frame.height))
        for target in _NAMED:
            if target in names:
                columns[target], named[target] = _indices(self.frame[names[target]], numbers=target == "program")
        ids = names.get("hash_ids")
        hashes = self._hashes(ids, columns, bad, drop_invalid) if ids else None
        return self._build(columns, hashes, bad, sort, named.get("tool", ()))

    def _build(
        self, columns: dict[str, Any], hashes: tuple[Ints, Ints] | None, bad: NDArray[np.bool_], sort: bool, tools: tuple[str, ...]
    ) -> Trace:
        keep = np.flatnonzero(~bad)
        if not len(keep):
            raise InputError(f"{self.where}: every row is invalid; nothing is left of the trace")
        arrival = columns["arrival"]
        free = keep if "after" not in columns else keep[columns["after"][keep] < 0]
        falls = np.flatnonzero(np.diff(arrival[free]) < 0)
        if len(falls) and not sort:
            row, before = int(free[falls[0] + 1]), int(free[falls[0]])
            raise InputError(
                f"{self.place(row)}: arrives {arrival[before] - arrival[row]:g} s before the request above it; "
                "sort the file by arrival, or have it sorted with --sort"
            )
        if len(falls):
            keep = keep[np.argsort(arrival[keep], kind="stable")]
        if len(free):
            base = arrival[free].min()
            arrival = np.where(arrival >= base, arrival - base, arrival) if base > EPOCH else arrival
        given: dict[str, Any] = {name: values[keep] for name, values in columns.items() if name != "hash_block"}
        given["arrival"] = arrival[keep]
        if hashes is not None:
            ids, start = hashes
            length = np.diff(start)[keep]
            at = np.arange(length.sum()) + np.repeat(start[:-1][keep] - np.cumsum(length) + length, length)
            given |= {"hash_ids": ids[at], "hash_start": np.concatenate([[0], np.cumsum(length)])}
            given["hash_block"] = self._hash_block(columns)
        notes = {"format": self.format.name}
        if bad.any():
            notes["dropped"] = f"{int(bad.sum())} of {len(bad)} rows with invalid values"
        if len(falls):
            notes["sorted"] = "by arrival"
        return Trace(**given, tools=tools, name=self.name, source=f"{self.format.name} trace {self.where}", notes=notes)

    def _column(self, accepted: tuple[str, ...]) -> str | None:
        return next((name for name in accepted if name in self.frame.columns), None)

    def _hash_block(self, columns: dict[str, Any]) -> int:
        if self.format.hash_block:
            return self.format.hash_block
        if "hash_block" not in columns:
            raise InputError(f"{self.where}: column hash_ids needs a column hash_block (tokens per id, the same in all rows)")
        differs = columns["hash_block"] != columns["hash_block"][0]
        if differs.any():
            raise InputError(f"{self.place(int(np.argmax(differs)))}: hash_block must be the same in all rows")
        return int(columns["hash_block"][0])

    def _numbers(
        self, target: str, column: str | None, bad: NDArray[np.bool_], drop: bool, dependent: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        """A column as numbers; wrong rows are marked in `bad` if they may be dropped, else refused."""
        import polars as pl

        assert column is not None
        series = self.frame[column]
        if series.dtype == pl.String:
            series = series.str.strip_chars()
        timed = target == "arrival"
        if timed and (series.dtype.is_temporal() or _has_dates(series)):
            values = _seconds(series)
        else:
            values = _floats(series) * (self.format.unit if timed else 1.0)
        empty = series.is_null().to_numpy() if series.dtype != pl.String else (series.is_null() | (series == "")).to_numpy()
        # what may be left out: the link of a request that follows none, and the times that only the other kind of request has
        if target == "after":
            values = np.where(empty, -1.0, values)
        elif dependent is not None and timed:
            values = np.where(dependent & empty, 0.0, values)
        elif target == "delay":
            values = np.where(empty if dependent is None else empty & ~dependent, 0.0, values)
        self._refuse(~np.isfinite(values), column, series, "is empty or not a finite number", bad, drop)
        values = np.where(np.isfinite(values), values, 1.0)
        if timed or target == "delay":
            self._refuse(values < 0, column, series, "is negative; times are seconds from 0 on", bad, drop)
            return values
        low = _INTEGERS[target]
        self._refuse(values != np.rint(values), column, series, "is not a whole number", bad, drop)
        hint = " (a failed request? --drop-invalid leaves such rows out)" if target in ("prompt", "output") else ""
        self._refuse(values < low, column, series, f"is below {low}{hint}", bad, drop)
        self._refuse(values > MAX_TOKENS, column, series, f"is above {MAX_TOKENS:,}", bad, drop)
        return np.clip(values, low, MAX_TOKENS).astype(np.int64)

    def _refuse(
        self, wrong: NDArray[np.bool_], column: str, series: pl.Series, what: str, bad: NDArray[np.bool_], drop: bool
    ) -> None:
        if drop:
            bad |= wrong
        elif wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{self.place(row)}: {column} {what} (found {_shown(series[row])})")

    def _hashes(self, column: str, columns: dict[str, Any], bad: NDArray[np.bool_], drop: bool) -> tuple[Ints, Ints]:
        """Hash ids of all rows end to end, and where each row's begin."""
        import polars as pl

        series = self.frame[column]
        if series.dtype == pl.String:
            series = series.str.extract_all(r"[^\s,;\[\]]+")
        if not isinstance(series.dtype, pl.List):
            raise InputError(f"{self.place(0)}: {column} must be a list of whole numbers (in CSV: separated by spaces)")
        lengths = np.nan_to_num(series.list.len().cast(pl.Float64).to_numpy()).astype(np.int64)
        flat = series.filter(lengths > 0).explode() if lengths.any() else pl.Series(column, [], dtype=pl.Int64)
        values = _floats(flat)
        wrong = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > 2**53)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        wrong_rows = np.bincount(owner[wrong], minlength=len(lengths)) > 0
        self._refuse(wrong_rows, column, self.frame[column], "holds something else than whole numbers", bad, drop)
        block = self._hash_block(columns)
        short = (lengths > 0) & (lengths * block < columns["prompt"])
        self._refuse(short, column, self.frame[column], f"covers less than the prompt at {block} tokens per id", bad, drop)
        return np.where(wrong, 0, values).astype(np.int64), np.concatenate([[0], np.cumsum(lengths)])


def file_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a trace file in it")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path, or use a built-in workload (rota workload list)") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: the gzip data is damaged or cut off; fetch the file again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None
    if not data.removeprefix(BOM).strip():
        raise InputError(f"{path}: the file is empty; give a header line and at least one request")
    return data


def _tells_of_agents(data: bytes) -> bool:
    """Whether the first line is one of an agent trace."""
    text = data.removeprefix(BOM).lstrip()
    if text[:1] != b"{":
        return False
    try:
        first = json.loads(text.split(b"\n", 1)[0])
    except ValueError:
        return False
    return isinstance(first, dict) and is_agent_trace(map(normalised, first))


def _checked(path: Path, data: bytes) -> bytes:
    data = data.removeprefix(BOM)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    return data


def _parquet(path: Path, data: bytes) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError):
        raise InputError(f"{path}: is not a readable Parquet file; write it again") from None


def _delimited(path: Path, text: bytes) -> tuple[pl.DataFrame, Ints | None]:
    import polars as pl

    rows = text.split(b"\n")
    (lines,) = np.nonzero([bool(row.strip()) for row in rows])
    if len(lines) < len(rows):
        text = b"\n".join(rows[i] for i in lines) + b"\n"
    header = rows[lines[0]]
    mark = max(b",;\t", key=header.count)
    try:
        frame = pl.read_csv(io.BytesIO(text), separator=chr(mark), infer_schema=False)
    except pl.exceptions.PolarsError:
        for line in lines:
            if rows[line].count(mark) > header.count(mark):
                raise InputError(f"{path}:{line + 1}: has more values than the header has names; remove the surplus") from None
        raise InputError(f"{path}: cannot be read as a table; check its quotes and separators") from None
    # a quoted line break makes lines and rows differ; then rows are counted
    return frame, lines[1:] + 1 if len(lines) == frame.height + 1 else None


def _json_lines(path: Path, text: bytes) -> tuple[pl.DataFrame, Ints]:
    import polars as pl

    lines = np.flatnonzero([bool(line.strip()) for line in text.split(b"\n")]) + 1
    try:
        frame = pl.read_ndjson(io.BytesIO(text), infer_schema_length=None)
        if frame.height == len(lines):
            return frame, lines
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        pass
    rows: list[dict[str, Any]] = []
    for _, row in json_rows(path, text):
        rows.append({key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()})
    # types differ from line to line: compare them as text, as in a CSV
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = {name: [None if (v := row.get(name)) is None else str(v) for row in rows] for name in names}
    return pl.DataFrame(texts, schema=dict.fromkeys(names, pl.String)), lines


def _names(columns: list[str], path: Path) -> list[str]:
    """Column names as formats spell them; nameless columns keep what they are called."""
    # polars tells a repeated name from the first one by this ending
    names = [normalised(re.sub(r"_duplicated_\d+$", "", column)) for column in columns]
    for name in names:
        if name and names.count(name) > 1:
            raise InputError(f"{path}: column {name} is there twice; rename or remove one")
    return [name or column for name, column in zip(names, columns, strict=True)]


def _floats(series: pl.Series) -> Floats:
    import polars as pl

    if series.dtype.is_nested() or series.dtype == pl.Boolean or series.dtype.is_temporal():
        return np.full(len(series), np.nan)
    return series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().copy()


def _indices(series: pl.Series, numbers: bool) -> tuple[Ints, tuple[str, ...]]:
    """Names as indices into a list of them, -1 where there is none; with `numbers`, names that are all whole numbers stay those."""
    import polars as pl

    texts = series.cast(pl.String, strict=False) if not series.dtype.is_nested() else pl.Series([str(v) for v in series])
    texts = texts.str.strip_chars().fill_null("")
    none = texts.is_in(["", "-1"]).to_numpy()
    if numbers and all(name.isdecimal() and len(name) < 18 for name in texts.unique() if name not in ("", "-1")):
        return texts.set(texts == "", "-1").cast(pl.Int64).to_numpy().copy(), ()
    names, index = np.unique(texts.to_numpy()[~none].astype(str), return_inverse=True)
    found = np.full(len(texts), -1, np.int64)
    found[~none] = index
    return found, tuple(names.tolist())


def _has_dates(series: pl.Series) -> bool:
    import polars as pl

    return series.dtype == pl.String and bool(series.str.contains(r"^\d{4}-\d{2}-\d{2}").any())


def _seconds(series: pl.Series) -> Floats:
    """Seconds since the earliest of some dates with times; NaN where there is no such thing."""
    import polars as pl

    if series.dtype == pl.String:
        text = series.str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
        zoned = text.str.contains(r"[+-]\d\d:?\d\d$").fill_null(False)
        plain = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
        if zoned.any():
            with_zone = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="ns", strict=False, time_zone="UTC")
            plain = pl.select(pl.when(zoned).then(with_zone.dt.replace_time_zone(None)).otherwise(plain)).to_series()
        series = plain
    elif series.dtype == pl.Duration:
        return series.cast(pl.Duration("ns")).cast(pl.Int64).cast(pl.Float64).fill_null(float("nan")).to_numpy() / 1e9
    else:
        series = series.cast(pl.Datetime("ns"), strict=False)
    ticks = series.cast(pl.Int64)
    # whole nanoseconds first: a double holds seconds since 1970 to 200 ns only
    return (ticks - (ticks.min() or 0)).cast(pl.Float64).fill_null(float("nan")).to_numpy() / 1e9


def _shown(value: object) -> str:
    text = repr(value) if not hasattr(value, "to_list") else repr(value.to_list())
    return text if len(text) <= 40 else f"{text[:37]}..."
