"""Which policy is best, by how much, and why: sentences made from measured columns, never from what a policy is known for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rota.results.bands import Band, Verdict
from rota.results.comparison import Comparison
from rota.results.latency import gap_time_beyond
from rota.results.metrics import HIGHER, describe, number, shown
from rota.results.slo import SLO

#: Metrics on which the winner may have to pay for its win.
_PRICES = ("jct_p95", "ttft_p50", "ttft_p99", "tbt_p99", "e2e_p50", "output_throughput", "joule_per_token")
_JOB_PRICES = ("joule_per_token",)


class Reason(NamedTuple):
    """A measured difference that speaks for the winner, with its weight (to pick the strongest) and its sentence."""

    weight: float
    text: str


def verdict(comparison: Comparison) -> str:
    """One or two sentences: the best policy, the metric that decided, by how much over the runner-up, and what else ties."""
    winners, metric = comparison.winners()
    labels = comparison.labels
    if len(labels) == 1:
        return f"{labels[0]}: {_figures(comparison, labels[0])}."
    if not metric:
        judged = _list([describe(m).label for m in _decisive(comparison)])
        return f"{_list(winners)} tie: no difference exceeds its band on {judged}."
    rivals = [label for label in labels if label not in winners]
    best = winners[0]
    runner = _runner_up(comparison, rivals, metric)
    lead = f"{best} is best" if len(winners) == 1 else f"{_list(winners)} tie for best"
    if metric == "slo_met":
        kept, of = comparison.mid(best, "slo_met"), comparison.mid(runner, "slo_met")
        runs = f" in {kept:.0%} of the runs, {runner} in {of:.0%}" if comparison.replications > 1 else "; no other policy does"
        they = "it keeps" if len(winners) == 1 else "they keep"
        return f"{lead}: {they} the objective ({comparison.slo}){runs}."
    against = comparison.versus(best, runner, metric)
    text = f"{lead}: {phrase(against)} than {runner}, the next best"
    text += f" ({shown(metric, comparison.mid(best, metric))} against {shown(metric, comparison.mid(runner, metric))}"
    text += f"; 5-95% band {_range(against.ratio)})" if against.ratio.n > 1 else ")"
    decisive = _decisive(comparison)
    same = decisive[: decisive.index(metric)]
    if same:
        text += f", at equal {_list([describe(m).label for m in same])}"
    return text + "."


def price(comparison: Comparison) -> str:
    """What the winner gives up against the best policy on other metrics, or ``""``."""
    best = comparison.winners()[0][0]
    costs = []
    for metric in _JOB_PRICES if comparison.offline else _PRICES:
        ahead = comparison.best(metric)
        if ahead and best not in ahead:
            costs.append((ahead[0], comparison.versus(best, ahead[0], metric)))
    if not costs:
        return ""
    parts = [f"{phrase(against)} than {other}" for other, against in costs[:3]]
    return f"The price: {_list(parts)}."


def explain(comparison: Comparison) -> list[str]:
    """Why the winner is ahead of each other policy: for each the one or two strongest measured reasons, strongest policy first.

    A policy for which nothing measured speaks in the winner's favour gets no line.
    """
    winners, metric = comparison.winners()
    if not metric:
        return []
    best, lines = winners[0], []
    rivals = [label for label in comparison.labels if label not in winners]
    for rival in sorted(rivals, key=lambda label: _order(comparison, label, metric)):
        waiting = () if comparison.offline else _delays(comparison, best, rival)
        reasons = sorted([*waiting, *_reasons(comparison, best, rival)], reverse=True)[:2]
        if reasons:
            lines.append(f"Against {rival}: {'; '.join(reason.text for reason in reasons)}.")
    return lines


def stall_limits(comparison: Comparison) -> list[float]:
    """What may count as a stall, seconds: the objective's limit on token gaps, if any, and then the winner's P99 TBT."""
    limits = dict(comparison.slo.limits) | {t.metric: t.limit for t in comparison.slo.targets}
    own = comparison.mid(comparison.winners()[0][0], "tbt_p99")
    return [limit for limit in (limits.get("tbt", float("nan")), own) if limit == limit]


def spoken(slo: SLO) -> str:
    """An objective for people, such as ``"TTFT up to 2 s, largest token gap up to 100 ms"``."""
    names = {"tbt": "largest token gap", "ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "queueing": "queueing"}
    limits = [f"{names[metric]} up to {_duration(limit)}" for metric, limit in slo.limits]
    targets = [f"P{t.q:g} {'TBT' if t.metric == 'tbt' else names[t.metric]} up to {_duration(t.limit)}" for t in slo.targets]
    if not targets:
        return ", ".join(limits)
    if not limits:
        return f"any latency, but only in runs with {', '.join(targets)}"
    return f"{', '.join(limits)}; the objective holds in runs with {', '.join(targets)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def phrase(against: Verdict) -> str:
    """A ratio in words, such as ``"3.1x lower P99 TBT"``, ``"6% higher goodput"`` or ``"equal P50 TTFT"``."""
    label, ratio = describe(against.metric).label, against.ratio.mid
    if against.tie:
        return f"equal {label}"
    if not np.isfinite(ratio) or ratio <= 0:
        return f"{'no' if ratio == 0 else 'some'} {label} rather"
    way = "higher" if ratio > 1 else "lower"
    factor = max(ratio, 1 / ratio)
    if factor < 1.2:
        return f"{abs(ratio - 1):.0%} {way} {label}"
    return f"{number(factor, 2)}x {way} {label}"


def _delays(comparison: Comparison, best: str, rival: str) -> Iterator[Reason]:
    """Measured differences in favour of `best`. Weights are shares of time, of requests or logs of ratios: all of order one."""
    mid = comparison.mid
    for limit in stall_limits(comparison):
        stalled, steady = (_stalled(comparison, label, limit) for label in (rival, best))
        if stalled > steady + 0.05:
            text = f"its requests spent {stalled:.0%} of their decoding time in token gaps over {_duration(limit)}"
            yield Reason(2 * (stalled - steady), f"{text} ({best} {steady:.0%})")
            break
    waited, wait = mid(rival, "queueing_mean"), mid(best, "queueing_mean")
    if waited - wait > 0.1 * mid(rival, "ttft_mean"):
        text = f"requests queued {shown('queueing_mean', waited)} on average, {shown('queueing_mean', wait)} with {best}"
        yield Reason((waited - wait) / mid(rival, "ttft_mean"), text)
    slow, fast = (mid(x, "ttft_mean") - mid(x, "queueing_mean") for x in (rival, best))
    if slow - fast > 0.2 * mid(rival, "ttft_mean"):
        text = (
            f"from its start a prompt took {shown('ttft_mean', slow)} to its first token, {shown('ttft_mean', fast)} with {best}"
        )
        yield Reason(0.8 * (slow - fast) / mid(rival, "ttft_mean"), text)


def _reasons(comparison: Comparison, best: str, rival: str) -> Iterator[Reason]:
    """The same, of what costs time or memory whether or not somebody waits for a token."""
    mid = comparison.mid
    evicted, kept = mid(rival, "preemptions_per_request"), mid(best, "preemptions_per_request")
    if evicted > kept + 0.01:
        again = number(mid(rival, "recomputed_tokens"))
        text = f"it preempted {shown('preemptions', mid(rival, 'preemptions'))} times and computed {again} tokens again"
        yield Reason(min(1.0, 2 * (evicted - kept)), f"{text} ({best} {shown('preemptions', mid(best, 'preemptions'))} times)")
    missed, hit = mid(rival, "prefix_hit_rate"), mid(best, "prefix_hit_rate")
    if hit > missed + 0.02:
        yield Reason(hit - missed, f"{best} reused {hit:.0%} of the prompt tokens from its prefix cache, {rival} {missed:.0%}")
    lost, held = mid(rival, "missed_turns"), mid(best, "missed_turns")
    if lost > held + 0.02:
        yield Reason(lost - held, f"{lost:.0%} of its later turns found KV of the turn before gone ({best} {held:.0%})")
    apart, once = mid(rival, "shared_reads"), mid(best, "shared_reads")
    if once > apart + 0.02:
        text = f"{best} read {once:.0%} of the KV that its decodes attend to for several of them at once, {rival} {apart:.0%}"
        yield Reason(0.9 * (once - apart), text)
    small, large = mid(rival, "decode_batch_mean"), mid(best, "decode_batch_mean")
    if large > 1.2 * small and mid(rival, "waiting_mean") > mid(best, "waiting_mean") + 1:
        text = f"with {number(mid(rival, 'waiting_mean'))} requests waiting it decoded {number(small)} sequences per step"
        yield Reason(0.5 * float(np.log(large / small)), f"{text} ({best} {number(large)})")
    read, less = mid(rival, "expert_bytes"), mid(best, "expert_bytes")
    if read > 1.1 * less:
        ratio = read / less if less else float("inf")
        text = f"it read {shown('expert_bytes', read)} of expert weights, {best} {shown('expert_bytes', less)}"
        yield Reason(min(1.0, float(np.log(ratio))), text)


def _stalled(comparison: Comparison, label: str, limit: float) -> float:
    share = gap_time_beyond(np.sum([run.tbt_histogram for run in comparison.runs[label]], axis=0), limit)
    return share if share == share else 0.0


def _order(comparison: Comparison, label: str, metric: str) -> float:
    value = comparison.mid(label, metric)
    return float("inf") if value != value else (-value if describe(metric).better == HIGHER else value)


def _runner_up(comparison: Comparison, rivals: list[str], metric: str) -> str:
    """The best of the rest: by the deciding metric among those that were still in the race when it was judged."""
    left = comparison.labels
    for earlier in _decisive(comparison):
        if earlier == metric:
            break
        left = comparison.best(earlier, left)
    return min((label for label in left if label in rivals), key=lambda label: _order(comparison, label, metric))


def _decisive(comparison: Comparison) -> list[str]:
    return [m for m in comparison.criteria if any(comparison.mid(label, m) == comparison.mid(label, m) for label in comparison.labels)]


def _figures(comparison: Comparison, label: str) -> str:
    metrics = [m for m in comparison.headlines if comparison.mid(label, m) == comparison.mid(label, m) or not m.startswith("jct")]
    return ", ".join(f"{describe(m).label} {shown(m, comparison.mid(label, m))}" for m in metrics)


def _range(ratio: Band) -> str:
    """The band of a ratio as factors above 1, the way `phrase` says it."""
    low, high = (ratio.low, ratio.high) if ratio.mid >= 1 else (_inverse(ratio.high), _inverse(ratio.low))
    return f"{number(low)}x to {number(high)}x"


def _inverse(value: float) -> float:
    return 1 / value if value else float("inf")


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
