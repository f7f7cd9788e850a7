"""What the host's part costs, and how much KV fits behind a device."""

import pytest

from rota.catalog import load_host, load_link
from rota.cost.deployment import Deployment
from rota.cost.host import HostCosts
from rota.errors import DoesNotFit, InputError

T4 = dict(model="llama-2-7b", device="t4", gpu_memory_utilization=0.95, max_model_len=1024)


def test_host_attention_reads_the_kv_at_a_share_of_the_memory_bandwidth():
    host = Deployment(**T4).engine(0).tables.host
    per_token = 2 * 32 * 128 * 2  # keys and values of one layer of Llama-2-7B
    assert host.context_s == pytest.approx(per_token / (0.6 * 46.9e9))
    assert host.attention(0) == 0
    assert host.attention(1000, calls=3) == pytest.approx(3 * 2e-5 + 1000 * host.context_s)
    link = load_link("pcie-gen3")
    vectors = (32 + 2 * 32) * 128 * 2 + 32 * 128 * 2  # query, key and value to the host, output back
    assert host.exchange(7) == pytest.approx(2 * link.latency + 7 * vectors / (0.75 * link.bandwidth))
    assert host.exchange(0) == 0
    assert host.kv_s == pytest.approx(per_token / (0.75 * link.bandwidth))
    assert "assumed" in host.source


def test_grouped_heads_read_less_and_send_less():
    many = Deployment("llama-2-7b", "a10", max_model_len=4096).engine(0).tables.host
    few = Deployment("llama-3.1-8b", "a10", max_model_len=4096).engine(0).tables.host
    assert many.context_s / few.context_s == pytest.approx(4)
    assert many.back_s == few.back_s
    assert many.send_s / few.send_s == pytest.approx((32 + 64) / (32 + 16))


def test_hosts_of_several_devices_work_side_by_side():
    one = Deployment("llama-3.1-8b", "a10", max_model_len=4096).engine(0)
    two = Deployment("llama-3.1-8b", "a10", max_model_len=4096, tensor_parallel_size=2).engine(0)
    assert two.tables.host.context_s == pytest.approx(one.tables.host.context_s / 2)
    assert two.host_blocks == pytest.approx(2 * one.host_blocks, abs=1)


def test_blocks_in_host_memory():
    assert Deployment(**T4).engine(0).host_blocks == 0.75 * 64 * 2**30 // (16 * 524288)
    assert Deployment(**T4, swap_space=1).engine(0).host_blocks == 2**30 // (16 * 524288)
    assert Deployment(**T4, swap_space=0).engine(0).host_blocks == 0
    assert Deployment("llama-2-7b", "a10", host="g5-16xlarge").engine(0).host_blocks == 0.75 * 256 * 2**30 // (16 * 524288)
    assert Deployment("llama-2-7b", "a10", host=load_host("server")).engine(0).meta["host"].startswith("6,144 KV blocks; server")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(swap_space=-1), "swap_space must be 0 or a number of GiB, not -1"),
        (dict(swap_space=float("nan")), "swap_space must be 0"),
        (dict(swap_space=65), "swap_space is 65 GiB, but g4dn-4xlarge has 64 GiB; lower it"),
        (dict(host="g4dn"), "unknown host 'g4dn'; did you mean g4dn-4xlarge"),
    ],
)
def test_what_cannot_be(options, says):
    with pytest.raises(InputError, match=says):
        Deployment(**T4, **options)


def test_a_small_card_is_told_how_to_hold_a_large_model():
    with pytest.raises(DoesNotFit, match=r"raise gpu_memory_utilization to 0.95 \(then max_model_len up to (\d+) fits\)") as caught:
        Deployment("llama-2-7b", "t4")
    fits = int(str(caught.value).split("up to ")[1].split()[0])
    assert Deployment("llama-2-7b", "t4", gpu_memory_utilization=0.95, max_model_len=fits).blocks() * 16 >= fits
    with pytest.raises(DoesNotFit) as caught:
        Deployment("llama-3.1-8b", "t4")
    assert "gpu_memory_utilization to" not in str(caught.value)  # its weights alone are too much


def test_scaled_attention_is_slower_on_the_host_too():
    tables = Deployment(**T4).engine(0).tables
    assert tables.scaled(attention=2).host.context_s == 2 * tables.host.context_s
    assert HostCosts(floor=1, kv_s=3).scaled(2) == HostCosts(floor=2, kv_s=3)
