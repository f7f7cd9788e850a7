"""Computing the steps of an engine with a decoder: rows in, tokens out; hidden states of chunks between two layer ranges are kept here."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rota.errors import DoesNotFit, InputError
from rota.mechanisms.engine.attention import StepAttention
from rota.mechanisms.engine.blocks import Copy
from rota.mechanisms.engine.config import read_decoder
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.kv import PagedKV
from rota.mechanisms.engine.loading import chosen_dtypes
from rota.mechanisms.engine.model import Decoder
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.runner import Choice
from rota.mechanisms.engine.sampling import choose
from rota.mechanisms.engine.sequences import Seq
from rota.mechanisms.engine.weights import DTYPES, FORMATS, Checkpoint, runs_triton

if TYPE_CHECKING:
    from rota.mechanisms.engine.gpu_step import DecodeGraphs, GpuAttention

GIB = 1 << 30
#: Of glibc's ``mallopt``.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class ModelRunner:
    """A decoder as an engine's `Runner`.

    Parameters
    ----------
    decoder : Decoder
    reference : bool
        Attention by plain formulas, for tests.
    kv_dtype : torch.dtype, optional
        In which keys and values are kept; by default the decoder's.
    """

    def __init__(self, decoder: Decoder, *, reference: bool = False, kv_dtype: torch.dtype | None = None) -> None:
        self.decoder = decoder
        self.kv_dtype = kv_dtype or decoder.dtype
        shape = decoder.config.shape
        self.n_layers, self.vocab, self.max_len = shape.layers, shape.vocab, shape.max_len
        self.end_tokens = decoder.config.end_tokens
        self._reference = reference
        self._open: dict[int, Tensor] = {}
        self._kv: PagedKV | None = None
        self._on_gpu = not reference and runs_triton(decoder.device, decoder.dtype)
        self._graphs: DecodeGraphs | None = None

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes in all layers."""
        shape = self.decoder.config.shape
        return int(2 * shape.layers * shape.kv_heads * shape.head_dim * self.kv_dtype.itemsize)

    def allocate(self, blocks: int, block_size: int) -> None:
        """Make room for the KV of so many blocks, unless there is just that."""
        d, shape = self.decoder, self.decoder.config.shape
        self._open.clear()
        if self._kv is None or (len(self._kv.keys[0]), self._kv.block_size) != (blocks, block_size):
            self._kv = self._graphs = None  # let go of the old one first
            try:
                self._kv = PagedKV(shape.layers, blocks, block_size, shape.kv_heads, shape.head_dim, self.kv_dtype, d.device)
            except torch.OutOfMemoryError:
                need = blocks * block_size * self.kv_bytes_per_token / GIB
                raise DoesNotFit(f"the GPU has no {need:.1f} GiB left for the KV cache; ask for less (--kv-cache-memory)") from None
            if self._on_gpu and not d.experts:
                from rota.mechanisms.engine.gpu_step import DecodeGraphs

                self._graphs = DecodeGraphs(d, self._kv)

    def allocate_host(self, blocks: int) -> None:
        """Make room for so many blocks in host memory; after `allocate`."""
        self._kv_pages().allocate_host(blocks)

    @torch.inference_mode()
    def copy(self, out: Sequence[Copy], back: Sequence[Copy]) -> None:
        """Copy KV to the host, and then from there."""
        kv = self._kv_pages()
        for device, host in out:
            kv.copy_out(device, host)
        for device, host in back:
            kv.copy_in(device, host)

    def spare_bytes(self) -> int:
        """Memory for KV where nobody says how much: 1 GiB on a CPU, on a GPU what is free but a tenth of all, for what steps need."""
        device = self.decoder.device
        if device.type != "cuda":
            return GIB
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(free) - int(total) // 10)

    def _kv_pages(self) -> PagedKV:
        if self._kv is None:
            raise InputError("the runner has no KV blocks yet; call allocate first")
        return self._kv

    def forget(self, seq: Seq) -> None:
        """Drop the hidden states of an open chunk."""
        self._open.pop(seq.sid, None)

    def warm_up(self) -> None:
        """Compute a token for nobody, in block 0 before anyone holds it: what is compiled at first use is compiled now."""
        seq = _nobody([0], SamplingParams(max_tokens=1))
        self.run([Row(seq, 0, 1, (0, self.n_layers), True, True)], np.zeros((1, 1), np.int32))

    def measure_prefill(self, blocks: int, block_size: int) -> tuple[float, float, float]:
        """(a, b, c): a prompt of n tokens alone takes about a + b n + c n^2 seconds. Overwrites blocks; for before the first request."""
        longest = min(self.max_len, blocks * block_size, 2048)
        lengths = sorted({max(1, longest >> i) for i in range(5)})
        table = np.arange(blocks, dtype=np.int32)[None]
        seconds = []
        for n in lengths:
            row = Row(_nobody([0] * n, SamplingParams(max_tokens=1)), 0, n, (0, self.n_layers), True, False)
            times = []
            for _ in range(2):
                began = time.perf_counter()
                self.run([row], table)
                times.append(time.perf_counter() - began)
            seconds.append(min(times))
        x, y = np.array(lengths, np.float64), np.array(seconds)
        a, b, c = np.linalg.lstsq(np.stack([np.ones_like(x), x, x * x], axis=1) / y[:, None], np.ones_like(x))[0]
        return float(a), float(b), float(c)

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> list[Choice]:
        """Compute the rows, and choose a token for each that emits."""
        if self._graphs is not None and self._graphs.take(len(rows)) and all(row.decode for row in rows):
            return choose(self._graphs.logits(rows, tables), [row.seq for row in rows])
        x = self.forward(rows, tables)
        emitting = [i for i, row in enumerate(rows) if row.emits]
        if not emitting:
            if x.is_cuda:  # a step is over when it is computed, not when it is asked for
                torch.cuda.synchronize()
            return []
        last = np.cumsum([row.n_tokens for row in rows])[emitting] - 1
        if len(last) < len(x):
            x = x[torch.from_numpy(last).to(x.device)]
        return choose(self.decoder.logits(x), [rows[i].seq for i in emitting])

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> Tensor:
        """Rows' hidden states behind their layers, (tokens, hidden); chunks that stop before the last layer are kept instead."""
        d = self.decoder
        attend = self._attention(rows, tables)
        n = attend.n_decodes
        chunks = rows[n:]
        lo, hi = chunks[0].layers if chunks else (0, self.n_layers)
        x = self._embed(rows[:n]) if lo else self._embed(rows)
        for layer in range(self.n_layers):
            if layer == lo and lo:
                x = torch.cat([x, *(self._open.pop(row.seq.sid) for row in chunks)])
            if layer == hi:
                x = self._keep(x, n, chunks)
            if len(x):
                x = d.layer(layer, x, attend)
        return x

    def _attention(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> StepAttention | GpuAttention:
        if self._on_gpu:
            from rota.mechanisms.engine.gpu_step import attention_of

            return attention_of(rows, tables, self._kv_pages(), self.decoder)
        return StepAttention(rows, tables, self._kv_pages(), self.decoder, reference=self._reference)

    def _embed(self, rows: Sequence[Row]) -> Tensor:
        tokens: list[int] = []
        for row in rows:
            tokens += row.seq.tokens[row.start : row.start + row.n_tokens]
        return self.decoder.embed(torch.tensor(tokens, dtype=torch.int64, device=self.decoder.device))

    def _keep(self, x: Tensor, n: int, chunks: Sequence[Row]) -> Tensor:
        """Set the chunks' rows aside until their next layers; the decodes' rows."""
        ends = np.cumsum([n, *(row.n_tokens for row in chunks)]).tolist()
        for row, (begin, end) in zip(chunks, pairwise(ends), strict=True):
            self._open[row.seq.sid] = x[begin:end].clone()
        return x[:n]


def _nobody(tokens: list[int], params: SamplingParams) -> Seq:
    """A sequence that no engine knows, with the first block table."""
    seq = Seq(-1, tokens, 0.0, 1, params)
    seq.slot = 0
    return seq


def use_threads(threads: int) -> None:
    """Compute with so many CPU threads from now on, in PyTorch and in compiled kernels.

    Raises
    ------
    InputError
        If that is none, or more than there are.
    """
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    if not 1 <= threads <= most:
        raise InputError(f"threads must be from 1 to {most} on this machine, not {threads}")
    numba.set_num_threads(threads)  # first: when it starts its threads, it sets the number for everyone who shares OpenMP with it
    torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library hold on to large blocks that a step frees: the next one wants the same, and fresh pages would cost it a quarter of its
    time. Nothing happens where that library is not glibc."""
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    tune(M_MMAP_THRESHOLD, 32 << 20)
    tune(M_TRIM_THRESHOLD, 512 << 20)


def chosen_device(device: str) -> str:
    """`device`, or what ``"auto"`` means here.

    Raises
    ------
    InputError
        If there is no such device.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if found else "cpu"
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or (number and not number.isdecimal())):
        raise InputError(f"unknown device {device!r}; choose one of auto, cpu, cuda, or cuda:N for one of several GPUs")
    if kind == "cuda" and int(number or 0) >= found:
        raise InputError(f"device {device} is not there: this PyTorch ({torch.__version__}) sees {found} GPUs; choose cpu or auto")
    return device


