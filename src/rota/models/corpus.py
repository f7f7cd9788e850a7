"""English text that every machine with Python has: the language's own documentation.

Docstrings are read from the standard library's source files, which are parsed and never imported; the reference's topics come from
`pydoc_data`. The text depends on the Python release, and on nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SKIP = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo", "ensurepip", "pydoc_data", "__pycache__"})
LEAST = 40
_ASK = {
    "module": ("What is the module {} for?", "Tell me about the module {}."),
    "class": ("What is {}?", "Explain the class {}."),
    "function": ("What does {} do?", "How does {} work?"),
    "topic": ("Explain {}.", "What does the reference say about {}?"),
}


class Document(NamedTuple):
    """A piece of documentation: its dotted name, what it is about (a key of the questions), and its text."""

    name: str
    kind: str
    text: str

    @property
    def question(self) -> str:
        """What somebody would ask to hear this text; the same for the same document always."""
        forms = _ASK[self.kind]
        return forms[hashlib.sha256(self.name.encode()).digest()[0] % len(forms)].format(self.name)


@cache
def python_documents() -> tuple[Document, ...]:
    """All documentation of this Python, by name; each text once."""
    found: dict[str, Document] = {}
    for document in [*_topics(), *_docstrings()]:
        found.setdefault(document.text, document)
    return tuple(sorted(found.values()))


def digest(documents: Iterable[Document]) -> str:
    """SHA-256 of the documents, to tell whether two machines have the same."""
    state = hashlib.sha256()
    for document in documents:
        state.update("\0".join(document).encode() + b"\0")
    return state.hexdigest()


def _topics() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield Document(name.replace("-", " ").lower(), "topic", inspect.cleandoc(text))


def _docstrings() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIP & set(parts) or any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old escapes in the library's own strings
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        yield from _of_node(tree, ".".join(part for part in parts if part != "__init__"), "module")


def _of_node(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, kind: str) -> Iterator[Document]:
    text = ast.get_docstring(node)
    if text is not None and len(text) >= LEAST and name:
        yield Document(name, kind, text)
    if kind == "function":
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _of_node(child, f"{name}.{child.name}", "class")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _of_node(child, f"{name}.{child.name}", "function")
