"""Sarathi-Serve's claims: capacity under a token-gap objective against Orca and vLLM v0, and what chunking costs.

Capacity is the highest rate with a median queueing delay of at most 2 s and a P99 token gap within the objective, by bisection to 2.5%. Every
baseline runs at its best of a stated grid. Lengths are log-normal with the percentiles of the paper's traces.
"""

from __future__ import annotations

import time

from rota.cost.deployment import Deployment
from rota.cost.model import CostModel
from rota.results.slo import SLO
from rota.studies.capacity import capacity
from rota.studies.reproduce.claim import NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload import load_trace

#: (name, model, device, tp, strict and relaxed P99 gap in seconds) [paper, section 5 and artifact]
CELLS = [("Mistral-7B, 1 x A100", "mistral-7b", "a100-80g-pcie", 1, 0.1, 0.5), ("Yi-34B, 2 x A100", "yi-34b-200k", "a100-80g-pcie-pair", 2, 0.2, 1.0)]
TRACES = {"ShareGPT": "sharegpt-like", "arXiv": "arxiv-like"}
OURS = ["sarathi:max_num_batched_tokens=512", "sarathi:max_num_batched_tokens=2048"]
BASELINES = ["orca:max_num_seqs=8", "orca:max_num_seqs=16", "orca-paged:max_num_seqs=16", "orca-paged:max_num_seqs=128",
             "vllm-v0:max_num_seqs=32", "vllm-v0:max_num_seqs=128"]  # fmt: skip
REQUESTS = 1000
#: Measured overhead of chunked over whole prefill, Yi-34B on 2 x A100, percent [artifact, figure 9].
OVERHEAD = {512: {2048: 15.2, 4096: 18.9, 8192: 11.7, 16384: -0.5}, 2048: {2048: -0.1, 4096: 2.4, 8192: -6.3, 16384: -19.5}}


def run(options: Options) -> Report:
    """Both claims."""
    began = time.perf_counter()
    findings, tables = [], []
    rows, ratios = _capacities(options)
    tables.append(Table("Capacity, requests/s (median over seeds)", rows))
    strict = {key: value for key, value in ratios.items() if "strict" in key}
    best = max(strict, key=lambda key: sorted(strict[key])[len(strict[key]) // 2])
    everywhere = min(min(values) for values in ratios.values())
    middle = sorted(strict[best])[len(strict[best]) // 2]
    findings.append(Finding(
        "Higher capacity than the best of Orca and vLLM under a strict objective", f"best strict cell: {best}",
        "up to 2.6x (Mistral-7B, one A100), up to 3.7x (Yi-34B, two A100)", spread(strict[best], "x"), REPRODUCED if middle >= 1.5 else NOT,
        "asked here: at least 1.5x against each baseline at its best setting",
    ))  # fmt: skip
    findings.append(Finding(
        "Never below the best baseline", f"{len(ratios)} cells: 2 models, 2 traces, strict and relaxed", "at least 1x",
        f"lowest ratio of any cell and seed {everywhere:.2f}x", REPRODUCED if everywhere >= 0.975 else PARTLY,
        "bisection resolves 2.5%",
    ))  # fmt: skip
    rows, worst = _overheads()
    tables.append(Table("Cost of chunked against whole prefill, Yi-34B on 2 x A100", rows))
    inside = sum(abs(float(str(r["here (%)"])) - float(str(r["paper (%)"]))) <= 5 for r in rows)
    findings.append(Finding(
        "Chunking costs little", "Yi-34B on 2 x A100, chunks of 512 and 2048 tokens, prompts of 2k to 16k", "-20% to +19%, by prompt and chunk",
        f"{inside} of {len(rows)} cells within 5 points, worst off by {worst:.0f} points", REPRODUCED if inside == len(rows) else PARTLY,
        "" if inside == len(rows) else "measured whole prefills slow down beyond 8k tokens for reasons that a roofline does not have; see the table",
    ))  # fmt: skip
    conditions = {
        "requests": f"{options.requests(REQUESTS)} per probe, Poisson arrivals", "seeds": str(options.seeds),
        "baselines": ", ".join(BASELINES), "Sarathi-Serve": ", ".join(OURS), "lengths": "log-normal stand-ins for ShareGPT (8k) and arXiv (16k)",
        "not covered": "Falcon-180B and its pipeline bubbles",
    }  # fmt: skip
    return Report("sarathi", findings, tables, conditions, time.perf_counter() - began)


def _capacities(options: Options) -> tuple[list[dict[str, object]], dict[str, list[float]]]:
    rows: list[dict[str, object]] = []
    ratios: dict[str, list[float]] = {}
    done = 0
    cells = [(cell, trace, which) for cell in CELLS for trace in TRACES for which in ("strict", "relaxed")]
    for (name, model, device, tp, strict, relaxed), trace, which in cells:
        deployment = Deployment(model, device, tensor_parallel_size=tp, max_model_len=16384)
        slo = SLO.parse(f"p99 tbt={strict if which == 'strict' else relaxed}, p50 queueing=2")
        key = f"{name}, {trace}, {which}"
        found: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            work = load_trace(TRACES[trace], limit=options.requests(REQUESTS), seed=seed)
            result = capacity(work, deployment, OURS + BASELINES, slo, seed=seed, cost_error=False, jobs=options.jobs, start=1.0)
            for row in result.rows:
                found.setdefault(row.policy, []).append(row.rate)
            done += 1
            if options.progress:
                options.progress(done, len(cells) * options.seeds, key)
        labels = list(found)
        ours, theirs = labels[: len(OURS)], labels[len(OURS) :]
        best = [max(found[p][s] for p in ours) for s in range(options.seeds)]
        rival = [max(found[p][s] for p in theirs) for s in range(options.seeds)]
        ratios[key] = [a / b if b > 0 else float("inf") for a, b in zip(best, rival, strict=True)]
        family = {f: max(_median(found[p]) for p in theirs if p.split(":")[0].startswith(f)) for f in ("orca", "vllm-v0")}
        rows.append({"cell": key, "SLO P99 gap (s)": strict if which == "strict" else relaxed, "sarathi": round(_median(best), 3),
                     "best orca": round(family["orca"], 3), "vllm-v0": round(family["vllm-v0"], 3), "ratio": spread(ratios[key], "x")})  # fmt: skip
    return rows, ratios


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _overheads() -> tuple[list[dict[str, object]], float]:
    tables = Deployment("yi-34b-200k", "a100-80g-pcie-pair", tensor_parallel_size=2, max_model_len=16384).engine(16384).tables
    cost = CostModel(tables)
    rows: list[dict[str, object]] = []
    worst = 0.0
    for chunk, measured in OVERHEAD.items():
        for prompt, paper in measured.items():
            whole = float(cost.prefill_seconds(prompt))
            parts = sum(float(cost.prefill_seconds(min(chunk, prompt - past), past)) for past in range(0, prompt, chunk))
            here = 100 * (parts / whole - 1)
            worst = max(worst, abs(here - paper))
            rows.append({"chunk": chunk, "prompt": prompt, "paper (%)": paper, "here (%)": round(here, 1)})
    return rows, worst
