"""Search for dispatch rules: expressions in durations, due dates and the time, improved by random edits in a database of islands.

The search of FunSearch (Romera-Paredes et al. 2024) with random edits in place of a language model: each step takes an island, edits one of
its best expressions (sometimes with a part of another), and registers the result there if it is new. Now and then the weaker half of the
islands starts again from the best of the others. An expression is a rule: the waiting job with the smallest value runs next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rota.policies.dispatch.sequencing import Floats, Ints

#: A name, a number, or (operator, left, right).
Expression = str | float | tuple[str, Any, Any]
#: Of the waiting jobs: duration, due date; time; of all waiting jobs: mean, largest and total duration, mean due date.
NAMES = ("p", "d", "t", "mean", "largest", "total", "mean_due")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": lambda a, b: a / np.where(np.abs(b) < 1e-9, 1e-9, b),
    "max": np.maximum,
    "min": np.minimum,
}
EDD: Expression = "d"
MDD: Expression = ("max", ("+", "p", "t"), "d")
#: Size of an expression, in names, numbers and operators, above which it is not kept.
LARGEST = 31


@dataclass(frozen=True)
class Instances:
    """Single-machine instances of one size: durations and due dates, shape (instances, jobs), jobs by due date."""

    p: Ints
    d: Ints

    @staticmethod
    def drawn(n: int, jobs: int, seed: int, factors: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)) -> Instances:
        """`n` by the generator of Potts and Van Wassenhove (1982), tardiness factors and ranges of due dates mixed evenly."""
        rng = np.random.default_rng(seed)
        p = rng.integers(1, 101, (n, jobs))
        spread = rng.choice((0.2, 0.4, 0.6, 0.8, 1.0), n)
        late = rng.choice(factors, n)
        total = p.sum(1)
        low = np.floor(total * (1 - late - spread / 2)).astype(np.int64)
        high = np.floor(total * (1 - late + spread / 2)).astype(np.int64)
        d = rng.integers(low[:, None], high[:, None] + 1, (n, jobs))
        return Instances.sorted(p, d)

    @staticmethod
    def sorted(p: Ints, d: Ints) -> Instances:
        """The same with each instance's jobs by due date, then duration."""
        order = np.lexsort((p, d), axis=1)
        return Instances(np.take_along_axis(p, order, 1), np.take_along_axis(d, order, 1))


def tardiness(rule: Expression, instances: Instances) -> Floats:
    """Total tardiness of every instance, shape (instances,), when the rule decides; all are stepped together."""
    p, d = instances.p.astype(np.float64), instances.d.astype(np.float64)
    n, jobs = p.shape
    rows = np.arange(n)
    t = np.zeros((n, 1))
    late = np.zeros(n)
    for left in range(jobs, 0, -1):
        total = p.sum(1, keepdims=True)
        known = {"p": p, "d": d, "t": t, "mean": total / left, "largest": p.max(1, keepdims=True), "total": total,
                 "mean_due": d.mean(1, keepdims=True)}  # fmt: skip
        value = np.broadcast_to(evaluate(rule, known), p.shape)
        chosen = np.argmin(np.where(np.isnan(value), np.inf, value), axis=1)
        t = t + p[rows, chosen][:, None]
        late += np.maximum(0, t[:, 0] - d[rows, chosen])
        keep = np.arange(left - 1) + (np.arange(left - 1) >= chosen[:, None])
        p, d = np.take_along_axis(p, keep, 1), np.take_along_axis(d, keep, 1)
    return late


def evaluate(rule: Expression, known: dict[str, Floats]) -> Floats | float:
    """Value of an expression."""
    if isinstance(rule, str):
        return known[rule]
    if isinstance(rule, tuple):
        result: Floats = OPERATORS[rule[0]](evaluate(rule[1], known), evaluate(rule[2], known))
        return result
    return rule


def text(rule: Expression) -> str:
    """The expression as people write it."""
    if not isinstance(rule, tuple):
        return rule if isinstance(rule, str) else f"{rule:.4g}"
    left, right = text(rule[1]), text(rule[2])
    return f"{rule[0]}({left}, {right})" if rule[0] in ("max", "min") else f"({left} {rule[0]} {right})"


def size(rule: Expression) -> int:
    """How many names, numbers and operators."""
    return 1 + size(rule[1]) + size(rule[2]) if isinstance(rule, tuple) else 1


