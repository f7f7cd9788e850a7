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

#: Requests of a run; the first third must be enough to replace the pessimistic past of 200 outputs, even in a quick run.
REQUESTS, FEWEST = 750, 600
KV_TOKENS, LONGEST = 110_000, 8192
#: Limits on each request: first token, and largest gap between tokens, seconds.
TTFT, MTPOT = 10.0, 1.5
#: Workloads: lengths, the declared limit on output tokens, numbers of clients around what can be carried, and a number well beyond.
WORKLOADS: dict[str, tuple[Lengths, int, tuple[int, ...], int]] = {
    "decode-heavy": (Independent(Spread.uniform(32, 4096), Spread.uniform(2048, 4096)), 4096, (23, 24, 25, 26), 30),
    "o1-like": (Independent(Spread.lognormal(300, 1000), Spread.lognormal(1500, 3800), LONGEST), 6144, (44, 46, 48, 50), 58),
    "ShareGPT-like": (PRESETS["sharegpt-like"], 2048, (34, 37, 40, 43), 48),
}
ORACLE, OURS, REDRAWN = "oracle-lengths", "past-future", "past-future:redraw=0.25"
AGGRESSIVE = [f"aggressive:watermark={w}" for w in (0.01, 0.05, 0.1)]
CONSERVATIVE = [f"conservative:overcommit=1.0,peak={p}" for p in ("false", "true")]
OVERCOMMITTED = [f"conservative:overcommit={f},peak={p}" for f in (1.2, 1.5) for p in ("false", "true")]
LIGHTLLM = [f"lightllm:router_token_ratio={r}" for r in (0.5, 0.85)]
FAMILIES = {"oracle": [ORACLE], "past-future": [OURS], "aggressive": AGGRESSIVE, "lightllm": LIGHTLLM[-1:]}
BEYOND = FAMILIES | {"past-future, redrawn": [REDRAWN], "conservative": CONSERVATIVE, "overcommitted": OVERCOMMITTED, "lightllm": LIGHTLLM}

#: Figures by workload, clients, policy: one of each seed.
Figures = dict[tuple[str, int, str], dict[str, list[float]]]


