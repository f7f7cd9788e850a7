"""Step tables against a second, scalar computation, closed forms and what must hold for any shape."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.catalog import load_device, load_link, load_model
from rota.catalog.shapes import Accelerator, Link, ModelShape
from rota.catalog.sizes import linear_flops_per_token
from rota.cost.constants import AllReduce, Constants, Host, Kernel
from rota.cost.model import lookup
from rota.cost.roofline import attended_share, expert_chances, padded_rows, step_tables, touched_experts

LINK = Link("wire", 100e9, 5e-6)
DEVICE = Accelerator("toy", {"bf16": 100e12, "fp8": 200e12}, 80e9, 1e12, "wire", 8, 50.0, 400.0, 1.0, "made up")
DENSE = ModelShape("dense", 4, 512, 8, 2, 64, 1408, 1000, 4096, "made up")
SPARSE = replace(DENSE, name="sparse", ffn=0, experts=16, experts_per_token=2, expert_ffn=352)
LATENT = replace(DENSE, name="latent", kv_heads=8, head_dim=96, kv_lora=128, rope_dim=32, q_lora=256, nope_dim=64, v_head_dim=64)
KERNELS = {
    "linear.bf16": Kernel(5e-6, 0.7, 0.8, 0.05, True),
    "linear.fp8": Kernel(7e-6, 0.4, 0.8, 0.2, True),
    "pointwise": Kernel(2e-6, 0.5, 0.7, 0.2, True),
    "prefill": Kernel(1e-5, 0.5, 0.3, 0.1, True),
    "decode": Kernel(1.5e-5, 0.5, 0.75, 0.1, True),
    "experts.bf16": Kernel(3e-5, 0.5, 0.85, 0.1, True),
}
REDUCE = {k: AllReduce(5e-6, 50e9, 50e-6, 80e9, 0.1, True) for k in (2, 4, 8)}
CONSTANTS = Constants(KERNELS, REDUCE, Host(0.0, 1e-3, 1e-6, 0.5))
shapes = st.sampled_from([DENSE, SPARSE, LATENT, replace(SPARSE, dense_layers=1, ffn=1408, shared_ffn=352)])


def tables(shape=DENSE, **options):
    return step_tables(shape, DEVICE, LINK, options.pop("constants", CONSTANTS), **{"n_max": 512, **options})


def call(kernel, flops, moved, peak=100e12):
    """One kernel, in scalars."""
    return kernel.floor + math.sqrt(
        (flops / (peak * kernel.flop_efficiency)) ** 2 + (moved / (1e12 * kernel.byte_efficiency)) ** 2
    )


def matmul(n, i, o, form="bf16", width=2.0):
    peak = {"bf16": 100e12, "fp8": 200e12}[form]
    rows = 64 * ((n + 63) // 64)
    return call(KERNELS[f"linear.{form}"], 2 * rows * i * o, width * i * o + 2 * (i + o) * n, peak)


def stream(n, width):
    return call(KERNELS["pointwise"], 0, 2 * width * n)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 300, 512])
@pytest.mark.parametrize("k", [1, 2])
def test_dense_layer_is_the_sum_of_its_kernels(n, k):
    qkv = matmul(n, 512, (8 // k + 2 * 2 // k) * 64)
    out = matmul(n, 8 // k * 64, 512)
    block = matmul(n, 512, 2 * 1408 // k) + matmul(n, 1408 // k, 512) + stream(n, 3 * 1408 // k)
    small = 2 * stream(n, 2048) + stream(n, 1536) + stream(n, 2 * (8 + 2) * 64 // k) + stream(n, 2 * 2 * 2 * 64 // k)
    reduce = 0 if k == 1 else 2 * (5e-6 + n * 512 * 2 / 50e9)
    assert tables(tensor_parallel_size=k).layer[n] == pytest.approx(qkv + out + block + small + reduce, rel=1e-12)


@pytest.mark.parametrize("n", [1, 40, 512])
def test_sparse_layer_is_the_sum_of_its_kernels(n):
    touched = 16 * (1 - (1 - 2 / 16) ** n)
    rows = max(16 * touched, 2 * n + touched * 7.5)
    moved = 2 * 3 * 512 * 352 * touched + 2 * 2 * n * (2 * 512 + 3 * 352)
    experts = call(KERNELS["experts.bf16"], 2 * 3 * 512 * 352 * rows, moved)
    router = matmul(n, 512, 16) + stream(n, 32)
    attention = matmul(n, 512, 768) + matmul(n, 512, 512)
    small = 2 * stream(n, 2048) + stream(n, 1536) + stream(n, 1280) + stream(n, 512)
    assert tables(SPARSE).layer[n] == pytest.approx(experts + router + attention + small, rel=1e-12)


def test_leading_dense_layers_are_averaged_in():
    mixed = replace(SPARSE, ffn=1408, dense_layers=1)
    expected = 0.25 * tables(DENSE).layer + 0.75 * tables(SPARSE).layer
    np.testing.assert_allclose(tables(mixed).layer, expected, rtol=1e-12)
    np.testing.assert_allclose(tables(mixed).expert_bytes, 0.75 * tables(SPARSE).expert_bytes)


@pytest.mark.parametrize("n", [1, 200])
def test_latent_projections(n):
    expected = matmul(n, 512, 256) + matmul(n, 256, 8 * 96) + matmul(n, 512, 160) + matmul(n, 128, 8 * 128) + matmul(n, 512, 512)
    without = tables(LATENT).layer[n] - (matmul(n, 512, 2816) + matmul(n, 1408, 512) + stream(n, 4224))
    small = 2 * stream(n, 2048) + stream(n, 1536) + stream(n, 2 * (8 * 96 + 80)) + stream(n, 320)
    assert without == pytest.approx(expected + small, rel=1e-12)


def test_latent_decode_reads_the_latent_and_is_no_cheaper_with_more_ranks_than_its_cache():
    one, many = tables(LATENT).decode_byte_s, tables(LATENT, tensor_parallel_size=8).decode_byte_s
    reading = 160 * 2 / (1e12 * 0.75)
    assert one == pytest.approx(math.hypot(reading, 8 * 2 * 288 / (100e12 * 0.5)))
    assert many == pytest.approx(math.hypot(reading, 2 * 288 / (100e12 * 0.5)))


def test_attention_constants_of_grouped_queries():
    found = tables(tensor_parallel_size=2)
    assert found.prefill_flop_s == pytest.approx(4 * 64 * 4 / (100e12 * 0.5))
    assert found.prefill_byte_s == pytest.approx(2 * 1 * 64 * 2 / (1e12 * 0.3))
    assert found.query_byte_s == pytest.approx(2 * 4 * 128 / (1e12 * 0.3))
    assert found.decode_byte_s == pytest.approx(math.hypot(2 * 64 * 2 / 0.75e12, 4 * 4 * 64 / 50e12))


def test_kv_heads_are_repeated_when_there_are_fewer_than_ranks():
    assert tables(tensor_parallel_size=4).prefill_byte_s == tables(tensor_parallel_size=2).prefill_byte_s


def test_no_tokens_cost_nothing_and_more_never_cost_less():
    for shape in (DENSE, SPARSE, LATENT):
        for k in (1, 8):
            found = tables(shape, tensor_parallel_size=k, n_max=8192)
            assert found.layer[0] == 0.0
            assert found.head[0] == 0.0
            assert np.all(np.diff(found.layer) >= 0), shape.name
            assert np.all(np.diff(found.head) >= 0)


def test_all_reduce_does_not_fall_where_the_kernel_changes():
    sizes = np.linspace(1, 32 << 20, 4000)
    for link in ("nvlink3", "nvlink4", "nvlink5", "pcie-gen4", "nvlink3-bridge"):
        from rota.cost.constants import _links

        for k, entry in _links()[link].items():
            assert np.all(np.diff(entry.seconds(sizes, k)) >= 0), (link, k)


@given(shape=shapes, faster=st.floats(1.1, 8.0), n=st.integers(1, 512))
def test_a_device_faster_in_all_respects_is_faster_by_that_factor(shape, faster, n):
    """With no floors and no links, time is proportional to 1 / speed."""
    kernels = {name: replace(kernel, floor=0.0) for name, kernel in KERNELS.items()}
    constants = replace(CONSTANTS, kernels=kernels)
    quick = replace(DEVICE, flops={f: v * faster for f, v in DEVICE.flops.items()}, bandwidth=DEVICE.bandwidth * faster)
    slow = step_tables(shape, DEVICE, LINK, constants, n_max=512)
    fast = step_tables(shape, quick, LINK, constants, n_max=512)
    assert fast.layer[n] * faster == pytest.approx(slow.layer[n], rel=1e-9)
    assert fast.prefill_flop_s * faster == pytest.approx(slow.prefill_flop_s, rel=1e-9)
    assert fast.decode_byte_s * faster == pytest.approx(slow.decode_byte_s, rel=1e-9)


@given(n=st.integers(513, 4000))
def test_beyond_its_end_a_table_goes_on_as_a_longer_one_would(n):
    short, long = tables(n_max=512), tables(n_max=4096)
    assert float(lookup(short.layer, n)) == pytest.approx(long.layer[n], rel=0.1)


@given(st.integers(1, 24), st.integers(1, 8), st.integers(1, 30))
def test_touched_experts_token_by_token(experts, k, n):
    """The whole distribution: a token that finds t experts touched touches j more with hypergeometric probability."""
    k = min(k, experts)
    chance = [1.0] + [0.0] * experts
    for _ in range(n):
        after = [0.0] * (experts + 1)
        for t, p in enumerate(chance):
            for j in range(min(k, experts - t) + 1):
                after[t + j] += p * math.comb(experts - t, j) * math.comb(t, k - j) / math.comb(experts, k)
        chance = after
    expected = sum(t * p for t, p in enumerate(chance))
    assert float(touched_experts(n, experts, k)) == pytest.approx(expected, rel=1e-9)


def test_one_token_reads_its_experts_and_many_read_all():
    found = tables(SPARSE)
    assert found.expert_bytes[0] == 0
    assert found.expert_bytes[1] == pytest.approx(2 * 3 * 512 * 352 * 2)
    assert found.expert_bytes[512] == pytest.approx(16 * 3 * 512 * 352 * 2, rel=1e-6)


@given(st.integers(1, 256), st.integers(1, 16), st.floats(0.0, 3.0))
def test_expert_chances_are_probabilities_that_sum_to_k(experts, k, skew):
    k = min(k, experts)
    chances = expert_chances(experts, k, skew)
    assert chances.sum() == pytest.approx(k)
    assert np.all((chances <= 1) & (chances >= 0))
    assert np.all(np.diff(chances) <= 1e-12)


@given(st.integers(1, 200), st.floats(0.1, 2.0))
def test_skew_touches_fewer_experts(n, skew):
    assert touched_experts(float(n), 64, 8, skew) <= touched_experts(n, 64, 8) * (1 + 1e-9)
    assert touched_experts(float(n), 64, 8, 1e-9) == pytest.approx(float(touched_experts(n, 64, 8)), rel=1e-6)


@pytest.mark.parametrize(("experts", "k", "n"), [(8, 2, 4), (8, 2, 64), (128, 8, 64), (128, 8, 2048), (32, 4, 100), (256, 8, 1)])
def test_padded_rows_are_whole_tiles_on_average(experts, k, n):
    draws = np.random.default_rng(7).random((60, n, experts)).argpartition(k - 1, axis=2)[:, :, :k].reshape(60, -1)
    counts = np.stack([np.bincount(draw, minlength=experts) for draw in draws])
    exact = (np.ceil(counts / 16) * 16).sum(axis=1).mean()
    assert float(padded_rows(n * k, touched_experts(n, experts, k))) == pytest.approx(exact, rel=0.12)


def test_eight_bits_halve_the_weights_and_pay_their_own_floor():
    eight = tables(replace(DENSE, weight_bytes=1.0), form="fp8")
    assert eight.weight_bytes == pytest.approx(tables().weight_bytes / 2, rel=0.01)
    only = replace(CONSTANTS, kernels={n: k for n, k in KERNELS.items() if n != "linear.fp8"})
    assert only.kernel("linear", "fp8") == KERNELS["linear.bf16"]
    assert only.kernel("linear", "int8") == KERNELS["linear.bf16"]
    assert CONSTANTS.kernel("linear", "int8") == KERNELS["linear.fp8"]
    sizes = [(512, 768), (512, 512), (512, 2816), (1408, 512)]
    saved = sum(matmul(70, i, o) - matmul(70, i, o, "fp8", 1.0) for i, o in sizes)
    assert tables().layer[70] - eight.layer[70] == pytest.approx(saved)


def test_windows_share_the_context():
    half = replace(DENSE, window=512, window_layers=2)
    assert attended_share(half) == pytest.approx(0.5 + 0.5 * 0.25)
    assert attended_share(replace(half, window=4096)) == 1.0
    assert tables(half).decode_byte_s == pytest.approx(tables().decode_byte_s * 0.625)


def test_uneven_stages_are_as_slow_as_the_fullest_but_do_no_extra_work():
    uneven, whole = tables(pipeline_parallel_size=3), tables()
    assert (uneven.n_layers, uneven.stages) == (6, 3)
    for name in ("linear_flops", "attention_flops", "weight_bytes", "kv_bytes"):
        assert getattr(uneven, name) * 6 == pytest.approx(getattr(whole, name) * 4)
    assert uneven.send > 0
    assert whole.send == whole.send_per_token == 0


@pytest.mark.parametrize("name", ["llama-3-8b", "mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b"])
def test_flops_per_token_are_those_of_the_catalog(name):
    shape = load_model(name)
    device = load_device("h100")
    found = step_tables(shape, device, load_link(device.link), CONSTANTS, n_max=64)
    head = 2 * shape.hidden * shape.vocab
    assert found.linear_flops * shape.layers == pytest.approx(linear_flops_per_token(shape) - head, rel=1e-9)


def test_energy_is_the_stated_power_at_both_extremes():
    found = tables()
    assert found.joule_flop * 100e12 * 0.7 + 50 == pytest.approx(0.95 * 400)
    assert found.joule_byte * 1e12 * 0.8 + 50 == pytest.approx(0.55 * 400)
    assert tables(tensor_parallel_size=4, pipeline_parallel_size=2).idle_watts == 400


def test_errors_say_which_part_and_how_it_is_known():
    errors = tables(SPARSE, tensor_parallel_size=2).error
    assert errors["linear (hold-out)"] == 0.05
    assert any("all-reduce" in name for name in errors)
    assert any("experts" in name for name in errors)
    assert tables().source == "fit"
    loose = replace(CONSTANTS, kernels={**KERNELS, "decode": replace(KERNELS["decode"], fitted=False)})
    assert tables(constants=loose).source == "roofline"
    assert "decode attention (estimate)" in tables(constants=loose).error