def parts(rule: Expression) -> list[tuple[tuple[int, ...], Expression]]:
    """Every part of an expression with the way to it: 1 is left, 2 right."""
    found: list[tuple[tuple[int, ...], Expression]] = [((), rule)]
    if isinstance(rule, tuple):
        for side in (1, 2):
            found += [((side, *way), part) for way, part in parts(rule[side])]
    return found


def replaced(rule: Expression, way: tuple[int, ...], new: Expression) -> Expression:
    """The expression with the part there replaced."""
    if not way:
        return new
    assert isinstance(rule, tuple)
    inner = replaced(rule[way[0]], way[1:], new)
    return (rule[0], inner, rule[2]) if way[0] == 1 else (rule[0], rule[1], inner)


def edited(rule: Expression, other: Expression, rng: np.random.Generator) -> Expression:
    """One random edit: a number, name or operator changed, a part wrapped, a small term added, or a part taken from `other`."""
    found = parts(rule)
    way, part = found[rng.integers(len(found))]
    kind = rng.integers(6)
    if isinstance(part, float) and kind < 4:
        new: Expression = float(part * np.exp(rng.normal(0, 0.3)))
    elif kind == 0:
        new = ("*", part, float(1 + rng.normal(0, 0.15)))
    elif kind == 1:
        new = ("+", part, ("*", float(rng.normal(0, 1)), _term(rng)))
    elif kind == 2:
        new = (str(rng.choice(list(OPERATORS))), part, _term(rng))
    elif kind == 3:
        new = parts(other)[rng.integers(len(parts(other)))][1]
    elif kind == 4 and isinstance(part, tuple):
        new = part[1 + rng.integers(2)]
    elif isinstance(part, tuple):
        new = (str(rng.choice(list(OPERATORS))), part[1], part[2])
    else:
        new = _term(rng)
    return replaced(rule, way, new)


def _term(rng: np.random.Generator) -> Expression:
    """A name, a ratio of two, or a number."""
    kind = rng.integers(4)
    if kind == 0:
        return float(rng.uniform(0, 2))
    a, b = (str(name) for name in rng.choice(NAMES, 2))
    return a if kind == 1 else ("/", a, b)


@dataclass
class Found:
    """What a search came to.

    Attributes
    ----------
    rule : expression
    score : float
        Mean total tardiness on the training instances.
    tried : int
        Expressions evaluated.
    history : list of (int, float, expression)
        Expressions tried, score and rule, at each improvement.
    """

    rule: Expression
    score: float
    tried: int = 0
    history: list[tuple[int, float, Expression]] = field(default_factory=list)


def search(
    start: Expression, train: Instances, wall_s: float, seed: int = 0, islands: int = 10, most: int = 10**9, keep: int = 8, reseed: int = 1500
) -> Found:
    """The best rule found from `start` in `wall_s` seconds or `most` tries.

    A candidate is first tried on a tenth of the training instances and dropped if it is clearly worse than its parent there.
    `keep` expressions are kept per island; every `reseed` tries the weaker half of the islands starts again.
    """
    until = time.perf_counter() + wall_s
    rng = np.random.default_rng(seed)
    few = Instances(train.p[::10], train.d[::10])
    first = float(tardiness(start, train).mean())
    groups: list[list[tuple[float, float, Expression]]] = [[(first, float(tardiness(start, few).mean()), start)] for _ in range(islands)]
    found = Found(start, first)
    seen: set[Expression] = {start}
    while time.perf_counter() < until and found.tried < most:
        group = groups[rng.integers(islands)]
        parent = group[min(int(rng.exponential(2)), len(group) - 1)]
        candidate = edited(parent[2], group[rng.integers(len(group))][2], rng)
        if candidate in seen or size(candidate) > LARGEST:
            continue
        seen.add(candidate)
        found.tried += 1
        with np.errstate(all="ignore"):
            rough = float(tardiness(candidate, few).mean())
            if rough > parent[1] * 1.02:
                continue
            score = float(tardiness(candidate, train).mean())
        if all(score != other[0] for other in group):
            group.append((score, rough, candidate))
            group.sort(key=lambda entry: entry[0])
            del group[keep:]
        if score < found.score:
            found.rule, found.score = candidate, score
            found.history.append((found.tried, score, candidate))
        if found.tried % reseed == 0:
            groups.sort(key=lambda g: g[0][0])
            for weak in range(islands // 2, islands):
                groups[weak] = [groups[rng.integers(islands // 2)][0]]
    return found

