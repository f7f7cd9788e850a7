"""Fits: what was put in comes out, wrong rows do not matter, and the hold-out error on measured profiles keeps its bars."""

import gzip

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.cost.constants import read_constants
from rota.cost.deployment import Deployment
from rota.cost.fit import calibrate, fit_roofline
from rota.cost.profiles import read_profile
from rota.errors import InputError

PEAK, BANDWIDTH = 312e12, 2.039e12
EFFICIENT = st.floats(0.2, 0.95)


def calls(seed=0, n=400):
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(6, 13, n), 10 ** rng.uniform(4, 9, n)


def time(flops, moved, floor, ef, eb):
    return floor + np.hypot(flops / (PEAK * ef), moved / (BANDWIDTH * eb))


@given(floor=st.floats(1e-6, 5e-5), ef=EFFICIENT, eb=EFFICIENT)
def test_exact_times_give_their_constants_back(floor, ef, eb):
    flops, moved = calls()
    np.testing.assert_allclose(
        fit_roofline(flops, moved, time(flops, moved, floor, ef, eb), PEAK, BANDWIDTH), (floor, ef, eb), rtol=1e-4
    )


def test_one_row_in_ten_may_be_wrong_by_a_factor_of_ten():
    flops, moved = calls()
    seconds = time(flops, moved, 6e-6, 0.7, 0.8)
    seconds[::10] *= 10
    np.testing.assert_allclose(fit_roofline(flops, moved, seconds, PEAK, BANDWIDTH), (6e-6, 0.7, 0.8), rtol=0.06)


def test_kernels_that_only_move_bytes():
    _, moved = calls()
    floor, _, eb = fit_roofline(np.zeros_like(moved), moved, time(0 * moved, moved, 2e-6, 1, 0.6), PEAK, BANDWIDTH)
    assert (floor, eb) == (pytest.approx(2e-6, rel=1e-4), pytest.approx(0.6, rel=1e-4))


@pytest.mark.parametrize(("device", "bar"), [("a100", 0.07), ("h100", 0.10), ("a40", 0.07)])
def test_hold_out_error_per_layer_keeps_its_bar(shared, device, bar):
    folder = shared / "data" / "profiles" / "vidur"
    files = [folder / f"{device}_Llama-2-{size}-hf_mlp.csv.gz" for size in ("7b", "70b")]
    found = {check.kind: check for check in calibrate(files, {"a100": "a100-80g"}.get(device, device)).checks}
    assert found["linear layer"].rows == 2088
    assert 0.25 < found["linear layer"].held_out / 2088 < 0.35
    assert found["linear layer"].error <= bar
    assert found["whole layer"].error <= bar


def test_llama_3_profiles_keep_the_bar_too(shared):
    folder = shared / "data" / "profiles" / "vidur"
    found = calibrate([folder / f"a100_Meta-Llama-3-{size}_mlp.csv.gz" for size in ("8B", "70B")], "a100-80g")
    assert {check.kind: check.error for check in found.checks}["linear layer"] <= 0.07


def test_the_split_holds_out_rows_that_the_fit_does_not_see(shared, tmp_path):
    """Spoiling held-out rows moves the error, not the constants; spoiling fitted ones moves the constants."""
    frame = pl.read_csv(shared / "data" / "profiles" / "vidur" / "h100_Llama-2-7b-hf_mlp.csv.gz")
    plain = tmp_path / "plain.csv"
    frame.write_csv(plain)
    held = read_profile(plain)[0].held_out()
    column = "time_stats.attn_pre_proj.median"
    for name, rows in (("held", held), ("seen", ~held)):
        spoiled = frame.with_columns(pl.when(pl.Series(rows)).then(3.0).otherwise(1.0).alias("factor"))
        spoiled.with_columns(pl.col(column) * pl.col("factor")).drop("factor").write_csv(tmp_path / f"{name}.csv")
    reference, spoiled, moved = (calibrate([tmp_path / f"{n}.csv"], "h100") for n in ("plain", "held", "seen"))
    shipped = reference.constants.kernels["linear.bf16"]
    same = spoiled.constants.kernels["linear.bf16"]
    assert (same.floor, same.flop_efficiency, same.byte_efficiency) == (
        shipped.floor, shipped.flop_efficiency, shipped.byte_efficiency)  # fmt: skip
    assert same.error > 2 * shipped.error
    assert moved.constants.kernels["linear.bf16"].floor != shipped.floor


def test_all_reduce_of_measured_nodes(shared):
    found = calibrate([shared / "data" / "profiles" / "vidur" / "h100_dgx_all_reduce.csv.gz"], "h100")
    assert set(found.constants.all_reduce) == {2, 4, 8}
    assert found.constants.all_reduce[8].error < 0.08
    assert 250e9 < found.constants.all_reduce[8].large_bandwidth < 450e9


