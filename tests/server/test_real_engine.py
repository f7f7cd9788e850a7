"""The server with a real model: random weights, real attention over paged KV, real sampling."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from rota.cli.main import run as rota
from rota.mechanisms.engine import SamplingParams, load_engine
from rota.mechanisms.server.opening import open_model
from rota.models.architectures import named_shape, scaled
from rota.models.directory import random_model
from rota.policies.registry import parse_policy
from tests.server.running import Live, live, wait_until

Start = Callable[..., Live]
KV = 4 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    shape = scaled(named_shape("llama-3-8b"), layers=2, hidden=64, vocab=500, max_len=512)
    random_model(path, shape, seed=1, dtype="float32")
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Live]:
    with live(open_model(folder, parse_policy("sarathi:max_num_batched_tokens=64,max_num_seqs=32"), kv_bytes=KV)) as running:
        yield running


def alone(folder: Path, prompt: list[int], params: SamplingParams, dtype: str = "float32") -> list[int]:
    """The tokens of a request that has an engine for itself."""
    engine = load_engine(folder, parse_policy("vllm-v1"), kv_bytes=KV, dtype=dtype)
    engine.add_request(prompt, params)
    tokens = []
    while engine.has_work:
        tokens += [output.token for output in engine.step()]
    return tokens


def test_a_request_gets_the_tokens_it_would_get_alone(server: Live, folder: Path) -> None:
    client, prompt = server.client(), list(range(20, 90))

    def ask(temperature: float) -> str:
        found = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=20, temperature=temperature, seed=7, extra_body={"ignore_eos": True}
        )
        return found.choices[0].text

    for temperature in (0.0, 1.0):
        params = SamplingParams(max_tokens=20, temperature=temperature, seed=7, ignore_eos=True)
        text = server.front.tokenizer.decode(alone(folder, prompt, params))
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, [temperature] * 8)) == [text] * 8


def test_swapped_requests_are_counted_and_get_the_tokens_they_would_get_alone(folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for ten blocks of eight tokens and requests that want three times as much; in double precision, so that tokens are exact."""
    per_block = 2 * 2 * 16 * 8 * 8  # keys and values, layers, a head's width, tokens, bytes
    policy = parse_policy("vllm-v0:preemption=swap,watermark=0")
    server = start(open_model(folder, policy, dtype="float64", block_size=8, kv_bytes=10 * per_block, swap_bytes=40 * per_block))
    engine, run = server.front.engine, server.front.engine.runner.run
    swapped, seen = threading.Event(), threading.Event()

    def watched(*arguments: Any) -> Any:
        if server.front.thread.stats.n_swapped:
            swapped.set()
            assert seen.wait(30)
        return run(*arguments)

    monkeypatch.setattr(engine.runner, "run", watched)
    prompts = [list(range(20 + 5 * i, 40 + 5 * i)) for i in range(6)]

    def ask(prompt: list[int]) -> str:
        extra = {"ignore_eos": True}
        return server.client().completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=0, extra_body=extra).choices[0].text

    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(ask, prompts)
        assert swapped.wait(30)
        text = httpx.get(f"{server.address}/metrics").text
        seen.set()
        got = list(answers)
    shown = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert shown["vllm:num_requests_swapped"] >= 1 and shown["vllm:num_preemptions_total"] >= 1
    # the last may still be on their way
    assert 2 <= shown["vllm:num_requests_swapped"] + shown["vllm:num_requests_waiting"] + shown["vllm:num_requests_running"] <= 6
    params = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
    assert got == [server.front.tokenizer.decode(alone(folder, prompt, params, "float64")) for prompt in prompts]
    assert engine.stats().preemptions > 0 and engine.stats().n_swapped == 0 and engine.core.pool.host_free == 40


def test_n_answers_differ_and_logprobs_are_probabilities(server: Live) -> None:
    found = server.client().completions.create(model="tiny", prompt="os.path", n=4, max_tokens=10, logprobs=5, seed=3)
    assert len({choice.text for choice in found.choices}) > 1
    for choice in found.choices:
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        assert all(value is not None and -50 < value <= 0 for value in choice.logprobs.token_logprobs)


