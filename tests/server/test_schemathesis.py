"""The server keeps to its own OpenAPI description, whatever the description lets one send."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rota.mechanisms.server.front import Limits
from tests.server.running import Live
from tests.server.scripted import scripted_front

Start = Callable[..., Live]
#: Beyond what a description can say, there are limits on the number of answers and on the length of prompts; here they are far away.
MANY, LONG = Limits(max_outstanding=1 << 15), 1 << 16
#: An answer without end is a right answer, but not one to wait for.
HOOKS = """
import schemathesis

@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and body.get("ignore_eos") is True:
        return {**body, "ignore_eos": None}
    return body
"""


@pytest.mark.parametrize(
    ("phases", "examples"),
    [("fuzzing", 25), pytest.param("examples,coverage,fuzzing,stateful", 100, marks=pytest.mark.slow)],
)  # fmt: skip
def test_schemathesis_finds_nothing(start: Start, tmp_path: Path, phases: str, examples: int) -> None:
    server = start(scripted_front(limits=MANY, max_len=LONG, blocks=LONG, ends_after=20))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.address}/openapi.json", "--checks", "all",
        "--phases", phases, "--max-examples", str(examples), "--generation-deterministic",
    ]  # fmt: skip
    (tmp_path / "short_answers.py").write_text(HOOKS)
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "short_answers", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    server.wait_idle()