def run(options: Options) -> Report:
    """All claims, on Llama-2-7B on an A100."""
    began = time.perf_counter()
    shape = replace(load_model("llama-2-7b"), max_len=LONGEST)
    engine = Deployment(shape, "a100-80g").engine(LONGEST)
    engine = replace(engine, blocks=KV_TOKENS // engine.block_size)
    n = max(FEWEST, options.requests(REQUESTS))
    cells = [(name, clients, policy, seed) for name, clients in _points() for family in _families(name, clients).values()
             for policy in family for seed in range(options.seeds)]  # fmt: skip
    tasks = [Task(_trace(name, clients, n, seed), policy, engine, seed=seed) for name, clients, policy, seed in cells]
    found: Figures = {}
    for done, (index, result) in enumerate(in_parallel(run_task, tasks, options.jobs)):
        name, clients, policy, seed = cells[index]
        kept = found.setdefault((name, clients, policy), {})
        for metric, value in steady(result).items():
            kept.setdefault(metric, [0.0] * options.seeds)[seed] = value
        if options.progress:
            options.progress(done + 1, len(cells), f"{name}, {clients} clients")
    conditions = {
        "engine": f"Llama-2-7B (positions up to {LONGEST}) on an A100, {KV_TOKENS:,} KV tokens, prompts first (vllm-v0)",
        "requests": f"{n} per run, the first third left out", "seeds": str(options.seeds),
        "limits": f"TTFT {TTFT:g} s, largest token gap {MTPOT:g} s", "aggressive": ", ".join(AGGRESSIVE),
        "conservative": ", ".join(CONSERVATIVE + OVERCOMMITTED) + " (only at the most clients)", "LightLLM": ", ".join(LIGHTLLM),
        "not covered": "13B and 70B, other devices; cold start (half the window begins as long outputs)",
    }  # fmt: skip
    findings = [_throughput(found), _against_conservative(found), _clients(found), _against_aggressive(found)]
    return Report("past-future", findings, [_table(found)], conditions, time.perf_counter() - began)


def _points() -> list[tuple[str, int]]:
    return [(name, clients) for name, (_, _, counts, beyond) in WORKLOADS.items() for clients in (*counts, beyond)]


def _families(name: str, clients: int) -> dict[str, list[str]]:
    return BEYOND if clients == WORKLOADS[name][3] else FAMILIES


def _trace(name: str, clients: int, n: int, seed: int) -> Trace:
    lengths, max_new, _, _ = WORKLOADS[name]
    trace = closed_loop(n, clients, lengths=lengths, seed=seed)
    return trace.with_columns(max_new=np.maximum(trace.output, np.minimum(max_new, LONGEST - trace.prompt)))


def steady(run: Run) -> dict[str, float]:
    """Figures of the requests that finish while all clients are at work and the first third has passed.

    Returns
    -------
    dict
        ``throughput``, ``goodput`` and ``smooth`` (output tokens/s; of all, of requests within both limits, within that on gaps),
        ``gated`` (throughput if the 99th percentiles are within the limits, else 0), ``evictions`` (per request), ``ttft`` and
        ``mtpot`` (99th percentiles, seconds).
    """
    begin, end = np.sort(run.finish)[len(run.finish) // 3], run.arrival.max()
    inside = (run.finish > begin) & (run.finish <= end)
    waits, gaps, tokens = ttft(run)[inside], max_tbt(run)[inside], run.output[inside]
    smooth = ~(gaps > MTPOT)
    good = smooth & (waits <= TTFT)
    tails = percentile(waits, 99), percentile(gaps, 99)
    span = float(end - begin)
    throughput = float(tokens.sum()) / span
    return {
        "throughput": throughput, "goodput": float(tokens[good].sum()) / span, "smooth": float(tokens[smooth].sum()) / span,
        "gated": throughput if tails[0] <= TTFT and tails[1] <= MTPOT else 0.0, "evictions": float(run.preemptions[inside].mean()),
        "ttft": tails[0], "mtpot": tails[1],
    }  # fmt: skip


def _best(found: Figures, name: str, clients: int, family: str, metric: str) -> list[float]:
    """The best of a family's grid, for each seed."""
    columns = [found[name, clients, policy][metric] for policy in _families(name, clients)[family]]
    return [max(values) for values in zip(*columns, strict=True)]


def _ratios(found: Figures, name: str, clients: int, family: str, metric: str) -> list[float]:
    ours, theirs = found[name, clients, OURS][metric], _best(found, name, clients, family, metric)
    return [a / b if b > 0 else float("inf") if a > 0 else float("nan") for a, b in zip(ours, theirs, strict=True)]


def _throughput(found: Figures) -> Finding:
    ratio = {point: float(np.median(_ratios(found, *point, "oracle", "throughput"))) for point in _points()}
    evictions = {point: float(np.median(found[*point, OURS]["evictions"])) for point in _points()}
    slowest, worst = min(ratio, key=ratio.__getitem__), max(evictions, key=evictions.__getitem__)
    met = [point for point in ratio if ratio[point] >= 0.95 and evictions[point] < 0.02]
    verdict = REPRODUCED if len(met) == len(ratio) else PARTLY if 2 * len(met) >= len(ratio) else NOT
    return Finding(
        "As fast as with known lengths, without evictions", f"{len(ratio)} points: 3 workloads, light to heavy",
        "close to the oracle; asked here: 95% of its throughput and fewer than 0.02 evictions per request",
        f"{len(met)} of {len(ratio)} points; lowest throughput {ratio[slowest]:.1%} ({slowest[0]}, {slowest[1]} clients), "
        f"most evictions {evictions[worst]:.3f} per request ({worst[0]}, {worst[1]} clients)", verdict, "medians over seeds",
    )  # fmt: skip


def _against_conservative(found: Figures) -> Finding:
    texts, medians = [], []
    for name, (_, _, _, beyond) in WORKLOADS.items():
        timid = _ratios(found, name, beyond, "conservative", "goodput")
        promised = _ratios(found, name, beyond, "overcommitted", "goodput")
        medians += [min(float(np.median(timid)), float(np.median(promised)))]
        texts.append(f"{name}, {beyond} clients: {spread(timid, 'x')}, with overcommitment {spread(promised, 'x')}")
    return Finding(
        "More goodput than conservative admission under load",
        "requests within both limits; conservative at its best of 2 settings, and of 4 that promise memory 1.2 or 1.5 times", "2-3x",
        "; ".join(texts), REPRODUCED if min(medians) >= 2 else PARTLY if max(medians) >= 2 else NOT,
        "asked here: at least 2x against both; what overcommitment gains in first tokens it pays for in evictions, see the table",
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
    tried = "; ".join("/".join(str(clients) for clients in counts) for _, _, counts, _ in WORKLOADS.values())
    return Finding(
        "More clients than aggressive admission while 99% of requests are within the limits",
        "P99 TTFT and P99 of the largest gap within the limits, each family at its best setting", "more clients (its figures)",
        "; ".join(texts), REPRODUCED if wins == len(WORKLOADS) else PARTLY if wins else NOT,
        f"tried {tried}, 0: none; near its capacity it is TTFT that breaks, and a reserve against evictions makes requests wait",
    )  # fmt: skip


def _against_aggressive(found: Figures) -> Finding:
    texts, both, smooth = [], [], []
    for name, (_, _, _, beyond) in WORKLOADS.items():
        ratios = _ratios(found, name, beyond, "aggressive", "goodput")
        gaps = _ratios(found, name, beyond, "aggressive", "smooth")
        both.append(float(np.median(ratios)))
        smooth.append(float(np.median(gaps)))
        bold = found[name, beyond, AGGRESSIVE[0]]["evictions"]
        ours = found[name, beyond, OURS]["evictions"]
        texts.append(f"{name}, {beyond} clients: {spread(ratios, 'x')}, by the gap alone {spread(gaps, 'x')}, evictions per request "
                     f"{float(np.median(bold)):.3f} to {float(np.median(ours)):.3f}")  # fmt: skip
    return Finding(
        "More goodput than aggressive admission under load",
        "requests within both limits; aggressive at its best of 3 watermarks (evictions: at 1%)", "up to 2-3x", "; ".join(texts),
        REPRODUCED if min(both) >= 1.2 else PARTLY if max(both) >= 1.2 or min(smooth) >= 1.0 else NOT,
        "evictions hurt few requests badly, and a limit on each request does not punish that; waiting hurts many",
    )  # fmt: skip


def _table(found: Figures) -> Table:
    rows = []
    for name, clients in _points():
        for family, policies in _families(name, clients).items():
            goodput = {policy: float(np.median(found[name, clients, policy]["goodput"])) for policy in policies}
            best = max(goodput, key=goodput.__getitem__)
            m = {metric: float(np.median(values)) for metric, values in found[name, clients, best].items()}
            rows.append({
                "workload": name, "clients": clients, "admission": f"{'ORACLE ' if family == 'oracle' else ''}{best}",
                "tok/s": round(m["throughput"]), "goodput": round(m["goodput"]), "by gap alone": round(m["smooth"]),
                "if P99 holds": round(m["gated"]), "evictions/request": round(m["evictions"], 3), "P99 TTFT (s)": round(m["ttft"], 1),
                "P99 gap (s)": round(m["mtpot"], 2),
            })  # fmt: skip
    return Table("Each family at its setting with the most goodput, output tokens/s (medians over seeds)", rows)
