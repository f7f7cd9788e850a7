"""Service-level objectives: how they are written, and whether a run keeps them.

Two kinds exist and both are in use: limits that every single request should keep (their share is the attainment, and the requests
per second that keep all of them the goodput), and limits on percentiles of the whole run, which hold or do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.results.latency import COLUMNS, gap_percentile, percentile
from rota.results.run import Floats, Run

_ALIASES = {"itl": "tbt", "max_tbt": "tbt", "mtpot": "tbt", "latency": "e2e", "queue": "queueing", "scheduling_delay": "queueing"}
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_ITEM = re.compile(r"(?:p(?P<q>\d+(?:\.\d+)?)[ .:]?\s*)?(?P<metric>[a-z_0-9]*[a-z][a-z_0-9]*)\s*(?:<=|=|<)\s*(?P<value>.+)")
_NUMBER = re.compile(r"(?P<number>\d*\.?\d+(?:e[+-]?\d+)?)\s*(?P<unit>ms|s|%)?")
_HELP = 'write for example "ttft=2,tbt=0.1" (per request, seconds) or "p99 tbt=0.1, p50 queueing=2" (percentiles)'


class Target(NamedTuple):
    """A percentile of a latency and its limit in seconds. For ``"tbt"`` the percentile is over all token gaps of the run."""

    metric: str
    q: float
    limit: float

    def measured(self, run: Run) -> float:
        """The percentile as the run has it, seconds."""
        if self.metric == "tbt":
            return gap_percentile(run.tbt_histogram, self.q)
        return percentile(COLUMNS[self.metric](run), self.q)


@dataclass(frozen=True, slots=True)
class SLO:
    """A service-level objective.

    Parameters
    ----------
    limits : tuple of (str, float)
        What each request should keep: ``"ttft"``, ``"tbt"`` (its largest token gap), ``"tpot"``, ``"e2e"`` or ``"queueing"``, in
        seconds.
    targets : tuple of Target
        What percentiles of the run should keep.
    attain : float
        Share of requests that must keep all limits for the objective to hold, when there are no targets.

    Notes
    -----
    Goodput counts requests that keep all `limits`. With targets alone no single request can fail, so the goodput is the whole
    throughput where the targets hold, and 0 where they do not.
    """

    limits: tuple[tuple[str, float], ...] = ()
    targets: tuple[Target, ...] = ()
    attain: float = 0.9

    @classmethod
    def parse(cls, text: str) -> SLO:
        """Read an objective from text.

        Items are separated by commas or "and". ``metric=value`` limits each request; ``p99 metric=value`` limits a percentile; a
        bare ``p99`` turns all limits without a percentile into targets at that one too; ``attain=90%`` sets the share of requests
        that must keep the limits. Values are seconds unless they end in ``ms``.

        Raises
        ------
        InputError
            Naming the item that cannot be read.
        """
        limits: dict[str, float] = {}
        targets: list[Target] = []
        common: list[float] = []
        attain: float | None = None
        for raw in re.split(r",|\band\b", text.lower()):
            item = raw.strip()
            if bare := _PERCENTILE.fullmatch(item):
                common.append(_checked_q(float(bare[1]), item))
                continue
            match = _ITEM.fullmatch(item)
            if match is None:
                fault = f"SLO item {item!r} cannot be read" if item else f"empty SLO item in {text!r}"
                raise InputError(f"{fault}; {_HELP}")
            metric = _ALIASES.get(match["metric"], match["metric"])
            if metric == "attain":
                attain = _value(match["value"], item, {"": 1, "%": 100})
                continue
            if metric not in COLUMNS:
                raise InputError(f"unknown SLO metric {match['metric']!r}; use one of {', '.join(COLUMNS)}")
            value = _value(match["value"], item, {"": 1, "s": 1, "ms": 1000})
            if match["q"]:
                targets.append(Target(metric, _checked_q(float(match["q"]), item), value))
            elif metric in limits:
                raise InputError(f"SLO {text!r} limits {metric} twice; keep one")
            else:
                limits[metric] = value
        if attain is not None and not 0 < attain <= 1:
            raise InputError(
                f"SLO attain={attain:g} is not a share of requests; give one above 0 and up to 1, such as 0.9 or 90%"
            )
        if common and not limits:
            raise InputError(f"SLO {text!r} names a percentile but no limit for it; {_HELP}")
        if not limits and not targets:
            raise InputError(f"SLO {text!r} has no limit; {_HELP}")
        targets += [Target(metric, q, limit) for q in common for metric, limit in limits.items()]
        return cls(tuple(limits.items()), tuple(targets), 0.9 if attain is None else attain)

    def __str__(self) -> str:
        parts = [f"{metric}={limit:g}" for metric, limit in self.limits]
        parts += [f"p{t.q:g} {t.metric}={t.limit:g}" for t in self.targets]
        if self.limits and not self.targets:
            parts.append(f"attain={self.attain:g}")
        return ", ".join(parts)

    def worst_ratio(self, run: Run) -> Floats:
        """For each request the largest latency / limit; up to 1 means that all limits are kept, infinity that it never finished.

        The share of requests up to s is the attainment with all limits s times as long. Without limits, those of the targets
        count.
        """
        ratio = np.zeros(len(run.arrival))
        for metric, limit in self.limits or [(t.metric, t.limit) for t in self.targets]:
            # a one-token output has no gaps, so it keeps any limit on them
            ratio = np.fmax(ratio, COLUMNS[metric](run) / limit)
        ratio[run.rejected | ~np.isfinite(run.finish)] = np.inf
        return ratio

    def kept(self, run: Run) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which requests keep all limits (those that finish, if there are only targets)."""
        if not self.limits:
            return np.asarray(np.isfinite(run.finish) & ~run.rejected)
        return np.asarray(self.worst_ratio(run) <= 1.0)

    def holds(self, run: Run) -> bool:
        """Whether all targets are met or, without targets, whether the share `attain` of the requests keeps all limits.

        A percentile over nothing (no token gap in the whole run) is no violation; a run in which nothing finished is.
        """
        if not np.isfinite(run.finish).any():
            return False
        if self.targets:
            return not any(t.measured(run) > t.limit for t in self.targets)
        return bool(self.kept(run).mean() >= self.attain)


def _value(text: str, item: str, units: dict[str, int]) -> float:
    match = _NUMBER.fullmatch(text)
    unit = (match["unit"] or "") if match else ""
    value = float(match["number"]) if match and unit in units else float("nan")
    if not 0 < value < float("inf"):
        example = "a share such as 0.9 or 90%" if "%" in units else "seconds such as 0.1, or 100ms"
        raise InputError(f"SLO item {item!r}: {text!r} is not a positive number here; give {example}")
    return value / units[unit]


def _checked_q(q: float, item: str) -> float:
    if not 0 < q < 100:
        raise InputError(f"SLO item {item!r}: percentile {q:g} is not between 0 and 100; give one such as p99")
    return q
