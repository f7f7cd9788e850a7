"""A trace through engines with two tiers: replicas, and the `Run` that they leave behind."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from rota.contracts import columns as col
from rota.contracts.offload import OffloadPolicy
from rota.contracts.serving import REJECTED
from rota.cost.engine import EngineSpec
from rota.errors import UnsupportedPolicy
from rota.mechanisms.simulator import split
from rota.mechanisms.simulator import state as st
from rota.mechanisms.simulator.offload import OffloadEngine
from rota.results.run import Run
from rota.workload.trace import Trace

_SUMS = ("busy", "steps", "decode_tokens", "prefill_tokens", "decode_context", "prefill_area", "prefill_context", "expert_bytes",
         "weight_passes")  # fmt: skip


def run_offload(
    trace: Trace, policy: OffloadPolicy, spec: EngineSpec, *, replicas: int = 1, router: str = "round-robin", seed: int = 0,
    compress: bool = True, log: bool = False, progress: Callable[[int, int], None] | None = None,
) -> Run:  # fmt: skip
    """`rota.mechanisms.simulator.simulate` for a policy that requires ``host_attention``.

    Energy constants and `decode_context` cover the device alone; ``totals`` also has ``host_tokens``, ``host_context`` (context that
    host attention read), ``host_busy`` (seconds of it) and ``host_peak_blocks``.

    Raises
    ------
    UnsupportedPolicy
        For a router that looks at the engines.
    """
    if replicas > 1 and (router not in ("round-robin", "random") or trace.after is not None):
        raise UnsupportedPolicy(
            f"policy {policy.name} splits attention with the host, which is simulated one engine at a time; "
            "use round-robin or random routing of independent requests, or one replica"
        )
    began = time.perf_counter()
    shared = st.request_columns(trace, spec)
    order = np.arange(len(trace)) if trace.after is None else np.flatnonzero(trace.after < 0)
    choice = order % replicas if router == "round-robin" else np.random.default_rng(seed).integers(0, replicas, len(order))
    engines = []
    done = 0
    for i in range(replicas):
        engine = OffloadEngine(trace, shared, policy, spec, compress=compress, seed=seed + i)
        mine = order[choice == i] if replicas > 1 else order
        engine.s.own[mine, st.REPLICA] = i
        engine.run(mine, _throttled(progress, done, len(trace)) if progress else None)
        done += engine.done
        engines.append(engine)
    return _collect(trace, policy, spec, engines, router, seed, log, time.perf_counter() - began)


def _throttled(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    """Report at most five times a second."""
    shown = time.perf_counter()

    def report(done: int) -> None:
        nonlocal shown
        if time.perf_counter() - shown > 0.2 or before + done == total:
            shown = time.perf_counter()
            progress(before + done, total)

    return report


def _collect(
    trace: Trace, policy: OffloadPolicy, spec: EngineSpec, engines: list[OffloadEngine], router: str, seed: int, log: bool, seconds: float
) -> Run:
    s = engines[0].s
    acc = np.sum([e.s.acc for e in engines], axis=0)
    totals = {name: float(acc[i]) for i, name in enumerate(_SUMS)}
    totals["decode_tokens"] += float(acc[split.A_HOST_TOKENS])
    for name, at in (("host_tokens", split.A_HOST_TOKENS), ("host_context", split.A_HOST_CONTEXT), ("host_busy", split.A_HOST_BUSY)):
        totals[name] = float(acc[at])
    totals["plans"] = float(sum(e.plans for e in engines))
    totals["events"] = totals["steps"]
    totals["peak_blocks"] = float(max(e.s.ctl[split.PEAK] for e in engines))
    totals["host_peak_blocks"] = float(max(e.s.ctl[split.HOST_PEAK] for e in engines))
    totals["seconds"] = seconds
    rows = [np.concatenate(e.log) for e in engines]
    timeline, width = _timeline(rows, trace, s, spec)
    events = None
    if log:
        table = np.concatenate([np.column_stack([own[:, :6], np.full(len(own), i)]) for i, own in enumerate(rows)])
        table = table[np.argsort(table[:, 0], kind="stable")]
        events = {name: table[:, i] for i, name in enumerate(("start", "end", "decodes", "prefill_tokens", "steps", "blocks", "replica"))}
    t = spec.tables
    meta: dict[str, object] = dict(spec.meta)
    meta.update(
        blocks=spec.blocks, host_blocks=spec.host_blocks, block_size=spec.block_size, max_len=spec.max_len, tp=spec.tp, pp=spec.pp,
        replicas=len(engines), router=router, seed=seed, timeline_width=width, cost_source=t.source,
        cost_error={**t.error, "host attention (assumed)": t.host.error}, label=spec.label,
        energy=dict(linear_flops=t.linear_flops, attention_flops=t.attention_flops, weight_bytes=t.weight_bytes, kv_bytes=t.kv_bytes,
                    joule_flop=t.joule_flop, joule_byte=t.joule_byte, idle_watts=t.idle_watts, n_layers=t.n_layers),
    )  # fmt: skip
    return Run(
        policy=policy.name, trace=trace.name, deployment=spec.label, arrival=s.tim[:, col.ARRIVED].copy(),
        first_scheduled=s.tim[:, col.FIRST_SCHEDULED].copy(), first_token=s.tim[:, col.FIRST_TOKEN].copy(),
        finish=s.tim[:, col.FINISHED_AT].copy(), max_tbt=s.tim[:, col.MAX_TBT].copy(), prompt=trace.prompt, output=trace.output,
        preemptions=s.seq[:, col.PREEMPTIONS].copy(), recomputed=s.own[:, st.RECOMPUTED].copy(), cached=s.own[:, st.CACHED].copy(),
        replica=s.own[:, st.REPLICA].copy(), rejected=s.seq[:, col.PHASE] == REJECTED,
        tbt_histogram=np.sum([e.s.hist for e in engines], axis=0), totals=totals, timeline=timeline, log=events, meta=meta,
    )  # fmt: skip


def _timeline(rows: list[np.ndarray], trace: Trace, s: split.SplitState, spec: EngineSpec) -> tuple[dict[str, np.ndarray], float]:
    """Time averages per bin over all replicas, from the steps and, for the queue, from the requests' first waits."""
    width = max(float(trace.arrival.max()) / st.TL_BINS, 1e-3)
    end = max((float(own[-1, split.LOG_END]) for own in rows if len(own)), default=0.0)
    while end >= width * st.TL_BINS:
        width *= 2.0
    edges = np.arange(int(end / width) + 2) * width

    def average(starts: np.ndarray, ends: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """Mean over each bin of what has this rate within [start, end), intervals in order and apart."""
        times = np.column_stack([starts, ends]).ravel()
        amount = np.cumsum(np.column_stack([np.zeros(len(rate)), rate * (ends - starts)]).ravel())
        return np.diff(np.interp(edges, np.r_[0.0, times], np.r_[0.0, amount])) / width

    found = {name: np.zeros(len(edges) - 1) for name in ("decode", "prefill", "kv", "busy")}
    for own in rows:
        starts, ends = own[:, split.LOG_START], own[:, split.LOG_END]
        found["decode"] += average(starts, ends, own[:, split.LOG_DECODES])
        found["prefill"] += average(starts, ends, own[:, split.LOG_PREFILL] / np.maximum(ends - starts, 1e-12))
        found["kv"] += average(starts, ends, own[:, split.LOG_USED]) / (max(spec.blocks, 1) * len(rows))
        found["busy"] += average(starts, ends, np.ones(len(own))) / len(rows)
    begun = np.isfinite(s.tim[:, col.FIRST_SCHEDULED])
    waited = [np.array([np.clip(edge - s.tim[begun, column], 0.0, None).sum() for edge in edges]) for column in (col.ARRIVED, col.FIRST_SCHEDULED)]
    return {"time": edges[:-1], **found, "waiting": np.diff(waited[0] - waited[1]) / width}, width
