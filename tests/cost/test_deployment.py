"""Deployments: the arithmetic of memory, options that contradict, and engines that simulate."""

import contextlib
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rota.catalog import load_model
from rota.catalog.sizes import kv_bytes_per_token, weight_bytes
from rota.cost.deployment import Deployment
from rota.errors import DoesNotFit, InputError, RotaError


def test_blocks_are_what_is_left_of_memory():
    it = Deployment("llama-3-8b", "a100-80g")
    memory = it.memory(2048)
    assert memory.usable == pytest.approx(0.9 * 80 * 2**30)
    assert memory.weights == pytest.approx(16.06e9, rel=1e-3)
    assert memory.kv_per_token == 131072
    left = memory.usable - memory.weights - memory.activations - memory.runtime
    assert it.blocks(2048) == int(left // (131072 * 16)) == it.engine(2048).blocks
    assert 26_000 < it.blocks(2048) < 29_696


def test_engine_carries_its_conditions():
    engine = Deployment("llama-3.1-70b", "h100", tensor_parallel_size=4, max_model_len=8192).engine(512)
    assert engine.label == "llama-3.1-70b on 4x h100 (tp 4)"
    assert (engine.tp, engine.pp, engine.max_len) == (4, 1, 8192)
    assert engine.meta["gpus"] == 4
    assert engine.meta["usd_per_hour"] == pytest.approx(4 * 2.99)
    assert engine.meta["cost_source"] == "fit: h100"
    energy = engine.meta["energy"]
    assert energy["n_layers"] == 80
    assert energy["joule_byte"] > 0
    assert len(engine.tables.layer) == 4096 + 2
    assert len(Deployment("llama-3-8b", "h100").engine(100_000).tables.layer) == 16384 + 2


def test_larger_steps_leave_less_room():
    it = Deployment("llama-3-8b", "a100-80g")
    assert it.blocks(512) > it.blocks(8192) == it.blocks(0)


def test_formats_change_memory_and_time():
    plain = Deployment("llama-3-8b", "h100")
    eight, four = (Deployment("llama-3-8b", "h100", dtype=d) for d in ("fp8", "int4"))
    assert plain.memory().weights > 1.7 * eight.memory().weights > 2.4 * four.memory().weights
    assert (plain.form, eight.form, four.form) == ("bf16", "fp8", "bf16")
    assert Deployment("llama-3-8b", "a100-80g", dtype="fp8").form == "bf16"
    assert Deployment("llama-3-8b", "a100-80g", dtype="int8").form == "int8"
    assert eight.engine(64).tables.layer[1] < plain.engine(64).tables.layer[1]
    half = Deployment("llama-3-8b", "h100", kv_cache_dtype="fp8")
    assert half.memory().kv_per_token * 2 == plain.memory().kv_per_token
    assert half.engine(64).tables.decode_byte_s == pytest.approx(plain.engine(64).tables.decode_byte_s / 2, rel=1e-2)
    assert Deployment("llama-3-8b", "h100", dtype="bfloat16").memory() == plain.memory()


def test_a_model_that_ships_in_eight_bits_computes_in_them():
    it = Deployment("deepseek-v3", "h200", tensor_parallel_size=8)
    assert it.form == "fp8"
    assert it.memory().weights < 100e9


def test_gpt_oss_120b_runs_on_one_h100_as_published():
    assert Deployment("gpt-oss-120b", "h100").blocks() * 16 > 131072


@given(
    name=st.sampled_from(["llama-3-8b", "mixtral-8x7b", "qwen3-30b-a3b", "yi-34b", "deepseek-v3"]),
    device=st.sampled_from(["a100-80g", "h200", "l40s", "t4"]),
    ranks=st.sampled_from([1, 2, 4, 8]),
    stages=st.sampled_from([1, 2, 3]),
    share=st.floats(0.3, 1.0),
    length=st.integers(64, 4096),
)
def test_what_fits_fits_and_what_does_not_is_told(name, device, ranks, stages, share, length):
    shape = load_model(name)
    try:
        it = Deployment(name, device, ranks, stages, gpu_memory_utilization=share, max_model_len=length)
    except DoesNotFit as error:
        memory = re.findall(r"([\d.]+) GB", str(error))
        parts, usable = [float(x) for x in memory[:4]], float(memory[4])
        assert sum(parts) > usable - 0.3
        return
    held = weight_bytes(shape, ranks, stages) + it.blocks() * 16 * kv_bytes_per_token(shape, ranks, stages)
    assert held <= share * it.accelerator.memory
    assert it.blocks() * 16 >= length
    engine = it.engine(length)  # (larger steps may leave no room for KV)
    assert engine.tables.n_layers % stages == 0
    assert engine.tables.n_layers - shape.layers < stages


@given(share=st.floats(0.4, 0.9), more=st.floats(0.01, 0.1))
def test_more_memory_is_more_blocks(share, more):
    low, high = (Deployment("llama-3-8b", "a100-80g", gpu_memory_utilization=s) for s in (share, share + more))
    assert high.blocks() > low.blocks()


def test_the_advice_of_an_error_works():
    with pytest.raises(DoesNotFit, match="does not fit a100-80g: per device 141.1 GB weights") as caught:
        Deployment("llama-3.1-70b", "a100-80g")
    ranks = int(re.search(r"tensor_parallel_size=(\d+)", str(caught.value))[1])
    assert Deployment("llama-3.1-70b", "a100-80g", ranks).blocks() > 0
    with pytest.raises(DoesNotFit):
        Deployment("llama-3.1-70b", "a100-80g", ranks // 2)
    with pytest.raises(DoesNotFit, match="set max_model_len to") as caught:
        Deployment("llama-3.1-8b", "l4")
    length = int(re.search(r"max_model_len to (\d+)", str(caught.value))[1])
    assert Deployment("llama-3.1-8b", "l4", max_model_len=length).blocks() * 16 >= length
    with pytest.raises(DoesNotFit, match="use more or larger devices"):
        Deployment("llama-3.1-405b", "h100", 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be a whole number"),
        ({"tensor_parallel_size": 2.0}, "tensor_parallel_size must be a whole number"),
        ({"tensor_parallel_size": 3}, "does not divide llama-3-8b's attention heads"),
        ({"tensor_parallel_size": 16}, "a node joins 8 a100-80g"),
        ({"pipeline_parallel_size": 40}, "has 32 layers"),
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization must be above 0"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization must be above 0"),
        ({"gpu_memory_utilization": float("nan")}, "gpu_memory_utilization must be above 0"),
        ({"block_size": 0}, "block_size must be a whole number"),
        ({"max_model_len": 0}, "max_model_len must be a whole number"),
        ({"max_model_len": 100_000}, "takes 8192 tokens at most"),
        ({"dtype": "fp9"}, "dtype 'fp9' is unknown"),
        ({"kv_cache_dtype": "int2"}, "kv_cache_dtype 'int2' is unknown"),
        ({"calibration": "/no/such.toml"}, "cannot be read"),
        ({"expert_skew": -1.0}, "expert_skew must be"),
    ],
)
def test_wrong_options_are_told_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Deployment("llama-3-8b", "a100-80g", **options)
    assert "\n" not in str(caught.value)


def test_kv_heads_and_ranks_must_go_together():
    with pytest.raises(InputError, match="does not divide|one must divide the other"):
        Deployment("qwen2.5-7b", "a100-80g", 8)


@given(ranks=st.integers(1, 9), stages=st.integers(1, 70))
def test_no_split_raises_anything_else(ranks, stages):
    assume(ranks * stages < 200)
    with contextlib.suppress(RotaError):
        Deployment("qwen3-30b-a3b", "h100", ranks, stages, max_model_len=2048).engine(256)


def test_steps_cannot_be_negative():
    with pytest.raises(InputError, match="must not be negative"):
        Deployment("llama-3-8b", "a100-80g").engine(-1)


def test_tables_of_two_ranks_are_faster_and_of_two_stages_send():
    one, two = (Deployment("llama-3-8b", "a100-80g", k).engine(512).tables for k in (1, 2))
    assert two.layer[512] < one.layer[512]
    staged = Deployment("llama-3-8b", "a100-80g", 1, 2).engine(512).tables
    assert staged.send > 0
    across = Deployment("llama-3-8b", "a100-80g", 8, 2).engine(512).tables
    assert across.send > staged.send
