"""Commands that run an engine keep full collections off what was there before."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from pathlib import Path

import pytest

from rota.cli.main import run

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "safetensors", "uvicorn")), reason="needs the extra engine"
)
TRACE = "poisson:rate=30,prompt=8..40,output=3..12,n=5"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    shape = ["--shape", "llama-125m", "--layers", "1", "--hidden", "64", "--vocab", "300", "--max-model-len", "128"]
    assert run(["make-model", str(path), *shape]) == 0
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["bench", TRACE, "--engine", "{model}", "--policy", "sarathi"],
        ["calibrate", "{model}", "--rounds", "1", "--max-chunk", "16", "--kv-cache-memory", "0.02"],
    ],
)
def test_while_the_engine_steps(model: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    from rota.mechanisms.engine.engine import Engine

    frozen: list[int] = []
    step = Engine.step

    def watched(engine: Engine) -> object:
        frozen.append(gc.get_freeze_count())
        return step(engine)

    monkeypatch.setattr(Engine, "step", watched)
    assert run([part.format(model=model) for part in command]) == 0
    assert frozen and min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


def test_while_the_server_serves(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []

    def serve(*_: object, **__: object) -> bool:
        frozen.append(gc.get_freeze_count())
        return True

    monkeypatch.setattr("rota.mechanisms.server.run.serve", serve)
    assert run(["serve", str(model), "--port", "0", "--kv-cache-memory", "0.02"]) == 0
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0
