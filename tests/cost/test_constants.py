"""Constants as data: all shipped files are sound, files come back as written, wrong ones are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.catalog import device_names, load_device, load_link
from rota.cost.constants import (
    CUSTOM_LIMIT,
    AllReduce,
    Constants,
    Host,
    Kernel,
    default_all_reduce,
    load_constants,
    read_constants,
    write_constants,
)
from rota.errors import InputError

HOST = Host(0.0, 1e-3, 1e-6, 0.5, "measured")
POSITIVE = st.floats(1e-3, 1.0)


@pytest.mark.parametrize("name", device_names())
def test_every_device_of_the_catalog_has_plausible_constants(name):
    device = load_device(name)
    found = load_constants(device, load_link(device.link))
    for kind in ("linear", "experts"):
        for form in ("bf16", "fp8", "int8", "int4"):
            assert 0.1 < found.kernel(kind, form).flop_efficiency <= 1 or form == "int4" or kind == "experts"
    for kernel in found.kernels.values():
        assert 0 <= kernel.floor < 1e-4
        assert 0.1 < kernel.byte_efficiency < 1.2
        assert 0 < kernel.error < 0.4
        assert kernel.origin != "not stated"
        assert kernel.fitted != kernel.origin.startswith("assumed")
    assert found.source == ("fit" if found.name not in ("default", "a40") else "roofline")


def test_estimates_state_larger_errors_than_fits():
    fitted, assumed = (load_constants(d, load_link(d.link)) for d in (load_device("h100"), load_device("t4")))
    for kind in ("linear.bf16", "prefill", "decode", "experts.bf16"):
        assert assumed.kernels[kind].error > fitted.kernels[kind].error


@given(floor=st.floats(0, 1e-3), ef=POSITIVE, eb=POSITIVE, error=POSITIVE, text=st.text(min_size=1, max_size=30))
def test_files_come_back_as_written(tmp_path_factory, floor, ef, eb, error, text):
    path = tmp_path_factory.mktemp("constants") / "c.toml"
    kernel = Kernel(floor, ef, eb, error, True, text)
    reduce = AllReduce(floor, 1e9, floor, 2e9, error, False, text)
    write_constants(
        path, Constants({"linear.bf16": kernel, "decode": kernel}, {2: reduce}, HOST, meta={"device": "h100", "host": "x"})
    )
    back = read_constants(path)
    for mine, theirs in ((back.kernels["linear.bf16"], kernel), (back.kernels["decode"], kernel), (back.all_reduce[2], reduce)):
        for name in ("error", "fitted"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-3)
    assert back.kernels["decode"].floor == pytest.approx(floor, rel=1e-3)
    assert back.host.cpu == 1e-3
    assert back.meta["device"] == "h100"


def test_a_calibration_replaces_what_it_holds_and_nothing_else(tmp_path):
    device, path = load_device("h100"), tmp_path / "c.toml"
    plain = load_constants(device, load_link(device.link))
    kernel = Kernel(1e-5, 0.3, 0.3, 0.01, True, "mine")
    write_constants(path, Constants({"decode": kernel}, {}, HOST, meta={"device": "h100"}))
    found = load_constants(device, load_link(device.link), path)
    assert found.kernels["decode"] == kernel
    assert found.host == plain.host
    assert {**found.kernels, "decode": None} == {**plain.kernels, "decode": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[decode", "not valid TOML"),
        ("[decode]\nfloor = 1e-5", "flop_efficiency is missing"),
        ("[decode]\nfloor = -1\nflop_efficiency = 1\nbyte_efficiency = 1\nerror = 0", "field floor must be"),
        ("[decode]\nspeed = 1", "unknown field speed"),
        ("[speed]\nfloor = 1", r"unknown table \[speed\]"),
        ("[linear.fp2]\nfloor = 1", "unknown field fp2"),
        ("[all_reduce.one]\nlatency = 1", "must be a number of devices"),
        ('[host]\ncpu = "fast"', "field launch is missing"),
    ],
)
def test_wrong_files_are_told(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_constants(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_constants(tmp_path / "no" / "c.toml", Constants({}, {}, HOST))


def test_one_device_reduces_nothing_and_sizes_switch_kernels():
    entry = AllReduce(1e-5, 1e11, 5e-5, 2e11, 0.1)
    assert entry.seconds(1e6, 1) == 0
    assert entry.seconds(1e6, 2) == pytest.approx(1e-5 + 1e6 / 1e11)
    assert entry.seconds(1e9, 4) == pytest.approx(5e-5 + 1.5e9 / 2e11)
    assert entry.seconds(CUSTOM_LIMIT + 1, 2) >= entry.seconds(CUSTOM_LIMIT, 2)
    guess = default_all_reduce(load_link("xgmi"), 8)
    assert guess.error >= 0.3
