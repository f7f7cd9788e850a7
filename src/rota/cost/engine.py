"""What a mechanism needs to stand in for an engine: its memory and its step costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from rota.cost.tables import StepTables


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine (replica). Policy-dependent limits (sequences, step tokens) come from the policy.

    Parameters
    ----------
    tables : StepTables
    blocks : int
        KV blocks of all ranks together that one sequence set can use (that is, per rank).
    host_blocks : int
        KV blocks that host memory holds besides, for policies that need ``host_attention`` or ``swap``.
    block_size : int
        Tokens per block.
    max_len : int
        Longest prompt + output.
    tp, pp : int
    label : str
        Such as ``"llama-3-8b on a100-80g"``.
    offload_blocks : int
        KV blocks that the prefix cache keeps in host memory when device blocks are taken for other use; 0 for none.
    reload : float
        Seconds per token of copying KV back from there.
    meta : dict
        Conditions for reports (model, device, gpus, usd_per_hour, ...), copied into `Run.meta`.
    """

    tables: StepTables
    blocks: int
    block_size: int = 16
    max_len: int = 16384
    tp: int = 1
    pp: int = 1
    label: str = "engine"
    offload_blocks: int = 0
    reload: float = 0.0
    meta: dict[str, object] = field(default_factory=dict)
    host_blocks: int = 0
