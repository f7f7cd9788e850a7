"""The official client against the server: what comes back is what the model said, in the shape that the client expects."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from rota.mechanisms.server.chat import ChatTemplate
from tests.server.running import Live
from tests.server.scripted import MODEL, expected, scripted_front

Start = Callable[..., Live]


def test_completion_whole_and_streamed_are_the_models_words(start: Start) -> None:
    server = start(scripted_front())
    client = server.client()
    prompt = list(range(40))
    whole = client.completions.create(model=MODEL, prompt=prompt, max_tokens=12)
    assert whole.choices[0].text == expected(server.front, prompt, 12)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None and (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (40, 12)
    pieces = list(client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == 12 and not pieces[-1].choices
    assert len(pieces) == 13  # a piece per token


def test_text_batches_and_n_come_back_in_order(start: Start) -> None:
    server = start(scripted_front())
    client = server.client()
    ids = [server.front.tokenizer.encode(text).ids for text in ("one", "two")]
    found = client.completions.create(model=MODEL, prompt=["one", "two"], n=2, max_tokens=5, echo=True)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    wanted = [text + expected(server.front, prompt, 5) for text, prompt in zip(("one", "two"), ids, strict=True) for _ in range(2)]
    assert [choice.text for choice in found.choices] == wanted
    assert found.usage is not None and found.usage.prompt_tokens == 6 and found.usage.completion_tokens == 20


def test_chat_uses_the_template_and_streams_deltas(start: Start) -> None:
    server = start(scripted_front())
    client = server.client()
    text = "<|begin|><|system|>\nBe brief.<|end|>\n<|user|>\nHi ü<|end|>\n<|assistant|>\n"
    prompt = server.front.tokenizer.encode(text).ids
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi ü"}]}]
    whole = client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=9)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == expected(server.front, prompt, 9)
    assert whole.usage.prompt_tokens == len(prompt)
    pieces = list(client.chat.completions.create(model=MODEL, messages=messages, max_tokens=9, stream=True))  # type: ignore[call-overload]
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == "length"


def test_tools_reach_the_template_and_calls_come_back_as_text(start: Start) -> None:
    """The answer is that of the very text which the template makes of tools, earlier calls and their results."""
    front = scripted_front()
    front.template = ChatTemplate(
        "{% for t in tools or [] %}T{{ t | tojson }}{% endfor %}{% for m in messages %}[{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %}C{{ c.function.name }}({{ c.function.arguments.at }}){% endfor %}{{ m.tool_call_id }}]{% endfor %}", {},
    )  # fmt: skip
    server = start(front)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 5}'}}
    messages = [
        {"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "nothing"},
    ]  # fmt: skip
    said = "[user:?][assistant:Clook(5)][tool:nothing1]"
    given = 'T{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}'
    ask = server.client().chat.completions.create
    for choice, text in (("auto", given + said), ("none", said)):
        found = ask(model=MODEL, messages=messages, tools=tools, tool_choice=choice, max_tokens=9)  # type: ignore[call-overload]
        prompt = server.front.tokenizer.encode(text, add_special_tokens=False).ids
        assert found.usage.prompt_tokens == len(prompt)
        answer = found.choices[0]
        assert (answer.message.content, answer.message.tool_calls) == (expected(server.front, prompt, 9), None)
        pieces = list(ask(model=MODEL, messages=messages, tools=tools, tool_choice=choice, max_tokens=9, stream=True))  # type: ignore[call-overload]
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == answer.message.content


def test_stop_text_ends_the_answer_before_it(start: Start) -> None:
    server = start(scripted_front())
    prompt = [1, 2, 3]
    text = expected(server.front, prompt, 40)
    stop = text[10:13]
    cut = text[: text.index(stop)]
    for stream in (False, True):
        found = server.client().completions.create(model=MODEL, prompt=prompt, max_tokens=40, stop=[stop, "#"], stream=stream)
        pieces = list(found) if stream else [found]  # type: ignore[call-overload, list-item]
        assert "".join(piece.choices[0].text for piece in pieces) == cut
        assert pieces[-1].choices[0].finish_reason == "stop"
    server.wait_idle()


def test_logprobs_in_both_shapes(start: Start) -> None:
    server = start(scripted_front())
    client = server.client()
    found = client.completions.create(model=MODEL, prompt=[5], max_tokens=3, logprobs=2).choices[0]
    assert found.logprobs is not None
    assert "".join(found.logprobs.tokens or []) == found.text and found.logprobs.text_offset == [0, 1, 2]
    assert found.logprobs.top_logprobs == [{"a": -1.0, "b": -2.0}] * 3
    messages = [{"role": "user", "content": "x"}]
    chat = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=3, logprobs=True, top_logprobs=1).choices[0]  # type: ignore[call-overload]
    assert [bytes(entry.bytes).decode() for entry in chat.logprobs.content] == list(chat.message.content)
    assert [entry.top_logprobs[0].token for entry in chat.logprobs.content] == ["a"] * 3


def test_prefix_cache_shows_in_usage_and_metrics(start: Start) -> None:
    server = start(scripted_front())
    client = server.client()
    prompt = list(range(100))
    first, second = (client.completions.create(model=MODEL, prompt=prompt, max_tokens=2).usage for _ in range(2))
    assert first is not None and first.prompt_tokens_details is not None and first.prompt_tokens_details.cached_tokens == 0
    assert second is not None and second.prompt_tokens_details is not None and second.prompt_tokens_details.cached_tokens == 96


@pytest.mark.parametrize("policy", ["sarathi", "vllm-v1"])
def test_fifty_clients_at_once_get_their_own_answers_and_nothing_leaks(start: Start, policy: str) -> None:
    """Hundreds of requests, a third of them given up half way, in too little KV for all."""
    server = start(scripted_front(policy=policy, blocks=256))
    client = server.client()

    def ask(number: int) -> bool:
        dice = random.Random(number)
        prompt = [dice.randrange(256) for _ in range(dice.randrange(1, 200))]
        n = dice.randrange(1, 40)
        if number % 3 == 0:
            with client.completions.create(model=MODEL, prompt=prompt, max_tokens=1000, stream=True) as stream:
                next(iter(stream))
            return True
        if number % 3 == 1:
            found = client.completions.create(model=MODEL, prompt=prompt, max_tokens=n)
            return found.choices[0].text == expected(server.front, prompt, n)
        pieces = client.completions.create(model=MODEL, prompt=prompt, max_tokens=n, stream=True)
        return "".join(piece.choices[0].text for piece in pieces) == expected(server.front, prompt, n)

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(ask, range(200)))
    server.wait_idle()
    assert server.front.thread.stats.finished == 200


def test_errors_of_the_client_have_their_types(start: Start) -> None:
    server = start(scripted_front(template=False), keys=("secret", "other"))
    client = server.client("secret")
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.completions.create(model="gpt-4", prompt="x")
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").models.list()
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="at most 2047"):
        client.completions.create(model=MODEL, prompt=[1] * 3000)
