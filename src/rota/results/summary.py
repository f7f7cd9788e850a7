"""One run as one row of figures.

`summarise` turns the columns of a `Run` into plain floats under stable names (`rota.results.metrics` says how people read them).
What does not exist in a run (no SLO, no energy constants, no finished request) is NaN, never a made-up zero.
"""

from __future__ import annotations

import numpy as np

from rota.errors import InputError
from rota.results.energy import energy, replicas
from rota.results.fairness import jain, service_gap
from rota.results.latency import e2e, gap_percentile, max_tbt, queueing, tpot, ttft
from rota.results.metrics import PERCENTILES
from rota.results.programs import later_turns, missed, programs
from rota.results.run import Floats, Run
from rota.results.slo import SLO

Summary = dict[str, float]


def summarise(run: Run, slo: SLO | None = None, *, warmup: float = 0.0) -> Summary:
    """The figures of a run, in seconds, tokens, bytes, joules and US dollars.

    Parameters
    ----------
    run : Run
    slo : SLO, optional
        Adds ``goodput`` (requests/s that keep the limits), ``slo_attainment`` (their share) and ``slo_met`` (1.0 or 0.0).
    warmup : float
        Share of the requests, the first to arrive, that latencies, throughput and goodput leave out (0 <= warmup < 1). Token-gap
        percentiles and totals (energy, KV use, preemptions, expert bytes) always cover the whole run.

    Returns
    -------
    dict of str to float
        ``{ttft,e2e,queueing,tpot,max_tbt,tbt}_{mean,p50,p90,p95,p99,max}``; throughputs over the makespan, which is first arrival
        to last finish; and the rest of `rota.results.metrics.METRICS`. ``jct_*`` are of programs.

    Raises
    ------
    InputError
        If `warmup` is not in [0, 1).
    """
    if not 0 <= warmup < 1:
        raise InputError(f"warm-up share {warmup:g} is outside [0, 1); give 0.1 to drop the first tenth of the requests")
    keep = _after_warmup(run, warmup)
    finished = keep & np.isfinite(run.finish) & ~run.rejected
    span = _span(run.arrival[keep], run.finish[finished])
    out: Summary = {
        "requests": float(keep.sum()),
        "finished": float(finished.sum()),
        "rejected": float((keep & run.rejected).sum()),
        "makespan": span,
    }
    for name, column in (("queueing", queueing), ("ttft", ttft), ("tpot", tpot), ("max_tbt", max_tbt), ("e2e", e2e)):
        out |= _spread(name, column(run)[keep])
    out |= _gaps(run)
    produced = float(run.output[finished].sum())
    handled = produced + float(run.prompt[finished].sum())
    out["request_throughput"] = finished.sum() / span
    out["output_throughput"] = produced / span
    out["total_throughput"] = handled / span
    out |= _objective(run, slo, keep, span)
    out |= _programs(run, warmup)
    out |= _memory(run)
    out |= _steps(run)
    out |= _price(run)
    out["jain"], out["service_gap"] = jain(run), service_gap(run)
    return {key: float(value) for key, value in out.items()}