def test_fifty_clients_and_no_block_is_lost(server: Live) -> None:
    client = server.client()

    def ask(number: int) -> int:
        dice = random.Random(number)
        prompt = [dice.randrange(8, 500) for _ in range(dice.randrange(1, 100))]
        options: dict[str, Any] = {"model": "tiny", "prompt": prompt, "max_tokens": dice.randrange(1, 16), "extra_body": {"ignore_eos": True}}
        if number % 3 == 0:
            with client.completions.create(**(options | {"max_tokens": 300}), stream=True) as stream:
                next(iter(stream))
            return -1
        usage = client.completions.create(**options).usage
        assert usage is not None and usage.completion_tokens == options["max_tokens"]
        return usage.completion_tokens

    with ThreadPoolExecutor(50) as pool:
        counts = list(pool.map(ask, range(100)))
    assert sum(count > 0 for count in counts) == 66
    server.wait_idle(30)


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": {"999999999": 5}}, {"logit_bias": {str(token): -100 for token in range(500)}}, {"stop_token_ids": [(1 << 31) - 1]},
        {"top_k": (1 << 31) - 1, "min_p": 1.0, "top_p": 1e-300}, {"temperature": 5e-324, "top_p": 0.5}, {"repetition_penalty": 0.01},
        {"repetition_penalty": 100, "frequency_penalty": 2, "presence_penalty": -2}, {"seed": -(1 << 63)}, {"seed": (1 << 63) - 1, "n": 3},
        {"logprobs": 20, "n": 5}, {"max_tokens": (1 << 31) - 1, "n": 2}, {"stop": ["\n"] * 16}, {"prompt": [0, 1, 2]}, {"priority": -(1 << 31)},
    ],
    ids=lambda options: "-".join(options),
)  # fmt: skip
def test_legal_extremes_get_an_answer(server: Live, options: dict[str, Any]) -> None:
    answer = httpx.post(f"{server.address}/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": 4, **options}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"]) == options.get("n", 1)


def start_command(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "rota", "serve", str(folder), "--port", "0", "--kv-cache-memory", "0.01", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"ROTA_API_KEY": "k"})
    assert process.stdout is not None
    banner = process.stdout.readline()
    assert " at http://" in banner, banner + (process.stderr.read() if process.stderr else "")
    return process, banner.split(" at ")[1].split("/v1")[0]


def test_the_command_serves_survives_kill_and_ends_on_a_signal(folder: Path) -> None:
    process, address = start_command(folder, "--policy", "vllm-v1", "--served-model-name", "mine")
    with OpenAI(base_url=f"{address}/v1", api_key="k", max_retries=0) as client:
        stream = client.completions.create(model="mine", prompt="a", max_tokens=400, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        process.kill()
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    process.communicate()
    port = address.rpartition(":")[2]
    process, again = start_command(folder, "--port", port)
    assert again == address
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}
    assert httpx.get(f"{address}/v1/models").status_code == 401
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert json.loads(errors.splitlines()[-1])["event"] == "stopped"


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["once", "twice"])
def test_a_signal_lets_requests_finish_and_a_second_one_ends_them(folder: Path, signals: list[signal.Signals]) -> None:
    once = len(signals) == 1
    process, address = start_command(folder, "--served-model-name", "mine")
    body = {"model": "mine", "prompt": [9], "max_tokens": 100 if once else 500, "ignore_eos": True, "stream": True}
    events = []
    with httpx.stream("POST", f"{address}/v1/completions", json=body, headers={"Authorization": "Bearer k"}, timeout=60) as answer:
        for line in answer.iter_lines():
            events += [line.removeprefix("data: ")] if line else []
            if len(events) == 1 and signals:
                process.send_signal(signals.pop())
                while signals:  # two signals at one moment would be one
                    time.sleep(0.05)
                    process.send_signal(signals.pop())
    _, errors = process.communicate(timeout=30)
    stopped = json.loads(errors.splitlines()[-1])
    assert process.returncode == 0 and stopped["event"] == "stopped" and stopped["kv_blocks_held"] == 0, errors
    name = json.loads(events[0])["id"]
    assert events[-1] == "[DONE]" and stopped["aborted"] == ([] if once else [name])
    assert len(events) == 101 if once else "shutting down" in events[-2]


def test_bench_measures_the_real_thing(server: Live, capfd: pytest.CaptureFixture[str]) -> None:
    assert rota(["bench", "poisson:rate=20,prompt=40,output=6,n=30", "--url", server.address, "--json"]) == 0
    figures = json.loads(capfd.readouterr().out)["figures"]
    assert figures["finished"] == 30 and 0 < figures["tbt_p50"] < figures["e2e_p50"]


