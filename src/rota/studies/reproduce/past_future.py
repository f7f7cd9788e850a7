"""Past-Future's claims: almost the throughput of knowing output lengths, almost no evictions, and more goodput than bolder or more timid admission.

Clients ask in a closed loop on a prefill-first engine. Figures are of the steady state: requests that finish between the end of the first third
and the last client's last question. Every rival runs at its best of a stated grid, chosen anew for each figure and each number of clients.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rota.catalog import load_model
from rota.cost.deployment import Deployment
from rota.results.latency import max_tbt, percentile, ttft
from rota.results.run import Run
from rota.studies.replicate import Task, in_parallel, run_task
from rota.studies.reproduce.claim import NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload.generators import closed_loop
from rota.workload.lengths import PRESETS, Independent, Lengths, Spread
from rota.workload.trace import Trace

REQUESTS = 900
KV_TOKENS, LONGEST = 110_000, 8192
#: Limits on each request: first token, and largest gap between tokens, seconds.
TTFT, MTPOT = 10.0, 1.5
#: Workloads: lengths, the declared limit on output tokens, and numbers of clients from light to heavy.
WORKLOADS: dict[str, tuple[Lengths, int, tuple[int, ...]]] = {
    "decode-heavy": (Independent(Spread.uniform(32, 4096), Spread.uniform(2048, 4096)), 4096, (20, 22, 24, 26, 28, 30)),
    "o1-like": (Independent(Spread.lognormal(300, 1000), Spread.lognormal(1500, 3800), LONGEST), 6144, (44, 48, 52, 56, 60, 66)),
    "ShareGPT-like": (PRESETS["sharegpt-like"], 2048, (28, 32, 36, 40, 44, 50)),
}
ORACLE, OURS = "oracle-lengths", "past-future"
AGGRESSIVE = [f"aggressive:watermark={w}" for w in (0.01, 0.05, 0.1)]
CONSERVATIVE = [f"conservative:overcommit={f},peak={p}" for f in (1.0, 1.2, 1.5) for p in ("false", "true")]
LIGHTLLM = [f"lightllm:router_token_ratio={r}" for r in (0.0, 0.5, 0.85)]
POLICIES = [ORACLE, OURS, *AGGRESSIVE, *CONSERVATIVE, *LIGHTLLM]
FAMILIES = {"oracle": [ORACLE], "past-future": [OURS], "aggressive": AGGRESSIVE, "conservative": CONSERVATIVE, "lightllm": LIGHTLLM}

#: Figures by workload, clients, policy: one of each seed.
Figures = dict[tuple[str, int, str], dict[str, list[float]]]


def run(options: Options) -> Report:
    """All claims, on Llama-2-7B on an A100."""
    began = time.perf_counter()
    shape = replace(load_model("llama-2-7b"), max_len=LONGEST)
    engine = Deployment(shape, "a100-80g").engine(LONGEST)
    engine = replace(engine, blocks=KV_TOKENS // engine.block_size)
    cells = [(name, clients, policy, seed) for name, (_, _, counts) in WORKLOADS.items() for clients in counts
             for policy in POLICIES for seed in range(options.seeds)]  # fmt: skip
    tasks = [Task(_trace(name, clients, options.requests(REQUESTS), seed), policy, engine, seed=seed) for name, clients, policy, seed in cells]
    found: Figures = {}
    for done, (index, result) in enumerate(in_parallel(run_task, tasks, options.jobs)):
        name, clients, policy, seed = cells[index]
        kept = found.setdefault((name, clients, policy), {})
        for metric, value in steady(result, clients).items():
            kept.setdefault(metric, [0.0] * options.seeds)[seed] = value
        if options.progress:
            options.progress(done + 1, len(cells), f"{name}, {clients} clients")
    conditions = {
        "engine": f"Llama-2-7B (positions up to {LONGEST}) on an A100, {KV_TOKENS:,} KV tokens, prompts first (vllm-v0)",
        "requests": f"{options.requests(REQUESTS)} per run, the first third left out", "seeds": str(options.seeds),
        "limits": f"TTFT {TTFT:g} s, largest token gap {MTPOT:g} s", "aggressive": ", ".join(AGGRESSIVE),
        "conservative": ", ".join(CONSERVATIVE), "LightLLM": ", ".join(LIGHTLLM),
        "not covered": "13B and 70B, other devices; cold start (half the window begins as long outputs)",
    }  # fmt: skip
    findings = [_throughput(found), _against_conservative(found), _clients(found), _against_aggressive(found)]
    return Report("past-future", findings, [_table(found)], conditions, time.perf_counter() - began)


def _trace(name: str, clients: int, n: int, seed: int) -> Trace:
    lengths, max_new, _ = WORKLOADS[name]
    trace = closed_loop(n, clients, lengths=lengths, seed=seed)
    return trace.with_columns(max_new=np.maximum(trace.output, np.minimum(max_new, LONGEST - trace.prompt)))


def steady(run: Run, clients: int) -> dict[str, float]:
    """Figures of the requests that finish while all clients are at work and the first third has passed.

    Returns
    -------
    dict
        ``throughput`` and ``goodput`` (output tokens/s; of all, and of requests within both limits), ``gated`` (throughput if the 99th
        percentiles are within the limits, else 0), ``evictions`` (per request), ``ttft`` and ``mtpot`` (99th percentiles, seconds).
    """
    begin, end = np.sort(run.finish)[len(run.finish) // 3], run.arrival.max()
    inside = (run.finish > begin) & (run.finish <= end)
    waits, gaps, tokens = ttft(run)[inside], max_tbt(run)[inside], run.output[inside]
    good = (waits <= TTFT) & ~(gaps > MTPOT)
    tails = percentile(waits, 99), percentile(gaps, 99)
    span = float(end - begin)
    throughput = float(tokens.sum()) / span
    return {
        "throughput": throughput, "goodput": float(tokens[good].sum()) / span,
        "gated": throughput if tails[0] <= TTFT and tails[1] <= MTPOT else 0.0, "evictions": float(run.preemptions[inside].mean()),
        "ttft": tails[0], "mtpot": tails[1],
    }  # fmt: skip


def _best(found: Figures, name: str, clients: int, family: str, metric: str) -> list[float]:
    """The best of a family's grid, for each seed."""
    columns = [found[name, clients, policy][metric] for policy in FAMILIES[family]]
    return [max(values) for values in zip(*columns, strict=True)]


