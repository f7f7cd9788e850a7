"""Whatever is sent, the answer is a 4xx that says what is wrong, and the server goes on for everybody else."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.mechanisms.server.front import Limits
from tests.server.running import Live, live
from tests.server.scripted import MODEL, scripted_front

Start = Callable[..., Live]
PATHS = ("/v1/completions", "/v1/chat/completions")
GOOD = {"model": MODEL, "prompt": "x", "max_tokens": 2}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(scripted_front(limits=Limits(max_body=100_000))) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=30) as client:
        yield client
        # whatever the tests did, it still answers
        assert client.post(PATHS[0], json=GOOD).status_code == 200
        assert client.post(PATHS[1], json=CHAT).status_code == 200


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert all(word in error["message"] for word in words), error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"model": "\xff"}', b'{"model": "\\ud800"}', b"[" * 90_000,
        b'{"model": "x", "n": ' + b"9" * 10_000 + b"}", b'{"temperature": NaN}', b"\x00", "{}".encode("utf-16"),
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_bodies_that_are_no_request(http: httpx.Client, path: str, body: bytes) -> None:
    refused(http.post(path, content=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1 << 40), ("max_tokens", "5"), ("max_tokens", 1.5), ("max_tokens", True),
        ("temperature", -0.1), ("temperature", 3), ("temperature", "hot"), ("top_p", 0), ("top_p", 1.1), ("top_k", -2), ("n", 0), ("n", 1000),
        ("n", [1]), ("min_p", 2), ("presence_penalty", 9), ("frequency_penalty", -9), ("repetition_penalty", 0), ("stop", ""),
        ("stop", ["a"] * 17), ("stop", [""]), ("stop", 3), ("logit_bias", {"a": 1}), ("logit_bias", {"1": 1000}), ("logit_bias", [1]),
        ("seed", 1 << 70), ("stream", "yes"), ("stream_options", {"include_usage": True}), ("stop_token_ids", [-1]), ("priority", 1 << 40),
        ("user", "u" * 300), ("model", ""), ("model", None), ("max_token", 5), ("functions", []),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_named(http: httpx.Client, field: str, value: object) -> None:
    for path, good in zip(PATHS, (GOOD, CHAT), strict=True):
        answer = http.post(path, json={**good, field: value})
        refused(answer, 400)
        said = answer.json()["error"]
        assert field in (said["param"] or "") or field in said["message"], said


@pytest.mark.parametrize(
    "prompt", ["", [], [""], [[]], [1, "a"], [-1], [1.5], [[1], "a"], None, {"a": 1}, [10**6], [1 << 40], ["x"] * 200], ids=repr
)
def test_prompts_that_are_none(http: httpx.Client, prompt: object) -> None:
    refused(http.post(PATHS[0], json={**GOOD, "prompt": prompt}), 400)


@pytest.mark.parametrize(
    "messages",
    [
        [], None, "hi", [{}], [{"role": "king", "content": "x"}], [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}], [{"role": "user", "extra": 1}],
    ],
    ids=repr,
)  # fmt: skip
def test_messages_that_are_none(http: httpx.Client, messages: object) -> None:
    refused(http.post(PATHS[1], json={**CHAT, "messages": messages}), 400, "messages")


def test_prompt_longer_than_the_model(http: httpx.Client) -> None:
    refused(http.post(PATHS[0], json={**GOOD, "prompt": "x" * 2048}), 400, "2048", "2047")
    refused(http.post(PATHS[1], json={**CHAT, "messages": [{"role": "user", "content": "x" * 3000}]}), 400, "2047")


def test_bodies_beyond_the_limit(http: httpx.Client) -> None:
    refused(http.post(PATHS[0], json={**GOOD, "prompt": "x" * 200_000}), 413, "100,000")

    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    refused(http.post(PATHS[0], content=chunks()), 413, "100,000")


def test_wrong_paths_methods_and_models(http: httpx.Client) -> None:
    refused(http.get("/v1/nothing"), 404)
    answer = http.get(PATHS[0])
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"
    refused(http.post(PATHS[0], json={**GOOD, "model": "other"}), 404, "other", MODEL)
    refused(http.get("/v1/models/other"), 404)
    assert http.get(f"/v1/models/{MODEL}").json()["max_model_len"] == 2048


@pytest.mark.parametrize(
    "raw",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"\x00" * 100,
     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"],
    ids=lambda raw: repr(raw[:30]),
)  # fmt: skip
def test_bytes_that_are_no_http(server: Live, http: httpx.Client, raw: bytes) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert answer == b"" or answer.split()[1].startswith(b"4"), answer
    assert http.get("/health").json() == {"status": "ok"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "role", "content", "name"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=150)
@given(
    path=st.sampled_from(PATHS),
    changes=st.dictionaries(
        st.sampled_from(["prompt", "messages", "stop", "n", "temperature", "logit_bias", "stream", "tools", "logprobs", "seed", "stop_token_ids"]),
        json_values, min_size=1, max_size=3,
    ),
)  # fmt: skip
def test_any_json_gets_an_answer_or_a_reason(server: Live, http: httpx.Client, path: str, changes: dict[str, object]) -> None:
    body = {**(GOOD if path == PATHS[0] else CHAT), **changes}
    answer = http.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        refused(answer, 400)


def test_keys(start: Start) -> None:
    server = start(scripted_front(), keys=("ä-key", "two"))
    with httpx.Client(base_url=server.address) as http:
        assert http.get("/health").status_code == 200 and http.get("/metrics").status_code == 200
        for header in (None, "", "Bearer", "Bearer wrong", "Basic two", "two"):
            answer = http.post(PATHS[0], json=GOOD, headers={} if header is None else {"Authorization": header})
            refused(answer, 401, "Authorization")
            assert answer.headers["www-authenticate"] == "Bearer"
        for key in ("ä-key", "two"):
            assert http.post(PATHS[0], json=GOOD, headers={b"Authorization": b"Bearer " + key.encode()}).status_code == 200
