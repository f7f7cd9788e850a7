"""A small Llama to train: the arithmetic of transformers' `LlamaForCausalLM`, and its names of weights, without a KV cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rota.catalog.shapes import ModelShape
from rota.errors import InputError
from rota.models.architectures import family


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) times a weight per channel."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal attention with rotary positions; query heads share KV heads in equal groups."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = (
            project(x).view(rows, length, heads, self.head_dim).transpose(1, 2)
            for project, heads in ((self.q_proj, self.heads), (self.k_proj, self.kv_heads), (self.v_proj, self.kv_heads))
        )
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return out


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to what came in."""

    def __init__(self, shape: ModelShape, eps: float) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(shape.hidden, eps), Attention(shape)
        self.post_attention_layernorm, self.mlp = RMSNorm(shape.hidden, eps), FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Embedding, layers and the last norm; the head is the embedding again."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        kind = family(shape)
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, kind.eps) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, kind.eps)
        self.theta, self.head_dim = kind.rope_theta, shape.head_dim


class Llama(nn.Module):
    """A dense Llama with tied embeddings.

    Parameters
    ----------
    shape : ModelShape
    seed : int
        Of the first weights: normal, 0.02, projections into the residual stream divided by sqrt(2 layers).

    Raises
    ------
    InputError
        If the shape is another architecture, or its embeddings are not tied.
    """

    def __init__(self, shape: ModelShape, seed: int = 0) -> None:
        super().__init__()
        if family(shape).model_type != "llama" or shape.experts or not shape.tied:
            raise InputError(f"{shape.name}: only dense Llama shapes with tied embeddings can be trained here")
        self.model = Decoder(shape)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, 0.0, 0.02 / (2 * shape.layers) ** 0.5 if out else 0.02, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, float (rows, length, vocab), of token ids (rows, length)."""
        decoder = self.model
        cos, sin = rotations(tokens.shape[1], decoder.head_dim, decoder.theta, decoder.embed_tokens.weight.dtype)
        x = decoder.embed_tokens(tokens)
        for layer in decoder.layers:
            x = layer(x, cos, sin)
        return F.linear(decoder.norm(x), decoder.embed_tokens.weight)

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the weights under the names of transformers."""
        return {name: weight.detach().clone() for name, weight in self.named_parameters()}


def rotations(length: int, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, (length, head_dim): the same angles for both halves of a head."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), inverse).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: the two halves of a head are the parts of complex numbers."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
