"""What the trace options do to a trace before a study sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rota.cli.options import Setup, Workload
from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.prefix import ideal_hit_ratio
from rota.workload.trace import Trace
from rota.workload.transform import within


def test_long_requests_are_left_out_with_their_hashes() -> None:
    ids = np.array([1, 2, 3, 1, 2, 4, 5])
    trace = Trace(
        np.array([0.0, 1.0, 2.0]),
        np.array([32, 40, 16]),
        np.array([5, 9, 5]),
        hash_ids=ids,
        hash_start=np.array([0, 2, 5, 7]),
        hash_block=16,
    )
    kept = within(trace, 40)
    np.testing.assert_array_equal(kept.arrival, [0.0, 2.0])
    assert kept.hash_ids is not None
    assert kept.hash_start is not None
    np.testing.assert_array_equal(kept.hash_ids, [1, 2, 4, 5])
    np.testing.assert_array_equal(kept.hash_start, [0, 2, 4])
    assert kept.notes["left out"] == "1 of 3 requests, longer than 40 tokens"
    assert within(trace, 49) is trace
    with pytest.raises(InputError, match="every request is longer than 10"):
        within(trace, 10)


def test_long_requests_with_followers_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match="follow others"):
        within(load_trace("bfcl-agents", limit=200), 500)


def test_what_is_left_of_real_hashes_still_shares() -> None:
    trace = load_trace("mooncake-conv", limit=400)
    longest = int(np.quantile(trace.prompt + trace.output, 0.8))
    kept = within(trace, longest)
    assert len(kept) == int((trace.prompt + trace.output <= longest).sum())
    assert 0 <= ideal_hit_ratio(kept) < 1


def test_drop_long_follows_the_deployment() -> None:
    setup = Setup("azure-conv", limit=500, model="llama-3-8b", device="a100-80g", max_model_len=2048, drop_long=True)
    trace = setup.load()
    assert int((trace.prompt + trace.output).max()) <= 2048
    assert len(trace) < 500


def test_recorded_traces_are_replayed_and_lengths_redrawn(tmp_path: Path) -> None:
    recorded, lengths = tmp_path / "recorded.csv", tmp_path / "lengths.csv"
    recorded.write_text("arrival,prompt,output\n0,5,5\n1,5,5\n2,5,5\n")
    lengths.write_text("prompt,output\n5,5\n6,6\n7,7\n")
    assert isinstance(Workload(str(recorded)).source(), Trace)
    draw = Workload(str(lengths), rate=2.0).source()
    assert callable(draw)
    assert not np.array_equal(draw(1).arrival, draw(2).arrival)
    assert callable(Workload("azure-conv", limit=5).source())
