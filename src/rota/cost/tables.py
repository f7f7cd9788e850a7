"""The form in which costs reach a mechanism: per-token-count tables and a few constants, all of one rank, in seconds.

A step with N tokens costs, on each pipeline stage, its layers times (`layer[N]` + attention), plus the head on the last.
Everything that depends on the number of tokens alone (projections, experts, collectives, norms) is tabulated, so a step
costs a few array reads. Attention depends on lengths and is a formula (``kind == ROOFLINE``) or a measured table
(``kind == TABLE``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rota.cost.host import HostCosts

Floats = NDArray[np.float64]

ROOFLINE, TABLE = 0, 1


@dataclass(frozen=True, slots=True)
class StepTables:
    """Cost of one engine step of one model on one deployment.

    Parameters
    ----------
    layer : float64 (n_max + 1,)
        Seconds for N tokens through one layer without attention, ``layer[0] == 0``. Beyond ``n_max`` the last slope goes on.
    head : float64 (s_max + 1,)
        Seconds of the output head for that many emitted tokens, ``head[0] == 0``. Extended likewise.
    n_layers : int
        Layers of the model (all pipeline stages together).
    stages : int
        Pipeline stages; each holds ``n_layers / stages`` layers.
    prefill_floor, prefill_flop_s, prefill_byte_s : float
        Prefill attention of a layer: ``floor + hypot(flop_s * sum(n p + n (n + 1) / 2), byte_s * sum(p + n) + query_byte_s * sum(n))``.
    query_byte_s : float
    decode_floor, decode_byte_s : float
        Decode attention of a layer: ``floor + byte_s * sum(context)``.
    launch : float
        A step takes at least this long on the device side (kernel launches without graphs), seconds.
    cpu, cpu_per_seq : float
        Host time added to every step, and per sequence in it.
    send, send_per_token : float
        Passing activations to the next stage.
    expert_bytes : float64 (n_max + 1,)
        Expected bytes of routed experts read per layer (averaged over all layers) for N tokens; zeros for dense models.
    noise : float
        Standard deviation of the log of a multiplicative, seeded noise on step times; 0 for none.
    linear_flops : float
        FLOPs per token per layer outside attention; `attention_flops`: per unit of ``n p + n (n + 1) / 2`` (and of decode
        context) per layer; `weight_bytes`: bytes of non-routed weights read per layer per step; `kv_bytes`: bytes per
        context token per layer. All of the whole model, not of a rank: for energy and reporting.
    joule_flop, joule_byte, idle_watts : float
        Energy per FLOP, per byte moved, and idle power of all devices of the deployment.
    kv_scale : int
        Context lengths are rounded up to a multiple of this in TABLE mode.
    decode_table : float64 (b, c) and prefill_table : float64 (n, p)
        TABLE mode, seconds per layer: decode of ``b + 1`` sequences at mean context ``c * kv_scale``; prefill of ``n + 1`` new
        tokens over ``p * kv_scale`` cached ones. Several prompts count as one of ``sqrt(sum(n^2))`` tokens over the sum of what is
        cached. More sequences, longer contexts and more cached tokens than tabulated cost as much as the last entry: too little.
    prefill_long : float64 (l,)
        TABLE mode: prefill of ``n + 1`` tokens with nothing cached, seconds per layer, where `prefill_table` has fewer rows; beyond
        ``l`` its last entry. What cached tokens add is then taken from the last row of `prefill_table`, in proportion to the tokens.
    batch_factor : float
        TABLE mode: attention of more than one sequence costs this factor more.
    host : HostCosts
        Attention over KV in host memory, for policies that split it off.
    source : str
        ``"roofline"``, ``"fit"``, ``"table"`` or ``"measured"``, with where from.
    error : dict
        Relative errors by what was checked, such as ``{"linear (hold-out)": 0.051}``.
    """

    layer: Floats
    head: Floats
    n_layers: int
    stages: int = 1
    kind: int = ROOFLINE
    prefill_floor: float = 0.0
    prefill_flop_s: float = 0.0
    prefill_byte_s: float = 0.0
    query_byte_s: float = 0.0
    decode_floor: float = 0.0
    decode_byte_s: float = 0.0
    launch: float = 0.0
    cpu: float = 0.0
    cpu_per_seq: float = 0.0
    send: float = 0.0
    send_per_token: float = 0.0
    expert_bytes: Floats = field(default_factory=lambda: np.zeros(2))
    noise: float = 0.0
    linear_flops: float = 0.0
    attention_flops: float = 0.0
    weight_bytes: float = 0.0
    kv_bytes: float = 0.0
    joule_flop: float = 0.0
    joule_byte: float = 0.0
    idle_watts: float = 0.0
    kv_scale: int = 64
    decode_table: Floats = field(default_factory=lambda: np.zeros((1, 1)))
    prefill_table: Floats = field(default_factory=lambda: np.zeros((1, 1)))
    prefill_long: Floats = field(default_factory=lambda: np.zeros(1))
    batch_factor: float = 1.0
    host: HostCosts = field(default_factory=HostCosts)
    source: str = "roofline"
    error: dict[str, float] = field(default_factory=dict)

    def scaled(self, linear: float = 1.0, attention: float = 1.0, cpu: float = 1.0) -> StepTables:
        """A copy whose linear, attention and host times are multiplied: the what-if behind the error bands of a report."""
        return replace(
            self,
            layer=self.layer * linear,
            head=self.head * linear,
            prefill_floor=self.prefill_floor * attention,
            prefill_flop_s=self.prefill_flop_s * attention,
            prefill_byte_s=self.prefill_byte_s * attention,
            query_byte_s=self.query_byte_s * attention,
            decode_floor=self.decode_floor * attention,
            decode_byte_s=self.decode_byte_s * attention,
            decode_table=self.decode_table * attention,
            prefill_table=self.prefill_table * attention,
            prefill_long=self.prefill_long * attention,
            host=self.host.scaled(attention),
            cpu=self.cpu * cpu,
            cpu_per_seq=self.cpu_per_seq * cpu,
            launch=self.launch * cpu,
        )
