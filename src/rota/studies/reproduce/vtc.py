"""Virtual token counter's claims: tenants who both have work waiting are served alike within a bound, nobody's burst harms the others, and it costs
no throughput; first come, first served drifts apart without end, and rate limits either do not help or leave the engine idle.

Service is in priced tokens. All share one host: prompts first, bold admission, eviction by recompute.
"""

from __future__ import annotations

import time

import numpy as np

from rota.cost.deployment import Deployment
from rota.results.fairness import PRICES, jain, served, service_gap
from rota.results.latency import ttft
from rota.results.run import Run
from rota.studies.replicate import Task, in_parallel, run_task
from rota.studies.reproduce.claim import NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload.tenants import SUITES, tenants

SECONDS = 480.0
FCFS, VTC, PREDICTING = "aggressive", "vtc", "vtc:predict=true"
LIMITS = [f"rate-limit:requests_per_minute={n}" for n in (30, 45, 60, 75, 90, 120, 240)]
WEIGHTED, WEIGHTS = "vtc:weights=1/2", np.array([1.0, 2.0])
#: A suite in which both tenants ask for more than their weighted shares.
PRESSING, LOAD = "overload", 2.0


def run(options: Options) -> Report:
    """All claims, on Llama-2-7B on an A10."""
    began = time.perf_counter()
    engine = Deployment("llama-2-7b", "a10", max_model_len=4096).engine(4096)
    seconds = SECONDS / 2 if options.quick else SECONDS
    # (suite, share of the time, policy)
    cells = [(suite, part, policy) for suite in SUITES for part in (0.5, 1.0) for policy in (FCFS, VTC)]
    cells += [(suite, 1.0, policy) for suite in SUITES for policy in (PREDICTING, *LIMITS)]
    tasks = [Task(tenants(suite, part * seconds, seed=seed), policy, engine, seed=seed) for suite, part, policy in cells
             for seed in range(options.seeds)]  # fmt: skip
    tasks += [Task(tenants(PRESSING, seconds, LOAD, seed), WEIGHTED, engine, seed=seed) for seed in range(options.seeds)]
    runs: list[Run | None] = [None] * len(tasks)
    for done, (index, result) in enumerate(in_parallel(run_task, tasks, options.jobs)):
        runs[index] = result
        if options.progress:
            options.progress(done + 1, len(tasks), result.trace)
    kept = [result for result in runs if result is not None]
    found = {cell: kept[i * options.seeds : (i + 1) * options.seeds] for i, cell in enumerate(cells)}
    memory = engine.blocks * engine.block_size
    bounds = {suite: 2 * max(PRICES[0] * float(found[suite, 1.0, VTC][0].prompt.max()), PRICES[1] * memory) for suite in SUITES}
    findings = [
        _bounded(found, bounds), _unbounded(found, bounds), _isolated(found, seconds), _free(found, seconds), _limits(found, bounds, seconds),
        _weighted(kept[len(cells) * options.seeds :], seconds, 2 * PRICES[1] * memory),
    ]  # fmt: skip
    conditions = {
        "engine": f"Llama-2-7B on an A10, {memory:,} KV tokens", "suites": f"{', '.join(SUITES)}, {seconds:g} s of requests each",
        "seeds": str(options.seeds), "prices": f"{PRICES[0]:g} per prompt token, {PRICES[1]:g} per output token",
        "bound": "2 max(price x longest prompt, price x KV tokens): " + ", ".join(f"{s} {b:,.0f}" for s, b in bounds.items()),
        "rate limits": ", ".join(LIMITS), "not covered": "the paper's trace of a chat arena",
    }  # fmt: skip
    return Report("vtc", findings, [_table(found, seconds)], conditions, time.perf_counter() - began)


#: Runs by suite, share of the time, policy: one of each seed.
Runs = dict[tuple[str, float, str], list[Run]]


def _gaps(found: Runs, suite: str, policy: str, part: float = 1.0) -> list[float]:
    return [service_gap(result) for result in found[suite, part, policy]]


def _thousands(values: list[float]) -> str:
    return spread([value / 1e3 for value in values], "k")


def _work(found: Runs, suite: str, policy: str, until: float) -> list[float]:
    """Priced tokens served while requests still arrive, against first come, first served on the same requests."""
    pairs = zip(found[suite, 1.0, policy], found[suite, 1.0, FCFS], strict=True)
    return [float(served(a, until).sum() / served(b, until).sum()) for a, b in pairs]


def _bounded(found: Runs, bounds: dict[str, float]) -> Finding:
    worst = {(suite, policy): max(_gaps(found, suite, policy)) for suite in SUITES for policy in (VTC, PREDICTING)}
    inside = all(worst[suite, VTC] <= bounds[suite] for suite in SUITES)
    return Finding(
        "Tenants with work waiting are served alike, within a bound", "largest gap of any two over any time in which both wait",
        "at most 2 max(w_p L_in, w_q M) (theorem)",
        "; ".join(f"{suite} {_thousands(_gaps(found, suite, VTC))} ({worst[suite, VTC] / bounds[suite]:.0%} of the bound; "
                  f"predicting lengths {_thousands(_gaps(found, suite, PREDICTING))})" for suite in SUITES),
        REPRODUCED if inside else NOT, "worst seed counts",
    )  # fmt: skip


