import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.report.timeline import assign_lanes, write_timeline
from tests.results.fifo import fifo_run


def logged():
    run = fifo_run(20)
    run.log = {
        "start": np.array([0.0, 1.0, 1.5, 0.5]),
        "end": np.array([1.0, 2.0, 3.0, 0.75]),
        "replica": np.array([0.0, 0.0, 0.0, 1.0]),
        "decodes": np.array([0.0, 3.0, 4.0, 0.0]),
        "prefill_tokens": np.array([512.0, 0.0, 128.0, 0.0]),
        "steps": np.array([1.0, 10.0, 1.0, 1.0]),
        "blocks": np.array([40.0, 41.0, 50.0, 0.0]),
    }
    return run


def test_the_file_is_chrome_trace_json(tmp_path):
    path = tmp_path / "t.json"
    count = write_timeline(path, logged())
    events = json.loads(path.read_text())["traceEvents"]
    assert len(events) == count
    assert {event["ph"] for event in events} == {"X", "C", "M"}
    slices = [event for event in events if event["ph"] == "X"]
    assert [(s["ts"], s["dur"]) for s in slices] == [(0, 1e6), (1e6, 1e6), (1.5e6, 1.5e6), (0.5e6, 0.25e6)]
    assert [s["name"] for s in slices] == ["prefill 512", "decode 3", "prefill 128 + decode 4", "idle"]
    assert slices[1]["args"]["ms_per_step"] == pytest.approx(100)
    assert [event["args"]["held"] for event in events if event["name"] == "KV blocks"] == [40, 41, 50, 0]
    named = {event["pid"] for event in events if event["name"] == "process_name"}
    assert {event["pid"] for event in events} == named


def test_overlapping_slices_get_rows_of_their_own(tmp_path):
    path = tmp_path / "t.json"
    write_timeline(path, logged())
    slices = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
    assert [(s["pid"], s["tid"]) for s in slices] == [(0, 0), (0, 0), (0, 1), (1, 0)]


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 5), st.integers(0, 2)), max_size=25))
def test_no_two_slices_of_a_row_overlap_and_rows_are_few(rows):
    start, length, replica = (np.array([row[i] for row in rows]) for i in range(3))
    end = start + length
    lanes = assign_lanes(start, end, replica)
    for i in range(len(rows)):
        for j in range(i):
            if replica[i] == replica[j] and lanes[i] == lanes[j]:
                assert end[i] <= start[j] + 1e-8 or end[j] <= start[i] + 1e-8
    for i in range(len(rows)):
        overlapping = sum(replica[j] == replica[i] and start[j] <= start[i] < end[j] for j in range(len(rows)))
        assert lanes[i] < max(overlapping, 1)


def test_a_run_without_a_log_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="log=True"):
        write_timeline(tmp_path / "t.json", fifo_run(3))
    assert list(tmp_path.iterdir()) == []
