"""Cancellation, backpressure, metrics, logs, failure and shutdown."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rota.errors import InputError
from rota.mechanisms.server import run
from rota.mechanisms.server.front import Limits
from tests.server.running import Live, wait_until
from tests.server.scripted import MODEL, ScriptedRunner, expected, scripted_front

Start = Callable[..., Live]
BODY = {"model": MODEL, "prompt": [1] * 64, "max_tokens": 1500}


def runner(server: Live) -> ScriptedRunner:
    found = server.front.engine.runner
    assert isinstance(found, ScriptedRunner)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_cache_while_others_go_on(start: Start, stream: bool) -> None:
    server = start(scripted_front(seconds=0.005))
    other = server.client()
    with httpx.Client(base_url=server.address) as http:
        if stream:
            with http.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as answer:
                lines = answer.iter_lines()
                assert next(lines).startswith("data: ")
                assert server.held_blocks() > 0
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json=BODY, timeout=0.3)
    server.wait_idle(seconds=2)
    found = other.completions.create(model=MODEL, prompt=[2], max_tokens=3)
    assert found.choices[0].text == expected(server.front, [2], 3)
    wait_until(lambda: len(server.lines()) == 2)
    first = server.lines()[0]
    assert first["outcome"] == "aborted" and 0 < first["completion_tokens"] < 1500


def test_a_client_that_goes_while_it_waits_is_forgotten(start: Start) -> None:
    """Held back at the engine's door, before it has a number there."""
    server = start(scripted_front())
    runner(server).may_run.clear()
    with httpx.Client(base_url=server.address) as http:
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json={**BODY, "max_tokens": 5}, timeout=0.2)
    runner(server).may_run.set()
    server.wait_idle()
    assert server.front.thread.stats.generated_tokens < 15


def test_beyond_the_limit_it_is_429_with_a_time(start: Start) -> None:
    server = start(scripted_front(seconds=0.01, limits=Limits(max_outstanding=2)))
    with httpx.Client(base_url=server.address, timeout=30) as http:
        streams = [http.stream("POST", "/v1/completions", json={**BODY, "stream": True}) for _ in range(2)]
        answers = [stream.__enter__() for stream in streams]
        full = http.post("/v1/completions", json=BODY)
        assert full.status_code == 429 and 1 <= int(full.headers["retry-after"]) <= 60
        assert full.json()["error"]["type"] == "rate_limit_error"
        assert http.post("/v1/completions", json={**BODY, "n": 3, "max_tokens": 1}).status_code == 400
        assert http.get("/health").status_code == 200
        for stream, answer in zip(streams, answers, strict=True):
            answer.close()
            stream.__exit__(None, None, None)
        server.wait_idle()
        assert http.post("/v1/completions", json={**BODY, "max_tokens": 1}).status_code == 200


def test_metrics_count_what_happened(start: Start) -> None:
    server = start(scripted_front())
    client = server.client()
    for _ in range(3):
        client.completions.create(model=MODEL, prompt=[7] * 50, max_tokens=4)
    with httpx.Client(base_url=server.address) as http:
        http.post("/v1/completions", content=b"{")
        http.get("/secret/path")
        text = http.get("/metrics").text
    found = {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key not in ("model_name", "le"))): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples if not sample.name.endswith("_bucket")
    }  # fmt: skip
    assert found["vllm:request_success_total", "length"] == 3
    assert found["vllm:prompt_tokens_total",] == 150 and found["vllm:generation_tokens_total",] == 12
    assert found["vllm:prefix_cache_hits_total",] == 2 * 48
    assert found["vllm:time_to_first_token_seconds_count",] == 3 and found["vllm:inter_token_latency_seconds_count",] == 9
    assert found["vllm:e2e_request_latency_seconds_sum",] > 0
    assert found["vllm:num_requests_running",] == 0 and found["vllm:kv_cache_usage_perc",] == 0
    assert found["rota:http_requests_total", "/v1/completions", "200"] == 3
    assert found["rota:http_requests_total", "/v1/completions", "400"] == 1
    assert found["rota:http_requests_total", "other", "404"] == 1


def test_a_log_line_tells_a_requests_story(start: Start) -> None:
    server = start(scripted_front())
    with httpx.Client(base_url=server.address) as http:
        body = {"model": MODEL, "prompt": [7] * 50, "max_tokens": 4, "user": "ann"}
        named = http.post("/v1/completions", json=body, headers={"X-Request-Id": "abc-1"})
        unnamed = http.post("/v1/completions", json=body, headers={"X-Request-Id": "no good\tname"})
    assert named.headers["x-request-id"] == "abc-1" and len(unnamed.headers["x-request-id"]) == 32
    wait_until(lambda: len(server.lines()) == 2)
    line = server.lines()[0]
    assert (line["id"], line["status"], line["prompt_tokens"], line["completion_tokens"]) == ("abc-1", 200, 50, 4)
    assert line["user"] == "ann" and line["outcome"] == "finished"
    assert 0 <= line["queue"] <= line["ttft"] <= line["seconds"]


