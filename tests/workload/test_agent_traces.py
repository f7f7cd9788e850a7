"""Agent traces: both layouts, what turns share, and what can be wrong."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.prefix import reuse
from rota.workload.readers import read_trace
from tests.workload.traces import assert_same, tool_names

PROGRAMS = [
    {"arrival": 0.5, "system": 32, "turns": [
        {"new": 100, "output": 20, "tool": "shell", "gap": 2.5}, {"new": 7, "output": 5, "tool": "read", "gap": 0.25},
        {"new": 60, "output": 9, "tool": "cut off", "gap": 9}]},
    {"arrival": 3, "system": 32, "turns": [{"new": 40, "output": 3}]},
    {"arrival": 3, "turns": [{"new": 40, "output": 3, "gap": 1}, {"new": 1, "output": 1}]},
]  # fmt: skip


def write(folder: Path, rows: list[object], name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def by_turn(programs: list[dict]) -> list[object]:
    """The same programs, a line per turn, the turns of all programs in rounds."""
    rows = []
    for depth in range(max(len(p["turns"]) for p in programs)):
        for i, program in enumerate(programs):
            if depth < len(program["turns"]):
                begin = {k: v for k, v in program.items() if k != "turns"} if depth == 0 else {}
                rows.append({"program": f"p{i}", "gap": None} | begin | program["turns"][depth])
    return rows


def test_a_program_becomes_a_chain_of_requests(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, PROGRAMS))
    assert trace.prompt.tolist() == [100, 127, 192, 40, 40, 44]
    assert trace.output.tolist() == [20, 5, 9, 3, 3, 1]
    assert trace.program.tolist() == [0, 0, 0, 1, 2, 2]
    assert trace.after.tolist() == [-1, 0, 1, -1, -1, 4]
    assert trace.delay.tolist() == [0, 2.5, 0.25, 0, 0, 1]
    assert trace.arrival[[0, 3, 4]].tolist() == [0.5, 3, 3]
    # the tool of a program's last answer is of no account: nothing follows
    assert tool_names(trace) == ["shell", "read", None, None, "tool", None]
    shared = reuse(trace).runs * trace.hash_block
    # all that was said before, up to the run that is full; 32 system tokens between programs that have them; nothing else
    assert shared.tolist() == [0, 128, 144, 32, 0, 48]


@given(st.lists(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40), st.floats(0, 50)), min_size=1, max_size=4), min_size=1, max_size=5))
def test_both_layouts_are_one_trace_and_turns_share_what_was_said(sizes: list[list[tuple[int, int, float]]]) -> None:
    programs = [
        {"arrival": float(i), "turns": [{"new": new, "output": out, "tool": f"t{out % 3}", "gap": gap} for new, out, gap in turns]}
        for i, turns in enumerate(sizes)
    ]
    whole = json.loads(json.dumps(programs))
    for program in whole:
        said = 0
        for turn in program["turns"]:
            turn["prompt"] = said + turn.pop("new")
            said = turn["prompt"] + turn["output"]
    with tempfile.TemporaryDirectory() as folder:
        trace = read_trace(write(Path(folder), programs))
        assert_same(trace, read_trace(write(Path(folder), by_turn(programs))))
        assert_same(trace, read_trace(write(Path(folder), whole)))
    rows = np.split(trace.hash_ids, trace.hash_start[1:-1])
    for i, before in enumerate(trace.after):
        if before >= 0:
            assert rows[i][: len(rows[before])].tolist() == rows[before].tolist()
            assert trace.prompt[i] >= trace.prompt[before] + trace.output[before]
    assert len(np.unique(np.concatenate(rows))) == sum(len(rows[i]) for i in np.flatnonzero(np.append(trace.after[1:], -1) < 0))


def test_a_rewritten_history_is_not_shared(tmp_path: Path) -> None:
    turns = [{"prompt": p, "output": 32, "gap": 1} for p in (160, 170, 64, 96)]
    trace = read_trace(write(tmp_path, [{"arrival": 0, "system": 16, "turns": turns}]))
    rows = [row.tolist() for row in np.split(trace.hash_ids, trace.hash_start[1:-1])]

    def common(a: list[int], b: list[int]) -> int:
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    # the second prompt has room for the first, not for its answer; the third is shorter than the second; the last holds all of the third
    assert [16 * common(a, b) for a, b in pairwise(rows)] == [160, 16, 96]


def test_arrivals_from_a_rate(tmp_path: Path) -> None:
    path = write(tmp_path, [{"turns": [{"new": 5, "output": 5}]}] * 400)
    with pytest.raises(InputError, match=r"no arrival times; give a rate of programs"):
        load_trace(path)
    trace = load_trace(path, rate=0.5, seed=2)
    assert np.diff(trace.arrival).mean() == pytest.approx(2.0, rel=1e-6)


def test_programs_are_sorted_or_left_out_whole(tmp_path: Path) -> None:
    rows = [PROGRAMS[1], PROGRAMS[0], {"arrival": 9, "turns": [{"new": 5, "output": 5, "gap": 1}, {"new": 5, "output": 0}]}]
    path = write(tmp_path, rows)
    with pytest.raises(InputError, match=r"t\.jsonl:3: turn 2: output is not from 1"):
        read_trace(path)
    with pytest.raises(InputError, match=r"t\.jsonl:2.*begins before the program above it.*--sort"):
        read_trace(path, drop_invalid=True)
    trace = read_trace(path, drop_invalid=True, sort=True)
    assert trace.prompt.tolist() == [100, 127, 192, 40]
    assert trace.notes == {"format": "agents", "dropped": "1 of 3 programs with invalid values", "sorted": "by arrival"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"arrival": 0, "turns": []}], r"t\.jsonl:1: turns must be a list of objects"),
        ([{"arrival": 0, "turns": [{"new": 5, "output": 5}, 7]}], r"t\.jsonl:1: turns must be a list"),
        ([{"arrival": 0, "turns": [{"new": 5, "output": 5}, {"new": 5, "output": 5}]}], r"t\.jsonl:1: turn 1: gap is missing"),
        ([{"arrival": 0, "turns": [{"new": 5, "output": 5, "gap": -1}, {"new": 5, "output": 5}]}], r"turn 1: gap is negative"),
        ([{"arrival": 0, "turns": [{"new": 5, "prompt": 5, "output": 5}]}], r"turn 1: give either new .* or prompt"),
        ([{"arrival": 0, "turns": [{"output": 5}]}], r"turn 1: give either new"),
        ([{"arrival": 0, "turns": [{"new": 0, "output": 5}]}], r"turn 1: new is not from 1"),
        ([{"arrival": 0, "turns": [{"new": 2.5, "output": 5}]}], r"turn 1: new is not a whole number"),
        ([{"arrival": 0, "turns": [{"new": "many", "output": 5}]}], r"turn 1: new is not a finite number \(found 'many'\)"),
        ([{"arrival": 0, "turns": [{"new": True, "output": 5}]}], r"turn 1: new is not a finite number"),
        ([{"arrival": "soon", "turns": [{"new": 5, "output": 5}]}], r"turn 1: arrival is not a finite number"),
        ([{"arrival": 0, "system": 9, "turns": [{"new": 5, "output": 5}]}], r"turn 1: system is above the prompt"),
        ([{"arrival": 0, "turns": [{"new": 5, "output": 5}]}, {"turns": [{"new": 5, "output": 5}]}], r"t\.jsonl:2.* arrival is missing"),
        ([{"program": 1, "gap": 1, "arrival": 0, "new": 5, "output": 5}, {"arrival": 1}], r"t\.jsonl:2: has neither turns nor program"),
        ([{"program": 1, "gap": 1, "arrival": 0, "new": 5, "output": 5}, [3]], r"t\.jsonl:2: is not a JSON object"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_trace(write(tmp_path, rows))


def test_a_line_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, PROGRAMS)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=r"t\.jsonl:3: is not valid JSON"):
        read_trace(path)
