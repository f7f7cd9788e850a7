"""`rota examine` against `rota serve`, each a process of its own: a random model's answers are asked for, read, judged and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rota.cli.main import run as rota
from rota.studies.examine import Exam
from rota.workload.shop.planted import Shape
from tests.server.test_real_engine import start_command

EXAM = ["--tasks", "5", "--levels", "2,4", "--seeds", "1", "--max-tokens", "24", "--json"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    size = ["--layers", "2", "--hidden", "64", "--vocab", "500", "--max-model-len", "4096", "--dtype", "float32"]
    assert rota(["make-model", str(path), "--shape", "llama-3-8b", *size]) == 0
    return path


def test_a_served_model_is_examined_from_end_to_end(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "exam.jsonl"
    requests = tmp_path / "requests.jsonl"
    process, address = start_command(model, "--policy", "sarathi", "--served-model-name", "mine", "--log", str(requests))
    try:
        asked = ["examine", f"{address}/v1", "--model", "mine", *EXAM, "--jobs", "2", "--out", str(log)]
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        assert rota(asked) == 2
        assert "401" in capsys.readouterr().err
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        assert rota(asked) == 0
        found = json.loads(capsys.readouterr().out)
        assert rota(["examine", f"{address}/v1", "--model", "other", *EXAM]) == 2
        assert "other" in capsys.readouterr().err
    finally:
        process.terminate()
        process.communicate(timeout=30)
    exam = Exam(Shape(tasks=5), (2, 4), seeds=1)
    assert len(found["verdicts"]) == exam.count
    # random weights say something, but never a schedule
    assert all(verdict["said"] and verdict["errors"] == {"no schedule": 1} for verdict in found["verdicts"])
    assert {row["axes"]: row["wauc"] for row in found["summary"]} == {"none": 0, "downtime+windows+pairs": 0}
    lines = [json.loads(text) for text in requests.read_text().splitlines()]
    served = [line for line in lines if line["event"] == "request" and line["status"] == 200]
    assert len(served) == exam.count
    assert all(line["prompt_tokens"] > 200 and 0 < line["completion_tokens"] <= 24 for line in served), served
    # the server is gone, but what it said is kept
    assert rota(asked) == 0
    assert json.loads(capsys.readouterr().out)["verdicts"] == found["verdicts"]
