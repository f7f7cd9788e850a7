"""`rota compare --offline` and `rota simulate --offline`, from a file of prompts and from a trace."""

from __future__ import annotations

import json
import random

import pytest

from rota.cli.main import run

ON = ["--model", "llama-3-8b", "--device", "a100-80g", "--offline"]


@pytest.fixture
def prompts(tmp_path):
    """Questions about eight texts, in random order; memory for all, so that only the order of work differs."""
    rng = random.Random(0)
    rows = [
        {"prompt": f"{text} " * 400 + f"question {i}", "max_tokens": rng.choice([20, 200])} for text in range(8) for i in range(6)
    ]
    rng.shuffle(rows)
    path = tmp_path / "job.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_verdict_is_by_job_time(prompts, capsys):
    assert run(["compare", prompts, *ON, "--policy", "batchllm,vllm-v1", "--seeds", "1", "--jobs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    nominal = {label: row["nominal"] for label, row in found["policies"].items()}
    assert found["decided_by"] == "makespan"
    assert found["winners"] == [min(nominal, key=lambda label: nominal[label]["makespan"])]
    assert nominal["batchllm"]["prefill_saved"] > 0.8 * 5 / 6
    assert nominal["batchllm"]["shared_reads"] > 0 == nominal["vllm-v1"]["shared_reads"]
    assert "the next best" in found["verdict"]


def test_the_table_shows_what_counts_for_a_job(prompts, capsys):
    assert run(["compare", prompts, *ON, "--seeds", "1", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    for word in ("makespan", "prefill saved", "batchllm", "sarathi", "vllm-v1"):
        assert word in shown
    assert "SLO" not in shown


def test_any_trace_can_be_a_job(tmp_path, capsys):
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival,prompt,output\n0,100,5\n900,200,6\n")
    assert run(["simulate", str(trace), *ON, "--policy", "batchllm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["makespan"] < 10