def tables(folder, seed=0):
    """Small operator tables with times from known constants."""
    rng = np.random.default_rng(seed)
    m, n, k = rng.choice([1, 64, 512, 4096], 200), rng.choice([1024, 4096, 8192], 200), rng.choice([1024, 4096, 8192], 200)
    seconds = time(2.0 * np.ceil(m / 64) * 64 * n * k, 2.0 * n * k + 2.0 * (n + k) * m, 5e-6, 0.6, 0.7)
    pl.DataFrame({"gemm_dtype": ["bfloat16"] * 200, "m": m, "n": n, "k": k, "latency": seconds * 1e3}).write_csv(
        folder / "gemm.csv"
    )
    batch, step = rng.choice([1, 8, 64], 200), rng.choice([255, 1023, 8191], 200)
    moved = 4.0 * 8 * 128 * batch * (step + 1)
    constant = {"op_name": "generation_attention", "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "isl": 1, "num_heads": 32,
                "num_key_value_heads": 8, "head_dim": 128}  # fmt: skip
    decode = pl.DataFrame({"batch_size": batch, "step": step, "latency": time(0, moved, 1e-5, 1, 0.8) * 1e3})
    decode.with_columns(**{key: pl.lit(value) for key, value in constant.items()}).write_parquet(folder / "decode.parquet")
    return [folder / "gemm.csv", folder / "decode.parquet"]


def test_operator_tables_and_the_way_back_into_a_deployment(tmp_path):
    found = calibrate(tables(tmp_path), "a100-80g")
    linear, decode = found.constants.kernels["linear.bf16"], found.constants.kernels["decode"]
    assert (linear.floor, linear.flop_efficiency, linear.byte_efficiency) == tuple(
        pytest.approx(x, rel=1e-3) for x in (5e-6, 0.6, 0.7)
    )
    assert (decode.floor, decode.byte_efficiency) == (pytest.approx(1e-5, rel=1e-3), pytest.approx(0.8, rel=1e-3))
    assert linear.error < 1e-3
    path = tmp_path / "mine.toml"
    found.write(path)
    assert read_constants(path).kernels["decode"].byte_efficiency == pytest.approx(0.8, rel=1e-3)
    plain, mine = Deployment("llama-3-8b", "a100-80g"), Deployment("llama-3-8b", "a100-80g", calibration=path)
    ratio = mine.engine(512).tables.decode_byte_s / plain.engine(512).tables.decode_byte_s
    assert ratio == pytest.approx(plain.constants.kernels["decode"].byte_efficiency / 0.8, rel=1e-2)
    assert str(path) in str(mine.engine(512).meta["cost_source"])
    with pytest.raises(InputError, match="made for device a100-80g, not h100"):
        Deployment("llama-3-8b", "h100", calibration=path)
    assert {row["kind"] for row in found.rows()} == {"linear.bf16", "decode"}


def test_rows_served_from_a_cache_are_left_out(tmp_path):
    paths = tables(tmp_path)
    frame = pl.read_parquet(paths[1])
    cached = frame.head(20).with_columns(step=8191, batch_size=64, latency=1e-3)
    pl.concat([frame, cached.select(frame.columns)], how="vertical_relaxed").write_parquet(paths[1])
    found = calibrate(paths[1:], "a100-80g")
    assert found.left_out == 20
    assert found.constants.kernels["decode"].byte_efficiency == pytest.approx(0.8, rel=1e-3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop("k"), "column k is missing"),
        (lambda f: f.with_columns(latency=pl.when(pl.int_range(pl.len()) == 4).then(-1.0).otherwise(1.0)),
         "line 6: latency is not above zero"),
        (lambda f: f.with_columns(m=pl.lit("many")), "line 2: m is not a number"),
        (lambda f: f.with_columns(latency=pl.lit(float("nan"))), "latency is not a number"),
        (lambda f: f.head(0), "no rows"),
        (lambda f: f.head(5), "rows to fit"),
        (lambda f: f.rename({"gemm_dtype": "x"}), "no known profile format"),
    ],
)  # fmt: skip
def test_wrong_profiles_are_told_with_file_and_place(tmp_path, spoil, message):
    path = tables(tmp_path)[0]
    spoil(pl.read_csv(path)).write_csv(path)
    with pytest.raises(InputError, match=message) as caught:
        calibrate([path], "a100-80g")
    assert "gemm.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        calibrate([tmp_path / "no.csv"], "h100")
    with pytest.raises(InputError, match="no profile given"):
        calibrate([], "h100")
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        calibrate([tmp_path / "x.parquet"], "h100")
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write("")
    with pytest.raises(InputError, match="cannot be read"):
        calibrate([tmp_path / "x.csv.gz"], "h100")
    with pytest.raises(InputError, match="must not be negative"):
        calibrate([tmp_path / "no.csv"], "h100", seed=-1)
