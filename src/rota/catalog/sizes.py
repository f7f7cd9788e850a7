"""How large a model is: parameters by what they do, weight and KV bytes of a rank, FLOP per token. Plain arithmetic on a shape.

Counted are all matrices and two norms per layer (plus the last one). Biases, other norms and attention sinks are not: below 0.1%
of every model in the catalog. Ranks hold what vLLM gives them: heads, feed-forward, experts and vocabulary are split over
tensor-parallel ranks; KV heads are repeated when there are fewer of them than ranks; router, norms and everything of multi-head
latent attention that is not per head, its cached latent included, are on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rota.catalog.shapes import ModelShape
from rota.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a model (or of a rank's share), by what they do.

    Attributes
    ----------
    attention : int
        Projections of queries, keys, values and outputs.
    dense : int
        Feed-forward blocks of dense layers.
    shared : int
        Always-on shared experts.
    router : int
    experts : int
        All routed experts.
    active_experts : int
        Those of the routed experts that one token uses.
    norms : int
    embedding : int
        The input embedding; it is also the output head if `tied`.
    head : int
        The output head; 0 if `tied`.
    tied : bool
    """

    attention: int
    dense: int
    shared: int
    router: int
    experts: int
    active_experts: int
    norms: int
    embedding: int
    head: int
    tied: bool

    @property
    def linear(self) -> int:
        """Weights of the layers that every token passes: all but routed experts, embedding and head."""
        return self.attention + self.dense + self.shared + self.router + self.norms

    @property
    def total(self) -> int:
        return self.linear + self.experts + self.embedding + self.head

    @property
    def active(self) -> int:
        """Parameters that one token uses, the embedding table included, as Mixtral, Qwen and DeepSeek count."""
        return self.linear + self.active_experts + self.embedding + self.head

    @property
    def active_without_embedding(self) -> int:
        """As `active`, less the embedding table, of which a token reads one row; the head counts. GPT-OSS counts so."""
        return self.linear + self.active_experts + (self.embedding if self.tied else self.head)


def parameters(shape: ModelShape) -> Parameters:
    """Parameters of the whole model.

    >>> from rota.catalog import load_model
    >>> round(parameters(load_model("llama-3-8b")).total / 1e9, 2)
    8.03
    """
    return _share(shape, 1, range(shape.layers), embedding=True, head=True)


def rank_parameters(
    shape: ModelShape, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1, stage: int = 0
) -> Parameters:
    """Parameters that one rank of a pipeline stage holds. Tied embeddings that end on two stages are there twice."""
    layers = stage_layers(shape, pipeline_parallel_size)
    _check_stage(stage, pipeline_parallel_size)
    last = stage == pipeline_parallel_size - 1
    return _share(shape, tensor_parallel_size, layers[stage], embedding=stage == 0, head=last)


def attention_parameters(shape: ModelShape, tensor_parallel_size: int = 1) -> int:
    """Weights of one layer's attention projections on one tensor-parallel rank."""
    heads = _split(shape.heads, tensor_parallel_size)
    if not shape.kv_lora:
        kv_heads = rank_kv_heads(shape, tensor_parallel_size)
        return shape.hidden * shape.head_dim * (2 * heads + 2 * kv_heads)
    query_head, value_head = shape.nope_dim + shape.rope_dim, shape.nope_dim + shape.v_head_dim
    queries = shape.q_lora * (shape.hidden + heads * query_head) if shape.q_lora else shape.hidden * heads * query_head
    keys_values = shape.hidden * (shape.kv_lora + shape.rope_dim) + shape.kv_lora * heads * value_head
    return queries + keys_values + heads * shape.v_head_dim * shape.hidden


def rank_kv_heads(shape: ModelShape, tensor_parallel_size: int = 1) -> int:
    """KV heads on one rank: a share of them, or a copy of one when there are fewer than ranks."""
    return max(1, _split(shape.kv_heads, tensor_parallel_size))


def stage_layers(shape: ModelShape, pipeline_parallel_size: int = 1) -> list[range]:
    """Layers of each pipeline stage. What does not divide goes one each to the stages just before the last, as in vLLM.

    Raises
    ------
    InputError
        If there are more stages than layers.
    """
    if not 1 <= pipeline_parallel_size <= shape.layers:
        raise InputError(
            f"{shape.name}: pipeline_parallel_size is {pipeline_parallel_size}; it must be from 1 to {shape.layers}, the layers"
        )
    each, extra = divmod(shape.layers, pipeline_parallel_size)
    counts = [each] * pipeline_parallel_size
    for place in range(extra):
        counts[pipeline_parallel_size - 2 - place] += 1
    ends = [sum(counts[: stage + 1]) for stage in range(pipeline_parallel_size)]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


def weight_bytes(
    shape: ModelShape, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1, stage: int | None = None
) -> float:
    """Bytes of weights on one rank.

    Embedding, head, router and norms stay at 2 bytes when the rest is quantised, as in published checkpoints.

    Parameters
    ----------
    shape : ModelShape
    tensor_parallel_size, pipeline_parallel_size : int
    stage : int, optional
        Pipeline stage; by default the one that holds the most.

    Returns
    -------
    float
        Bytes.
    """
    stages = range(pipeline_parallel_size) if stage is None else (stage,)
    return max(_bytes(shape, rank_parameters(shape, tensor_parallel_size, pipeline_parallel_size, s)) for s in stages)