def _unbounded(found: Runs, bounds: dict[str, float]) -> Finding:
    growth = {suite: [b / a for a, b in zip(_gaps(found, suite, FCFS, 0.5), _gaps(found, suite, FCFS), strict=True)] for suite in SUITES}
    beyond = [suite for suite in SUITES if min(_gaps(found, suite, FCFS)) > bounds[suite]]
    grows = [suite for suite in SUITES if np.median(growth[suite]) > 1.5]
    verdict = REPRODUCED if len(beyond) == len(grows) == len(SUITES) else PARTLY if beyond and grows else NOT
    return Finding(
        "First come, first served drifts apart without bound", "the same gap, and how it grows when requests come for twice as long", "unbounded",
        "; ".join(f"{suite} {_thousands(_gaps(found, suite, FCFS))}, {spread(growth[suite], 'x')} in twice the time" for suite in SUITES), verdict,
        f"beyond VTC's bound in {len(beyond)} of {len(SUITES)} suites; asked here: growth above 1.5x",
    )  # fmt: skip


def _isolated(found: Runs, seconds: float) -> Finding:
    def calm(policy: str) -> list[float]:
        return [float(np.nanmean(ttft(result)[result.tenant == 0])) for result in found["increasing", 1.0, policy]]

    first, fair = calm(FCFS), calm(VTC)
    ratio = float(np.median(first) / np.median(fair))
    return Finding(
        "Who asks for little is not harmed by who asks for ever more", "suite increasing, mean TTFT of the modest tenant",
        "its response time stays low, under first come, first served it grows", f"{spread(fair, ' s')} against {spread(first, ' s')}",
        REPRODUCED if ratio >= 3 else PARTLY if ratio >= 1.2 else NOT, "asked here: a third",
    )  # fmt: skip


def _free(found: Runs, seconds: float) -> Finding:
    work = {suite: _work(found, suite, VTC, seconds) for suite in SUITES}
    lowest = min(float(np.median(values)) for values in work.values())
    return Finding(
        "Fairness costs no throughput", "priced tokens served while requests arrive, against first come, first served",
        "equal: it never idles while somebody waits",
        ", ".join(f"{suite} {spread([100 * v for v in values], '%')}" for suite, values in work.items()),
        REPRODUCED if lowest >= 0.98 else PARTLY if lowest >= 0.95 else NOT,
        "asked here: 98%; above 100% where it serves another mix of requests in the same time",
    )  # fmt: skip


def _limits(found: Runs, bounds: dict[str, float], seconds: float) -> Finding:
    work = {(suite, limit): float(np.median(_work(found, suite, limit, seconds))) for suite in SUITES for limit in LIMITS}
    fair = {(suite, limit): max(_gaps(found, suite, limit)) <= bounds[suite] for suite in SUITES for limit in LIMITS}
    best = {suite: max((work[suite, limit] for limit in LIMITS if fair[suite, limit]), default=0.0) for suite in SUITES}
    both = [limit for limit in LIMITS if all(fair[suite, limit] and work[suite, limit] >= 0.98 for suite in SUITES)]
    texts = [f"{suite} {best[suite]:.0%}" if best[suite] else f"{suite}: no limit tried is within the bound" for suite in SUITES]
    verdict = REPRODUCED if not both and min(best.values()) < 0.95 else PARTLY if not both else NOT
    return Finding(
        "A limit on requests per minute is unfair or wastes the engine",
        f"best of {len(LIMITS)} limits in each suite; work served against first come, first served, where the gap is within VTC's bound",
        "low limits waste capacity, high ones do not isolate", "; ".join(texts), verdict,
        f"{'no' if not both else len(both)} limit keeps both bound and 98% of the work in all suites",
    )  # fmt: skip


def _weighted(runs: list[Run], seconds: float, bound: float) -> Finding:
    shares = [served(result, seconds) for result in runs]
    ratios = [float(s[1] / s[0]) for s in shares]
    gaps = [service_gap(result, weights=WEIGHTS) for result in runs]
    off = max(abs(ratio / 2 - 1) for ratio in ratios)
    verdict = REPRODUCED if off <= 0.05 and max(gaps) <= bound else PARTLY if off <= 0.15 else NOT
    return Finding(
        "With weights, service is shared by weight", f"suite {PRESSING} at {LOAD:g} times the load, weights 1 and 2", "1:2",
        f"1:{spread(ratios, digits=4)}; gap of service by weight {_thousands(gaps)}", verdict,
        f"asked here: within 5%, and within {bound:,.0f} priced tokens",
    )  # fmt: skip


def _table(found: Runs, seconds: float) -> Table:
    rows = []
    for suite in SUITES:
        for policy in (FCFS, VTC, PREDICTING, *LIMITS):
            results = found[suite, 1.0, policy]
            waits = [[float(np.nanmean(ttft(r)[r.tenant == t])) for r in results] for t in (0, 1)]
            rows.append({
                "suite": suite, "policy": policy, "gap (priced tokens)": round(float(np.median(_gaps(found, suite, policy)))),
                "work against fcfs (%)": round(100 * float(np.median(_work(found, suite, policy, seconds))), 1),
                "Jain index": round(float(np.median([jain(r) for r in results])), 3),
                "mean TTFT, tenant 0 (s)": round(float(np.median(waits[0])), 1), "tenant 1 (s)": round(float(np.median(waits[1])), 1),
            })  # fmt: skip
    return Table("Suites of two tenants (medians over seeds; work while requests arrive, Jain index while both compete)", rows)
