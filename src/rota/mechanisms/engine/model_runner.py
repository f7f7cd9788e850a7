"""Computing the steps of an engine with a decoder: rows in, tokens out; hidden states of chunks between two layer ranges are kept here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rota.errors import InputError
from rota.mechanisms.engine.attention import StepAttention
from rota.mechanisms.engine.config import read_decoder
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.kv import PagedKV
from rota.mechanisms.engine.model import Decoder
from rota.mechanisms.engine.runner import Choice
from rota.mechanisms.engine.sampling import choose
from rota.mechanisms.engine.sequences import Seq
from rota.mechanisms.engine.weights import DTYPES, FORMATS, Checkpoint


class ModelRunner:
    """A decoder as an engine's `Runner`.

    Parameters
    ----------
    decoder : Decoder
    reference : bool
        Attention by plain formulas, for tests.
    """

    def __init__(self, decoder: Decoder, *, reference: bool = False) -> None:
        self.decoder = decoder
        shape = decoder.config.shape
        self.n_layers, self.vocab, self.max_len = shape.layers, shape.vocab, shape.max_len
        self.end_tokens = decoder.config.end_tokens
        self._reference = reference
        self._open: dict[int, Tensor] = {}

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes in all layers."""
        shape = self.decoder.config.shape
        return int(2 * shape.layers * shape.kv_heads * shape.head_dim * self.decoder.dtype.itemsize)

    def allocate(self, blocks: int, block_size: int) -> None:
        """Make room for the KV of so many blocks."""
        d, shape = self.decoder, self.decoder.config.shape
        self._kv = PagedKV(shape.layers, blocks, block_size, shape.kv_heads, shape.head_dim, d.dtype, d.device)
        self._open.clear()

    def forget(self, seq: Seq) -> None:
        """Drop the hidden states of an open chunk."""
        self._open.pop(seq.sid, None)

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> list[Choice]:
        """Compute the rows, and choose a token for each that emits."""
        x = self.forward(rows, tables)
        emitting = [i for i, row in enumerate(rows) if row.emits]
        if not emitting:
            return []
        last = np.cumsum([row.n_tokens for row in rows])[emitting] - 1
        if len(last) < len(x):
            x = x[torch.from_numpy(last).to(x.device)]
        return choose(self.decoder.logits(x), [rows[i].seq for i in emitting])

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> Tensor:
        """Rows' hidden states behind their layers, (tokens, hidden); chunks that stop before the last layer are kept instead."""
        d = self.decoder
        attend = StepAttention(
            rows, tables, self._kv, d.config.windows, d.rope_freq, d.rope_factor, reference=self._reference
        )
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


def load_runner(
    folder: Path | str, *, dtype: str = "auto", weight_format: str = "plain", device: str = "auto"
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

    Raises
    ------
    InputError
        If the directory does not hold a model that can be run, or an option is unknown.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; choose one of auto, {', '.join(DTYPES)}")
    if weight_format not in FORMATS:
        raise InputError(f"unknown weight format {weight_format!r}; choose one of {', '.join(FORMATS)}")
    if weight_format == "w8a8" and (dtype != "float32" or device != "cpu"):
        raise InputError(f"weight format w8a8 works with dtype float32 on a CPU, not {dtype} on {device}; choose plain or int8")
    folder = Path(folder)
    config = read_decoder(folder)
    return ModelRunner(
        Decoder(config, Checkpoint(folder), dtype=DTYPES[dtype], weight_format=weight_format, device=torch.device(device))
    )