def kv_bytes_per_layer(shape: ModelShape, tensor_parallel_size: int = 1) -> float:
    """Bytes of KV cache that one token leaves in one layer on one rank."""
    if shape.kv_lora:
        return (shape.kv_lora + shape.rope_dim) * shape.kv_bytes
    return 2 * rank_kv_heads(shape, tensor_parallel_size) * shape.head_dim * shape.kv_bytes


def kv_bytes_per_token(shape: ModelShape, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1) -> float:
    """Bytes of KV cache per token of context on the rank with the most layers, sliding windows not used (see `kv_bytes`)."""
    most = max(len(layers) for layers in stage_layers(shape, pipeline_parallel_size))
    return most * kv_bytes_per_layer(shape, tensor_parallel_size)


def kv_bytes(shape: ModelShape, tokens: ArrayLike, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1) -> Floats:
    """Bytes of KV cache that a sequence of so many tokens holds on the fullest rank, when windowed layers keep their window only.

    Windowed layers are taken to be spread evenly over pipeline stages.

    Parameters
    ----------
    tokens : array_like
        Context lengths, in tokens.
    """
    context = np.asarray(tokens, dtype=np.float64)
    windowed = shape.window_layers / shape.layers
    kept = (1 - windowed) * context + windowed * np.minimum(context, shape.window)
    return kept * kv_bytes_per_token(shape, tensor_parallel_size, pipeline_parallel_size)


def linear_flops_per_token(shape: ModelShape) -> float:
    """FLOP of one token through all matrices of the model, head included, attention scores not: 2 per weight used."""
    counted = parameters(shape)
    return 2.0 * (counted.active_without_embedding - counted.norms)


def attention_flops_per_token(shape: ModelShape, context: ArrayLike, absorbed: bool = False) -> Floats:
    """FLOP of one token's attention over `context` tokens (itself included), all layers.

    Parameters
    ----------
    context : array_like
        Tokens attended to; windowed layers attend to at most their window.
    absorbed : bool
        Multi-head latent attention only: work on the cached latent itself, as decode kernels do, instead of on expanded keys and
        values, as prefill does.
    """
    attended = np.asarray(context, dtype=np.float64)
    near = np.minimum(attended, shape.window)
    pairs = (shape.layers - shape.window_layers) * attended + shape.window_layers * near
    return np.asarray(pairs * shape.heads * _flops_per_pair(shape, absorbed))


def flops_per_token(shape: ModelShape, context: ArrayLike, absorbed: bool = False) -> Floats:
    """FLOP of one token in all: `linear_flops_per_token` + `attention_flops_per_token`."""
    return linear_flops_per_token(shape) + attention_flops_per_token(shape, context, absorbed)


def _flops_per_pair(shape: ModelShape, absorbed: bool) -> int:
    """FLOP per head for one query and one key: the score and the weighted sum."""
    if not shape.kv_lora:
        return 4 * shape.head_dim
    if absorbed:
        return 2 * (shape.kv_lora + shape.rope_dim) + 2 * shape.kv_lora
    return 2 * (shape.nope_dim + shape.rope_dim) + 2 * shape.v_head_dim


def _share(shape: ModelShape, ranks: int, layers: range, *, embedding: bool, head: bool) -> Parameters:
    dense_layers = shape.dense_layers if shape.experts else shape.layers
    dense = len(range(layers.start, min(layers.stop, dense_layers)))
    sparse = len(layers) - dense
    matrices = 3 if shape.gated else 2
    expert = matrices * shape.hidden * _split(shape.expert_ffn, ranks)
    table = shape.hidden * _split(shape.vocab, ranks)
    return Parameters(
        attention=len(layers) * attention_parameters(shape, ranks),
        dense=dense * matrices * shape.hidden * _split(shape.ffn, ranks),
        shared=sparse * matrices * shape.hidden * _split(shape.shared_ffn, ranks),
        router=sparse * shape.hidden * shape.experts,
        experts=sparse * shape.experts * expert,
        active_experts=sparse * shape.experts_per_token * expert,
        norms=shape.hidden * (2 * len(layers) + head),
        embedding=table if embedding or (head and shape.tied) else 0,
        head=table if head and not shape.tied else 0,
        tied=shape.tied,
    )


def _bytes(shape: ModelShape, counted: Parameters) -> float:
    plain = max(2.0, shape.weight_bytes)
    experts = counted.experts * (shape.expert_weight_bytes or shape.weight_bytes)
    quantised = (counted.attention + counted.dense + counted.shared) * shape.weight_bytes
    return quantised + experts + plain * (counted.router + counted.norms + counted.embedding + counted.head)


def _split(size: int, ranks: int) -> int:
    return -(-size // ranks)


def _check_stage(stage: int, stages: int) -> None:
    if not 0 <= stage < stages:
        raise InputError(f"stage is {stage}, which must be from 0 to {stages - 1}")
