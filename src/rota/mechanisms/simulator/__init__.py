"""Discrete-event simulation of LLM engines under batching policies."""

from rota.mechanisms.simulator.simulate import ROUTERS, simulate

__all__ = ["ROUTERS", "simulate"]
