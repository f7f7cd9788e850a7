"""`simulate`: a trace, a policy and an engine in, a `Run` out. Replicas and routing live here."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np

from rota.contracts import columns as col
from rota.contracts.offline import Job, OfflinePolicy
from rota.contracts.serving import REJECTED, BatchPolicy
from rota.cost.engine import EngineSpec
from rota.errors import DoesNotFit, InputError, PlanRejected
from rota.mechanisms.routing import check_router, choose
from rota.mechanisms.simulator import kernel
from rota.mechanisms.simulator import state as st
from rota.mechanisms.simulator.contents import number_runs
from rota.mechanisms.simulator.engine import BUDGET_PLANS, Engine
from rota.mechanisms.simulator.requests import pop_release
from rota.results.run import Run
from rota.workload.trace import Trace

Progress = Callable[[int, int], None]


def simulate(
    trace: Trace, policy: BatchPolicy, engine: EngineSpec, *, replicas: int = 1, router: str = "round-robin", seed: int = 0,
    compress: bool = True, compiled: bool = True, log: bool = False, progress: Progress | None = None,
) -> Run:  # fmt: skip
    """Run `trace` through `replicas` engines under `policy`.

    Parameters
    ----------
    trace : Trace
    policy : BatchPolicy
        Each replica gets a copy.
    engine : EngineSpec
    replicas : int
    router : str
        ``round-robin``; ``random`` (seeded); ``least-outstanding``: fewest unfinished requests at the arrival, the lowest index on a tie;
        ``least-queued``: fewest waiting for their first step; ``program``: turns of a program follow its first one, whose replica is that of
        the fewest unfinished requests, as is that of requests without a program.
    seed : int
        Of the random router and of step-time noise.
    compress : bool
        False is the reference mode: the policy is asked before every step, and no stretch is crossed in a jump.
    compiled : bool
        Use the policy's compiled twin if it has one; it decides the same, faster.
    log : bool
        Keep a row per event, for a timeline.
    progress : callable, optional
        Called with (requests ended, all requests) a few times a second.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        A request longer than the model, an unknown router, replicas below 1.
    DoesNotFit
        Not even the longest request's KV fits into an empty engine.
    UnsupportedPolicy, PlanRejected
        The policy asks for what the engine cannot do, or breaks a rule.
    """
    check_router(router, replicas)
    _check_lengths(trace, engine)
    if "host_attention" in policy.requires:
        from rota.mechanisms.simulator.offload_run import run_offload

        return run_offload(
            trace, policy, engine, replicas=replicas, router=router, seed=seed, compress=compress, log=log, progress=progress
        )  # fmt: skip
    began = time.perf_counter()
    if isinstance(policy, OfflinePolicy):
        policy = copy.deepcopy(policy)
        policy.prepare(job_of(trace, policy.name))
    shared = st.request_columns(trace, engine)
    chains = (np.zeros(1, np.int32), np.zeros(1, np.int64))
    if trace.hash_ids is not None and policy.prefix_caching:
        start = np.ascontiguousarray(trace.hash_start, np.int64)
        chains = (number_runs(np.ascontiguousarray(trace.hash_ids, np.int64), start), start)
    engines = [
        Engine(trace, shared, policy, engine, compress=compress, compiled=compiled, log=log, seed=seed + i, chains=chains)
        for i in range(replicas)
    ]
    order = np.arange(len(trace)) if trace.after is None else np.flatnonzero(trace.after < 0)
    if replicas == 1:
        _run_one(engines[0], order, trace, progress)
    elif router in ("round-robin", "random") and trace.after is None:
        _run_split(engines, order, trace, router, seed, progress)
    else:
        _run_together(engines, order, trace, router, seed, progress)
    return _collect(trace, policy, engine, engines, router, seed, time.perf_counter() - began)


def job_of(trace: Trace, asked_by: str) -> Job:
    """What an offline policy may know of a trace.

    Raises
    ------
    InputError
        If not all requests arrive at once.
    """
    if trace.after is not None or np.ptp(trace.arrival) > 0:
        raise InputError(f"policy {asked_by} plans whole jobs, but the requests of {trace.name} arrive one after the other; "
                         "let them arrive at once (rota compare --offline), or choose another policy")  # fmt: skip
    n, none = len(trace), np.zeros(len(trace), np.int64)
    max_new = none if trace.max_new is None else trace.max_new
    estimate = none if trace.estimate is None else trace.estimate
    if trace.hash_ids is None or trace.hash_start is None:
        return Job(trace.prompt, none[:0], np.zeros(n + 1, np.int64), 1, max_new, estimate)
    # the last run may be partial, or hold tokens of the answer; what follows it is the answer's
    runs = np.minimum(trace.prompt // trace.hash_block, np.diff(trace.hash_start))
    at = np.arange(runs.sum()) + np.repeat(trace.hash_start[:-1] - np.cumsum(runs) + runs, runs)
    return Job(trace.prompt, trace.hash_ids[at], np.concatenate([[0], np.cumsum(runs)]), trace.hash_block, max_new, estimate)


def _check_lengths(trace: Trace, engine: EngineSpec) -> None:
    total = trace.prompt + trace.output
    row = int(np.argmax(total))
    if total[row] > engine.max_len:
        over = int((total > engine.max_len).sum())
        raise InputError(
            f"{trace.name}: request {row} needs {int(trace.prompt[row])} prompt + {int(trace.output[row])} output tokens, more than the model's "
            f"{engine.max_len} ({over} such requests); raise max_model_len, choose another model, or drop them"
        )
    need = -(-int(total[row]) // engine.block_size)
    if engine.blocks < 1:
        raise DoesNotFit(f"{engine.label}: no memory is left for a single KV block; use more or larger devices, or a smaller dtype")
    if need > engine.blocks:
        raise DoesNotFit(
            f"{engine.label}: request {row} of {trace.name} needs {need} KV blocks ({int(total[row])} tokens / {engine.block_size}), but only "
            f"{engine.blocks} are left beside the weights; use more devices (tensor_parallel_size), a smaller dtype, or shorter requests"
        )


def _inbox(engine: Engine, sids: np.ndarray) -> None:
    engine.set_state(engine.state._replace(inbox=np.ascontiguousarray(sids, np.int64)))
    engine.state.ctl[st.IN_HEAD] = 0
    engine.state.ctl[st.IN_TAIL] = len(sids)


def _run_to_end(engine: Engine, before: int, total: int, progress: Progress | None) -> None:
    shown = time.perf_counter()
    ended, evictions = -1, 0
    while engine.run() == kernel.PAUSED:
        so_far = int(engine.state.ctl[st.EVICTIONS])
        if engine.done == ended and so_far - evictions > BUDGET_PLANS // 10:
            times = f"{so_far - evictions:,} times without one request ending"
            raise PlanRejected("I8", f"policy {engine.policy.name} evicted {times}: sequences take memory from each other in turns; "
                               "give more KV blocks, fewer max_num_seqs, or another policy")  # fmt: skip
        ended, evictions = engine.done, so_far
        if progress and time.perf_counter() - shown > 0.2:
            shown = time.perf_counter()
            progress(before + engine.done, total)
    if progress:
        progress(before + engine.done, total)


def _run_one(engine: Engine, order: np.ndarray, trace: Trace, progress: Progress | None) -> None:
    engine.state.ctl[st.TAKE_REL] = 1
    _inbox(engine, order)
    _run_to_end(engine, 0, len(trace), progress)


def _run_split(engines: list[Engine], order: np.ndarray, trace: Trace, router: str, seed: int, progress: Progress | None) -> None:
    """Routing that looks at nothing: every engine runs its share alone."""
    n = len(engines)
    choice = order % n if router == "round-robin" else np.random.default_rng(seed).integers(0, n, len(order))
    done = 0
    for i, engine in enumerate(engines):
        mine = order[choice == i]
        engine.state.own[mine, st.REPLICA] = i
        _inbox(engine, mine)
        _run_to_end(engine, done, len(trace), progress)
        done += len(mine)


def _run_together(engines: list[Engine], order: np.ndarray, trace: Trace, router: str, seed: int, progress: Progress | None) -> None:
    """Routing that looks at the engines, or arrivals that depend on them: all engines move from arrival to arrival."""
    n, total = len(engines), len(trace)
    releases = engines[0].state.rel
    own, tim = engines[0].state.own, engines[0].state.tim
    firsts = engines[0].first_turns if router == "program" else None
    for engine in engines:
        engine.set_state(engine.state._replace(rel=releases, inbox=np.zeros(total, np.int64)))
    random = np.random.default_rng(seed).integers(0, n, total)
    assigned = [0] * n
    clocks = [np.inf] * n  # when each engine, left alone, will act again
    dependent = trace.after is not None
    position = pending = routed = 0
    shown = time.perf_counter()
    while routed < total:
        static = float(tim[order[position], col.ARRIVED]) if position < len(order) else np.inf
        released = float(tim[releases[0], col.ARRIVED]) if pending else np.inf
        arrival = min(static, released)
        slowest = int(np.argmin(clocks))
        if clocks[slowest] < arrival:
            engine = engines[slowest]
            until = arrival
            if dependent:  # an end on another engine may cause an arrival, so none may run ahead of the others
                others = min((c for i, c in enumerate(clocks) if i != slowest), default=np.inf)
                until = max(min(arrival, others), float(np.nextafter(clocks[slowest], np.inf)))
            engine.state.ctl[st.N_REL] = pending
            engine.state.ctl[st.WATCH] = pending + 1 if dependent else 0
            engine.run(until=until, plans=1 << 60)
            pending = int(engine.state.ctl[st.N_REL])
            clocks[slowest] = float(engine.state.flt[st.NEXT_EVENT])
            continue
        if static <= released:
            sid = int(order[position])
            position += 1
        else:
            engines[0].state.ctl[st.N_REL] = pending
            sid = int(pop_release(engines[0].ref))
            pending -= 1
        first = int(firsts[sid]) if firsts is not None else sid
        i = int(own[first, st.REPLICA]) if first != sid else _route(engines, router, routed, int(random[routed]), assigned, arrival)
        own[sid, st.REPLICA] = i
        ctl = engines[i].state.ctl
        engines[i].state.inbox[ctl[st.IN_TAIL]] = sid
        ctl[st.IN_TAIL] += 1
        assigned[i] += 1
        routed += 1
        clocks[i] = max(float(engines[i].state.flt[st.NOW]), min(clocks[i], arrival))
        if progress and time.perf_counter() - shown > 0.2:
            shown = time.perf_counter()
            progress(sum(e.done for e in engines), total)
    for engine in engines:
        engine.state.ctl[st.N_REL] = engine.state.ctl[st.WATCH] = 0
        _run_to_end(engine, sum(e.done for e in engines if e is not engine), total, progress)


def _route(engines: list[Engine], router: str, count: int, random: int, assigned: list[int], when: float) -> int:
    return choose(
        router, len(engines), count, random, lambda: [assigned[i] - engine.ended_by(when) for i, engine in enumerate(engines)],
        lambda: [int(e.state.ctl[col.N_WAITING] + e.state.ctl[st.IN_TAIL] - e.state.ctl[st.IN_HEAD]) for e in engines],
    )  # fmt: skip


def _collect(
    trace: Trace, policy: BatchPolicy, spec: EngineSpec, engines: list[Engine], router: str, seed: int, seconds: float
) -> Run:
    state = engines[0].state
    seq, own, tim = state.seq, state.own, state.tim
    for engine in engines:
        ctl = engine.state.ctl
        if ctl[col.FREE] != ctl[col.TOTAL_BLOCKS]:
            kept = int(ctl[col.TOTAL_BLOCKS] - ctl[col.FREE])
            raise PlanRejected("I9", f"policy {policy.name} holds pins on {kept} KV blocks though all is done; release a program's pin when it ends")
        if ctl[st.HOST_FREE] != ctl[st.HOST_BLOCKS]:
            raise AssertionError(f"I9: {ctl[st.HOST_BLOCKS] - ctl[st.HOST_FREE]} host blocks were never given back")
    acc = sum(e.state.acc for e in engines)
    names = ("busy", "steps", "decode_tokens", "prefill_tokens", "decode_context", "prefill_area", "prefill_context", "expert_bytes",
             "weight_passes", "shared_context")  # fmt: skip
    totals = {name: float(acc[i]) for i, name in enumerate(names)}
    totals["plans"] = float(sum(e.state.ctl[st.PLANS] for e in engines))
    totals["events"] = float(sum(e.state.ctl[st.EVENTS] for e in engines))
    totals["peak_blocks"] = float(max(e.state.ctl[st.PEAK] for e in engines))
    totals["seconds"] = seconds
    totals["reloaded_tokens"] = float(sum(e.state.host_ctl[st.H_LOADED] for e in engines) * spec.block_size)
    if "swap" in policy.requires:
        totals["swapped_tokens"] = float(sum(e.state.ctl[st.SWAPPED_OUT] for e in engines) * spec.block_size)
    timeline, width = _timeline(engines, spec)
    log = None
    if state.ctl[st.LOG_ON]:
        rows = [np.column_stack([e.state.log[: e.state.ctl[st.LOG_ROWS]], np.full(e.state.ctl[st.LOG_ROWS], i)]) for i, e in enumerate(engines)]
        table = np.concatenate(rows)
        table = table[np.argsort(table[:, 0], kind="stable")]
        log = {name: table[:, i] for i, name in enumerate(("start", "end", "decodes", "prefill_tokens", "steps", "blocks", "replica"))}
    meta: dict[str, object] = dict(spec.meta)
    t = spec.tables
    meta.update(
        blocks=spec.blocks, block_size=spec.block_size, max_len=spec.max_len, tp=spec.tp, pp=spec.pp, replicas=len(engines), router=router,
        seed=seed, timeline_width=width, cost_source=t.source, cost_error=dict(t.error), label=spec.label,
        energy=dict(linear_flops=t.linear_flops, attention_flops=t.attention_flops, weight_bytes=t.weight_bytes, kv_bytes=t.kv_bytes,
                    joule_flop=t.joule_flop, joule_byte=t.joule_byte, idle_watts=t.idle_watts, n_layers=t.n_layers),
    )  # fmt: skip
    arrival, first_scheduled, first_token, finish, max_tbt = _columns(tim, (
        col.ARRIVED, col.FIRST_SCHEDULED, col.FIRST_TOKEN, col.FINISHED_AT, col.MAX_TBT))  # fmt: skip
    preemptions, phase = _columns(seq, (col.PREEMPTIONS, col.PHASE))
    recomputed, cached, replica = _columns(own, (st.RECOMPUTED, st.CACHED, st.REPLICA))
    return Run(
        policy=policy.name, trace=trace.name, deployment=spec.label, arrival=arrival, first_scheduled=first_scheduled,
        first_token=first_token, finish=finish, max_tbt=max_tbt, prompt=trace.prompt, output=trace.output,
        preemptions=preemptions, recomputed=recomputed, cached=cached, replica=replica, rejected=phase == REJECTED,
        tbt_histogram=np.sum([e.state.hist for e in engines], axis=0), totals=totals, timeline=timeline, log=log, tenant=trace.tenant,
        program=trace.program, meta=meta,
    )  # fmt: skip


def _columns(table: np.ndarray, which: tuple[int, ...]) -> np.ndarray:
    """These columns, each contiguous; read so many rows at a time that no row is fetched from memory once per column."""
    out = np.empty((len(which), len(table)), table.dtype)
    for at in range(0, len(table), st.CACHED_ROWS):
        rows = slice(at, at + st.CACHED_ROWS)
        out[:, rows] = table[rows][:, which].T
    return out


def _timeline(engines: list[Engine], spec: EngineSpec) -> tuple[dict[str, np.ndarray], float]:
    """Time averages per bin over all replicas, on the coarsest replica's bins."""
    width = max(float(e.state.flt[st.TL_WIDTH]) for e in engines)
    total = np.zeros((st.TL_BINS, st.TL_COLUMNS))
    for engine in engines:
        bins, own_width = engine.state.timeline.copy(), float(engine.state.flt[st.TL_WIDTH])
        while own_width < width * 0.999:
            half = bins[0::2] + bins[1::2]
            bins = np.concatenate([half, np.zeros_like(half)])
            own_width *= 2.0
        total += bins
    used = np.flatnonzero(total[:, 4] > 0)
    last = int(used[-1]) + 1 if len(used) else 1
    total = total[:last] / width
    n = len(engines)
    return {
        "time": np.arange(last) * width, "decode": total[:, 0], "prefill": total[:, 1], "kv": total[:, 2] / (spec.blocks * n),
        "waiting": total[:, 3], "busy": total[:, 4] / n,
    }, width  # fmt: skip
