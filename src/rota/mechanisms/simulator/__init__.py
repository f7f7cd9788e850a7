"""Discrete-event simulation of LLM engines under batching policies."""

from rota.mechanisms.routing import ROUTERS
from rota.mechanisms.simulator.simulate import simulate

__all__ = ["ROUTERS", "simulate"]