def load_runner(
    folder: Path | str, *, dtype: str = "auto", weight_format: str = "plain", device: str = "auto", kv_cache_dtype: str = "auto"
) -> ModelRunner:
    """A Hugging Face model directory, loaded.

    Parameters
    ----------
    folder : Path or str
        With ``config.json`` and safetensors files.
    dtype : str
        ``"float32"``, ``"bfloat16"``, ``"float16"``, ``"float64"``; ``"auto"``: bfloat16 on a GPU, float32 on a CPU.
    weight_format : str
        ``"plain"``, ``"int8"`` (weights of 8 bits) or ``"w8a8"`` (rows that enter a product too; CPU).
    device : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: the GPU if there is one.
    kv_cache_dtype : str
        Of keys and values in the cache: as `dtype`; ``"auto"``: that of the computation, but bfloat16 beside weights of 8 bits.

    Raises
    ------
    InputError
        If the directory does not hold a model that can be run, or an option is unknown.
    """
    device = chosen_device(device)
    dtype, kv_cache_dtype = chosen_dtypes(dtype, kv_cache_dtype, weight_format, device)
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; choose one of auto, {', '.join(DTYPES)}")
    if kv_cache_dtype not in DTYPES:
        raise InputError(f"unknown kv_cache_dtype {kv_cache_dtype!r}; choose one of auto, {', '.join(DTYPES)}")
    if weight_format not in FORMATS:
        raise InputError(f"unknown weight format {weight_format!r}; choose one of {', '.join(FORMATS)}")
    if weight_format == "w8a8" and (dtype != "float32" or device != "cpu" or not torch.backends.mkldnn.is_available()):
        raise InputError(f"weight format w8a8 needs oneDNN and dtype float32 on a CPU, not {dtype} on {device}; choose plain or int8")
    if device == "cpu":
        keep_freed_memory()
    folder = Path(folder)
    config = read_decoder(folder)
    try:
        decoder = Decoder(config, Checkpoint(folder), dtype=DTYPES[dtype], weight_format=weight_format, device=torch.device(device))
    except torch.OutOfMemoryError:
        has = torch.cuda.get_device_properties(device).total_memory / GIB
        raise DoesNotFit(
            f"{folder}: its weights in {dtype} do not fit the {has:.0f} GiB of this GPU (others may use some of it); choose --weight-format "
            "int8, a smaller model, or --device cpu"
        ) from None
    return ModelRunner(decoder, kv_dtype=DTYPES[kv_cache_dtype])
