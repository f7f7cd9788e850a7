"""Checks the cost model against end-to-end measurements that no constant was fitted to.

Yi-34B on two NVLink-bridged A100 80 GB PCIe, tensor parallel: one prompt alone, as published with Sarathi-Serve
(microsoft/sarathi-serve, Apache-2.0, OSDI experiments, figure 2). The engine measured launched kernels one by one, so short prompts
are bound by its host, and its attention kernels of 2024 fall behind at long ones. Its decode points say nothing about a current
engine and are not used.
"""

from __future__ import annotations

from dataclasses import dataclass

from rota.cost.deployment import Deployment
from rota.cost.model import CostModel

MODEL, DEVICE, RANKS = "yi-34b-200k", "a100-80g-pcie-pair", 2
#: Prompt tokens and measured seconds.
MEASURED = ((128, 0.048), (512, 0.106), (1024, 0.214), (2048, 0.366), (4096, 0.758), (8192, 1.863), (16384, 4.408))


@dataclass(frozen=True, slots=True)
class Point:
    """One prompt: tokens, measured and predicted seconds."""

    tokens: int
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1


def validate() -> list[Point]:
    """Predicted against measured prefill times of Yi-34B on two A100."""
    deployment = Deployment(MODEL, DEVICE, tensor_parallel_size=RANKS, max_model_len=16384)
    model = CostModel(deployment.engine(16384).tables)
    return [Point(n, seconds, float(model.prefill_seconds(n))) for n, seconds in MEASURED]
