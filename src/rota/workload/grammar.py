"""Generators as text: ``kind:option=value,option=value``, for example ``poisson:rate=5,prompt=1000,output=50..300,n=2000``.

Lengths are given as ``prompt=`` and ``output=`` quantities (`rota.workload.lengths.Spread`; ``max_total=`` limits their sum), or
as ``lengths=azure-conv`` and the like. All other options are the parameters of the generator function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from rota.errors import InputError
from rota.workload.agents import Agent, Tool, agents
from rota.workload.builtin import lengths_of
from rota.workload.generators import bursts, closed_loop, documents, gamma, poisson, shared_prefix
from rota.workload.lengths import Independent, Spread
from rota.workload.tenants import tenants
from rota.workload.trace import Trace

KINDS: dict[str, Callable[..., Trace]] = {
    "poisson": poisson,
    "gamma": gamma,
    "bursts": bursts,
    "closed-loop": closed_loop,
    "shared-prefix": shared_prefix,
    "documents": documents,
    "agents": agents,
    "tenants": tenants,
}
PROMPT, OUTPUT = Spread.fixed(1000), Spread.fixed(200)
_HIDDEN = ("lengths", "seed", "name", "agent")


def is_generator(text: str) -> bool:
    """Whether a text means a generator, rightly written or not."""
    return text.partition(":")[0].strip() in KINDS


def options(kind: str) -> dict[str, str]:
    """Option names of a generator and their defaults, as text."""
    found = {name: _text(default) for name, (_, default) in _own(kind).items()}
    if not _has_lengths(kind):
        return found
    return found | {"prompt": _text(PROMPT), "output": _text(OUTPUT), "max_total": "0", "lengths": ""}


def generate_text(text: str, n: int | None = None, seed: int = 0) -> Trace:
    """Draw the workload that a text describes.

    Parameters
    ----------
    text : str
    n : int, optional
        Requests, where the text does not say how many.
    seed : int

    Raises
    ------
    InputError
        If the generator or an option is unknown, is there twice, or has a value that makes no sense.
    """
    kind, _, rest = text.partition(":")
    kind = kind.strip()
    given = _options(kind, rest, text)
    own = _own(kind)
    values: dict[str, Any] = {"seed": seed}
    if n is not None and "n" in own and "n" not in given:
        values["n"] = n
    try:
        values |= {name: _value(own[name][0], name, word) for name, word in given.items() if name in own}
        if kind == "agents":
            agent = {f.name: values.pop(f.name) for f in fields(Agent) if f.name in values}
            if "time" in values:
                agent["tools"] = (Tool("tool", 1.0, values.pop("time")),)
            return agents(**values, agent=Agent(**agent))
        return KINDS[kind](**values, **({"lengths": _lengths(given)} if _has_lengths(kind) else {}))
    except InputError as error:
        raise InputError(f"{text}: {error}") from None


def _has_lengths(kind: str) -> bool:
    """Whether its requests are drawn from one distribution of lengths."""
    return "lengths" in inspect.signature(KINDS[kind]).parameters


def _options(kind: str, rest: str, text: str) -> dict[str, str]:
    known = options(kind)
    given: dict[str, str] = {}
    for piece in filter(None, (part.strip() for part in rest.split(","))):
        name, equals, word = (part.strip() for part in piece.partition("="))
        if name not in known:
            accepted = ", ".join(f"{k}={v}" if v else k for k, v in known.items())
            raise InputError(f"{text}: {kind} has no option {name!r}; it takes {accepted}")
        if not equals or not word:
            raise InputError(f"{text}: option {name} needs a value; write {name}={known[name] or 'azure-conv'}")
        if name in given:
            raise InputError(f"{text}: option {name} is there twice; give it once")
        given[name] = word
    return given


def _own(kind: str) -> dict[str, tuple[str, Any]]:
    """Type (as written) and default of each parameter that an option sets."""
    found = {
        name: (str(p.annotation), p.default)
        for name, p in inspect.signature(KINDS[kind]).parameters.items()
        if name not in _HIDDEN
    }
    if kind == "agents":
        found |= {f.name: (str(f.type), f.default) for f in fields(Agent) if f.name != "tools"}
        found["time"] = ("Spread", Spread.fixed(1.0))
    return found


def _value(kind: str, name: str, word: str) -> Any:
    if kind == "Spread":
        return Spread.parse(word)
    if kind == "str":
        return word
    try:
        # 1e6 is a whole number too
        number = float(word)
        if kind == "int" and number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError(f"{name} must be a {'whole number' if kind == 'int' else 'number'}, not {word!r}") from None
    return int(number) if kind == "int" else number


def _lengths(given: dict[str, str]) -> Any:
    named = [name for name in ("prompt", "output", "max_total") if name in given]
    if "lengths" in given:
        if named:
            raise InputError(f"lengths={given['lengths']} already says how long requests are; leave out {' and '.join(named)}")
        return lengths_of(given["lengths"])
    prompt = Spread.parse(given["prompt"]) if "prompt" in given else PROMPT
    output = Spread.parse(given["output"]) if "output" in given else OUTPUT
    max_total = _value("int", "max_total", given.get("max_total", "0"))
    if max_total < 0:
        raise InputError(f"max_total must be 0 (no limit) or positive, not {max_total}")
    return Independent(prompt, output, max_total)


def _text(value: Any) -> str:
    if isinstance(value, Spread):
        if value.kind == "fixed":
            return f"{value.a:g}"
        return f"{value.a:g}{'..' if value.kind == 'uniform' else '/'}{value.b:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
