"""Layered prefill's claims: on a mixture of experts, lower TTFT, latency, energy and expert traffic than chunks, at no longer token gaps.

Both sides are swept over their parameter, because the claim is about the frontier: chunk sizes against cohort units and stages. The
short-prompt trace, where a waiting cohort costs more than it saves, is shown beside the long one.
"""

from __future__ import annotations

import time

import numpy as np

from rota.cost.deployment import Deployment
from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from rota.results.summary import summarise
from rota.studies.reproduce.claim import NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload import load_trace

REQUESTS = 400
LONG, SHORT = ("arxiv-like", (1.0, 1.5, 2.0, 2.5)), ("sharegpt-like", (2.0, 4.0, 6.0))
#: Rate at which the paper's table compares, requests/s.
RATE = 1.5
POLICIES = ("sarathi:max_num_batched_tokens=256", "sarathi:max_num_batched_tokens=512", "sarathi:max_num_batched_tokens=1024",
            "sarathi:max_num_batched_tokens=2048", "layered:unit=256", "layered", "layered:stages=8", "layered:unit=1024")  # fmt: skip
CHUNKED, LAYERED = POLICIES[1], POLICIES[5]
METRICS = ("ttft_mean", "e2e_mean", "tbt_p99", "expert_bytes", "joule_per_token")


def run(options: Options) -> Report:
    """All claims, on Qwen3-30B-A3B over two H100."""
    began = time.perf_counter()
    engine = Deployment("qwen3-30b-a3b", "h100", tensor_parallel_size=2, max_model_len=16384).engine(16384)
    cells = [(name, rate) for name, rates in (LONG, SHORT) for rate in rates]
    found: dict[tuple[str, float, str], dict[str, list[float]]] = {}
    for done, (name, rate) in enumerate(cells):
        for seed in range(options.seeds):
            trace = load_trace(name, rate=rate, limit=options.requests(REQUESTS), seed=seed)
            for policy in POLICIES:
                summary = summarise(simulate(trace, parse_policy(policy), engine, seed=seed))
                kept = found.setdefault((name, rate, policy), {})
                for metric in METRICS:
                    kept.setdefault(metric, []).append(summary[metric])
        if options.progress:
            options.progress(done + 1, len(cells), f"{name} at {rate:g}/s")

    def change(name: str, rate: float, metric: str) -> list[float]:
        a, b = found[name, rate, LAYERED][metric], found[name, rate, CHUNKED][metric]
        return [100 * (x / y - 1) for x, y in zip(a, b, strict=True)]

    long = LONG[0]
    conditions = f"Qwen3-30B-A3B on 2 x H100, long prompts (arXiv-like), {RATE} requests/s, against chunk 512"
    gaps = change(long, RATE, "tbt_p99")
    findings = [
        _finding("Mean TTFT falls", conditions, "-30% (table at this rate), up to -70%", change(long, RATE, "ttft_mean"), -25),
        _finding("Expert bytes fall", conditions, "chunked reads up to 39% more (-28%)", change(long, RATE, "expert_bytes"), -25),
        _finding("P99 token gap does not grow", conditions, "36.8 -> 27.9 ms (-24%)", gaps, 0),
        _finding("Mean E2E falls", conditions, "-28% (table), up to -41%", change(long, RATE, "e2e_mean"), -14),
        _finding("Energy per token falls", conditions, "up to -22%", change(long, RATE, "joule_per_token"), -5),
    ]
    shorts = {rate: float(np.median(change(SHORT[0], rate, "ttft_mean"))) for rate in SHORT[1]}
    findings.append(Finding(
        "It helps on short prompts too", "ShareGPT-like prompts, " + ", ".join(f"{r:g}" for r in SHORT[1]) + " requests/s", "lower TTFT (same paper)",
        "mean TTFT " + ", ".join(f"{v:+.0f}% at {r:g}/s" for r, v in shorts.items()),
        REPRODUCED if max(shorts.values()) < -5 else PARTLY if min(shorts.values()) < -5 else NOT,
        "a request that arrives just after a cohort has started waits for all its groups",
    ))  # fmt: skip
    rows = [
        {"trace": name, "rate": rate, "policy": policy, "mean TTFT (ms)": _ms(k["ttft_mean"]), "mean E2E (ms)": _ms(k["e2e_mean"]),
         "P99 gap (ms)": _ms(k["tbt_p99"]), "expert TB": round(float(np.median(k["expert_bytes"])) * 1e-12, 1),
         "J/token": round(float(np.median(k["joule_per_token"])), 3)}
        for (name, rate, policy), k in found.items()
    ]  # fmt: skip
    told = {"requests": f"{options.requests(REQUESTS)} per cell, Poisson arrivals", "seeds": str(options.seeds),
            "routing": "uniform over experts, so that savings are an upper bound"}  # fmt: skip
    return Report("layered-prefill", findings, [Table("Frontier (medians over seeds)", rows)], told, time.perf_counter() - began)


def _ms(values: list[float]) -> float:
    return round(1e3 * float(np.median(values)), 1)


def _finding(claim: str, conditions: str, claimed: str, changes: list[float], bar: float) -> Finding:
    """Reproduced if the median change (percent) is at or below `bar`; partly if at least it goes the right way."""
    middle = float(np.median(changes))
    verdict = REPRODUCED if middle <= bar else PARTLY if middle < 0 else NOT
    return Finding(claim, conditions, claimed, spread(changes, "%"), verdict, "" if verdict == REPRODUCED else f"asked here: at most {bar:+g}%")
