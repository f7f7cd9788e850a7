"""A trace against a server whose speed is known: the figures that come out are those of the server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rota.cli.main import run as rota
from rota.errors import InputError
from rota.mechanisms.client.drive import drive, measured
from rota.mechanisms.client.prompts import text_prompts, token_prompts
from rota.mechanisms.client.record import Record, Row
from rota.mechanisms.client.server import Server
from rota.results.frame import requests_frame
from rota.results.run import Run
from rota.results.summary import summarise
from rota.workload.trace import Trace
from tests.server.running import Live, live
from tests.server.scripted import MODEL, scripted_front

STEP = 0.02


def make_trace(**columns: Any) -> Trace:
    arrival = columns.pop("arrival", np.array([0.0, 0.1, 0.15, 0.3]))
    n = len(arrival)
    sizes = {"prompt": np.full(n, 50), "output": np.array([5, 10, 1, 7][:n])}
    return Trace(arrival=arrival, **(sizes | columns), name="four")


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(scripted_front(seconds=STEP)) as running:
        yield running


def run(server: Live, trace: Trace, record: Record | None = None, **options: Any) -> tuple[Run, Record]:
    kept = record or Record(None, {})

    async def all_of_it() -> None:
        async with Server(server.address + "/v1") as client:
            served = await client.served(None)
            assert served == (MODEL, 2048, 262)
            prompts = token_prompts(trace, served.vocab, 0)
            await drive(trace, client, served.model, prompts, kept, options={"ignore_eos": True}, **options)

    asyncio.run(all_of_it())
    return measured(trace, kept, "measured", "here", {}), kept


def test_times_and_lengths_are_those_of_the_server(server: Live) -> None:
    trace = make_trace()
    found, _ = run(server, trace)
    assert found.arrival.tolist() == trace.arrival.tolist()
    assert found.prompt.tolist() == [50] * 4 and found.output.tolist() == trace.output.tolist()
    assert not found.rejected.any()
    figures = summarise(found)
    assert figures["finished"] == 4 and figures["ttft_mean"] >= STEP
    gaps = (found.finish - found.first_token)[trace.output > 1] / (trace.output - 1)[trace.output > 1]
    assert (gaps >= STEP * 0.9).all() and (gaps < STEP * 10).all()
    assert found.tbt_histogram.sum() == (trace.output - 1).sum()
    frame = requests_frame(found)
    assert frame.columns[:8] == ["policy", "request", "arrival", "prompt", "output", "replica", "rejected", "cached"]


def test_requests_that_follow_others_wait_for_them(server: Live) -> None:
    trace = make_trace(after=np.array([-1, 0, 1, -1]), delay=np.array([0.0, 0.1, 0.2, 0.0]))
    found, _ = run(server, trace)
    for row in (1, 2):
        assert found.arrival[row] == pytest.approx(found.finish[row - 1] + trace.delay[row], abs=0.1)  # type: ignore[index]
        assert found.arrival[row] >= found.finish[row - 1] + trace.delay[row] - 1e-3  # type: ignore[index]


def test_common_prefixes_are_common(server: Live) -> None:
    ids = np.array([1, 2, 3, 1, 2, 4], dtype=np.int64)
    trace = make_trace(arrival=np.array([0.0, 0.5]), hash_ids=ids, hash_start=np.array([0, 3, 6]), hash_block=20)
    first, second = (token_prompts(trace, 262, 1)(row) for row in (0, 1))
    assert first[:40] == second[:40] and first[40:] != second[40:]
    found, _ = run(server, trace)
    assert found.cached.tolist() == [0, 32]


def test_text_has_a_word_for_each_token() -> None:
    trace = make_trace()
    words = text_prompts(trace, 3)(0)
    assert isinstance(words, str) and len(words.split()) == 50
    assert text_prompts(trace, 3)(0) == words != text_prompts(trace, 4)(0)


def test_concurrency_is_limited_and_waiting_counts(server: Live) -> None:
    trace = make_trace(arrival=np.zeros(4), output=np.full(4, 5))
    found, _ = run(server, trace, max_concurrency=1)
    order = np.argsort(found.first_token)
    assert (found.first_token[order][1:] >= found.finish[order][:-1]).all()
    assert found.arrival.max() == 0.0


def test_errors_are_rejections_with_a_reason(server: Live) -> None:
    trace = make_trace(prompt=np.array([50, 5000, 50, 50]))
    found, kept = run(server, trace)
    assert found.rejected.tolist() == [False, True, False, False]
    assert kept.rows[1].status == 400 and "2047" in kept.rows[1].error
    assert np.isnan(found.finish[1]) and summarise(found)["finished"] == 3


def test_a_record_is_taken_up_where_it_ended(server: Live, tmp_path: Path) -> None:
    trace, path, head = make_trace(), tmp_path / "r.jsonl", {"trace": "four"}
    with Record(path, head) as kept:
        kept.add(Row(0, 0.0, 0.5, 0.6, 50, 5, 0, [0.025] * 4, 200, ""))
    with path.open("a") as file:
        file.write('{"request": 1, "arri')  # interrupted while writing
    before = server.front.thread.stats.requests
    with Record(path, head) as kept:
        found, _ = run(server, trace, kept)
    assert server.front.thread.stats.requests - before == 3
    assert found.first_token[0] == 0.5 and np.isfinite(found.finish).all()
    assert found.arrival[1] == pytest.approx(0.1) and found.first_token[1] > 0.1
    with Record(path, head) as again:
        assert again.rows == kept.rows
    with pytest.raises(InputError, match="another trace"):
        Record(path, {"trace": "five"})


def test_the_command_reports_like_the_simulator(server: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "rows.csv"
    arguments = ["bench", "poisson:rate=50,prompt=30,output=4,n=20", "--url", server.address, "--json", "--export", str(table), "--slo", "ttft=5"]
    assert rota(arguments) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["figures"]["finished"] == 20 and said["figures"]["slo_attainment"] == 1.0
    assert said["errors"] == {} and said["conditions"]["complete"] is True
    assert len(table.read_text().splitlines()) == 21
    assert rota(arguments[:4]) == 0
    assert "p99" in capfd.readouterr().out


def test_ctrl_c_keeps_what_there_is(server: Live, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    trace = "poisson:rate=20,prompt=30,output=4,n=2000"
    command = [sys.executable, "-m", "rota", "bench", trace, "--url", server.address, "--record", str(path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while (not path.exists() or len(path.read_text().splitlines()) < 10) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    said = json.loads(out)
    assert said["conditions"]["complete"] is False and 9 <= said["figures"]["finished"] < 2000
    assert len(path.read_text().splitlines()) == said["figures"]["finished"] + 1
    server.wait_idle()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://127.0.0.1:9"], ["no server can be reached", "rota serve"]),
        (["--url", "ftp://x"], ["--url", "http://"]),
        (["--model", "other"], ["serves scripted", "--model"]),
        (["--timeout", "0"], ["--timeout"]),
        (["--vocab", "-1"], ["--vocab"]),
    ],
)
def test_bad_input_is_one_line(server: Live, capfd: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    given = arguments if "--url" in arguments else [*arguments, "--url", server.address]
    assert rota(["bench", "poisson:rate=50,prompt=30,output=4,n=2", *given]) == 2
    said = capfd.readouterr().err
    line = next(line for line in said.splitlines() if line.startswith("rota: "))
    assert all(word in line for word in words), line


def test_requests_that_are_too_long_are_said(server: Live, capfd: pytest.CaptureFixture[str]) -> None:
    trace = "poisson:rate=50,prompt=3000,output=4,n=2"
    assert rota(["bench", trace, "--url", server.address]) == 2
    assert "--drop-long" in capfd.readouterr().err
