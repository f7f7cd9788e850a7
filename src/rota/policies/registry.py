"""Policies by name. Other packages add theirs through the entry point group ``rota.policies`` (name = "module:factory")."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rota.contracts.serving import BatchPolicy
from rota.errors import InputError

#: Where each policy lives; modules are loaded when first needed.
BUILT_IN = {
    "static": "rota.policies.batching.static:Static",
    "orca": "rota.policies.batching.orca:OrcaReserve",
    "orca-paged": "rota.policies.batching.orca:OrcaPaged",
    "flover": "rota.policies.batching.flover:Flover",
    "vllm-v0": "rota.policies.batching.vllm_v0:VllmV0",
    "vllm-v1": "rota.policies.batching.vllm_v1:VllmV1",
    "sarathi": "rota.policies.batching.sarathi:Sarathi",
    "sarathi-dynamic": "rota.policies.batching.sarathi_dynamic:SarathiDynamic",
    "layered": "rota.policies.batching.layered:Layered",
    "aggressive": "rota.policies.batching.admitting:AggressiveAdmission",
    "conservative": "rota.policies.batching.admitting:ConservativeAdmission",
    "lightllm": "rota.policies.batching.admitting:LightLLMAdmission",
    "past-future": "rota.policies.batching.admitting:PastFutureAdmission",
    "oracle-lengths": "rota.policies.batching.admitting:OracleAdmission",
    "vtc": "rota.policies.batching.fair:VirtualTokenCounter",
    "rate-limit": "rota.policies.batching.fair:RequestsPerMinute",
    "program-fcfs": "rota.policies.batching.programs:ProgramFcfs",
    "continuum": "rota.policies.batching.programs:Continuum",
    "fixed-ttl": "rota.policies.batching.programs:FixedTime",
    "pin-until-pressure": "rota.policies.batching.programs:PinUntilPressure",
    "pin-forever": "rota.policies.batching.programs:PinForever",
    "composed": "rota.policies.batching.custom:Custom",
    "batchllm": "rota.policies.offline.batchllm:BatchLLM",
    "neo": "rota.policies.offload.neo:Neo",
    "apex": "rota.policies.offload.apex:Apex",
}
#: What is compared when nobody says what: one of each way to batch.
STANDARD = ("static", "orca", "orca-paged", "vllm-v0", "vllm-v1", "sarathi", "sarathi-dynamic", "layered")
GROUP = "rota.policies"
_WORDS: dict[str, object] = {"true": True, "false": False, "none": None}


def policy_names() -> list[str]:
    """All names, the built-in ones first."""
    return [*BUILT_IN, *sorted(set(_plugins()) - set(BUILT_IN))]


def describe() -> list[dict[str, Any]]:
    """A row for each policy: name, title, paper, options and defaults, required capabilities, whether it has a compiled twin."""
    rows = []
    for name in policy_names():
        factory = _factory(name)
        policy = make_policy(name)
        text = (inspect.getdoc(factory) or name).splitlines()[0]
        rows.append({
            "name": name, "title": getattr(factory, "title", text), "paper": getattr(factory, "paper", ""),
            "options": {key: p.default for key, p in _options(factory).items()}, "requires": sorted(policy.requires),
            "compiled": hasattr(factory, "twin"),
        })  # fmt: skip
    return rows


def make_policy(name: str, **options: object) -> BatchPolicy:
    """A policy by name.

    Parameters
    ----------
    name : str
    **options
        Its options; options that vLLM has bear vLLM's names.

    Raises
    ------
    InputError
        For an unknown name or option, and for values that cannot be or contradict each other. The message lists what is accepted.
    """
    factory = _factory(name)
    known = _options(factory)
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"policy {name} has no option {key!r}{hint}; {_accepts(name, known)}")
    try:
        policy = factory(**options)
    except InputError as error:
        raise InputError(f"policy {name}: {error}; {_accepts(name, known)}") from None
    if not isinstance(policy, BatchPolicy):
        raise InputError(f"policy {name}: {_source(name)} did not return a BatchPolicy (rota.contracts.serving)")
    return policy


def parse_policy(text: str) -> BatchPolicy:
    """A policy from text such as ``"sarathi"`` or ``"sarathi:max_num_batched_tokens=256,max_num_seqs=64"``.

    Raises
    ------
    InputError
        As `make_policy`, and for text of another form.
    """
    name, colon, rest = text.strip().partition(":")
    name = name.strip()
    factory = _factory(name)
    known = _options(factory)
    options: dict[str, object] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        key, value = key.strip().replace("-", "_"), value.strip()
        if not (key and equals and value):
            raise InputError(f"policy {text!r}: {part!r} is not option=value; {_accepts(name, known)}")
        if key in options:
            raise InputError(f"policy {text!r} gives {key} twice; leave one out")
        options[key] = _value(value, known[key]) if key in known else value
    return make_policy(name, **options)


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _source(name: str) -> str:
    if name in BUILT_IN:
        return BUILT_IN[name]
    plugins = _plugins()
    if name in plugins:
        return plugins[name].value
    near = difflib.get_close_matches(name, policy_names(), 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"unknown policy {name!r}{hint}; choose from {', '.join(policy_names())}")


def _factory(name: str) -> Callable[..., object]:
    source = _source(name)
    module, _, attribute = source.partition(":")
    try:
        found: Callable[..., object] = getattr(import_module(module), attribute)
        inspect.signature(found)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"policy {name}: cannot load {source} ({error}); repair or uninstall the package it is in") from error
    return found


def _options(factory: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Parameters that can be given by name, with evaluated annotations."""
    parameters = inspect.signature(factory, eval_str=True).parameters
    return {key: p for key, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _accepts(name: str, known: dict[str, inspect.Parameter]) -> str:
    listed = ", ".join(key if p.default is p.empty else f"{key}={p.default}" for key, p in known.items())
    return f"{name} accepts {listed}" if listed else f"{name} accepts no options"


def _value(text: str, parameter: inspect.Parameter) -> object:
    """An option's text as the type its parameter is annotated with, or as it looks if that says nothing."""
    wanted = parameter.annotation
    kinds = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    if str in kinds:
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
