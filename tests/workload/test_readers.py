"""Reading: formats, round trips, and everything that can be wrong with a file."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.readers import read_trace
from rota.workload.trace import Trace
from rota.workload.write import write_trace
from tests.workload.traces import assert_same, traces

GOOD = "arrival,prompt,output\n0,100,10\n0.5,200,20\n2,300,30\n"


def file(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@given(traces(), st.sampled_from([".csv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz"]))
def test_what_is_written_is_read_back(trace: Trace, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_trace(trace, Path(folder) / f"mine{ending.removesuffix('.gz')}")
        if ending.endswith(".gz"):
            packed = path.with_suffix(f"{path.suffix}.gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            path = packed
        again = read_trace(path)
    assert_same(trace, again)
    assert again.name == "mine"


def test_azure(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-17 00:00:00.0000000,1,2\n"
    )
    trace = read_trace(file(tmp_path, text))
    np.testing.assert_allclose(trace.arrival, [0, 4.314579, 20653.31941], rtol=0, atol=1e-9)
    assert trace.prompt.tolist() == [374, 396, 1]
    assert trace.output.tolist() == [44, 109, 2]
    assert trace.notes["format"] == "Azure LLM inference"


@pytest.mark.parametrize("line", ["2024-05-10 02:00:00.5+02:00", "2024-05-10T00:00:00.500Z", "2024-05-10 00:00:00.500000+00:00"])
def test_time_zones(tmp_path: Path, line: str) -> None:
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00+00:00,5,5\n{line},5,5\n"
    assert read_trace(file(tmp_path, text)).arrival.tolist() == [0, 0.5]


def test_mooncake(tmp_path: Path) -> None:
    text = (
        '{"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1]}\n'
        '{"timestamp": 3001, "input_length": 600, "output_length": 7, "hash_ids": [0, 9]}\n'
    )
    trace = read_trace(file(tmp_path, text, "m.jsonl"))
    assert trace.arrival.tolist() == [0, 3.001]
    assert trace.hash_block == 512
    assert trace.hash_ids is not None
    assert trace.hash_ids.tolist() == [0, 1, 0, 9]


def test_burstgpt_and_failed_requests(tmp_path: Path) -> None:
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    path = file(
        tmp_path, header + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,30,0,30,Conversation log\n48,GPT-4,9,1,10,API log\n"
    )
    with pytest.raises(InputError, match=r"t\.csv:3: response_tokens is below 1 .*--drop-invalid"):
        read_trace(path)
    trace = read_trace(path, drop_invalid=True)
    assert trace.arrival.tolist() == [5, 48]
    assert trace.notes["dropped"].startswith("1 of 3 rows")


def test_lengths_without_arrivals_need_a_rate(tmp_path: Path) -> None:
    text = ",num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n" + "0,100,10,110,10.0\n" * 4000
    path = file(tmp_path, text)
    with pytest.raises(InputError, match="no arrival times; give a rate"):
        read_trace(path)
    trace = read_trace(path, rate=4.0, seed=3)
    assert np.diff(trace.arrival).mean() == pytest.approx(0.25, rel=0.06)
    assert np.array_equal(trace.arrival, read_trace(path, rate=4.0, seed=3).arrival)
    assert not np.array_equal(trace.arrival, read_trace(path, rate=4.0, seed=4).arrival)
    with pytest.raises(InputError, match="rate must be a positive number"):
        read_trace(path, rate=float("nan"))


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace("\n", "\n\n"),
        "\n\n" + GOOD,
        GOOD.replace("prompt", '"Prompt Tokens"').replace("arrival", " Arrival_S "),
        GOOD.rstrip("\n"),
        GOOD.replace("100", " 100 ").replace("200", "2e2"),
        "note," + GOOD.replace("\n", "\nx,", 3),
        '{"arrival": 0, "prompt": 100, "output": 10}\n{"prompt": 200, "arrival": 0.5, "output": 20}\n'
        '\n{"arrival": 2, "prompt": 300.0, "output": 30, "x": [1]}\n',
        '{"arrival": 0, "prompt": "100", "output": 10}\n{"arrival": 0.5, "prompt": 200, "output": 20}\n'
        '{"arrival": 2, "prompt": 300, "output": 30}',
    ],
)
def test_spellings_of_one_trace(tmp_path: Path, text: str) -> None:
    trace = read_trace(file(tmp_path, text))
    assert trace.arrival.tolist() == [0, 0.5, 2]
    assert trace.prompt.tolist() == [100, 200, 300]
    assert trace.output.tolist() == [10, 20, 30]


def test_unix_times_count_from_the_first(tmp_path: Path) -> None:
    trace = read_trace(file(tmp_path, "arrival,prompt,output\n1700000000.25,1,1\n1700000001,1,1\n"))
    assert trace.arrival.tolist() == [0, 0.75]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"t\.csv: the file is empty"),
        (b"\n \n", r"t\.csv: the file is empty"),
        (b"arrival,prompt,output\n", r"has a header but no requests"),
        (b"arrival,prompt\n0,5\n", r"missing column output.*found columns: arrival, prompt"),
        (b"a,b\n0,5\n", r"missing column arrival and prompt and output.*found columns: a, b"),
        (b"TIMESTAMP,ContextTokens\n0,5\n", r"missing column generatedtokens for the Azure"),
        (b"arrival,arrival,prompt,output\n0,0,5,5\n", r"column arrival.* twice|duplicate"),
        (b"arrival,Prompt,prompt,output\n0,0,5,5\n", r"column prompt is there twice"),
        (b"arrival,prompt,output\n0,5,5\n1,nan,5\n", r"t\.csv:3: prompt is empty or not a finite number \(found 'nan'\)"),
        (b"arrival,prompt,output\n0,5,5\ninf,5,5\n", r"t\.csv:3: arrival is empty or not a finite number \(found 'inf'\)"),
        (b"arrival,prompt,output\n0,5,5\n\n1,,5\n", r"t\.csv:4: prompt is empty"),
        (b"arrival,prompt,output\n0,5,5\n1,5\n", r"t\.csv:3: output is empty"),
        (b"arrival,prompt,output\n0,5,5\n1,1,000,5\n", r"t\.csv:3: has more values than the header"),
        (b"arrival,prompt,output\n0,five,5\n", r"t\.csv:2: prompt is empty or not a finite number \(found 'five'\)"),
        (b"arrival,prompt,output\n0,5,-1\n", r"t\.csv:2: output is below 1 .*\(found '-1'\)"),
        (b"arrival,prompt,output\n0,0,5\n", r"t\.csv:2: prompt is below 1"),
        (b"arrival,prompt,output\n0,5.5,5\n", r"t\.csv:2: prompt is not a whole number"),
        (b"arrival,prompt,output\n0,1e30,5\n", r"t\.csv:2: prompt is above"),
        (b"arrival,prompt,output\n-3,5,5\n", r"t\.csv:2: arrival is negative"),
        (b"arrival,prompt,output\n0,5,5\n3,5,5\n1.5,5,5\n", r"t\.csv:4: arrives 1\.5 s before .*--sort"),
        (b"arrival,prompt,output\n0,5,5\n1,\xff\xfe,5\n", r"t\.csv:3: is not UTF-8"),
        (b"arrival,prompt,output,max_new\n0,5,5,4\n", r"t\.csv:2: max_new is smaller than the output"),
        (b"arrival,prompt,output,after,delay\n0,5,5,0,1\n", r"t\.csv:2: after must be .* earlier row"),
        (b"arrival,prompt,output,after\n0,5,5,-1\n", r"needs a column delay"),
        (b"arrival,prompt,output,after,delay\n0,5,5,,\n,5,5,0,-1\n", r"t\.csv:3: delay is negative"),
        (b"arrival,prompt,output,after,delay\n0,5,5,,\n,5,5,0,\n", r"t\.csv:3: delay is empty"),
        (b"arrival,prompt,output,after,delay\n,5,5,,\n", r"t\.csv:2: arrival is empty"),
        (b"arrival,prompt,output,hash_ids\n0,5,5,1 2\n", r"needs a column hash_block"),
        (b"arrival,prompt,output,hash_ids,hash_block\n0,5,5,1 x,16\n", r"t\.csv:2: hash_ids holds something else"),
        (b"arrival,prompt,output,hash_ids,hash_block\n0,50,5,1 2,16\n", r"t\.csv:2: hash_ids covers less than the prompt"),
        (b"arrival,prompt,output,hash_ids,hash_block\n0,5,5,1,16\n1,5,5,1,32\n", r"t\.csv:3: hash_block must be the same"),
        (
            b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6,3,4\nyesterday,5,5\n",
            r"t\.csv:3: timestamp is empty or not",
        ),
        (b'{"arrival": 0, "prompt": 5, "output": 5}\n{"arrival": 1, "prom', r"t\.csv:2: is not valid JSON \(cut off\?\)"),
        (b'{"arrival": 0, "prompt": 5, "output": 5}\n[1, 2, 3]\n', r"t\.csv:2: is not a JSON object"),
        (b'{"arrival": 0, "prompt": 5, "output": 5}\n{"arrival": 1, "prompt": 5}\n', r"t\.csv:2: output is empty"),
        (b'{"arrival": 0, "prompt": 5, "output": 5}\n{"arrival": 1, "prompt": "x", "output": 5}\n', r"t\.csv:2: prompt.*'x'"),
        (b'{"arrival": 0, "prompt": 5, "output": [5]}\n', r"t\.csv:1: output is empty or not"),
        (b'{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": 3}\n', r"t\.csv:1: hash_ids must be a list"),
        (b"PAR1 and then nothing", r"not a readable Parquet"),
        (b"\x1f\x8b\x08cut", r"gzip data is damaged"),
        (b'arrival,prompt,output\n0,"5,5\n1,5,5\n', r"t\.csv"),
    ],
)
def test_wrong_files_are_named_in_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_trace(file(tmp_path, text))
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_an_input_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("t.csv", "t.jsonl", "t.parquet", "t.csv.gz"):
            with pytest.raises(InputError):
                read_trace(file(Path(folder), data, name))


@given(st.lists(st.text('0123456789.,-+einfa"{}[]: \n', max_size=40), max_size=6))
def test_garbage_below_a_header_is_a_trace_or_an_input_error(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file(Path(folder), "arrival,prompt,output\n" + "\n".join(lines))
        for sort, drop in ((False, False), (True, True)):
            said = ""
            try:
                read_trace(path, sort=sort, drop_invalid=drop)
            except InputError as error:
                said = str(error)
            assert "\n" not in said


def test_parquet_rows_and_types(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"arrival": [0.0, 1.0], "prompt": [5, None], "output": [1, 2]}).write_parquet(path)
    with pytest.raises(InputError, match=r"t\.parquet: row 2: prompt is empty"):
        read_trace(path)
    times = pl.Series([0, 1_500_000], dtype=pl.Datetime("us"))
    pl.DataFrame({"timestamp": times, "contexttokens": [5, 6], "generatedtokens": [1, 2]}).write_parquet(path)
    assert read_trace(path).arrival.tolist() == [0, 1.5]
    pl.DataFrame({"arrival": [0.0], "prompt": [True], "output": [1]}).write_parquet(path)
    with pytest.raises(InputError, match="prompt is empty or not a finite number"):
        read_trace(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_trace(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        load_trace(tmp_path)


@given(st.permutations(range(6)))
def test_sort_brings_rows_into_order_with_all_their_columns(order: list[int]) -> None:
    rows = [f"{i}.5,{i + 10},{i + 1},{' '.join(str(7 * i + k) for k in range(2))},16" for i in order]
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join(["arrival,prompt,output,hash_ids,hash_block", *rows])
        trace = read_trace(file(Path(folder), text), sort=True)
    assert trace.arrival.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert trace.prompt.tolist() == list(range(10, 16))
    assert trace.hash_ids is not None
    assert trace.hash_ids.tolist() == [7 * i + k for i in range(6) for k in range(2)]
    assert ("sorted" in trace.notes) == (list(order) != sorted(order))


def test_rows_that_name_each_other_are_not_moved(tmp_path: Path) -> None:
    path = file(tmp_path, "arrival,prompt,output,after,delay\n0,5,5,,\n,5,5,0,1.5\n")
    trace = read_trace(path)
    assert trace.after is not None
    assert trace.delay is not None
    assert (trace.after.tolist(), trace.delay.tolist()) == ([-1, 0], [0, 1.5])
    for option in ({"sort": True}, {"drop_invalid": True}):
        with pytest.raises(InputError, match="name each other"):
            read_trace(path, **option)


def test_nothing_left_after_dropping(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every row is invalid"):
        read_trace(file(tmp_path, "arrival,prompt,output\n0,0,5\n1,5,x\n"), drop_invalid=True)


@pytest.mark.parametrize(
    ("path", "rows", "prompt", "output", "seconds"),
    [
        ("azure_llm_2023_conv.csv", 19366, 1154.697, 211.126, 3501.722),
        ("azure_llm_2023_code.csv", 8819, 2047.848, 27.883, 3435.948),
        ("mooncake_conversation.jsonl", 12031, 12035, 343, 3536.999),
        ("mooncake_synthetic.jsonl", 3993, 15325, 149, None),
    ],
)
def test_published_counts_of_real_traces(
    shared: Path, path: str, rows: int, prompt: float, output: float, seconds: float
) -> None:
    trace = read_trace(shared / "data" / "llm" / path)
    assert len(trace) == rows
    assert trace.prompt.mean() == pytest.approx(prompt, abs=0.5)
    assert trace.output.mean() == pytest.approx(output, abs=0.5)
    assert seconds is None or trace.arrival[-1] - trace.arrival[0] == pytest.approx(seconds, abs=1e-3)


def test_a_trace_of_another_kind_is_refused(shared: Path) -> None:
    with pytest.raises(InputError, match="missing column"):
        read_trace(shared / "data" / "llm" / "alibaba_gentd26_requests.csv.gz")
