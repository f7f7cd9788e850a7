"""Readers of measured kernel profiles. Each file becomes samples: FLOPs, bytes and seconds of calls, by kind of kernel.

Known are the profiles of Vidur (linear and element-wise operators of a layer; all-reduce) and the operator tables of
AIConfigurator (GEMM, prefill and decode attention, mixture of experts, all-reduce), as CSV (also gzipped) or Parquet. Times in them
are milliseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rota.cost.roofline import TILE, padded_rows, touched_experts
from rota.errors import InputError

Floats = NDArray[np.float64]

#: Largest step that profiles are fitted on, tokens.
MOST_TOKENS = 16384
#: Longest cached context in a decode sample worth fitting, bytes read by one call.
MOST_BYTES = 40e9
# of the two 8-bit formats of experts the block-scaled one counts, as published checkpoints use it; of linear layers the other
BYTES = {"bfloat16": 2.0, "float16": 2.0, "half": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int4_wo": 0.53125, "w4a16_mxfp4": 0.53125}
FORMAT = {"bfloat16": "bf16", "float16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "int4_wo": "int4", "w4a16_mxfp4": "int4"}
SHAPE = ("num_tokens", "num_tensor_parallel_workers", "n_head", "n_kv_head", "n_embd", "n_expanded_embd", "use_gated_mlp")
LINEAR = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
POINTWISE = ("input_layernorm", "post_attention_layernorm", "attn_rope", "mlp_act", "add")


@dataclass(frozen=True, slots=True)
class Samples:
    """Measured calls of one kind of kernel.

    Parameters
    ----------
    kind : str
        As in `Constants.kernels`, or ``"all_reduce.<k>"``.
    flops, moved, seconds : float64 (n,)
    key : sequence of str
        What makes a row itself: rows of one key fall on the same side of the split into fit and check.
    layer : sequence of str or None
        Rows of one name are the operators of one layer, whose times add up.
    """

    kind: str
    flops: Floats
    moved: Floats
    seconds: Floats
    key: Sequence[str]
    layer: Sequence[str] | None = None
    name: str = ""

    def held_out(self, seed: int = 0, share: float = 0.3) -> NDArray[np.bool_]:
        """Rows kept from the fit: those whose key has a seeded CRC-32 in the lowest `share` of its range."""
        return np.array([zlib.crc32(f"{seed}/{name}".encode()) < share * 2**32 for name in self.key], dtype=bool)

    def of_file(self, number: int) -> Samples:
        """The same, with layers told apart from those of other files."""
        return self if self.layer is None else replace(self, layer=[f"{number}:{name}" for name in self.layer])


def read_profile(path: str | Path) -> list[Samples]:
    """Samples of a profile file; its format is told by its columns.

    Raises
    ------
    InputError
        If the file cannot be read, is of no known format, lacks a column, or holds a time that is not above zero.
    """
    import polars as pl

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file; give a profile in CSV (also .gz) or Parquet")
    try:
        frame = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(f"{path}: cannot be read as a profile ({reason}); give CSV (also .gz) or Parquet") from None
    for signature, needed, read in _FORMATS:
        if any(column in frame.columns for column in signature):
            table = _Table(frame, str(path))
            table.need(*needed)
            if frame.height == 0:
                raise InputError(f"{path}: the profile has no rows")
            return [s for s in read(table) if len(s.seconds)]
    wanted = " or ".join(signature[0] for signature, _, _ in _FORMATS)
    raise InputError(f"{path}: no known profile format; a column {wanted} tells which one it is")


@dataclass(frozen=True, slots=True)
class _Table:
    """A data frame whose columns are checked on the way out."""

    frame: Any
    where: str

    def need(self, *columns: str) -> None:
        for column in columns:
            if column not in self.frame.columns:
                raise InputError(f"{self.where}: column {column} is missing; a profile of this kind has {', '.join(columns)}")

    def numbers(self, column: str) -> Floats:
        import polars as pl

        self.need(column)
        values: Floats = self.frame[column].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float64)
        self._refuse(~np.isfinite(values), column, "is not a number")
        return values

    def positive(self, column: str) -> Floats:
        values = self.numbers(column)
        self._refuse(values <= 0, column, "is not above zero")
        return values

    def seconds(self, column: str) -> Floats:
        """Milliseconds of the file as seconds."""
        return self.positive(column) * 1e-3

    def texts(self, column: str) -> list[str]:
        self.need(column)
        return [str(value) for value in self.frame[column].to_list()]

    def _refuse(self, wrong: NDArray[np.bool_], column: str, what: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            value = self.frame[column][row]
            place = f"row {row + 1}" if self.where.endswith(".parquet") else f"line {row + 2}"
            raise InputError(f"{self.where}, {place}: {column} {what} ({value}); remove the row or measure it again")


def _vidur_layer(table: _Table) -> list[Samples]:
    n, k, heads, kv_heads, d, f, _ = (table.positive(c) if c != "use_gated_mlp" else np.zeros(1) for c in SHAPE)
    gated = np.array([2.0 if text.lower() in ("true", "1") else 1.0 for text in table.texts("use_gated_mlp")])
    head_dim = d / heads
    query, kv = heads / k * head_dim, np.maximum(kv_heads / k, 1) * head_dim
    linear = {"attn_pre_proj": (d, query + 2 * kv), "attn_post_proj": (query, d),
              "mlp_up_proj": (d, gated * f / k), "mlp_down_proj": (f / k, d)}  # fmt: skip
    widths = {"input_layernorm": 4 * d, "post_attention_layernorm": 4 * d, "attn_rope": 2 * (query + kv),
              "mlp_act": (gated + 1) * f / k, "add": 3 * d}  # fmt: skip
    layer = [f"{d[i]:g}/{heads[i]:g}/{kv_heads[i]:g}/{f[i]:g}/{k[i]:g}/{n[i]:g}" for i in range(len(n))]
    tokens = np.ceil(n / TILE) * TILE
    calls = [("linear.bf16", op, 2 * tokens * i * o, 2 * i * o + 2 * (i + o) * n) for op, (i, o) in linear.items()]
    calls += [("pointwise", op, np.zeros_like(n), 2 * width * n) for op, width in widths.items()]
    use = n <= MOST_TOKENS
    layers = np.array(layer)[use].tolist()
    return [
        Samples(kind, flops[use], moved[use], table.seconds(f"time_stats.{op}.median")[use], layers, layers, op)
        for kind, op, flops, moved in calls
    ]


def _vidur_all_reduce(table: _Table) -> list[Samples]:
    workers, size = table.positive("num_workers"), table.positive("size")
    seconds = table.seconds("time_stats.all_reduce.median")
    inside = table.numbers("devices_per_node") == workers
    return _by_workers(size, seconds, workers, inside)


def _all_reduce(table: _Table) -> list[Samples]:
    """Message sizes are elements of two bytes. Of engines' own kernels, those inside CUDA graphs count."""
    workers, elements, seconds = table.positive("num_gpus"), table.positive("message_size"), table.seconds("latency")
    use = np.array([name == "all_reduce" for name in table.texts("op_name")])
    if "backend" in table.frame.columns:
        use &= np.array(["eager" not in name for name in table.texts("backend")])
    if "nccl_dtype" in table.frame.columns:
        use &= np.array([name == "half" for name in table.texts("nccl_dtype")])
    return _by_workers(2 * elements, seconds, workers, use)


