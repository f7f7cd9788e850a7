"""R-ConstraintBench's claims: planners near the ceiling on precedence alone, and a collapse when constraint types interact.

No language model is run here; `rota examine` does that against an endpoint. What is measured is the benchmark itself (certificates, what
an exact solver finds, whether answers are read right), and its ramp on planners of two kinds: rules that build a schedule without going
back, and an exact planner that makes bookkeeping errors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rota.contracts.shop import Schedule
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.forgetful import Forgetful
from rota.policies.solvers.orders import ORDERS, InOrder
from rota.policies.solvers.serial import Serial
from rota.studies.examine import BySolver, Exam, Planner, Verdict, axes_name, examine, share_feasible, summary
from rota.studies.reproduce.claim import NEEDS_DATA, NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table, spread
from rota.workload.shop.planted import AXES, VOCABULARIES, Planted, Shape, ramp
from rota.workload.shop.prose import read_answer

LEVELS = (5, 15, 25)
PER_SEED = 20
NONE, ALL = axes_name(()), axes_name(AXES)
SETS = ((), ("downtime",), ("pairs",), ("downtime", "pairs"), ("windows",), AXES)
ERRORS = (0.005, 0.01, 0.02, 0.05, 0.1)
#: Near the ceiling, and collapsed: shares of feasible schedules.
CEILING, COLLAPSED = 0.9, 0.5
#: Seconds for one problem.
LIMIT = 2.0
#: Ways to write the same schedule.
FORMS: dict[str, Callable[[Mapping[str, int]], str]] = {
    "JSON object": lambda s: json.dumps(dict(s)),
    "JSON in a code fence after a draft": lambda s: (
        f"First I tried T1 at 3.\n```json\n{json.dumps(dict(s), indent=1)}\n```\nDone."
    ),
    "list of records": lambda s: json.dumps({"schedule": [{"task": t, "start": v} for t, v in s.items()]}),
    "single quotes, trailing comma": lambda s: "{" + "".join(f"'{t}': {v}, " for t, v in s.items()) + "}",
    "Markdown table": lambda s: "| Task | Start |\n|---|---|\n" + "".join(f"| **{t}** | {v} |\n" for t, v in s.items()),
    "CSV": lambda s: "task,start\n" + "".join(f"{t},{v}\n" for t, v in s.items()),
    "list with colons": lambda s: "".join(f"- {t}: {v}\n" for t, v in s.items()),
    "sentences": lambda s: " ".join(f"Task {t} starts at time {v}." for t, v in s.items()),
}


def run(options: Options) -> Report:
    """All claims that can be measured without a hosted model."""
    began = time.perf_counter()
    per_seed = PER_SEED // 4 if options.quick else PER_SEED
    exam = Exam(Shape(), LEVELS, SETS, per_seed * options.seeds)
    ends = Exam(Shape(), LEVELS, ((), AXES), per_seed * options.seeds)
    rules: list[Planner] = [BySolver(InOrder(order)) for order in ORDERS]
    rules.append(BySolver(Serial()))
    forgetful: list[Planner] = [BySolver(Forgetful(error), LIMIT) for error in ERRORS]
    stages: list[tuple[Sequence[Planner], Exam]] = [
        (rules, exam),
        ([BySolver(CpSat(), LIMIT)], exam),
        *(([one], ends) for one in forgetful),
    ]
    verdicts: list[Verdict] = []
    missing = ""
    for done, (planners, over) in enumerate(stages):
        try:
            verdicts += examine(planners, over)
        except UnsupportedPolicy as refusal:
            missing = str(refusal)
        if options.progress:
            options.progress(done + 1, len(stages), planners[0].name)
    findings = [
        _certificates(exam),
        _solver(verdicts, missing),
        _answers(per_seed),
        _rules(verdicts, [rule.name for rule in rules], per_seed),
        _interaction(verdicts, [rule.name for rule in rules]),
        _forgetful(verdicts, [one.name for one in forgetful], per_seed, missing),
        Finding(
            "Frontier language models: near the ceiling on precedence, collapse on all axes, no transfer to the domain set",
            "hosted models, 6,000 problems", "collapse; GPT-5 reaches WAUC 0.661 on the domain set (second hand)", "not measured",
            NEEDS_DATA, "run `rota examine ADDRESS --model NAME`, and again with --vocabulary migration, against the model in question",
        ),
    ]  # fmt: skip
    conditions = {
        "problems": f"{exam.seeds} per cell ({per_seed} for each of {options.seeds} seeds); 20 tasks in 5 layers, 3 resources, windows up to "
        "4 ticks wider than the task on either side",
        "levels": f"{', '.join(map(str, LEVELS))} precedences, none implied by the others",
        "metrics": "WAUC = sum of k f_k / sum of k; the breakpoint is the first level below 50%; neither is told in what could be read of the paper",
        "not covered": "language models, also small ones trained on solved problems; the paper's own problems and wording, which are not public",
    }
    tables = [
        Table("Share of feasible schedules by level, and violations per problem", [_row(line) for line in summary(verdicts)])
    ]
    return Report("r-constraintbench", findings, tables, conditions, time.perf_counter() - began)


def _planted(exam: Exam) -> list[Planted]:
    return [planted for _, _, planted in exam.problems()]


def _certificates(exam: Exam) -> Finding:
    problems = _planted(exam)
    good = sum(check(one.problem, Schedule(one.certificate, {})).ok for one in problems)
    return Finding(
        "Every problem has a schedule", f"{len(problems)} problems, all sets of axes and levels",
        "guaranteed, with a solver in the loop", f"the planted schedule passes the checker in {good} of {len(problems)}",
        REPRODUCED if good == len(problems) else NOT, "planted here, so that no solver is needed",
    )  # fmt: skip


def _solver(verdicts: Sequence[Verdict], missing: str) -> Finding:
    mine = [verdict for verdict in verdicts if verdict.planner == CpSat().name]
    if not mine:
        return Finding("An exact solver finds one", "CP-SAT", "all", "not measured", NEEDS_DATA, missing)
    good = sum(verdict.feasible for verdict in mine)
    slowest = max(verdict.wall_s for verdict in mine)
    return Finding(
        "An exact solver finds one", f"CP-SAT, one core, {len(mine)} problems", "all",
        f"{good} of {len(mine)}; slowest {slowest:.2g} s", REPRODUCED if good == len(mine) else NOT,
    )  # fmt: skip


def _answers(problems: int) -> Finding:
    read = asked = 0
    for vocabulary in VOCABULARIES:
        for seed in range(problems):
            (planted,) = ramp(Shape(vocabulary=vocabulary), AXES, LEVELS[:1], seed)
            for write in FORMS.values():
                starts = read_answer(write(planted.certificate), [task.id for task in planted.problem.tasks])
                read += check(planted.problem, Schedule(starts, {})).ok
                asked += 1
    return Finding(
        "A right answer is not lost in reading", f"planted schedules written in {len(FORMS)} forms, two vocabularies",
        "not told", f"{read} of {asked} pass the checker after reading", REPRODUCED if read == asked else PARTLY,
    )  # fmt: skip


def _share(verdicts: Sequence[Verdict], planner: str, axes: str) -> float:
    return share_feasible([v for v in verdicts if v.planner == planner and v.axes == axes])


def _by_seed(verdicts: Sequence[Verdict], planner: str, axes: str, per_seed: int) -> list[float]:
    mine = [v for v in verdicts if v.planner == planner and v.axes == axes]
    blocks = sorted({v.seed // per_seed for v in mine})
    return [100 * share_feasible([v for v in mine if v.seed // per_seed == block]) for block in blocks]


def _rules(verdicts: Sequence[Verdict], rules: Sequence[str], per_seed: int) -> Finding:
    held = [name for name in rules if _share(verdicts, name, NONE) >= CEILING and _share(verdicts, name, ALL) < COLLAPSED]
    best = max(rules, key=lambda name: _share(verdicts, name, ALL))
    both = {axes: spread(_by_seed(verdicts, best, axes, per_seed), "%") for axes in (NONE, ALL)}
    return Finding(
        "Near the ceiling on precedence alone, collapse with all axes: rules that do not go back",
        f"serial generation by {', '.join(rules)}; all levels", f"asked here: at least {CEILING:.0%} falls below {COLLAPSED:.0%}",
        f"{len(held)} of {len(rules)} rules; the best, {best}: {both[NONE]} falls to {both[ALL]}",
        REPRODUCED if len(held) == len(rules) else PARTLY if held else NOT,
        "without windows there is always a later place, so precedence alone cannot fail a rule at any depth",
    )  # fmt: skip


def _interaction(verdicts: Sequence[Verdict], rules: Sequence[str]) -> Finding:
    apart = min(_share(verdicts, name, axes_name(axes)) for name in rules for axes in SETS if "windows" not in axes)
    lost = {name: 1 - _share(verdicts, name, "windows") for name in rules}
    more = {name: _share(verdicts, name, "windows") - _share(verdicts, name, ALL) for name in rules}
    return Finding(
        "It is the interaction of constraint types that costs", f"{', '.join(rules)}; axes alone and together, all levels",
        "downtime, windows and pairs together",
        f"without windows every rule keeps at least {apart:.0%}; windows alone cost {_points(lost)}, downtime and pairs on top {_points(more)}",
        PARTLY if max(more.values()) > 0.05 else NOT, "for rules the windows carry most of it; whether models differ can only be asked of models",
    )  # fmt: skip


def _points(shares: Mapping[str, float]) -> str:
    return f"{100 * min(shares.values()):.0f} to {100 * max(shares.values()):.0f} points"


def _forgetful(verdicts: Sequence[Verdict], names: Sequence[str], per_seed: int, missing: str) -> Finding:
    claim = "Near the ceiling on precedence alone, collapse with all axes: an exact planner with bookkeeping errors"
    if missing:
        return Finding(claim, "CP-SAT", "as above", "not measured", NEEDS_DATA, missing)
    held = [name for name in names if _share(verdicts, name, NONE) >= CEILING and _share(verdicts, name, ALL) < COLLAPSED]
    steady = max((name for name in names if _share(verdicts, name, NONE) >= CEILING), key=names.index, default=names[0])
    both = {axes: spread(_by_seed(verdicts, steady, axes, per_seed), "%") for axes in (NONE, ALL)}
    return Finding(
        claim, f"each constraint overlooked, and each duration off by one, with probability {', '.join(f'{e:g}' for e in ERRORS)}",
        f"asked here: at least {CEILING:.0%} falls below {COLLAPSED:.0%} at some probability",
        f"at {len(held)} of {len(names)}; the largest probability near the ceiling, {steady}: {both[NONE]} and {both[ALL]}",
        REPRODUCED if held else NOT,
        "more constraints are more to overlook, but they also pin the schedule, so that one overlooked is often kept by the others",
    )  # fmt: skip


def _row(line: Mapping[str, Any]) -> dict[str, object]:
    row: dict[str, object] = {"planner": line["planner"], "axes": line["axes"]}
    row |= {f"level {level} (%)": round(100 * share) for level, share in line["feasible"].items()}
    errors = ", ".join(f"{name} {number:.2g}" for name, number in line["errors"].items())
    return {**row, "WAUC": round(line["wauc"], 3), "breakpoint": line["breakpoint"] or "-", "violations": errors or "-"}