def test_a_served_log_predicts_the_next_server(folder: Path, server: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`rota serve --step-log`, `rota calibrate --from-log`, and `rota bench --compare-sim` against another server of the model."""
    log, costs, policy = tmp_path / "steps.jsonl", tmp_path / "costs.json", "sarathi:max_num_batched_tokens=64,max_num_seqs=32"
    process, address = start_command(folder, "--policy", policy, "--step-log", str(log))
    trace = "poisson:rate=60,prompt=4..60,output=2..12,n=100"
    assert rota(["bench", trace, "--url", address, "--api-key", "k", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["figures"]["finished"] == 100
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(entry[0] == "ended" for entry in steps) == 100
    assert sum(entry[0] == "arrived" for entry in steps) == 100
    assert rota(["calibrate", str(folder), "--from-log", str(log), "-o", str(costs), "--kv-cache-memory", "0.01", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["conditions"]["logs"] == [str(log)] and told["checks"][-1]["kind"] == "all" and 0 < told["checks"][-1]["error"] < 2
    assert rota(["bench", trace, "--url", server.address, "--compare-sim", str(costs), "--policy", policy, "--json"]) == 0
    cells = {cell["metric"]: cell for cell in json.loads(capfd.readouterr().out)["comparison"]}
    assert {f"{figure}_{statistic}" for figure in ("ttft", "tbt", "e2e") for statistic in ("p50", "p90", "p99")} < set(cells)
    throughput = cells["output_throughput"]
    assert 0.5 < throughput["predicted"] / throughput["measured"] < 2  # arrivals decide it
    assert all(cell["error"] == pytest.approx(cell["predicted"] / cell["measured"] - 1) for cell in cells.values())


@pytest.mark.slow
def test_two_thousand_requests_leave_nothing_behind(server: Live) -> None:
    """Whole, streamed and broken off, from fifty clients."""
    before = server.front.thread.stats.finished
    with httpx.Client(base_url=server.address, timeout=120, limits=httpx.Limits(max_connections=60)) as http:

        def ask(number: int) -> bool:
            dice = random.Random(number)
            body = {
                "model": "tiny", "prompt": [dice.randrange(8, 500) for _ in range(dice.randrange(1, 60))], "max_tokens": dice.randrange(1, 8),
                "ignore_eos": True, "stream": number % 4 != 0,
            }  # fmt: skip
            if number % 4 == 0:
                return bool(http.post("/v1/completions", json=body).json()["usage"]["completion_tokens"] == body["max_tokens"])
            if number % 4 == 1:
                with http.stream("POST", "/v1/completions", json={**body, "max_tokens": 400}) as answer:
                    lines = answer.iter_lines()
                    return next(lines).startswith("data: ")
            with http.stream("POST", "/v1/completions", json=body) as answer:
                events = [line for line in answer.iter_lines() if line]
            return len(events) == body["max_tokens"] + 1 and events[-1] == "data: [DONE]"

        with ThreadPoolExecutor(50) as pool:
            assert all(pool.map(ask, range(2000)))
    server.wait_idle(60)
    wait_until(lambda: server.front.thread.stats.finished - before == 2000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere", "no such directory", "rota make-model"]),
        (["."], ["tokenizer.json", "cannot be read"]),
        (["MODEL", "--policy", "sarathy"], ["sarathy", "did you mean sarathi"]),
        (["MODEL", "--policy", "sarathi,orca"], ["2 policies"]),
        (["MODEL", "--policy", "batchllm"], ["batchllm", "cannot serve requests as they come"]),
        (["MODEL", "--policy", "neo"], ["neo", "host_attention"]),
        (["MODEL", "--port", "99999"], ["--port"]),
        (["MODEL", "--kv-cache-memory", "0"], ["--kv-cache-memory"]),
        (["MODEL", "--kv-cache-memory", "0.000001"], ["KV cache"]),
        (["MODEL", "--policy", "vllm-v0:preemption=swap", "--swap-space", "0"], ["--swap-space", "at least", "preemption=swap"]),
        (["MODEL", "--dtype", "int5"], ["int5"]),
        (["MODEL", "--weight-format", "int3"], ["int3", "w8a8"]),
        (["MODEL", "--threads", "0"], ["--threads"]),
        (["MODEL", "--chat-template", "missing.jinja"], ["missing.jinja"]),
        (["MODEL", "--max-outstanding", "0"], ["max outstanding"]),
        (["MODEL", "--shutdown-timeout", "-1"], ["shutdown"]),
        (["MODEL", "--log", "no/such/folder/x"], ["no/such/folder/x"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    given = [str(folder) if argument == "MODEL" else argument for argument in arguments]
    assert rota(["serve", *given]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("rota: ") and all(word in line for word in words), line


def test_threads_hold_in_the_thread_that_computes(folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba
    import torch

    server = start(open_model(folder, parse_policy("sarathi"), kv_bytes=KV, threads=1))
    seen: list[tuple[int, int]] = []
    run = server.front.engine.runner.run

    def watched(*arguments: Any) -> Any:
        seen.append((torch.get_num_threads(), numba.get_num_threads()))
        return run(*arguments)

    monkeypatch.setattr(server.front.engine.runner, "run", watched)
    server.client().completions.create(model="tiny", prompt="a", max_tokens=2)
    assert set(seen) == {(1, 1)}
