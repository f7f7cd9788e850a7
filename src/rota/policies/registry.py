"""Policies by name. Other packages add theirs through the entry-point group ``rota.policies`` (name -> class)."""

from __future__ import annotations

import difflib
import inspect
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from rota.contracts.serving import BatchPolicy
from rota.errors import InputError

#: name -> (module, class, title)
_BUILT_IN = {
    "static": ("rota.policies.batching.static", "Static", "Static batching (FasterTransformer)"),
    "orca": ("rota.policies.batching.orca", "Orca", "Orca, reserving the longest output"),
    "orca-paged": ("rota.policies.batching.orca", "OrcaPaged", "Orca over paged memory"),
    "vllm-v0": ("rota.policies.batching.vllm_v0", "VllmV0", "vLLM v0: prefill first"),
    "vllm-v1": ("rota.policies.batching.vllm_v1", "VllmV1", "vLLM v1: unified token budget, prefix cache"),
    "sarathi": ("rota.policies.batching.sarathi", "Sarathi", "Sarathi-Serve: chunked prefill, stall-free"),
    "sarathi-dynamic": ("rota.policies.batching.sarathi", "SarathiDynamic", "Sarathi-Serve with dynamic chunks"),
    "layered": ("rota.policies.batching.layered", "Layered", "Layered prefill: groups of layers, not chunks"),
}


@cache
def _added() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group="rota.policies")}


def policy_names() -> list[str]:
    """Names of all policies, built in and added."""
    return [*_BUILT_IN, *sorted(set(_added()) - set(_BUILT_IN))]


def policy_class(name: str) -> type[BatchPolicy]:
    """The class registered under `name`.

    Raises
    ------
    InputError
        If there is none; the message names the nearest.
    """
    if name in _BUILT_IN:
        module, attribute, _ = _BUILT_IN[name]
        found: type[BatchPolicy] = getattr(__import__(module, fromlist=[attribute]), attribute)
        return found
    if name in _added():
        loaded: type[BatchPolicy] = _added()[name].load()
        return loaded
    near = difflib.get_close_matches(name, policy_names(), 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"unknown policy {name!r}; {hint}choose from {', '.join(policy_names())}")


def make_policy(name: str, **options: Any) -> BatchPolicy:
    """A new policy.

    Parameters
    ----------
    name : str
        One of `policy_names`.
    **options
        Its options, by vLLM's names where vLLM has them.

    Raises
    ------
    InputError
        Unknown name or option, or a value that makes no sense.
    """
    made = policy_class(name)
    known = policy_options(name)
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; it takes {', '.join(f'{k} (default {v})' for k, v in known.items())}")
    return made(**options)


def policy_options(name: str) -> dict[str, Any]:
    """Options of a policy and their defaults."""
    parameters = inspect.signature(policy_class(name)).parameters
    return {p.name: p.default for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def parse_policy(text: str) -> BatchPolicy:
    """A policy from ``"name"`` or ``"name:option=value,option=value"``; a comma or a colon parts the options."""
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.replace(":", ",").split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"policy {text!r}: write options as name=value, not {part!r}")
        options[key.strip().replace("-", "_")] = _value(value.strip())
    return make_policy(name.strip(), **options)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def describe() -> list[dict[str, Any]]:
    """One row per policy: name, title, options with defaults, required capabilities, whether it has a compiled twin."""
    rows = []
    for name in policy_names():
        made = policy_class(name)
        title = _BUILT_IN[name][2] if name in _BUILT_IN else (inspect.getdoc(made) or "").split("\n")[0]
        rows.append({
            "name": name, "title": title, "options": policy_options(name), "requires": sorted(make_policy(name).requires),
            "compiled": getattr(made, "twin", None) is not None, "source": (inspect.getdoc(inspect.getmodule(made)) or "").split("\n")[0],
        })  # fmt: skip
    return rows
