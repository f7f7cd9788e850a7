"""Rota: every LLM-serving batching policy on your trace, side by side, by discrete-event simulation.

The names below are loaded when they are first used, so that importing `rota` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rota.cost.deployment import Deployment
    from rota.mechanisms.simulator import simulate
    from rota.policies.registry import make_policy, parse_policy, policy_names
    from rota.results.frame import requests_frame, summary_frame
    from rota.results.slo import SLO
    from rota.results.summary import summarise
    from rota.studies.capacity import capacity
    from rota.studies.compare import compare
    from rota.studies.composition import composition
    from rota.studies.frontier import frontier
    from rota.workload import load_trace

_WHERE = {
    "Deployment": "rota.cost.deployment",
    "SLO": "rota.results.slo",
    "capacity": "rota.studies.capacity",
    "compare": "rota.studies.compare",
    "composition": "rota.studies.composition",
    "frontier": "rota.studies.frontier",
    "load_trace": "rota.workload",
    "make_policy": "rota.policies.registry",
    "parse_policy": "rota.policies.registry",
    "policy_names": "rota.policies.registry",
    "requests_frame": "rota.results.frame",
    "simulate": "rota.mechanisms.simulator",
    "summarise": "rota.results.summary",
    "summary_frame": "rota.results.frame",
}

__all__ = [
    "SLO",
    "Deployment",
    "__version__",
    "capacity",
    "compare",
    "composition",
    "frontier",
    "load_trace",
    "make_policy",
    "parse_policy",
    "policy_names",
    "requests_frame",
    "simulate",
    "summarise",
    "summary_frame",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'rota' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
