"""What one simulated or served run leaves behind: columns per request, a token-gap histogram, totals and a coarse timeline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Token gaps (TBT) are counted in logarithmic bins: bin i holds gaps in [TBT_MIN * TBT_STEP**i, TBT_MIN * TBT_STEP**(i + 1)).
TBT_MIN, TBT_STEP, TBT_BINS = 1e-6, 1.002, 12000


@dataclass(slots=True)
class Run:
    """One policy on one trace on one deployment.

    All per-request arrays have the trace's length and order. Times are absolute seconds; NaN where it never happened.

    Attributes
    ----------
    policy, trace, deployment : str
        Labels for tables.
    arrival, first_scheduled, first_token, finish : float64 (n,)
    max_tbt : float64 (n,)
        Largest gap between two tokens of the request, seconds (0 for one-token outputs).
    prompt, output : int64 (n,)
    preemptions, recomputed, cached : int64 (n,)
        Times evicted; tokens whose KV was computed again because of it; prompt tokens reused from the prefix cache at (last) admission.
    replica : int64 (n,)
    program : int64 (n,) or None
        Program (agent session) that the request is a turn of, or -1; None where the trace has none.
    rejected : bool (n,)
    tbt_histogram : int64 (TBT_BINS,)
        Token gaps of the whole run.
    totals : dict
        ``busy`` (s, all replicas), ``steps``, ``decode_tokens``, ``prefill_tokens``, ``decode_context`` (sum of context that decodes attend to),
        ``shared_context`` (of it, tokens not read because another sequence's decode reads them in the same step),
        ``prefill_area`` (sum of n p + n (n + 1) / 2), ``prefill_context`` (sum of p + n), ``expert_bytes``, ``weight_passes`` (layer-steps),
        ``plans`` (policy calls), ``events``, ``seconds`` (wall time of the simulation), ``peak_blocks``,
        ``reloaded_tokens`` (KV copied back from host memory), ``swapped_tokens`` (KV that preemptions copied there, of policies that swap).
    timeline : dict of float64 arrays
        ``time`` (bin starts, with ``width`` in `meta`), and time averages per bin: ``decode`` (sequences decoding), ``prefill``
        (prompt tokens per second), ``kv`` (fraction of blocks used), ``waiting``, ``busy`` (fraction), summed or averaged over replicas.
    log : int64/float64 columns of every event, when asked for: ``start``, ``end``, ``replica``, ``decodes``, ``prefill_tokens``, ``steps``.
    tenant : int64 (n,) or None
        Index of each request's tenant, where the trace has tenants.
    meta : dict
        Everything a report prints about conditions: model, device, tp, pp, blocks, block_size, replicas, router, seed, cost source and error,
        gpus, usd_per_hour (of the whole deployment), energy constants.
    """

    policy: str
    trace: str
    deployment: str
    arrival: Floats
    first_scheduled: Floats
    first_token: Floats
    finish: Floats
    max_tbt: Floats
    prompt: Ints
    output: Ints
    preemptions: Ints
    recomputed: Ints
    cached: Ints
    replica: Ints
    rejected: NDArray[np.bool_]
    tbt_histogram: Ints
    totals: dict[str, float]
    timeline: dict[str, Floats]
    log: dict[str, NDArray[np.generic]] | None = None
    tenant: Ints | None = None
    meta: dict[str, object] = field(default_factory=dict)
    program: Ints | None = None