def _by_workers(size: Floats, seconds: Floats, workers: Floats, use: NDArray[np.bool_]) -> list[Samples]:
    found = []
    for k in np.unique(workers[use]):
        rows = use & (workers == k)
        key = [f"{k:g}/{value:g}" for value in size[rows]]
        found.append(Samples(f"all_reduce.{int(k)}", np.zeros(rows.sum()), size[rows], seconds[rows], key))
    return found


def _gemm(table: _Table) -> list[Samples]:
    m, n, k, seconds = (*(table.positive(c) for c in ("m", "n", "k")), table.seconds("latency"))
    layers = (m <= MOST_TOKENS / 2) & (np.minimum(n, k) >= 512) & (np.maximum(n, k) <= 20000)
    found = []
    for name, rows in _each(table.texts("gemm_dtype"), layers):
        if name == "fp8_block":
            continue
        width, (a, b, c) = BYTES[name], (m[rows], n[rows], k[rows])
        key = [f"{x:g}/{y:g}/{z:g}" for x, y, z in zip(a, b, c, strict=True)]
        moved = width * b * c + (width * c + 2 * b) * a
        flops = 2 * np.ceil(a / TILE) * TILE * b * c
        found.append(Samples(f"linear.{FORMAT[name]}", flops, moved, seconds[rows], key, None, name))
    return found


