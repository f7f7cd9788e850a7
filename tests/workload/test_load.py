"""`load_trace`: pace, length, sources; description and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.describe import describe
from rota.workload.transform import at_once, at_rate, faster, head, mean_rate, take, within
from rota.workload.write import write_trace
from tests.workload.traces import Trace, assert_same, traces


@given(traces(), st.floats(1e-3, 1e3))
def test_rate_and_scale_change_arrivals_only(trace: Trace, factor: float) -> None:
    quick = faster(trace, factor)
    np.testing.assert_allclose(quick.arrival * factor, trace.arrival, rtol=1e-12, atol=1e-300)
    assert_same(quick.with_columns(arrival=trace.arrival), trace)
    if 1e-9 < mean_rate(trace) < 1e9:
        assert mean_rate(at_rate(trace, factor)) == pytest.approx(factor, rel=1e-6)


@given(traces(), st.integers(1, 14))
def test_head_is_the_first_rows(trace: Trace, n: int) -> None:
    short = head(trace, n)
    assert len(short) == min(n, len(trace))
    np.testing.assert_array_equal(short.prompt, trace.prompt[:n])
    if trace.hash_ids is not None:
        assert short.hash_ids is not None
        assert short.hash_start is not None
        np.testing.assert_array_equal(short.hash_ids, trace.hash_ids[: short.hash_start[-1]])
        assert len(short.hash_start) == len(short) + 1


@given(traces(linked=False), st.integers(2, 400))
def test_within_leaves_the_short_ones_unchanged(trace: Trace, longest: int) -> None:
    keep = np.flatnonzero(trace.prompt + trace.output <= longest)
    if not len(keep):
        with pytest.raises(InputError, match="every request is longer"):
            within(trace, longest)
        return
    short = within(trace, longest)
    for column in ("arrival", "prompt", "output", "max_new", "priority", "tenant"):
        if getattr(trace, column) is not None:
            np.testing.assert_array_equal(getattr(short, column), getattr(trace, column)[keep])
    if trace.hash_ids is not None:
        rows = np.split(trace.hash_ids, trace.hash_start[1:-1])
        np.testing.assert_array_equal(short.hash_ids, np.concatenate([rows[i] for i in keep]))
    assert ("left out" in short.notes) == (len(keep) < len(trace))


@given(traces(linked=False), st.randoms())
def test_a_job_in_any_order_is_put_back_by_sorting(trace: Trace, rng) -> None:
    job = at_once(trace)
    order = list(range(len(job)))
    rng.shuffle(order)
    shuffled = take(job, np.array(order))
    np.testing.assert_array_equal(shuffled.prompt, trace.prompt[order])
    assert_same(take(shuffled, np.argsort(order)), job)


@given(traces(linked=True))
def test_requests_that_follow_others_are_no_job(trace: Trace) -> None:
    for change in (at_once, lambda t: take(t, np.arange(len(t)))):
        with pytest.raises(InputError, match="requests follow others"):
            change(trace)


def test_rate_keeps_bursts_and_poisson_replaces_them() -> None:
    own = load_trace("azure-code", seed=1)
    quick = load_trace("azure-code", seed=1, rate=20.0)
    assert describe(quick)["rate"] == pytest.approx(20.0)
    assert describe(quick)["gap_cv"] == pytest.approx(describe(own)["gap_cv"])
    assert_same(own, quick.with_columns(arrival=own.arrival))
    even = load_trace("azure-code", seed=1, rate=20.0, arrivals="poisson")
    assert describe(even)["rate"] == pytest.approx(20.0, rel=0.05)
    assert describe(even)["gap_cv"] == pytest.approx(1.0, abs=0.05)
    np.testing.assert_array_equal(even.prompt, own.prompt)
    double = load_trace("azure-code", seed=1, scale=2.0)
    assert describe(double)["rate"] == pytest.approx(2 * mean_rate(own))


def test_limit_before_rate(tmp_path: Path) -> None:
    path = write_trace(load_trace("bursts:n=500"), tmp_path / "t.csv")
    trace = load_trace(path, limit=100, rate=3.0)
    assert len(trace) == 100
    assert mean_rate(trace) == pytest.approx(3.0)
    assert len(load_trace(path, limit=10_000)) == 500
    assert len(load_trace(path, limit=1, rate=3.0)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate must be a positive number"),
        ({"rate": float("inf")}, "rate must be a positive number"),
        ({"scale": -1.0}, "scale must be a positive number"),
        ({"rate": 1.0, "scale": 1.0}, "give one of them"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"arrivals": "steady"}, "arrivals must be 'poisson'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_trace("azure-conv", **options)


def test_no_rate_to_change(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival,prompt,output\n0,1,1\n0,1,1\n")
    with pytest.raises(InputError, match=r"arrives? at once.*poisson"):
        load_trace(path, rate=2.0)
    assert load_trace(path, rate=2.0, arrivals="poisson").arrival[-1] > 0
    with pytest.raises(InputError, match="rate must be"):
        load_trace(path, arrivals="poisson")
    with pytest.raises(InputError, match="cannot be replaced"):
        load_trace("closed-loop", rate=2.0, arrivals="poisson")


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "azure-conv").write_text("arrival,prompt,output\n0,7,8\n")
    monkeypatch.chdir(tmp_path)
    assert load_trace("azure-conv").prompt.tolist() == [7]


def test_describe_counts_by_hand() -> None:
    trace = Trace(
        arrival=np.array([0.0, 1.0, 4.0, 0.0]), prompt=np.array([100, 200, 300, 400]), output=np.array([10, 20, 30, 1]),
        after=np.array([-1, -1, -1, 2]), delay=np.zeros(4), hash_ids=np.array([1, 2, 1, 2, 3, 9, 9]),
        hash_start=np.array([0, 1, 3, 5, 7]), hash_block=200, name="x", notes={"sorted": "by arrival"},
    )  # fmt: skip
    found = describe(trace)
    assert (found["requests"], found["programs"], found["duration"], found["rate"]) == (4, 3, 4.0, 0.5)
    assert found["gap_cv"] == pytest.approx(0.5)
    assert (found["prompt_mean"], found["prompt_p50"], found["prompt_max"], found["longest"]) == (250, 250, 400, 401)
    # only row 2 begins with a run that an earlier row begins with: 200 of 1,000 tokens
    assert found["ideal_hit_ratio"] == pytest.approx(200 / 1000)
    assert found["sorted"] == "by arrival"


@pytest.mark.parametrize("name", ["t.txt", "t", "none/t.csv", "."])
def test_unwritable_targets(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        write_trace(load_trace("poisson:n=3"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_writing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        write_trace(load_trace("poisson:n=3"), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
