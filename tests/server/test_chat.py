"""Chat templates: the dialect of Hugging Face, in a sandbox, from where transformers looks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rota.errors import InputError
from rota.mechanisms.server.chat import ChatTemplate, read_template
from rota.mechanisms.server.schema import ChatRequest, Message, parse

USER = [{"role": "user", "content": "<b> & 'ü'"}]


def render(source: str, messages: list[dict[str, Any]] = USER, **tokens: str) -> str:
    return ChatTemplate(source, tokens).render(messages)


def test_the_dialect() -> None:
    assert render("{{ messages | tojson }}") == '[{"role": "user", "content": "<b> & \'ü\'"}]'
    assert render("  {% for m in messages %}\n{{ m.content }}{% break %}\n  {% endfor %}") == "<b> & 'ü'"
    assert render("{{ bos_token }}{{ missing }}{% if add_generation_prompt %}>{% endif %}", bos_token="<s>") == "<s>>"
    assert len(render("{{ strftime_now('%Y') }}")) == 4


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('only users') }}", "{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ messages[9].content.x }}",
        "{{ 1 + 'a' }}", "{% include 'x' %}", "{{ messages.__init__.__globals__ }}",
    ],
)  # fmt: skip
def test_what_a_template_may_not_do_is_an_input_error(source: str) -> None:
    with pytest.raises(InputError, match="refuses these messages"):
        render(source)


def test_a_template_that_is_none_is_said_at_the_start() -> None:
    with pytest.raises(InputError, match="not valid Jinja"):
        ChatTemplate("{% for %}", {})


def test_where_it_is_found(tmp_path: Path) -> None:
    assert read_template(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "A{{ bos_token }}", "bos_token": {"content": "<s>"}}))
    found = read_template(tmp_path)
    assert found is not None and found.render(USER) == "A<s>"
    config.write_text(json.dumps({"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}))
    found = read_template(tmp_path)
    assert found is not None and found.render(USER) == "D"
    (tmp_path / "chat_template.jinja").write_text("J")
    found = read_template(tmp_path)
    assert found is not None and found.render(USER) == "J"
    (tmp_path / "mine").write_text("M")
    found = read_template(tmp_path, tmp_path / "mine")
    assert found is not None and found.render(USER) == "M"
    with pytest.raises(InputError, match="nowhere"):
        read_template(tmp_path, tmp_path / "nowhere")
    config.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_template(tmp_path)


def test_messages_as_templates_expect_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"where": "here"}'}}
    body = {"model": "m", "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, call | {"function": {"name": "f", "arguments": "half {"}}]},
    ]}  # fmt: skip
    first, second = (message.plain() for message in parse(ChatRequest, json.dumps(body).encode()).messages)
    assert first == {"role": "system", "content": "a\nb"}
    assert second["content"] == "" and second["tool_calls"][0]["function"]["arguments"] == {"where": "here"}
    assert second["tool_calls"][1]["function"]["arguments"] == "half {"
    assert Message(role="user", content="x", name="ann").plain() == {"role": "user", "content": "x", "name": "ann"}
