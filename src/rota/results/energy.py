"""Energy of a run, from its totals and the constants it carries.

    E = idle_watts * replicas * makespan + joule_flop * FLOP + joule_byte * bytes
    FLOP  = n_layers * (linear_flops * tokens + attention_flops * (prefill_area + decode_context))
    bytes = weight_bytes * weight_passes + n_layers * kv_bytes * (prefill_context + decode_context - shared_context) + expert_bytes

Tokens are computed ones, prompt and decode, recomputation included. Idle power is drawn for the whole makespan by every replica;
work adds to it per operation and per byte moved. The output head is left out (below 2% of the FLOPs of a model of 7B parameters
or more).
"""

from __future__ import annotations

from collections.abc import Mapping

from rota.results.run import Run


def operations(run: Run) -> tuple[float, float]:
    """FLOPs done and bytes read from device memory by the whole run; NaN without energy constants in ``run.meta["energy"]``."""
    constants = run.meta.get("energy")
    if not isinstance(constants, Mapping):
        return float("nan"), float("nan")
    totals, layers = run.totals, float(constants["n_layers"])
    tokens = totals["prefill_tokens"] + totals["decode_tokens"]
    flops = layers * (
        constants["linear_flops"] * tokens + constants["attention_flops"] * (totals["prefill_area"] + totals["decode_context"])
    )
    moved = (
        constants["weight_bytes"] * totals["weight_passes"]
        + layers * constants["kv_bytes"] * (totals["prefill_context"] + totals["decode_context"] - totals.get("shared_context", 0.0))
        + totals["expert_bytes"]
    )
    return float(flops), float(moved)


def energy(run: Run, makespan: float) -> float:
    """Joules of the whole run over `makespan` seconds; NaN without energy constants (see the module's formula)."""
    constants = run.meta.get("energy")
    if not isinstance(constants, Mapping) or not any(constants[name] for name in ("idle_watts", "joule_flop", "joule_byte")):
        return float("nan")
    flops, moved = operations(run)
    idle = constants["idle_watts"] * replicas(run) * makespan
    return float(idle + constants["joule_flop"] * flops + constants["joule_byte"] * moved)


def replicas(run: Run) -> int:
    """Engines that the run had; the constants of power and price in `Run.meta` are of one."""
    count = run.meta.get("replicas", 1)
    return count if isinstance(count, int) else 1
