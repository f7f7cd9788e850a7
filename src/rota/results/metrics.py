"""What the figures of a summary are called, in which unit a person reads them, and which way is better."""

from __future__ import annotations

from typing import NamedTuple

LOWER, NEITHER, HIGHER = -1, 0, 1


class Metric(NamedTuple):
    """How to show and judge one key of `rota.results.summary.summarise`.

    Attributes
    ----------
    label, unit : str
        For people. `scale` turns the stored value into that unit.
    better : int
        `LOWER`, `HIGHER` or `NEITHER`.
    share, whole : bool
        Whether the value lies in 0-1; whether it counts something, so that people read it without decimals.
    """

    label: str
    unit: str
    better: int
    scale: float = 1.0
    share: bool = False
    whole: bool = False


PERCENTILES = (50, 90, 95, 99)
_LATENCIES = {"queueing": "queueing", "ttft": "TTFT", "tbt": "TBT", "tpot": "TPOT", "max_tbt": "max TBT", "e2e": "E2E", "jct": "JCT"}
#: Those that people read in seconds.
_LONG = ("e2e", "jct")

METRICS: dict[str, Metric] = {
    "requests": Metric("requests", "", NEITHER, whole=True),
    "finished": Metric("finished", "", HIGHER, whole=True),
    "rejected": Metric("rejected", "", LOWER, whole=True),
    "makespan": Metric("makespan", "s", LOWER),
    "request_throughput": Metric("throughput", "req/s", HIGHER),
    "output_throughput": Metric("output tokens", "tok/s", HIGHER),
    "total_throughput": Metric("all tokens", "tok/s", HIGHER),
    "goodput": Metric("goodput", "req/s", HIGHER),
    "slo_attainment": Metric("within SLO", "%", HIGHER, 100.0, True),
    "slo_met": Metric("SLO met", "", HIGHER, 1.0, True),
    "preemptions": Metric("preemptions", "", LOWER, whole=True),
    "preemptions_per_request": Metric("preemptions / request", "", LOWER),
    "recomputed_tokens": Metric("recomputed", "tok", LOWER, whole=True),
    "swapped_tokens": Metric("swapped out", "tok", LOWER, whole=True),
    "reloaded_tokens": Metric("copied from host", "tok", NEITHER, whole=True),
    "kv_mean": Metric("mean KV use", "%", NEITHER, 100.0, True),
    "kv_peak": Metric("peak KV use", "%", NEITHER, 100.0, True),
    "prefix_hit_rate": Metric("prefix hits", "%", HIGHER, 100.0, True),
    "prefill_saved": Metric("prefill saved", "%", HIGHER, 100.0, True),
    "shared_reads": Metric("KV reads shared", "%", NEITHER, 100.0, True),
    "waiting_mean": Metric("mean queue", "requests", LOWER),
    "decode_batch_mean": Metric("decodes per step", "", NEITHER),
    "step_tokens_mean": Metric("tokens per step", "", NEITHER),
    "busy_share": Metric("busy", "%", NEITHER, 100.0, True),
    "expert_bytes": Metric("expert bytes", "TB", LOWER, 1e-12),
    "energy": Metric("energy", "kJ", LOWER, 1e-3),
    "joule_per_token": Metric("energy / token", "J", LOWER),
    "joule_per_output_token": Metric("energy / output token", "J", LOWER),
    "usd_per_million_tokens": Metric("cost / million tokens", "USD", LOWER),
    "usd_per_million_output_tokens": Metric("cost / million output tokens", "USD", LOWER),
    "jain": Metric("Jain index", "", HIGHER, 1.0, True),
    "service_gap": Metric("service gap of tenants", "priced tok", LOWER, whole=True),
    "programs": Metric("programs", "", NEITHER, whole=True),
    "programs_finished": Metric("programs finished", "", HIGHER, whole=True),
    "missed_turns": Metric("turns that missed", "%", LOWER, 100.0, True),
    "simulation_seconds": Metric("simulated in", "s", NEITHER),
}
for _key, _label in _LATENCIES.items():
    for _stat in ("mean", *(f"p{q}" for q in PERCENTILES), "max"):
        _name = f"{_stat.upper() if _stat[0] == 'p' else _stat} {_label}"
        METRICS[f"{_key}_{_stat}"] = Metric(_name, "s" if _key in _LONG else "ms", LOWER, 1.0 if _key in _LONG else 1e3)


def describe(key: str) -> Metric:
    """The entry of `key`, or a plain one for a key that is not in the list."""
    return METRICS.get(key, Metric(key.replace("_", " "), "", NEITHER))


def number(value: float, digits: int = 3) -> str:
    """A figure for people: about `digits` significant digits, thousands separated, ``"-"`` for NaN."""
    if value != value:
        return "-"
    size = abs(value)
    if size == float("inf"):
        return "inf" if value > 0 else "-inf"
    if size == 0 or size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if size < 10**-digits:
        return f"{value:.{digits - 1}g}"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.{max(0, digits - len(str(int(abs(float(text))))))}f}" if size >= 1 else text


def shown(key: str, value: float, unit: bool = True) -> str:
    """`value` of metric `key` scaled to its reading unit, with the unit's name (10 s and more in seconds, then)."""
    metric = describe(key)
    if unit and metric.unit == "ms" and 10 <= value < float("inf"):
        return f"{number(value)} s"
    text = f"{value:,.0f}" if metric.whole and abs(value) < float("inf") else number(value * metric.scale)
    return f"{text} {metric.unit}" if unit and metric.unit and text != "-" else text