def _ratios(found: Figures, name: str, clients: int, family: str, metric: str) -> list[float]:
    ours, theirs = found[name, clients, OURS][metric], _best(found, name, clients, family, metric)
    return [a / b if b > 0 else float("inf") if a > 0 else float("nan") for a, b in zip(ours, theirs, strict=True)]


def _throughput(found: Figures) -> Finding:
    points = [(name, clients) for name, (_, _, counts) in WORKLOADS.items() for clients in counts]
    ratio = {point: float(np.median(_ratios(found, *point, "oracle", "throughput"))) for point in points}
    evictions = {point: float(np.median(found[*point, OURS]["evictions"])) for point in points}
    slowest, worst = min(ratio, key=ratio.__getitem__), max(evictions, key=evictions.__getitem__)
    met = [point for point in points if ratio[point] >= 0.95 and evictions[point] < 0.02]
    verdict = REPRODUCED if len(met) == len(points) else PARTLY if 2 * len(met) >= len(points) else NOT
    return Finding(
        "As fast as with known lengths, without evictions", f"{len(points)} points: 3 workloads, light to heavy",
        "close to the oracle; asked here: 95% of its throughput and fewer than 0.02 evictions per request",
        f"{len(met)} of {len(points)} points; lowest throughput {ratio[slowest]:.1%} ({slowest[0]}, {slowest[1]} clients), "
        f"most evictions {evictions[worst]:.3f} per request ({worst[0]}, {worst[1]} clients)", verdict, "medians over seeds",
    )  # fmt: skip


def _against_conservative(found: Figures) -> Finding:
    texts, most = [], 0.0
    for name, (_, _, counts) in WORKLOADS.items():
        medians = {clients: float(np.nanmedian(_ratios(found, name, clients, "conservative", "goodput") or [np.nan])) for clients in counts}
        best = max(medians, key=medians.__getitem__)
        most = max(most, medians[best])
        texts.append(f"{name} {spread(_ratios(found, name, best, 'conservative', 'goodput'), 'x')} at {best} clients, "
                     f"{medians[counts[-1]]:.2g}x at {counts[-1]}")  # fmt: skip
    return Finding(
        "More goodput than conservative admission under load", "requests within both limits; conservative at its best of six settings",
        "2-3x", "; ".join(texts), REPRODUCED if most >= 2 else PARTLY if most >= 1.2 else NOT, "asked here: at least 2x at one heavy point",
    )  # fmt: skip