def _attention(table: _Table) -> list[Samples]:
    """Ordinary attention over a bf16 cache without a window, heads as one rank of a current model has them."""
    batch, fresh, heads, kv_heads, dim = (
        table.positive(c) for c in ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim")
    )
    past, seconds = table.numbers("step"), table.seconds("latency")
    prefill = np.array([name == "context_attention" for name in table.texts("op_name")])
    use = np.array([name in ("bfloat16", "float16") for name in table.texts("kv_cache_dtype")])
    use &= (dim == 128) & (heads >= 8) & (heads <= 64) & (kv_heads <= heads) & (heads <= 16 * kv_heads)
    if "window_size" in table.frame.columns:
        use &= table.numbers("window_size") == 0
    context = np.where(prefill, fresh + past, past + 1)
    moved = 4 * kv_heads * dim * batch * context
    key = np.array([f"{heads[i]:g}/{kv_heads[i]:g}/{batch[i]:g}/{fresh[i]:g}/{past[i]:g}" for i in range(len(batch))])
    found = []
    rows = use & prefill & (batch * fresh <= MOST_TOKENS) & (fresh >= 16)
    if rows.any():
        area = batch * (fresh * past + fresh * (fresh + 1) / 2)
        total = moved + 4 * heads * dim * batch * fresh
        found.append(Samples("prefill", (4 * dim * heads * area)[rows], total[rows], seconds[rows], key[rows].tolist()))
    rows = use & ~prefill & (batch <= 512) & (context >= 128) & (moved <= MOST_BYTES)
    if rows.any():
        found.append(Samples("decode", np.zeros(rows.sum()), moved[rows], seconds[rows], key[rows].tolist()))
    return found


def _experts(table: _Table) -> list[Samples]:
    """One rank's experts under tensor parallelism; balanced loads where measured, else the mildest skew."""
    tokens, d, f, top, experts, ranks, groups = (
        table.positive(c)
        for c in ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    )
    seconds, load = table.seconds("latency"), np.array(table.texts("distribution"))
    balanced = bool((load == "balanced").any())
    use = (load == ("balanced" if balanced else min(load.tolist()))) & (groups == 1)
    width = f / ranks
    use &= (width >= 128) & (tokens <= MOST_TOKENS)
    found = []
    for name, rows in _each(table.texts("moe_dtype"), use):
        if name == "fp8":
            continue
        n, h, w, q, e = (column[rows] for column in (tokens, d, width, top, experts))
        touched = np.minimum(e, n * q) if balanced else touched_experts(n, e, q)
        flops = 6 * h * w * (touched * np.ceil(n * q / touched / 16) * 16 if balanced else padded_rows(n * q, touched))
        moved = BYTES[name] * 3 * h * w * touched + 2 * n * q * (2 * h + 3 * w)
        key = [f"{a:g}/{b:g}/{c:g}/{r:g}/{t:g}" for a, b, c, r, t in zip(n, h, w, q, e, strict=True)]
        found.append(_fastest(Samples(f"experts.{FORMAT[name]}", flops, moved, seconds[rows], key, None, name)))
    return found


def _fastest(samples: Samples) -> Samples:
    """Of several kernels measured on the same call the fastest: the one that an engine should choose."""
    best: dict[str, int] = {}
    for row, key in enumerate(samples.key):
        if key not in best or samples.seconds[row] < samples.seconds[best[key]]:
            best[key] = row
    keep = list(best.values())
    return replace(samples, flops=samples.flops[keep], moved=samples.moved[keep], seconds=samples.seconds[keep], key=list(best))


def _each(names: list[str], use: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Rows in use of each known number format."""
    column = np.array(names)
    return [(str(name), use & (column == name)) for name in np.unique(column[use]) if name in BYTES]


_Reader = Callable[[_Table], list[Samples]]
#: Columns any of which tells a format, the columns that it must have, and its reader.
_FORMATS: tuple[tuple[tuple[str, ...], tuple[str, ...], _Reader], ...] = (
    (("time_stats.all_reduce.median", "collective"),
     ("num_workers", "size", "devices_per_node", "time_stats.all_reduce.median"), _vidur_all_reduce),
    (("time_stats.attn_pre_proj.median", "num_tensor_parallel_workers", "time_stats.mlp_up_proj.median"),
     (*SHAPE, *(f"time_stats.{op}.median" for op in (*LINEAR, *POINTWISE))), _vidur_layer),
    (("gemm_dtype",), ("gemm_dtype", "m", "n", "k", "latency"), _gemm),
    (("moe_dtype",), ("moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size",
                      "distribution", "latency"), _experts),
    (("attn_dtype",), ("op_name", "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype", "step",
                       "latency"), _attention),
    (("allreduce_dtype", "nccl_dtype"), ("op_name", "num_gpus", "message_size", "latency"), _all_reduce),
)  # fmt: skip
