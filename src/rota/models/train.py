"""Trains a small language model on Python's documentation: minutes on two cores, and it speaks in the right tone.

The number of steps is fixed, not the time, so that a seed gives one model. Every docstring is seen as the answer to a question, in
the form of the chat template; the topics of the reference as plain text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
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

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: About 2 million parameters.
SHAPE = ModelShape(
    name="llama-python-docs", layers=6, hidden=160, heads=5, kv_heads=5, head_dim=32, ffn=448, vocab=2048, max_len=1024, tied=True,
    source="trained on Python's documentation", weight_bytes=4.0,
)  # fmt: skip
HELD_OUT = 20  # one document in so many


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: `steps` of `rows` windows of `length` tokens; AdamW with a warm-up and a decay to a tenth."""

    steps: int = 1200
    rows: int = 16
    length: int = 192
    rate: float = 4e-3
    warmup: int = 60
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
        The same for the same seed, Python and number of threads.
    """
    recipe = recipe or Recipe()
    documents = python_documents()
    kept = [document for document in documents if not _held_out(document)]
    tokenizer = train_tokenizer((document.text for document in kept), shape.vocab)
    tokens = torch.from_numpy(encode(tokenizer, kept, recipe.seed))
    model = Llama(shape, recipe.seed)
    optimiser = _optimiser(model, recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    offsets = torch.arange(recipe.length + 1)
    loss, step, complete = float("nan"), 0, False
    try:
        for step in range(1, recipe.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = rate(step, recipe)
            starts = torch.randint(len(tokens) - recipe.length, (recipe.rows, 1), generator=generator)
            value = _loss(model, tokens[starts + offsets])
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            loss = value.item() if step == 1 else 0.98 * loss + 0.02 * value.item()
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
            "held_out_bits_per_byte": round(trained.bits_per_byte, 4), "threads": torch.get_num_threads(),
            "corpus_sha256": trained.corpus,
        }  # fmt: skip
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def text_of(document: Document) -> str:
    """A document as training text, less the leading `BEGIN`."""
    return document.text + END if document.kind == "topic" else chat_text(document.question, document.text)


def encode(tokenizer: Tokenizer, documents: list[Document], seed: int) -> NDArray[np.int64]:
    """All documents as token ids end to end, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(len(documents))
    texts = [BEGIN + text_of(documents[i]) for i in order]
    return np.concatenate([np.array(row.ids) for row in tokenizer.encode_batch(texts, add_special_tokens=False)])


def rate(step: int, recipe: Recipe) -> float:
    """The learning rate of a step (counted from 1): up in a line, then down in a half cosine."""
    if step <= recipe.warmup:
        return recipe.rate * step / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (recipe.decay + (1 - recipe.decay) * (1 + math.cos(math.pi * done)) / 2)


def _held_out(document: Document) -> bool:
    return hashlib.sha256(document.name.encode()).digest()[1] % HELD_OUT == 0


def _optimiser(model: Llama, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    norms = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.95))


def _loss(model: Llama, window: Tensor) -> Tensor:
    logits = model(window[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())


def _evaluate(model: Llama, tokenizer: Tokenizer, documents: list[Document], recipe: Recipe) -> tuple[float, float]:
    """Mean loss on documents it has not seen, in nats per token and in bits per byte of text."""
    tokens = torch.from_numpy(encode(tokenizer, documents, recipe.seed))
    size = sum(len(text_of(document).encode()) for document in documents)
    length = recipe.length + 1
    windows = tokens[: len(tokens) // length * length].view(-1, length)
    with torch.no_grad():
        losses = [_loss(model, part).item() * len(part) for part in torch.split(windows, recipe.rows)]
    mean = sum(losses) / len(windows)
    return mean, mean * len(tokens) / size / math.log(2)