def capacity(values: Sequence[float], counts: Sequence[int]) -> int:
    """The largest number of clients up to which the tails have always been within the limits; 0 if not even at the first."""
    held = 0
    for gated, clients in zip(values, counts, strict=True):
        if gated <= 0:
            break
        held = clients
    return held


def _capacities(found: Figures, name: str, policies: Sequence[str]) -> list[int]:
    counts = WORKLOADS[name][2]
    by_policy = [[found[name, clients, policy]["gated"] for clients in counts] for policy in policies]
    seeds = range(len(by_policy[0][0]))
    return [max(capacity([row[seed] for row in rows], counts) for rows in by_policy) for seed in seeds]


def _clients(found: Figures) -> Finding:
    texts, wins = [], 0
    for name in WORKLOADS:
        held = {family: _capacities(found, name, policies) for family, policies in FAMILIES.items()}
        middle = {family: float(np.median(values)) for family, values in held.items()}
        wins += middle["past-future"] > middle["aggressive"]
        texts.append(f"{name}: " + ", ".join(f"{family} {value:g}" for family, value in middle.items()))
    return Finding(
        "More clients than aggressive admission while 99% of requests are within the limits",
        "largest number of clients tried with P99 TTFT and P99 of the largest gap within the limits, each family at its best setting",
        "more (read from its figures)", "; ".join(texts), REPRODUCED if wins == len(WORKLOADS) else PARTLY if wins else NOT,
        f"0: not even {', '.join(str(counts[0]) for _, _, counts in WORKLOADS.values())} clients",
    )  # fmt: skip


def _against_aggressive(found: Figures) -> Finding:
    ratios, fewer = {}, []
    for name, (_, _, counts) in WORKLOADS.items():
        heavy = counts[-1]
        ratios[name] = _ratios(found, name, heavy, "aggressive", "goodput")
        bold, ours = found[name, heavy, AGGRESSIVE[0]], found[name, heavy, OURS]
        fewer.append(f"{name} {float(np.median(bold['evictions'])):.3f} to {float(np.median(ours['evictions'])):.3f}, "
                     f"P99 gap {float(np.median(bold['mtpot'])):.1f} to {float(np.median(ours['mtpot'])):.1f} s")  # fmt: skip
    medians = [float(np.nanmedian(values)) for values in ratios.values()]
    measured = ", ".join(f"{name} {spread(values, 'x')}" for name, values in ratios.items())
    return Finding(
        "More goodput than aggressive admission under load", "the most clients; requests within both limits; aggressive at its best watermark",
        "up to 2-3x", f"{measured}; evictions per request against watermark 1%: {'; '.join(fewer)}",
        REPRODUCED if min(medians) >= 1.2 else PARTLY if max(medians) >= 1.0 else NOT,
        "evictions hurt few requests badly, which a limit per request does not punish; see the percentiles",
    )  # fmt: skip


def _table(found: Figures) -> Table:
    rows = []
    for name, (_, _, counts) in WORKLOADS.items():
        for clients in counts:
            for family, policies in FAMILIES.items():
                best = max(policies, key=lambda policy: float(np.median(found[name, clients, policy]["goodput"])))
                m = {metric: float(np.median(values)) for metric, values in found[name, clients, best].items()}
                rows.append({
                    "workload": name, "clients": clients, "admission": f"{'ORACLE ' if family == 'oracle' else ''}{best}",
                    "tok/s": round(m["throughput"]), "goodput": round(m["goodput"]), "goodput if P99 holds": round(m["gated"]),
                    "evictions/request": round(m["evictions"], 3), "P99 TTFT (s)": round(m["ttft"], 1), "P99 gap (s)": round(m["mtpot"], 2),
                })  # fmt: skip
    return Table("Each family at its setting with the most goodput (medians over seeds)", rows)
