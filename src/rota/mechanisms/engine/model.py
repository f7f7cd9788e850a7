"""One decoder, configured: Llama, Qwen2, Qwen3, Mistral, Mixtral, Qwen3-MoE. It knows layers and tokens, not requests.

Rows of all sequences lie one behind the other, (n, hidden). How a row looks at earlier tokens is the caller's: `Attend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from rota.mechanisms.engine.config import DecoderConfig
from rota.mechanisms.engine.experts import Experts
from rota.mechanisms.engine.rope import frequencies
from rota.mechanisms.engine.weights import Checkpoint, Linear, pack


class Attend(Protocol):
    """Attention of a step's rows in one layer, rotation included: queries, keys and values (n, heads + 2 kv_heads, d), which may be
    overwritten, and weights of norms of queries and keys to (n, heads, d)."""

    def __call__(self, layer: int, rows: Tensor, norms: tuple[Tensor, Tensor] | None) -> Tensor: ...


class Mlp:
    """The gated feed-forward network."""

    def __init__(self, gate_up: Linear, down: Linear) -> None:
        self._gate_up, self._down = gate_up, down

    def __call__(self, x: Tensor) -> Tensor:
        return self._down.gated(self._gate_up(x))

    def block(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x + what the network makes of its norm."""
        return self._down.gated_added(x, self._gate_up.normed(x, weight, eps))


@dataclass(slots=True)
class Layer:
    """The weights of one layer; q, k and v as one matrix."""

    input_norm: Tensor
    qkv: Linear
    head_norms: tuple[Tensor, Tensor] | None
    out: Linear
    ffn_norm: Tensor
    ffn: Mlp | Experts


class Decoder:
    """The decoder's weights and what they do to rows.

    Parameters
    ----------
    config : DecoderConfig
    checkpoint : Checkpoint
    dtype : torch.dtype
        Of activations, KV and (unless packed) weights.
    weight_format : str
        One of `weights.FORMATS`, for everything but embeddings, norms and routers.
    device : torch.device
    """

    def __init__(
        self, config: DecoderConfig, checkpoint: Checkpoint, *, dtype: torch.dtype, weight_format: str = "plain",
        device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.config, self.dtype = config, dtype
        self.device = device or torch.device("cpu")
        self.format = weight_format
        shape = config.shape
        self._heads = shape.heads, shape.kv_heads, shape.head_dim
        self._embedding = self._get(checkpoint, "model.embed_tokens.weight", (shape.vocab, shape.hidden))
        self._norm = self._get(checkpoint, "model.norm.weight", (shape.hidden,))
        head = self._embedding if shape.tied else self._get(checkpoint, "lm_head.weight", (shape.vocab, shape.hidden))
        self._head = pack(head, None, weight_format)
        freq, self.rope_factor = frequencies(config)
        self.rope_freq = freq.to(self.device)
        self.layers = [self._layer(checkpoint, i) for i in range(shape.layers)]

    @property
    def experts(self) -> list[Experts]:
        """The mixtures of experts, in the order of their layers."""
        return [layer.ffn for layer in self.layers if isinstance(layer.ffn, Experts)]

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows that enter the first layer."""
        return functional.embedding(tokens, self._embedding)

    def layer(self, i: int, x: Tensor, attend: Attend) -> Tensor:
        """Take rows through layer `i`."""
        layer, n = self.layers[i], x.shape[0]
        heads, kv_heads, dim = self._heads
        eps = self.config.eps
        qkv = layer.qkv.normed(x, layer.input_norm, eps).view(n, heads + 2 * kv_heads, dim)
        x = layer.out.added(x, attend(i, qkv, layer.head_norms).view(n, heads * dim))
        return layer.ffn.block(x, layer.ffn_norm, eps)

    def logits(self, x: Tensor) -> Tensor:
        """(n, vocab) of rows that have passed the last layer."""
        return self._head.normed(x, self._norm, self.config.eps)

    def _get(self, checkpoint: Checkpoint, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        return checkpoint.get(name, shape).to(device=self.device, dtype=self.dtype)

    def _joined(self, checkpoint: Checkpoint, names: Sequence[str], rows: Sequence[int], columns: int) -> Linear:
        """Several matrices with the same input as one."""
        weights = [self._get(checkpoint, f"{name}.weight", (n, columns)) for name, n in zip(names, rows, strict=True)]
        bias = None
        if f"{names[0]}.bias" in checkpoint:
            bias = torch.cat([self._get(checkpoint, f"{name}.bias", (n,)) for name, n in zip(names, rows, strict=True)])
        return pack(torch.cat(weights), bias, self.format)

    def _layer(self, checkpoint: Checkpoint, i: int) -> Layer:
        shape, at = self.config.shape, f"model.layers.{i}."
        heads, kv_heads, dim = self._heads
        attention = at + "self_attn."
        head_norms = None
        if attention + "q_norm.weight" in checkpoint:
            head_norms = self._get(checkpoint, attention + "q_norm.weight", (dim,)), self._get(checkpoint, attention + "k_norm.weight", (dim,))
        return Layer(
            input_norm=self._get(checkpoint, at + "input_layernorm.weight", (shape.hidden,)),
            qkv=self._joined(
                checkpoint, [attention + name for name in ("q_proj", "k_proj", "v_proj")],
                [heads * dim, kv_heads * dim, kv_heads * dim], shape.hidden,
            ),
            head_norms=head_norms,
            out=self._joined(checkpoint, [attention + "o_proj"], [shape.hidden], heads * dim),
            ffn_norm=self._get(checkpoint, at + "post_attention_layernorm.weight", (shape.hidden,)),
            ffn=self._experts(checkpoint, at) if self.config.sparse[i] else self._mlp(checkpoint, at + "mlp."),
        )  # fmt: skip

    def _mlp(self, checkpoint: Checkpoint, at: str) -> Mlp:
        hidden, ffn = self.config.shape.hidden, self.config.shape.ffn
        gate_up = self._joined(checkpoint, [at + "gate_proj", at + "up_proj"], [ffn, ffn], hidden)
        return Mlp(gate_up, self._joined(checkpoint, [at + "down_proj"], [hidden], ffn))

    def _experts(self, checkpoint: Checkpoint, at: str) -> Experts:
        shape = self.config.shape
        mixtral = self.config.family == "mixtral"
        at += "block_sparse_moe." if mixtral else "mlp."
        gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
        width, hidden = shape.expert_ffn, shape.hidden
        experts = []
        for e in range(shape.experts):
            expert = f"{at}experts.{e}."
            gate_up = self._joined(checkpoint, [expert + gate, expert + up], [width, width], hidden)
            experts.append(Mlp(gate_up, self._joined(checkpoint, [expert + down], [hidden], width)))
        router = self._get(checkpoint, at + "gate.weight", (shape.experts, hidden))
        return Experts(router, experts, shape.experts_per_token, self.config.norm_topk)
