"""The real engine: a batching policy decides, PyTorch computes. Needs the extra ``engine``; the scheduling part works without.

`load_engine` reads a Hugging Face directory and gives an `Engine`; `Engine.add_request`, `Engine.step` and `Engine.cancel` are all
there is to using it.
"""

from __future__ import annotations

from rota.mechanisms.engine.clock import BusyClock, Clock, ModelClock, WallClock
from rota.mechanisms.engine.engine import Engine, Output, Stats
from rota.mechanisms.engine.loading import load_engine
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.runner import Choice, Runner

__all__ = ["BusyClock", "Choice", "Clock", "Engine", "ModelClock", "Output", "Runner", "SamplingParams", "Stats", "WallClock", "load_engine"]
