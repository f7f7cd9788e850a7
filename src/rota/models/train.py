"""Trains a small language model on Python's documentation: minutes on two cores, and it speaks in the right tone.

The number of steps is fixed, not the time, so that a seed gives one model. Every docstring is seen as the answer to a question, in
the form of the chat template; the topics of the reference as plain text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rota.catalog.shapes import ModelShape
from rota.errors import InputError
from rota.models.bpe import BEGIN, END, chat_text, train_tokenizer
from rota.models.corpus import Document, digest, python_documents
from rota.models.directory import new_directory, write_description, write_weights
from rota.models.llama import Llama
from rota.models.muon import Muon

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: 1.1 million parameters.
SHAPE = ModelShape(
    name="llama-python-docs", layers=4, hidden=128, heads=4, kv_heads=4, head_dim=32, ffn=384, vocab=2048, max_len=512, tied=True,
    source="trained on Python's documentation", weight_bytes=4.0,
)  # fmt: skip
HELD_OUT = 20  # one document in so many
SMOOTH = 0.02  # weight of the newest step in the running loss


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: `steps` of `rows` windows of `length` tokens, with a warm-up and then a decay of the rates to a tenth.

    `rate` is that of Muon, for the matrices of the layers; `other_rate` that of AdamW, for embedding and norms.
    """

    steps: int = 600
    rows: int = 8
    length: int = 256
    rate: float = 0.02
    other_rate: float = 5e-3
    warmup: int = 20
    decay: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"--steps must be at least 1, not {self.steps}")


class Trained(NamedTuple):
    """What came of it: losses in nats per token, and per byte of text in bits; whether all steps were made."""

    model: Llama
    tokenizer: Tokenizer
    steps: int
    loss: float
    held_out: float
    bits_per_byte: float
    complete: bool
    corpus: str


#: Called after each step with (step, steps, running loss).
Watch = Callable[[int, int, float], None]


def train(shape: ModelShape = SHAPE, recipe: Recipe | None = None, watch: Watch | None = None) -> Trained:
    """Train a model; Ctrl-C ends the training early and keeps what there is.

    Parameters
    ----------
    shape : ModelShape
    recipe : Recipe, optional
    watch : callable, optional

    Returns
    -------
    Trained
        The same for the same seed and Python.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums then have one order; and so small a model gains little from more
    try:
        return _train(shape, recipe or Recipe(), watch)
    finally:
        torch.set_num_threads(threads)


def _train(shape: ModelShape, recipe: Recipe, watch: Watch | None) -> Trained:
    documents = python_documents()
    kept = [document for document in documents if not _held_out(document)]
    tokenizer = train_tokenizer((document.text for document in kept), shape.vocab)
    tokens = torch.from_numpy(encode(tokenizer, kept, recipe.seed))
    model = Llama(shape, recipe.seed)
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    rest = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    muon, adam = Muon(matrices), torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    generator = torch.Generator().manual_seed(recipe.seed)
    offsets = torch.arange(recipe.length + 1)
    loss, step, complete = 0.0, 0, False
    try:
        for step in range(1, recipe.steps + 1):
            share = pace(step, recipe)
            adam.param_groups[0]["lr"] = share * recipe.other_rate
            starts = torch.randint(len(tokens) - recipe.length, (recipe.rows, 1), generator=generator)
            value = _loss(model, tokens[starts + offsets])
            model.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            muon.step(share * recipe.rate)
            adam.step()
            loss += (value.item() - loss) * max(SMOOTH, 1 / step)
            if watch is not None:
                watch(step, recipe.steps, loss)
        complete = True
    except KeyboardInterrupt:
        pass
    held_out, bits = _evaluate(model, tokenizer, [document for document in documents if _held_out(document)], recipe)
    return Trained(model.eval(), tokenizer, step, loss, held_out, bits, complete, digest(documents))


def write(path: Path, shape: ModelShape, recipe: Recipe, trained: Trained) -> None:
    """Write the model directory; ``training.json`` says how it came to be."""
    with new_directory(path) as folder:
        write_description(folder, shape, trained.tokenizer, "float32")
        write_weights(folder, trained.model.tensors())
        record = {
            "steps": trained.steps, "of": recipe.steps, "tokens": trained.steps * recipe.rows * recipe.length, "seed": recipe.seed,
            "loss": round(trained.loss, 4), "held_out_loss": round(trained.held_out, 4),
            "held_out_bits_per_byte": round(trained.bits_per_byte, 4), "corpus_sha256": trained.corpus,
        }  # fmt: skip
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def text_of(document: Document) -> str:
    """A document as training text, less the leading `BEGIN`."""
    return document.text + END if document.kind == "topic" else chat_text(document.question, document.text)


def encode(tokenizer: Tokenizer, documents: Sequence[Document], seed: int) -> NDArray[np.int64]:
    """All documents as token ids end to end, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(len(documents))
    texts = [BEGIN + text_of(documents[i]) for i in order]
    return np.concatenate([np.array(row.ids) for row in tokenizer.encode_batch(texts, add_special_tokens=False)])


def pace(step: int, recipe: Recipe) -> float:
    """The share of the learning rates that a step (counted from 1) has: up in a line, then down in a half cosine."""
    if step <= recipe.warmup:
        return step / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.decay + (1 - recipe.decay) * (1 + math.cos(math.pi * done)) / 2


def _held_out(document: Document) -> bool:
    return hashlib.sha256(document.name.encode()).digest()[1] % HELD_OUT == 0


def _loss(model: Llama, window: Tensor) -> Tensor:
    logits = model(window[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())


def _evaluate(model: Llama, tokenizer: Tokenizer, documents: Sequence[Document], recipe: Recipe) -> tuple[float, float]:
    """Mean loss on documents it has not seen, in nats per token and in bits per byte of text."""
    tokens = torch.from_numpy(encode(tokenizer, documents, recipe.seed))
    size = sum(len(text_of(document).encode()) for document in documents)
    length = recipe.length + 1
    windows = tokens[: len(tokens) // length * length].view(-1, length)
    with torch.no_grad():
        losses = [_loss(model, part).item() * len(part) for part in torch.split(windows, recipe.rows)]
    mean = sum(losses) / len(windows)
    return mean, mean * len(tokens) / size / math.log(2)