def test_when_the_engine_fails_clients_hear_of_it_and_the_server_ends(start: Start) -> None:
    server = start(scripted_front())
    runner(server).may_run.clear()
    problems: list[Exception] = []

    def ask(stream: bool) -> None:
        try:
            list(server.client().completions.create(model=MODEL, prompt=[1], stream=stream))
        except openai.APIError as error:
            problems.append(error)

    asking = [threading.Thread(target=ask, args=(stream,)) for stream in (False, True)]
    for thread in asking:
        thread.start()
    wait_until(lambda: server.front.thread.outstanding == 2)
    runner(server).fault = RuntimeError("broken on purpose")
    runner(server).may_run.set()
    for thread in asking:
        thread.join(10)
    assert len(problems) == 2 and all("broken on purpose" in str(problem) for problem in problems)
    server.join()
    assert server.ended_well is False
    assert "broken on purpose" in server.lines("engine failed")[0]["error"]


def test_stopping_lets_running_requests_finish_and_takes_no_others(start: Start) -> None:
    server = start(scripted_front(seconds=0.01))
    texts: list[str] = []

    def ask() -> None:
        pieces = server.client().completions.create(model=MODEL, prompt=[3], max_tokens=60, stream=True)
        texts.append("".join(piece.choices[0].text for piece in pieces))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: server.front.thread.stats.generated_tokens > 5)
    with httpx.Client(base_url=server.address) as early:
        early.get("/health")  # its connection is open before the end begins
        server.stop()
        wait_until(lambda: server.front.draining)
    asking.join(10)
    server.join()
    assert texts == [expected(server.front, [3], 60)]
    stopped = server.lines("stopped")[0]
    assert stopped["aborted"] == [] and stopped["kv_blocks_held"] == 0 and server.ended_well is True
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.address}/health")


def test_connections_that_stay_open_do_not_hold_the_server(start: Start) -> None:
    server = start(scripted_front(seconds=0.01))
    host, port = server.address.removeprefix("http://").split(":")
    with httpx.Client(base_url=server.address) as http, socket.create_connection((host, int(port))):  # the second never says anything
        with http.stream("POST", "/v1/completions", json={**BODY, "max_tokens": 50, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.stop()
            assert list(lines)[-2] == "data: [DONE]"
        began = time.monotonic()
        server.join()
        assert time.monotonic() - began < 10


def test_stopping_reports_what_it_had_to_end(start: Start) -> None:
    server = start(scripted_front(seconds=0.01, limits=Limits(shutdown_seconds=0.2)))
    said: list[object] = []

    def ask() -> None:
        try:
            for piece in server.client().completions.create(model=MODEL, prompt=[3], max_tokens=2000, stream=True):
                said.append(piece.id)
        except openai.APIError as error:
            said.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: server.front.thread.stats.generated_tokens > 5)
    server.stop()
    asking.join(10)
    server.join()
    assert isinstance(said[-1], openai.APIError) and "shutting down" in str(said[-1])
    stopped = server.lines("stopped")[0]
    assert stopped["aborted"] == [said[0]] and stopped["kv_blocks_held"] == 0


def test_a_second_signal_does_not_wait(start: Start) -> None:
    """Nor do more of them report a request twice."""
    server = start(scripted_front(seconds=0.01))
    with httpx.Client(base_url=server.address) as http, http.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as answer:
        lines = answer.iter_lines()
        name = json.loads(next(lines).removeprefix("data: "))["id"]
        began = time.monotonic()
        for _ in range(3):
            server.stop()
        last = [line for line in lines if line][-2:]
    server.join()
    assert time.monotonic() - began < 3
    assert "shutting down" in last[0] and last[1] == "data: [DONE]"
    stopped = server.lines("stopped")[0]
    assert stopped["aborted"] == [name] and stopped["kv_blocks_held"] == 0 and server.ended_well is True


@pytest.mark.parametrize("fails", [False, True])
def test_a_client_that_takes_nothing_does_not_hold_the_server(start: Start, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Its answer does not fit into what the network holds; whether a person or the engine's failure ends the server."""
    monkeypatch.setattr(run, "GRACE", 0.3)
    server = start(scripted_front(max_len=1 << 17, blocks=1 << 14))
    host, port = server.address.removeprefix("http://").split(":")
    body = json.dumps({"model": MODEL, "prompt": [1], "max_tokens": 1 << 16, "logprobs": 20, "stream": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_until(lambda: server.front.thread.stats.generated_tokens > 20_000, 60)
        if fails:
            runner(server).fault = RuntimeError("broken on purpose")
        else:
            server.stop()
            server.stop()
        server.join(10)
    assert server.ended_well is not fails
    assert fails or len(server.lines("stopped")[0]["aborted"]) == 1
    assert server.lines()[0]["outcome"] == "aborted"


def test_a_step_that_does_not_end_is_reported_and_left(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE", 0.3)
    server = start(scripted_front(limits=Limits(shutdown_seconds=0.2)))
    with httpx.Client(base_url=server.address, timeout=30) as http:
        with http.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            runner(server).may_run.clear()
            server.stop()
            assert "shutting down" in [line for line in lines if line][-2]
        server.join(10)
    stopped = server.lines("stopped")[0]
    assert server.ended_well is False and stopped["step_ended"] is False and len(stopped["aborted"]) == 1
    runner(server).may_run.set()


def test_an_address_that_cannot_be_used_is_said(start: Start) -> None:
    server = start(scripted_front())
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(InputError, match=f"port {port}"):
        run.serve(scripted_front(), port=port)
    with pytest.raises(InputError, match="nowhere.invalid"):
        run.serve(scripted_front(), host="nowhere.invalid", port=0)
