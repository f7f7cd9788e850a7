"""An engine as `rota calibrate` measured it: its costs and its memory, as a JSON file that stands in for a model on a device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rota.cost.engine import EngineSpec
from rota.cost.steps import RATES, Check, StepFit
from rota.errors import InputError
from rota.files import write_text

FORMAT, VERSION = "rota-costs", 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine on one machine.

    Parameters
    ----------
    model : str
        Name, for people.
    fit : StepFit
    blocks, block_size, max_len : int
        Of its KV cache, and the longest prompt and answer together.
    conditions : dict
        How it was measured: ``model_dir``, ``device``, ``dtype``, ``weight_format``, ``kv_cache_dtype``, ``threads``, ``kv_bytes``, ``clock``,
        ``policy``, versions and the machine.
    """

    model: str
    fit: StepFit
    blocks: int
    block_size: int
    max_len: int
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """Devices of the engine."""
        return 1

    @property
    def label(self) -> str:
        """Such as ``"docs-lm on cpu, 1 thread (measured)"``."""
        threads = self.conditions.get("threads")
        counted = "" if not threads else ", 1 thread" if threads == 1 else f", {threads} threads"
        return f"{self.model} on {self.conditions.get('device', 'this machine')}{counted} (measured)"

    def engine(self, max_step_tokens: int = 0) -> EngineSpec:
        """The engine; what it costs does not depend on a policy's largest step."""
        tables = self.fit.tables()
        meta: dict[str, object] = {
            "model": self.model,
            "device": self.conditions.get("device", ""),
            "gpus": self.gpus,
            "blocks": self.blocks,
            "cost_source": f"measured: {self.clock} time of an engine",
            "cost_error": dict(tables.error),
            "cost_origin": {key: str(value) for key, value in self.conditions.items()},
            "memory": f"KV cache for {self.blocks * self.block_size:,} tokens",
        }
        return EngineSpec(
            tables=tables, blocks=self.blocks, block_size=self.block_size, max_len=self.max_len, label=self.label, meta=meta
        )

    @property
    def clock(self) -> str:
        """What the seconds are of: ``"wall"`` or ``"cpu"``."""
        return str(self.conditions.get("clock", "wall"))

    def write(self, path: str | Path) -> None:
        """Write the file that `read_costs` reads."""
        fit = self.fit
        content = {
            "format": FORMAT, "version": VERSION, "model": self.model, "source": "measured",
            "engine": {"blocks": self.blocks, "block_size": self.block_size, "max_len": self.max_len, "n_layers": fit.n_layers},
            "seconds": {
                "layer": {"tokens": fit.knots.tolist(), "seconds": fit.layer.tolist()},
                "head": {"tokens": fit.head_knots.tolist(), "seconds": fit.head.tolist()},
                **fit.rates,
            },
            "checks": [check._asdict() for check in fit.checks],
            "conditions": self.conditions,
        }  # fmt: skip
        write_text(path, json.dumps(content, indent=1) + "\n")


def read_costs(path: str | Path) -> Measured:
    """The engine that a file of ``rota calibrate MODEL_DIR`` describes.

    Raises
    ------
    InputError
        If the file cannot be read, or is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file written by rota calibrate MODEL_DIR") from None
    except ValueError:
        raise InputError(f"{path}: is not JSON; give a file written by rota calibrate MODEL_DIR") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is no file of measured costs; give one written by rota calibrate MODEL_DIR")
    if content.get("version") != VERSION:
        raise InputError(f"{path}: has version {content.get('version')}, and this Rota reads {VERSION}; calibrate again")
    try:
        return _measured(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error} is missing or wrong; calibrate again") from None


def _measured(content: Mapping[str, Any]) -> Measured:
    seconds, engine = content["seconds"], content["engine"]
    layer, head = (_points(name, seconds[name]) for name in ("layer", "head"))
    rates = {name: float(seconds[name]) for name in RATES}
    for name, rate in rates.items():
        if not 0 <= rate < np.inf:
            raise ValueError(f"seconds.{name}")
    sizes = {name: int(engine[name]) for name in ("blocks", "block_size", "max_len", "n_layers")}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"engine.{name}")
    checks = tuple(Check(str(c["kind"]), int(c["steps"]), float(c["error"]), float(c["p90"])) for c in content["checks"])
    fit = StepFit(*layer, *head, rates, sizes.pop("n_layers"), checks)
    return Measured(str(content["model"]), fit, **sizes, conditions=dict(content["conditions"]))


def _points(name: str, given: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A piecewise linear table."""
    tokens, values = np.array(given["tokens"], np.int64), np.array(given["seconds"], np.float64)
    if len(tokens) < 2 or len(tokens) != len(values) or tokens[0] != 1 or (np.diff(tokens) <= 0).any() or not np.isfinite(values).all():
        raise ValueError(f"seconds.{name}")
    return tokens, values
