"""Files of prompts: every form of a row, what is said about bad ones, and that prompts which begin alike share runs."""

import gzip
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.generators import documents
from rota.workload.prefix import ideal_hit_ratio
from rota.workload.prompts import is_prompts, read_prompts, stand_in_tokens, token_runs


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_all_forms_of_a_row(tmp_path):
    path = write(
        tmp_path / "job.jsonl",
        {"prompt": "12345678abcd", "max_tokens": 9, "output": 4},
        {"token_ids": [1, 2, 3], "max_tokens": 7, "estimate": 5},
        "",
        {"prompt": [4, 5], "output": 2, "max_tokens": 3},
        {"custom_id": "a", "body": {"prompt": "1234567", "max_tokens": 8}},
        {"custom_id": "b", "body": {"messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 6}},
        {"body": {"messages": [{"content": [{"type": "text", "text": "hello"}]}], "max_tokens": 6}},
    )
    job = read_prompts(path)
    assert np.diff(job.start).tolist() == [3, 3, 2, 2, 3, 3]
    assert job.output.tolist() == [4, 7, 2, 8, 6, 6]
    assert job.max_new.tolist() == [9, 7, 3, 8, 6, 6]
    assert job.estimate.tolist() == [9, 5, 3, 8, 6, 6]
    assert job.tokens[3:8].tolist() == [1, 2, 3, 4, 5]
    assert job.tokens[0] == job.tokens[8], "texts that begin alike have tokens that begin alike"
    assert "4 of 6 answers" in job.notes["outputs"]
    assert "tokenizer" in job.notes["tokens"]
    trace = job.trace()
    assert trace.prompt.tolist() == [3, 3, 2, 2, 3, 3]
    assert not trace.arrival.any()


def test_gzip_and_byte_order_mark(tmp_path):
    path = tmp_path / "job.jsonl.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + b'{"prompt": "abc", "max_tokens": 3}\n'))
    assert is_prompts(path)
    assert len(read_prompts(path).output) == 1


def test_estimates_and_limits_only_where_given(tmp_path):
    job = read_prompts(write(tmp_path / "job.jsonl", {"prompt": "a", "output": 3}, {"prompt": "b", "max_tokens": 4}))
    assert job.max_new is None
    assert job.estimate is None
    job = read_prompts(write(tmp_path / "job.jsonl", {"prompt": "a", "output": 3, "estimate": 7}, {"prompt": "b", "output": 4}))
    assert job.estimate.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "job.jsonl:2: is not valid JSON"),
        ("[1]", "job.jsonl:2: is not a JSON object"),
        ({"max_tokens": 3}, "job.jsonl:2: has no prompt"),
        ({"prompt": "a"}, "job.jsonl:2: says nothing about the length of the answer"),
        ({"prompt": "", "output": 1}, "job.jsonl:2: the prompt is empty"),
        ({"prompt": [], "output": 1}, "job.jsonl:2: the prompt is empty"),
        ({"prompt": [1, "a"], "output": 1}, "job.jsonl:2: the prompt is neither text nor"),
        ({"prompt": [1, True], "output": 1}, "job.jsonl:2: the prompt is neither text nor"),
        ({"prompt": [-1], "output": 1}, "job.jsonl:2: the prompt is neither text nor"),
        ({"prompt": {"a": 1}, "output": 1}, "job.jsonl:2: the prompt is neither text nor"),
        ({"prompt": "a", "output": 0}, "job.jsonl:2: output must be a whole number of tokens from 1, not 0"),
        ({"prompt": "a", "max_tokens": 2.5}, "job.jsonl:2: max_tokens must be a whole number of tokens from 1, not 2.5"),
        ({"prompt": "a", "output": 3, "max_tokens": 2}, "job.jsonl:2: output 3 is above max_tokens 2"),
        ({"body": 3}, "job.jsonl:2: body is not an object"),
        ({"body": {"messages": [{"content": None}], "max_tokens": 2}}, "job.jsonl:2: a message has no text"),
        ({"body": {"messages": [{"content": [{"type": "image_url"}]}], "max_tokens": 2}}, "job.jsonl:2: a message has no text"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, says):
    path = write(tmp_path / "job.jsonl", {"prompt": "a", "max_tokens": 2}, row)
    with pytest.raises(InputError, match=says):
        read_prompts(path)


def test_prompts_are_told_from_traces(tmp_path):
    assert is_prompts(write(tmp_path / "a.jsonl", {"body": {}}))
    assert is_prompts(write(tmp_path / "b.jsonl", {"prompt": "x"}))
    assert not is_prompts(write(tmp_path / "c.jsonl", {"arrival": 0, "prompt": 5, "output": 3}))
    assert not is_prompts(tmp_path / "missing.jsonl")
    assert not is_prompts(write(tmp_path / "t.csv", "arrival,prompt,output"))


def test_tokenizer_is_optional_and_asked_for_kindly(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match="pip install tokenizers"):
        read_prompts(write(tmp_path / "job.jsonl", {"prompt": "a", "max_tokens": 2}), tokenizer=tmp_path / "tokenizer.json")


@given(st.text(max_size=30), st.text(max_size=30))
def test_stand_in_keeps_prefixes(a, b):
    whole = len(a.encode(errors="surrogatepass")) // 4
    assert stand_in_tokens(a + b)[:whole].tolist() == stand_in_tokens(a)[:whole].tolist()


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8), st.integers(1, 4))
def test_runs_are_equal_exactly_where_their_tokens_are(prompts, size):
    start = np.concatenate([[0], np.cumsum([len(p) for p in prompts])])
    ids, begin = token_runs(np.concatenate(prompts), start, size)
    content = [tuple(p[i : i + size]) for p in prompts for i in range(0, len(p), size)]
    assert np.diff(begin).tolist() == [-(-len(p) // size) for p in prompts]
    assert len(ids) == len(content)
    assert len({*zip(ids.tolist(), content, strict=True)}) == len({*content}) == len({*ids.tolist()})


def test_documents_share_what_they_should():
    trace = load_trace("documents:documents=40,queries=5,size=1600,question=32,heavy=0.25", seed=3)
    assert len(trace) == 200
    assert ideal_hit_ratio(trace) == pytest.approx(160 * 1600 / (200 * 1632))
    long = trace.estimate > 200
    assert long.sum() == 50
    assert (trace.output[long] >= 200).all() and (trace.output[~long] <= 60).all()
    assert (trace.max_new >= trace.output).all()
    assert not trace.arrival.any()


@pytest.mark.parametrize("text", ["documents:heavy=1.5", "documents:prompt=3", "documents:documents=0"])
def test_documents_refuse_nonsense(text):
    with pytest.raises(InputError, match="documents"):
        load_trace(text)


def test_documents_of_one_kind():
    assert len(documents(3, heavy=0.0)) > 5
    assert documents(3, heavy=1.0).output.min() >= 200
