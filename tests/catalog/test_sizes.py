"""Sizes against what publishers print, against a list of every matrix, and against the laws of splitting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.catalog import load_model, model_names
from rota.catalog.shapes import ModelShape
from rota.catalog.sizes import (
    attention_flops_per_token,
    flops_per_token,
    kv_bytes,
    kv_bytes_per_layer,
    kv_bytes_per_token,
    linear_flops_per_token,
    parameters,
    rank_kv_heads,
    rank_parameters,
    stage_layers,
    weight_bytes,
)
from rota.errors import InputError

# 10^9 parameters, as printed on model cards and in papers.
PUBLISHED = {
    "gpt-j-6b": 6.05, "llama-13b": 13.02, "llama-33b": 32.53, "qwen2.5-vl-7b": 7.61, "llama-2-7b": 6.74,
    "llama-2-13b": 13.02, "llama-2-70b": 68.98, "llama-3-8b": 8.03, "llama-3-70b": 70.6, "llama-3.1-8b": 8.03,
    "llama-3.1-70b": 70.6, "llama-3.1-405b": 405.9, "llama-3.2-1b": 1.24, "llama-3.2-3b": 3.21, "mistral-7b": 7.25,
    "mistral-7b-v0.1": 7.24, "mixtral-8x7b": 46.7, "yi-34b": 34.4, "yi-34b-200k": 34.4, "qwen2.5-7b": 7.61, "qwen2.5-32b": 32.5,
    "qwen2.5-72b": 72.7, "qwen3-8b": 8.2, "qwen3-30b-a3b": 30.5, "gpt-oss-20b": 20.91, "gpt-oss-120b": 116.83,
    "deepseek-v3": 671.0, "falcon-180b": 180.0,
}  # fmt: skip


@pytest.mark.parametrize("name", model_names())
def test_total_parameters_are_the_published_ones(name: str) -> None:
    assert parameters(load_model(name)).total / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_active_parameters_are_the_published_ones() -> None:
    for name, published in (("mixtral-8x7b", 12.9), ("qwen3-30b-a3b", 3.3), ("deepseek-v3", 37.0)):
        assert parameters(load_model(name)).active / 1e9 == pytest.approx(published, rel=0.02)
    for name, published in (("gpt-oss-120b", 5.13), ("gpt-oss-20b", 3.61)):
        assert parameters(load_model(name)).active_without_embedding / 1e9 == pytest.approx(published, rel=0.005)


def test_weight_bytes_are_those_of_published_checkpoints() -> None:
    # Checkpoint sizes of the GPT-OSS model card, and of the safetensors index of the others.
    for name, size in (
        ("gpt-oss-120b", 60.8 * 2**30),
        ("gpt-oss-20b", 12.8 * 2**30),
        ("llama-3-8b", 16.06e9),
        ("llama-2-70b", 137.95e9),
        ("mixtral-8x7b", 93.4e9),
    ):
        assert weight_bytes(load_model(name)) == pytest.approx(size, rel=0.005)


def test_kv_bytes_per_token_are_the_well_known_ones() -> None:
    assert kv_bytes_per_token(load_model("llama-2-7b")) == 512 * 1024
    assert kv_bytes_per_token(load_model("llama-2-70b")) == 320 * 1024
    assert kv_bytes_per_token(load_model("llama-3-8b")) == 128 * 1024
    assert kv_bytes_per_token(load_model("deepseek-v3")) == 61 * 576 * 2  # 70 KB in the DeepSeek-V3 report
    assert kv_bytes_per_token(load_model("llama-2-70b"), tensor_parallel_size=4) == 80 * 1024
    assert kv_bytes_per_token(load_model("deepseek-v3"), tensor_parallel_size=8) == 61 * 576 * 2


def test_flops_per_token_of_a_dense_model_is_twice_its_matrices() -> None:
    shape = load_model("llama-2-7b")
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 4096 * 32000
    assert linear_flops_per_token(shape) == 2 * matrices
    assert attention_flops_per_token(shape, 1000) == 32 * 4 * 4096 * 1000
    np.testing.assert_array_equal(flops_per_token(shape, [0, 1000]), [2 * matrices, 2 * matrices + 32 * 4 * 4096 * 1000])


# A small shape of every kind, so that sizes can be laid out matrix by matrix.
@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    layers = draw(st.integers(1, 9))
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    sparse, latent = draw(st.booleans()), draw(st.booleans())
    nope, rope = draw(st.sampled_from([4, 8])), draw(st.sampled_from([2, 4]))
    window_layers = draw(st.integers(0, layers))
    return ModelShape(
        name="small",
        layers=layers,
        hidden=draw(st.sampled_from([16, 24])),
        heads=8,
        kv_heads=8 if latent else kv_heads,
        head_dim=nope + rope if latent else draw(st.sampled_from([4, 6])),
        ffn=draw(st.sampled_from([16, 48])),
        vocab=draw(st.sampled_from([64, 128])),
        max_len=1000,
        source="test",
        gated=draw(st.booleans()),
        tied=draw(st.booleans()),
        experts=4 if sparse else 0,
        experts_per_token=draw(st.integers(1, 4)) if sparse else 0,
        expert_ffn=8 if sparse else 0,
        shared_ffn=draw(st.sampled_from([0, 8])) if sparse else 0,
        dense_layers=draw(st.integers(0, layers)) if sparse else 0,
        kv_lora=draw(st.sampled_from([6, 12])) if latent else 0,
        rope_dim=rope if latent else 0,
        q_lora=draw(st.sampled_from([0, 10])) if latent else 0,
        nope_dim=nope if latent else 0,
        v_head_dim=draw(st.sampled_from([4, 6])) if latent else 0,
        window=draw(st.integers(1, 50)) if window_layers else 0,
        window_layers=window_layers,
        weight_bytes=draw(st.sampled_from([0.5, 1.0, 2.0])),
        expert_weight_bytes=draw(st.sampled_from([0.0, 0.53125])) if sparse else 0.0,
        kv_bytes=draw(st.sampled_from([1.0, 2.0])),
    )


Matrix = tuple[int, int, float, bool]  # rows, columns, bytes per weight, used by every token


def matrices_of(shape: ModelShape, tp: int, layers: range, first: bool, last: bool) -> list[Matrix]:
    """Every weight that one rank holds, laid out by hand."""
    d, b, plain = shape.hidden, shape.weight_bytes, max(2.0, shape.weight_bytes)
    held: list[Matrix] = []
    for layer in layers:
        heads = shape.heads // tp
        if shape.kv_lora:
            qk = shape.nope_dim + shape.rope_dim
            held += (
                [(d, shape.q_lora, b, True), (shape.q_lora, heads * qk, b, True)] if shape.q_lora else [(d, heads * qk, b, True)]
            )
            held += [(d, shape.kv_lora, b, True), (d, shape.rope_dim, b, True), (shape.kv_lora, heads * shape.nope_dim, b, True)]
            held += [(shape.kv_lora, heads * shape.v_head_dim, b, True), (heads * shape.v_head_dim, d, b, True)]
        else:
            kv_heads = shape.kv_heads // tp if shape.kv_heads >= tp else 1
            held += [(d, heads * shape.head_dim, b, True), (heads * shape.head_dim, d, b, True)]
            held += [(d, kv_heads * shape.head_dim, b, True)] * 2
        held += [(d, 1, plain, True)] * 2
        feed = 3 if shape.gated else 2
        if not shape.experts or layer < shape.dense_layers:
            held += [(d, shape.ffn // tp, b, True)] * feed
            continue
        held += [(d, shape.experts, plain, True)] + [(d, shape.shared_ffn // tp, b, True)] * feed
        for expert in range(shape.experts):
            used = expert < shape.experts_per_token
            held += [(d, shape.expert_ffn // tp, shape.expert_weight_bytes or b, used)] * feed
    if last:
        held.append((d, 1, plain, True))
    if first or (last and shape.tied):
        held.append((shape.vocab // tp, d, plain, True))
    if last and not shape.tied:
        held.append((shape.vocab // tp, d, plain, True))
    return held


@given(shapes(), st.sampled_from([1, 2, 4, 8]), st.integers(1, 4), st.data())
def test_a_rank_holds_exactly_its_matrices(shape: ModelShape, tp: int, pp: int, data: st.DataObject) -> None:
    pp = min(pp, shape.layers)
    stage = data.draw(st.integers(0, pp - 1))
    held = matrices_of(shape, tp, stage_layers(shape, pp)[stage], stage == 0, stage == pp - 1)
    counted = rank_parameters(shape, tp, pp, stage)
    assert counted.total == sum(rows * columns for rows, columns, _, _ in held)
    assert counted.active == sum(rows * columns for rows, columns, _, used in held if used)
    assert weight_bytes(shape, tp, pp, stage) == pytest.approx(sum(rows * columns * size for rows, columns, size, _ in held))
    assert weight_bytes(shape, tp, pp) == max(weight_bytes(shape, tp, pp, s) for s in range(pp))


@given(shapes(), st.integers(1, 9))
def test_stages_part_the_layers(shape: ModelShape, pp: int) -> None:
    pp = min(pp, shape.layers)
    stages = stage_layers(shape, pp)
    assert [layer for stage in stages for layer in stage] == list(range(shape.layers))
    lengths = [len(stage) for stage in stages]
    assert max(lengths) - min(lengths) <= 1
    assert lengths[-1] == min(lengths)  # the last stage has the head, and is never the longer one


@given(shapes(), st.sampled_from([1, 2, 4, 8]), st.integers(0, 200))
def test_kv_bytes_count_every_token_that_a_layer_keeps(shape: ModelShape, tp: int, tokens: int) -> None:
    kept = sum(min(tokens, shape.window) if layer < shape.window_layers else tokens for layer in range(shape.layers))
    per_rank = kv_bytes_per_layer(shape, tp)
    assert kv_bytes(shape, tokens, tp) == pytest.approx(kept * per_rank)
    assert kv_bytes(replace(shape, window=0, window_layers=0), tokens, tp) == pytest.approx(
        tokens * kv_bytes_per_token(shape, tp)
    )
    # All ranks together hold the whole cache at least once.
    assert tp * per_rank >= kv_bytes_per_layer(shape)


@given(shapes(), st.integers(1, 200))
def test_attention_flops_count_every_pair(shape: ModelShape, context: int) -> None:
    flops = 0
    for layer in range(shape.layers):
        pairs = min(context, shape.window) if layer < shape.window_layers else context
        value = shape.v_head_dim if shape.kv_lora else shape.head_dim
        flops += pairs * shape.heads * 2 * (shape.head_dim + value)
    assert attention_flops_per_token(shape, context) == flops


@given(shapes())
def test_linear_flops_are_two_per_weight_used(shape: ModelShape) -> None:
    # Norms multiply no matrix, and the embedding is looked up.
    held = [
        m for m in matrices_of(shape, 1, range(shape.layers), first=shape.tied, last=True) if m[1] != 1 or m[0] != shape.hidden
    ]
    assert linear_flops_per_token(shape) == 2 * sum(rows * columns for rows, columns, _, used in held if used)


def test_absorbed_latent_attention_reads_the_latent() -> None:
    shape = load_model("deepseek-v3")
    assert attention_flops_per_token(shape, 10, absorbed=True) == 61 * 128 * 10 * (2 * 576 + 2 * 512)
    assert attention_flops_per_token(shape, 10) == 61 * 128 * 10 * (2 * 192 + 2 * 128)


def test_layers_that_do_not_divide_go_before_the_last_stage() -> None:
    shape = replace(load_model("llama-3-8b"), layers=10)
    assert [len(stage) for stage in stage_layers(shape, 4)] == [2, 3, 3, 2]  # as vLLM's get_pp_indices
    assert [len(stage) for stage in stage_layers(load_model("deepseek-v3"), 8)] == [7, 7, 8, 8, 8, 8, 8, 7]


def test_kv_heads_are_split_and_then_repeated() -> None:
    shape = load_model("llama-3-8b")
    assert [rank_kv_heads(shape, tp) for tp in (1, 2, 4, 8, 16)] == [8, 4, 2, 1, 1]


@pytest.mark.parametrize("pp", [0, -1, 33])
def test_impossible_pipelines_are_refused(pp: int) -> None:
    with pytest.raises(InputError, match=f"pipeline_parallel_size is {pp}"):
        stage_layers(load_model("llama-3-8b"), pp)


def test_impossible_stages_are_refused() -> None:
    with pytest.raises(InputError, match="stage is 2"):
        rank_parameters(load_model("llama-3-8b"), 1, 2, 2)


def test_vocabulary_that_does_not_divide_is_rounded_up() -> None:
    shape = replace(load_model("llama-3-8b"), vocab=128257)
    assert rank_parameters(shape, 8).head == 4096 * math.ceil(128257 / 8)
