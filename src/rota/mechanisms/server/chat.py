"""A model's chat template: messages to text, in the dialect of Jinja that Hugging Face tokenizers use, in a sandbox."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rota.errors import InputError


class ChatTemplate:
    """The template of a model directory.

    Parameters
    ----------
    source : str
    tokens : mapping of str to str
        ``bos_token`` and the like, which templates use.

    Raises
    ------
    InputError
        If it is not a template.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        self._tokens = dict(tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise InputError(f"the chat template is not valid Jinja ({error}); repair chat_template in tokenizer_config.json") from None

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The text that the model is to continue.

        Raises
        ------
        InputError
            If the template refuses the messages.
        """
        try:
            return str(self._template.render(messages=messages, tools=tools, documents=None, add_generation_prompt=True, **self._tokens))
        except (TemplateError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise InputError(f"the model's chat template refuses these messages: {error}") from None


def read_template(folder: Path, override: Path | None = None) -> ChatTemplate | None:
    """The template of a model directory, or of a file given instead; None if there is none.

    ``chat_template.jinja`` goes before ``tokenizer_config.json``, as in transformers; of several named templates, ``default`` is taken.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    config = _config(folder / "tokenizer_config.json")
    source = config.get("chat_template")
    if isinstance(source, list):
        source = next((entry.get("template") for entry in source if isinstance(entry, dict) and entry.get("name") == "default"), None)
    for path in (override, folder / "chat_template.jinja"):
        if path is not None and (path == override or path.is_file()):
            source = _text(path)
            break
    if not isinstance(source, str):
        return None
    return ChatTemplate(source, {name: token for name, value in config.items() if name.endswith("_token") and (token := _token(value))})


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); repair it, or remove it to serve without a chat template") from None
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a text file in UTF-8") from None


def _token(value: object) -> str:
    """A special token, which older files describe by an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _json(value: object, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    # Jinja's own filter escapes HTML, which no model expects
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)
