"""A run in closed form: one server, first come first served, prompts and decodes at a fixed pace."""

from __future__ import annotations

import numpy as np

from rota.results.latency import gap_histogram
from rota.results.run import Run


def fifo_run(
    n: int = 200,
    *,
    seed: int = 0,
    rate: float = 1.0,
    pace: float = 0.02,
    prefill: float = 1e-4,
    stall: float = 0.0,
    policy: str = "fifo",
) -> Run:
    """One request after the other: `prefill` s per prompt token, `pace` s per later token, one gap in ten `stall` s more."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, n))
    prompt, output = rng.integers(1, 4000, n), rng.integers(1, 60, n)
    scheduled, first, finish, largest = (np.empty(n) for _ in range(4))
    gaps, clock = [], 0.0
    for i in range(n):
        scheduled[i] = max(clock, arrival[i])
        first[i] = scheduled[i] + prefill * prompt[i]
        gap = pace + stall * (rng.random(output[i] - 1) < 0.1)
        largest[i] = gap.max(initial=0.0)
        finish[i] = clock = first[i] + gap.sum()
        gaps.append(gap)
    bins = np.arange(0, finish.max(), 1.0)
    inside = [np.interp(bins + 0.5, finish, np.arange(n)), np.interp(bins + 0.5, arrival, np.arange(n))]
    zeros = np.zeros(n, dtype=np.int64)
    tokens = float(output.sum() - n)
    constants = dict(
        linear_flops=4e8,
        attention_flops=1.6e4,
        weight_bytes=4e8,
        kv_bytes=4096.0,
        joule_flop=5e-13,
        joule_byte=6e-11,
        idle_watts=80.0,
        n_layers=32,
    )
    return Run(
        policy=policy,
        trace="closed form",
        deployment="one server",
        arrival=arrival,
        first_scheduled=scheduled,
        first_token=first,
        finish=finish,
        max_tbt=largest,
        prompt=prompt,
        output=output,
        preemptions=zeros.copy(),
        recomputed=zeros.copy(),
        cached=zeros.copy(),
        replica=zeros.copy(),
        rejected=np.zeros(n, dtype=np.bool_),
        tbt_histogram=gap_histogram(np.concatenate(gaps)),
        totals=dict(
            busy=float((finish - scheduled).sum()),
            steps=tokens + n,
            decode_tokens=tokens,
            prefill_tokens=float(prompt.sum()),
            decode_context=float((prompt * (output - 1) + output * (output - 1) / 2).sum()),
            prefill_area=float((prompt * (prompt + 1) / 2).sum()),
            prefill_context=float(prompt.sum()),
            expert_bytes=0.0,
            weight_passes=(tokens + n) * 32.0,
            plans=float(n),
            events=float(2 * n),
            seconds=0.01,
            peak_blocks=250.0,
        ),
        timeline=dict(
            time=bins,
            decode=np.minimum(1.0, np.maximum(0.0, inside[1] - inside[0])),
            prefill=np.full(len(bins), prompt.sum() / len(bins)),
            kv=np.clip((inside[1] - inside[0]) / 50, 0, 1),
            waiting=np.maximum(0.0, inside[1] - inside[0] - 1),
            busy=np.ones(len(bins)),
        ),
        meta=dict(width=1.0, blocks=500, replicas=1, usd_per_hour=3.6, seed=seed, energy=constants),
    )
