"""The built-in data are complete and consistent, and names are found, or refused with a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from rota.catalog import (
    describe,
    device_names,
    host_names,
    link_names,
    load_device,
    load_host,
    load_link,
    load_model,
    model_names,
    usual_host,
)
from rota.errors import InputError

PROMISED_MODELS = """llama-2-7b llama-2-13b llama-2-70b llama-3-8b llama-3-70b llama-3.1-8b llama-3.1-70b llama-3.1-405b
    mistral-7b mixtral-8x7b yi-34b qwen2.5-7b qwen2.5-32b qwen2.5-72b qwen3-8b qwen3-30b-a3b gpt-oss-20b gpt-oss-120b deepseek-v3
    falcon-180b"""
PROMISED_DEVICES = """a100-80g a100-80g-pcie a100-40g a100-40g-pcie h100 h100-pcie h200 b200 a40 l4 l40s t4 a10 rtx4090 mi300x
    ascend-910b"""


def test_everything_promised_is_there() -> None:
    assert set(PROMISED_MODELS.split()) <= set(model_names())
    assert set(PROMISED_DEVICES.split()) <= set(device_names())
    assert {"nvlink3", "nvlink4", "nvlink5", "pcie-gen3", "pcie-gen4", "xgmi", "hccs"} <= set(link_names())


def test_every_name_and_alias_means_one_thing() -> None:
    for names, load in ((model_names(), load_model), (device_names(), load_device)):
        seen: dict[str, str] = {}
        for name in names:
            for spelling in (name, *load(name).aliases):
                assert seen.setdefault(spelling.lower(), name) == name
                assert load(f" {spelling.upper()} ") == load(name)


@pytest.mark.parametrize("name", device_names())
def test_devices_are_plausible(name: str) -> None:
    device = load_device(name)
    assert device.source
    assert device.name == name == name.lower()
    assert 8 * 2**30 < device.memory < 512 * 2**30
    assert 0.2e12 < device.bandwidth < 20e12
    # Every one of these is compute-bound above 100 to 700 FLOP per byte: a slipped digit falls out of this range.
    assert 100 < device.flops["bf16"] / device.bandwidth < 700
    for form in set(device.flops) - {"bf16"}:
        assert 1.9 < device.flops[form] / device.flops["bf16"] < 4.1
    assert load_link(device.link).bandwidth < device.bandwidth
    assert 0 < device.idle_watts < 0.35 * device.max_watts
    # Between 0.4 and 3 pJ per FLOP at the limit: again a check on digits.
    assert 0.4e-12 < device.max_watts / device.flops["bf16"] < 3e-12
    assert 0.2 < device.usd_per_hour < 10


def test_links_are_plausible_and_ordered() -> None:
    assert all(load_link(name).source and 1e-6 < load_link(name).latency < 2e-5 for name in link_names())
    pcie = [load_link(f"pcie-gen{generation}").bandwidth for generation in (3, 4, 5)]
    assert pcie[1] / pcie[0] == pytest.approx(2)
    assert pcie[2] / pcie[1] == pytest.approx(2)
    nvlink = [load_link(f"nvlink{generation}").bandwidth for generation in (3, 4, 5)]
    assert nvlink == [300e9, 450e9, 900e9]


@pytest.mark.parametrize("name", host_names())
def test_hosts_are_plausible(name: str) -> None:
    host = load_host(name.upper())
    assert host.source
    assert 10e9 < host.bandwidth < 400e9
    assert 2**34 < host.memory < 2**40
    assert load_link(host.link).name == host.link
    assert all(load_device(device).name == device for device in host.devices)


def test_every_device_has_a_host() -> None:
    assert usual_host(load_device("t4")).name == "g4dn-4xlarge"
    assert usual_host(load_device("a10")).name == "g5-4xlarge"
    assert usual_host(load_device("rtx4090")).name == "server"
    with pytest.raises(InputError, match="unknown host 'g5-4xlarg'; did you mean g5-4xlarge"):
        load_host("g5-4xlarg")


@pytest.mark.parametrize("name", model_names())
def test_models_are_consistent(name: str) -> None:
    shape = load_model(name)
    assert shape.source.startswith("config.json of ")
    assert shape.heads % shape.kv_heads == 0
    assert shape.window_layers <= shape.layers
    assert (shape.window > 0) == (shape.window_layers > 0)
    assert (shape.experts > 0) == (shape.expert_ffn > 0) == (shape.experts_per_token > 0)
    assert (shape.ffn > 0) == (not shape.experts or shape.dense_layers > 0)
    assert all(isinstance(getattr(shape, field), int) for field in ("layers", "hidden", "head_dim", "ffn", "vocab", "max_len"))


@pytest.mark.parametrize(
    ("load", "name", "hint"),
    [
        (load_model, "lama-3-8b", "llama-3-8b"),
        (load_model, "Mixtral-8x7", "mixtral-8x7b"),
        (load_model, "meta-lama/Llama-3.1-8B", "llama-3.1-8b"),
        (load_device, "a100_80g", "a100-80g"),
        (load_device, "h10", "h100"),
        (load_link, "nvlink6", "nvlink"),
    ],
)
def test_a_slip_is_answered_with_the_closest_names(load, name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"unknown .* did you mean .*{hint}.*rota catalog") as caught:
        load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "  ", "zzzzzzzz", "~nobody-here", "x" * 5000, "a\0b", "no/such/model"])
def test_names_beyond_recognition_are_refused_in_one_short_line(name: str) -> None:
    for load in (load_model, load_device, load_link):
        with pytest.raises(InputError, match="unknown") as caught:
            load(name)
        assert len(str(caught.value)) < 250
        assert "\n" not in str(caught.value)


def test_paths_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json in this directory"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"no such file"):
        load_model(tmp_path / "config.json")


DEVICE = """
tflops = { bf16 = 500.0, fp8 = 1000 }
memory_mib = 65536
gb_s = 2500
link = "pcie-gen5"
max_tp = 4
watts = { idle = 40, max = 450 }
usd_per_hour = 1.25
source = "made up"
"""


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DEVICE)
    device = load_device(path)
    assert (device.name, device.memory, device.bandwidth) == ("mine", 64 * 2**30, 2.5e12)
    assert device.flops == {"bf16": 5e14, "fp8": 1e15}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gb_s = 2500", "", "field gb_s is missing"),
        ("gb_s = 2500", "gb_s = -1", "field gb_s must be a number above 0"),
        ("gb_s = 2500", "gb_s = nan", "field gb_s must be a number above 0"),
        ("gb_s = 2500", "gb_s = true", "field gb_s must be a number above 0"),
        ("gb_s = 2500", 'gb_s = "fast"', "field gb_s must be a number above 0"),
        ("max_tp = 4", "max_tp = 2.5", "field max_tp must be a whole number"),
        ('"pcie-gen5"', '"string"', "field link names 'string'"),
        ("bf16 = 500.0,", "", "tflops: field bf16 is missing"),
        ("fp8 = 1000", "fp16 = 1000", "tflops: unknown field fp16"),
        ("idle = 40", "idle = 500", "idle .500. above max"),
        ("watts = { idle = 40, max = 450 }", "watts = 3", "field watts must be a table"),
        ("usd_per_hour", "dollars", "unknown field dollars"),
        ('source = "made up"', "source = 3", "field source must be a text"),
        ("max_tp = 4", "max_tp =", "not valid TOML"),
    ],
)
def test_a_wrong_device_file_is_refused_by_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in DEVICE
    path.write_text(DEVICE.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        load_device(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_device_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_device(tmp_path / "none.toml")


@pytest.mark.parametrize(("kind", "names"), [("models", model_names), ("devices", device_names), ("links", link_names), ("hosts", host_names)])
def test_listings_have_a_row_for_each_and_the_same_columns(kind: str, names) -> None:
    rows = describe(kind)
    assert [row["name"] for row in rows] == names()
    assert len({tuple(row) for row in rows}) == 1
    assert all(row["source"] for row in rows)


def test_listings_of_something_else() -> None:
    with pytest.raises(InputError, match="models, devices, links, hosts"):
        describe("horses")
