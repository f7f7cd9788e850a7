"""How fast the simulator is: requests per second of every policy, in Python and compiled, and how that scales.

Azure conversation lengths at 6.45 requests/s, Llama-3.1-8B (Llama-3-8B's shape with the context that the trace needs) on one A100-80G,
one core, recording included. Run it with
``python benchmarks/speed.py``. Times are CPU times of the thread that simulates, medians of three runs or (comparisons) five, so that other
work on the machine disturbs them less; the runs of a table that compares sizes or policies take turns. Ratios within one run are what to trust.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from rota.contracts.serving import BatchPolicy
from rota.cost.deployment import Deployment
from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy, parse_policy
from rota.workload import load_trace
from rota.workload.trace import Trace
from rota.workload.transform import head

RATE = 6.45
COMPILED = ("static", "orca", "orca-paged", "vllm-v0", "vllm-v1", "sarathi")
PYTHON = (*COMPILED, "sarathi-dynamic", "layered")
console = Console()


def trace_of(n: int, seed: int = 0) -> Trace:
    return load_trace("azure-conv", limit=n, rate=RATE, seed=seed)


def seconds(trace: Trace, policy: BatchPolicy, engine: EngineSpec, compiled: bool) -> float:
    """CPU seconds of one simulation."""
    began = time.thread_time()
    simulate(trace, policy, engine, compiled=compiled)
    return time.thread_time() - began


def speed(trace: Trace, policy: BatchPolicy, engine: EngineSpec, compiled: bool, runs: int = 3) -> float:
    """Requests per second, median."""
    simulate(trace_of(200), policy, engine, compiled=compiled)
    return len(trace) / median(seconds(trace, policy, engine, compiled) for _ in range(runs))


def microseconds(cases: Sequence[tuple[Trace, BatchPolicy]], engine: EngineSpec, runs: int = 5) -> list[float]:
    """Microseconds per request of each case, compiled, medians; the cases take turns.

    Each turn begins with a run that is not timed: a short run would otherwise pay for what a long one before it left in the caches.
    """
    took: list[list[float]] = [[] for _ in cases]
    for _ in range(runs):
        for own, (trace, policy) in zip(took, cases, strict=True):
            simulate(trace, policy, engine)
            own.append(1e6 * seconds(trace, policy, engine, True) / len(trace))
    return [median(own) for own in took]


def policies_table(engine: EngineSpec, n: int) -> None:
    table = Table(title=f"Simulated requests per second ({n:,} requests)")
    for column in ("policy", "Python", "compiled"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    trace = trace_of(n)
    small = head(trace, n // 10)
    for name in PYTHON:
        options = {"enable_prefix_caching": False} if name == "vllm-v1" else {}
        policy = make_policy(name, **options)
        python = speed(small, policy, engine, False)
        compiled = speed(trace, policy, engine, True) if name in COMPILED else float("nan")
        table.add_row(name, f"{python:,.0f}", f"{compiled:,.0f}" if compiled == compiled else "-")
    console.print(table)


def others_table(engine: EngineSpec, n: int) -> None:
    """Policies without a twin against Sarathi in Python, each on the kind of trace that it is for."""
    table = Table(title="Engine-level policies, all in Python: requests per second, and Sarathi's time over theirs on the same trace")
    for column in ("trace", "policy", "requests/s", "of Sarathi's speed"):
        table.add_column(column, justify="left" if column in ("trace", "policy") else "right")
    chat = trace_of(n)
    rng = np.random.default_rng(0)
    job = load_trace("documents", seed=0)
    kinds = {
        "chat": (chat, ("composed", "flover:max_num_seqs=128", "aggressive:batching=sarathi", "conservative:batching=sarathi",
                        "lightllm:batching=sarathi", "past-future:batching=sarathi", "past-future", "vllm-v1")),
        "chat of 8 tenants": (chat.with_columns(tenant=rng.integers(0, 8, n)),
                              ("vtc:batching=sarathi", "rate-limit:batching=sarathi,requests_per_minute=600")),
        "agents": (load_trace("swe-agents", limit=n // 4, rate=0.04),
                   ("vllm-v1", "program-fcfs", "fixed-ttl", "continuum", "pin-until-pressure", "pin-forever")),
        "offline job": (job, ("vllm-v1", "batchllm")),
    }  # fmt: skip
    large = Deployment("llama-3.1-8b", "a100-80g", max_model_len=65536).engine(16384)
    for kind, (trace, policies) in kinds.items():
        compare(table, kind, trace, policies, large if kind == "agents" else engine)
    split = Deployment("llama-2-7b", "a10", gpu_memory_utilization=0.95, max_model_len=4096, swap_space=32).engine(4096)
    trace = load_trace("poisson:rate=0.2,prompt=200..800,output=200..800,n=400", seed=0)
    compare(table, "A10, long outputs", trace, ("vllm-v0", "neo", "apex"), split)
    console.print(table)


def compare(table: Table, kind: str, trace: Trace, policies: Sequence[str], engine: EngineSpec, runs: int = 5) -> None:
    """Rows of `others_table` for one trace: medians of runs in turns, after one of each that compiles what it needs."""
    took: dict[str, list[float]] = {text: [] for text in ("sarathi", *policies)}
    for text in took:
        simulate(trace, parse_policy(text), engine, compiled=False)
    for _ in range(runs):
        for text, own in took.items():
            own.append(seconds(trace, parse_policy(text), engine, False))
    for text, own in took.items():
        share = median(s / t for s, t in zip(took["sarathi"], own, strict=True))
        table.add_row(kind, text, f"{len(trace) / median(own):,.0f}", f"{share:.2f}")


def hard_cases(engine: EngineSpec, n: int) -> None:
    table = Table(title="Compiled, where memory is short, prefixes are shared, or requests have priorities")
    for column in ("case", "requests/s", "evictions/request", "hit rate"):
        table.add_column(column, justify="left" if column == "case" else "right")
    trace = trace_of(n)
    rng = np.random.default_rng(0)
    group = rng.integers(0, 200, n)
    ids = np.where(np.arange(16)[None, :] < 12, group[:, None] * 100 + np.arange(16), 10**7 + np.arange(n)[:, None] * 16 + np.arange(16))
    shared = trace.with_columns(hash_ids=ids.ravel().astype(np.int64), hash_start=np.arange(n + 1) * 16, hash_block=64)
    urgent = trace.with_columns(priority=rng.integers(0, 4, n))
    short = EngineSpec(tables=engine.tables, blocks=2600, block_size=16, max_len=engine.max_len)
    cases = [
        ("sarathi, KV for 41,600 tokens", trace, make_policy("sarathi"), short),
        ("vllm-v0, KV for 41,600 tokens", trace, make_policy("vllm-v0"), short),
        ("vllm-v1, KV for 41,600 tokens", trace, make_policy("vllm-v1", enable_prefix_caching=False), short),
        ("vllm-v1, prefix cache", shared, make_policy("vllm-v1"), engine),
        ("vllm-v1, prefix cache, KV for 41,600 tokens", shared, make_policy("vllm-v1"), short),
        ("vllm-v1, priorities", urgent, make_policy("vllm-v1", scheduling_policy="priority", enable_prefix_caching=False), engine),
    ]
    for label, work, policy, spec in cases:
        rate = speed(work, policy, spec, True)
        run = simulate(work, policy, spec)
        table.add_row(label, f"{rate:,.0f}", f"{run.preemptions.mean():.3f}", f"{run.cached.sum() / run.prompt.sum():.3f}")
    console.print(table)


def scaling(engine: EngineSpec, sizes: tuple[int, ...]) -> None:
    table = Table(title="Microseconds per request, Sarathi compiled (and Python up to 100,000)")
    for column in ("requests", "compiled", "Python"):
        table.add_column(column, justify="right")
    sarathi = make_policy("sarathi")
    traces = [trace_of(n) for n in sizes]
    for trace, compiled in zip(traces, microseconds([(trace, sarathi) for trace in traces], engine), strict=True):
        python = f"{1e6 / speed(trace, sarathi, engine, False, 1):.1f}" if len(trace) <= 100_000 else "-"
        table.add_row(f"{len(trace):,}", f"{compiled:.3f}", python)
    console.print(table)
    table = Table(title="By most sequences held (overloaded, so that the batch is full), and with 100,000 requests waiting at once")
    for column in ("case", "us per request", "events per request", "ns per event"):
        table.add_column(column, justify="left" if column == "case" else "right")
    base = trace_of(20_000)
    # the same work per request at every batch size: prompts of one chunk, arrivals faster than any batch serves them
    fixed = Trace(arrival=np.arange(20_000) * 1e-3, prompt=np.full(20_000, 256), output=np.asarray(base.output), name="fixed prompts")
    cases = [(f"{b} sequences", fixed, b) for b in (16, 64, 128, 256, 512)]
    queue = trace_of(100_000)
    cases.append(("100,000 at once", queue.with_columns(arrival=np.zeros(len(queue))), 128))
    cases.append(("  the same, 10,000", Trace(arrival=np.zeros(10_000), prompt=queue.prompt[:10_000], output=queue.output[:10_000]), 128))
    works = [(trace, make_policy("sarathi", max_num_seqs=seats, max_num_batched_tokens=1024)) for _, trace, seats in cases]
    for (label, *_), (trace, policy), took in zip(cases, works, microseconds(works, engine), strict=True):
        events = simulate(trace, policy, engine).totals["events"] / len(trace)
        table.add_row(label, f"{took:.3f}", f"{events:.2f}", f"{1e3 * took / events:.0f}")
    console.print(table)


def batches() -> None:
    """Batch size and nothing else: steps of 10 ms whatever is in them, requests that come and go one by one, as many as make up the batch."""
    table = Table(title="By mean batch, each request with an arrival and a finish of its own")
    for column in ("sequences", "us per request", "events per request", "ns per event"):
        table.add_column(column, justify="right")
    n, length, step = 20_000, 4000, 0.01
    tables = StepTables(layer=np.r_[0.0, np.full(64, step)], head=np.zeros(2), n_layers=1)
    engine = EngineSpec(tables=tables, blocks=1_000_000, max_len=8192)
    rng = np.random.default_rng(0)
    output = rng.integers(length // 2, 3 * length // 2, n)
    gaps = rng.exponential(length * step, n)
    sizes = (16, 32, 64, 128, 256, 512)
    policy = make_policy("sarathi", max_num_seqs=1024, max_num_batched_tokens=2048)
    works = [(Trace(arrival=np.cumsum(gaps / size), prompt=np.full(n, 256), output=output, name="fixed prompts"), policy) for size in sizes]
    for size, (trace, _), took in zip(sizes, works, microseconds(works, engine, 5), strict=True):
        events = simulate(trace, policy, engine).totals["events"] / n
        table.add_row(f"{size}", f"{took:.3f}", f"{events:.2f}", f"{1e3 * took / events:.0f}")
    console.print(table)


def million(engine: EngineSpec) -> None:
    trace = trace_of(1_000_000)
    for compiled in (False, True):
        began = time.perf_counter()
        simulate(trace, make_policy("sarathi"), engine, compiled=compiled)
        took = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        console.print(f"1,000,000 requests, Sarathi {'compiled' if compiled else 'in Python'}: {took:.1f} s, peak memory so far {peak:.2f} GiB")


def cold_start() -> None:
    command = [sys.executable, "-c", (
        "import time; t = time.perf_counter()\n"
        "from rota.workload import load_trace\nfrom rota.cost.deployment import Deployment\nfrom rota.policies.registry import make_policy\n"
        "from rota.mechanisms.simulator import simulate\n"
        "simulate(load_trace('azure-conv', limit=10, rate=6.45), make_policy('sarathi'), Deployment('llama-3-8b', 'a100-80g').engine(512))\n"
        "print(time.perf_counter() - t)")]  # fmt: skip
    whole, inside = [], []
    for _ in range(4):
        began = time.perf_counter()
        inside.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        whole.append(time.perf_counter() - began)
    console.print(f"cold start to the end of a ten-request simulation: {median(whole[1:]):.2f} s ({median(inside[1:]):.2f} s after the interpreter)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    quick = parser.parse_args().quick
    engine = Deployment("llama-3.1-8b", "a100-80g", max_model_len=16384).engine(16384)
    cold_start()
    policies_table(engine, 20_000 if quick else 200_000)
    others_table(engine, 4_000 if quick else 20_000)
    hard_cases(engine, 20_000 if quick else 100_000)
    scaling(engine, (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000))
    batches()
    million(engine)


if __name__ == "__main__":
    main()