def _after_warmup(run: Run, warmup: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    keep = np.ones(len(run.arrival), dtype=np.bool_)
    keep[np.argsort(run.arrival, kind="stable")[: int(warmup * len(keep))]] = False
    return keep


def _span(arrival: Floats, finish: Floats) -> float:
    if len(finish) == 0:
        return float("nan")
    # NaN arrivals are dependent requests whose predecessor never finished
    return float(finish.max() - np.nanmin(arrival)) or float("nan")


def _spread(name: str, values: Floats) -> Summary:
    stats = ["mean", *(f"p{q}" for q in PERCENTILES), "max"]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {f"{name}_{stat}": float("nan") for stat in stats}
    figures = [values.mean(), *np.percentile(values, PERCENTILES), values.max()]
    return {f"{name}_{stat}": float(figure) for stat, figure in zip(stats, figures, strict=True)}


def _gaps(run: Run) -> Summary:
    """Token gaps of the whole run: percentiles from the histogram; mean and largest exactly, from the request columns."""
    out = {f"tbt_p{q}": gap_percentile(run.tbt_histogram, q) for q in PERCENTILES}
    done = np.isfinite(run.finish) & (run.output > 1)
    gaps = float((run.output[done] - 1).sum())
    out["tbt_mean"] = float((run.finish - run.first_token)[done].sum()) / gaps if gaps else float("nan")
    out["tbt_max"] = float(run.max_tbt[done].max()) if gaps else float("nan")
    return out


def _objective(run: Run, slo: SLO | None, keep: np.ndarray[tuple[int], np.dtype[np.bool_]], span: float) -> Summary:
    if slo is None:
        return {"goodput": float("nan"), "slo_attainment": float("nan"), "slo_met": float("nan")}
    holds = slo.holds(run)
    good = slo.kept(run) & keep
    if not slo.limits and not holds:
        good[:] = False
    count = float(good.sum())
    return {"goodput": count / span if count else 0.0, "slo_attainment": count / keep.sum(), "slo_met": float(holds)}


def _programs(run: Run, warmup: float) -> Summary:
    """Completion times of programs, less the first to begin; nothing where the trace has none."""
    found = programs(run)
    if found is None:
        return {}
    late = np.argsort(found.arrival, kind="stable")[int(warmup * len(found.number)) :]
    completion = found.completion[late]
    later = later_turns(run)
    return {
        "programs": float(len(late)),
        "programs_finished": float(np.isfinite(completion).sum()),
        **_spread("jct", completion),
        "missed_turns": float(missed(run).sum()) / later if later else float("nan"),
    }


def _memory(run: Run) -> Summary:
    n = len(run.arrival)
    preemptions, blocks = float(run.preemptions.sum()), run.meta.get("blocks")
    peak = run.totals.get("peak_blocks", float("nan"))
    return {
        "preemptions": preemptions,
        "preemptions_per_request": preemptions / n,
        "recomputed_tokens": float(run.recomputed.sum()),
        "kv_mean": _timeline_mean(run, "kv"),
        "kv_peak": peak / blocks if isinstance(blocks, int | float) and blocks > 0 else float("nan"),
        # a re-admitted request may also reuse tokens that it generated; only prompt tokens are hits
        **({"swapped_tokens": run.totals["swapped_tokens"]} if "swapped_tokens" in run.totals else {}),
        **({"reloaded_tokens": run.totals["reloaded_tokens"]} if run.totals.get("reloaded_tokens") else {}),
        "prefix_hit_rate": float(np.minimum(run.cached, run.prompt).sum()) / float(run.prompt.sum()),
    }


def _steps(run: Run) -> Summary:
    totals, nan = run.totals, float("nan")
    steps = totals.get("steps", 0.0) or nan
    attended = totals.get("decode_context", 0.0) or nan
    decodes, prompts = totals.get("decode_tokens", nan), totals.get("prefill_tokens", nan)
    return {
        "waiting_mean": _timeline_mean(run, "waiting"),
        # net of what was computed again after a preemption, so never above what could be saved
        "prefill_saved": 1 - prompts / float(run.prompt.sum()),
        "shared_reads": totals.get("shared_context", nan) / attended,
        "decode_batch_mean": decodes / steps,
        "step_tokens_mean": (decodes + prompts) / steps,
        "busy_share": _timeline_mean(run, "busy"),
        "expert_bytes": totals.get("expert_bytes", nan),
        "simulation_seconds": totals.get("seconds", nan),
    }


def _price(run: Run) -> Summary:
    """Energy and money of the whole run, per token of finished requests; ``usd_per_hour`` in `Run.meta` is of one replica."""
    done = np.isfinite(run.finish) & ~run.rejected
    span = _span(run.arrival, run.finish[done])
    produced = float(run.output[done].sum()) or float("nan")
    handled = produced + float(run.prompt[done].sum())
    joules, rate = energy(run, span), run.meta.get("usd_per_hour")
    usd = float(rate) / 3600 * span * replicas(run) if isinstance(rate, int | float) and rate > 0 else float("nan")
    return {
        "energy": joules,
        "joule_per_token": joules / handled,
        "joule_per_output_token": joules / produced,
        "usd_per_million_tokens": usd / handled * 1e6,
        "usd_per_million_output_tokens": usd / produced * 1e6,
    }


def _timeline_mean(run: Run, name: str) -> float:
    """Mean over the bins up to the last finish; bins have equal width."""
    values, times = run.timeline.get(name), run.timeline.get("time")
    if values is None or times is None or len(values) == 0:
        return float("nan")
    done = run.finish[np.isfinite(run.finish)]
    inside = times <= done.max() if len(done) else np.ones(len(times), dtype=np.bool_)
    return float(values[inside].mean()) if inside.any() else float("nan")
