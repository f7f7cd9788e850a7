"""Host memory for KV: how many blocks, how long to bring them back, and the fit of prefill times that policies get."""

import math

import pytest

from rota.catalog import load_link
from rota.cost.deployment import Deployment
from rota.cost.model import CostModel
from rota.cost.offload import offload
from rota.errors import InputError


def test_blocks_and_times_follow_from_bytes():
    # Llama-3.1-8B: 32 layers x 2 x 8 heads x 128 x 2 bytes = 131,072 bytes per token
    engine = Deployment("llama-3.1-8b", "a100-80g", kv_offloading_size=100).engine(2048)
    assert engine.offload_blocks == math.floor(100 * 2**30 / (131072 * 16))
    assert engine.reload == pytest.approx(131072 / (0.75 * 31.5e9))  # PCIe 4.0, of which copies reach three quarters
    plain = Deployment("llama-3.1-8b", "a100-80g").engine(2048)
    assert (plain.offload_blocks, plain.blocks) == (0, engine.blocks)
    assert "host memory" in engine.meta
    assert "host memory" not in plain.meta


def test_devices_share_the_memory_and_copy_at_the_same_time():
    one, two = (offload(64, n, load_link("pcie-gen5"), 0.75, 131072 / n, 16) for n in (1, 2))
    assert one.blocks == two.blocks
    assert one.reload == 2 * two.reload


@pytest.mark.parametrize("size", [-1, float("nan"), float("inf"), 1e-9, True])
def test_wrong_sizes(size):
    with pytest.raises(InputError, match="kv_offloading_size"):
        Deployment("llama-3.1-8b", "a100-80g", kv_offloading_size=size)


def test_more_than_the_host_has():
    with pytest.raises(InputError, match="kv_offloading_size is 500 GiB per device, but dgx-a100 has 128"):
        Deployment("llama-3.1-8b", "a100-80g", kv_offloading_size=500)


@pytest.mark.parametrize("chunk", [512, 2048, 1 << 40])
def test_the_fit_of_prefill_times_is_within_a_tenth(chunk):
    model = CostModel(Deployment("llama-3.1-8b", "a100-80g", max_model_len=65536).engine(2048).tables)
    a, b, c = model.prefill_fit(65536, chunk)
    for n in (1500, 3000, 10_000, 30_000, 60_000):
        exact = sum(
            float(model.prefill_seconds(min(chunk, n - past), past)) for past in range(0, n, min(chunk, n))
        )
        assert a + b * n + c * n * n == pytest.approx(exact, rel=0.1)
