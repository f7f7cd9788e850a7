"""Rules for task graphs online: schedules by hand, HEFT as published, brute force, and what every run must keep."""

from __future__ import annotations

import csv
from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.cli.main import run as rota
from rota.contracts.shop import Budget, Problem, Schedule
from rota.errors import InputError, UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.dispatch.online import graph_rule_names, make_rule
from rota.policies.solvers.project_solvers import Heft
from rota.studies.dispatch import check_run, run_rule
from rota.studies.reproduce.deepsocs import let_in, measured
from rota.workload.shop.build import job_shop, task_graph, task_graphs
from rota.workload.shop.realization import Realization, draw
from rota.workload.shop.task_graphs import TaskGraph, made_up_graph, read_graphs, stream

FORK = TaskGraph(((2, 3), (4, 3), (3, 6)), ((0, 1, 2), (0, 2, 2)))
RULES = [*graph_rule_names(), "RANDOM"]


@pytest.mark.parametrize(("rules", "start", "mode"), [
    # ranks 9, 3.5 and 4.5: t2 stays beside t0, t1 waits for its data at 4
    (("HEFT", "HEFT-READY", "HEFT-BLIND", "ETF", "MET", "EFT-BLIND"), (0, 4, 2), (0, 1, 0)),
    # t1 goes first: 6 beside t0 against 7; then t2 ends at 9 behind it against 10
    (("EFT", "STF"), (0, 2, 6), (0, 0, 0)),
])  # fmt: skip
def test_a_fork_by_hand(rules: tuple[str, ...], start: tuple[int, ...], mode: tuple[int, ...]) -> None:
    problem = task_graph(*FORK)
    for rule in rules:
        found = run_rule(problem, make_rule(rule)).schedule
        assert (tuple(found.start.values()), tuple(found.mode.values())) == (start, mode), rule


def test_etf_waits_for_nobody_and_heft_for_the_fast_processor() -> None:
    """Two tasks, of 2 and 3 ticks on one processor and 20 on the other."""
    problem = task_graph([(2, 20), (3, 20)], [])
    assert run_rule(problem, make_rule("HEFT")).schedule.start == {"t0": 3, "t1": 0}
    assert run_rule(problem, make_rule("MET")).schedule.start == {"t0": 0, "t1": 2}
    found = run_rule(problem, make_rule("ETF"))
    assert (found.schedule.start, found.schedule.mode, found.makespan) == ({"t0": 0, "t1": 0}, {"t0": 1, "t1": 0}, 20)


def test_heft_online_has_the_published_lengths(shared: Path) -> None:
    folder = shared / "data" / "shop" / "dag"
    with (folder / "reference_makespans.csv").open() as lines:
        lengths = [int(row["heft_insertion"]) for row in csv.DictReader(lines)]
    assert [run_rule(task_graph(*graph), make_rule("HEFT")).makespan for graph in read_graphs(folder)] == lengths
    assert lengths[0] == 80


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_heft_online_alone_is_the_static_schedule(seed: int, tasks: int, processors: int) -> None:
    problem = task_graph(*made_up_graph(seed, tasks, processors))
    planned = Heft().solve(problem, Budget(1, 1)).schedule
    found = run_rule(problem, make_rule("HEFT")).schedule
    assert planned is not None
    assert (found.start, found.mode) == (planned.start, planned.mode)


def first_pairs(graph: TaskGraph) -> list[int]:
    """ETF as published, all at once: again and again the pair that can start first. Starts by task."""
    n, processors = len(graph.durations), range(len(graph.durations[0]))
    level = [0.0] * n
    for i in reversed(range(n)):  # edges go upwards
        level[i] = sum(graph.durations[i]) / len(processors) + max([level[b] for a, b, _ in graph.edges if a == i], default=0)
    start, end, where, free = [-1] * n, [0] * n, [0] * n, [0 for _ in processors]
    for _ in range(n):
        ready = [i for i in range(n) if start[i] < 0 and all(start[a] >= 0 for a, b, _ in graph.edges if b == i)]
        pairs = []
        for i in ready:
            for q in processors:
                data = max([end[a] + (ticks if where[a] != q else 0) for a, b, ticks in graph.edges if b == i], default=0)
                pairs.append((max(free[q], data), -level[i], graph.durations[i][q], i, q))
        at, _, work, i, q = min(pairs)
        start[i], end[i], where[i], free[q] = at, at + work, q, at + work
    return start


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_etf_online_is_etf(seed: int, tasks: int, processors: int) -> None:
    graph = made_up_graph(seed, tasks, processors)
    assert list(run_rule(task_graph(*graph), make_rule("ETF")).schedule.start.values()) == first_pairs(graph)


def shortest(graph: TaskGraph) -> int:
    """The optimum: every order in which tasks can follow each other, on every choice of processors, each task as early as it can."""
    n, best = len(graph.durations), 10**9
    orders = [o for o in permutations(range(n)) if all(o.index(a) < o.index(b) for a, b, _ in graph.edges)]
    for where in product(range(len(graph.durations[0])), repeat=n):
        for order in orders:
            end, free = [0] * n, [0] * len(graph.durations[0])
            for i in order:
                data = max([end[a] + (ticks if where[a] != where[i] else 0) for a, b, ticks in graph.edges if b == i], default=0)
                end[i] = free[where[i]] = max(data, free[where[i]]) + graph.durations[i][where[i]]
            best = min(best, max(end))
    return best


def test_none_is_better_than_the_best_and_all_but_drawing_lots_come_near() -> None:
    graphs = [made_up_graph(seed, 5, 2) for seed in range(12)]
    optima = [shortest(graph) for graph in graphs]
    for rule in RULES:
        lengths = [run_rule(task_graph(*graph), make_rule(rule)).makespan for graph in graphs]
        assert all(length >= best for length, best in zip(lengths, optima, strict=True)), rule
        if rule in ("HEFT", "HEFT-READY", "EFT"):
            assert any(length == best for length, best in zip(lengths, optima, strict=True)), rule
            assert sum(lengths) < 1.25 * sum(optima), rule


@given(
    st.integers(0, 10**6), st.sampled_from(RULES), st.integers(0, 3), st.sampled_from([1, 10, 40]), st.sampled_from([0.0, 0.3, 1.0]), st.booleans()
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_run_keeps_what_it_must(seed: int, rule: str, most_inside: int, scale: int, noise: float, breaks: bool) -> None:
    """Precedence and data, one task per processor, and the cap; with breakdowns too."""
    graphs = [made_up_graph(seed + k, 5 + k, 3) for k in range(3)]
    problem, luck = stream(graphs, 6, scale, noise, seed)
    if breaks:
        luck = Realization(luck.work, draw(problem, seed, breakdowns=(40, 9)).down, luck.arrival)
    run = run_rule(problem, make_rule(rule, seed, most_inside), luck)
    assert check_run(problem, luck, run).ok
    begun = [min(run.schedule.start[task] for task in job.tasks) for job in problem.jobs]
    done = [max(run.end[task] for task in job.tasks) for job in problem.jobs]
    assert max(sum(b <= at < d for b, d in zip(begun, done, strict=True)) for at in begun) <= (most_inside or 6)
    if most_inside and rule != "RANDOM":
        entered = let_in([luck.arrival[job.id] for job in problem.jobs], done, most_inside)
        assert all(b >= e for b, e in zip(begun, entered, strict=True))
        assert max(sum(e <= at < d for e, d in zip(entered, done, strict=True)) for at in entered) <= most_inside


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_without_data_nothing_is_lost_by_not_looking(seed: int) -> None:
    graphs = [TaskGraph(g.durations, tuple((i, j, 0) for i, j, _ in g.edges)) for g in (made_up_graph(seed + k) for k in range(3))]
    problem, luck = stream(graphs, 6, 20, 0.2, seed)
    aware, blind = (run_rule(problem, make_rule(rule, 0, 3), luck).schedule for rule in ("EFT", "EFT-BLIND"))
    assert (aware.start, aware.mode) == (blind.start, blind.mode)


def test_who_is_let_in_when() -> None:
    assert let_in([0, 1, 2, 3], [10, 7, 12, 20], 2) == [0, 1, 7, 10]
    assert let_in([0, 30], [10, 40], 1) == [0, 30]


@pytest.mark.parametrize(("seed", "tasks"), [(seed, tasks) for seed in range(20) for tasks in (2, 3, 4, 10, 17)])
def test_made_up_graphs_have_one_end_each(seed: int, tasks: int) -> None:
    graph = made_up_graph(seed, tasks)
    assert {i for i, _, _ in graph.edges} == set(range(tasks - 1))
    assert {j for _, j, _ in graph.edges} == set(range(1, tasks))
    assert all(i < j and 9 <= ticks <= 27 for i, j, ticks in graph.edges)
    assert all(5 <= ticks <= 21 for row in graph.durations for ticks in row)


def test_the_same_luck_whatever_else_is_switched_on() -> None:
    graphs = [made_up_graph(k) for k in range(4)]
    calm, noisy = stream(graphs, 20, 30, 0.0, 5), stream(graphs, 20, 30, 0.2, 5)
    assert calm[0] == noisy[0] and calm[1].arrival == noisy[1].arrival
    assert not calm[1].work and min(noisy[1].work.values()) >= 1


def test_latency_is_near_what_was_found_elsewhere(shared: Path) -> None:
    """Mean latency of another simulator on ten published graphs, gap 25, no more than three inside: 125, 138 by MET, 137 blind."""
    graphs = read_graphs(shared / "data" / "shop" / "dag")
    for rule, elsewhere in (("EFT", 125), ("MET", 138), ("EFT-BLIND", 137)):
        found = [measured(graphs, rule, (25, 0.0), 60, seed).latency for seed in range(2)]
        assert sum(found) / 2 == pytest.approx(elsewhere, rel=0.06), rule


def test_other_shops_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = job_shop([[(0, 1), (1, 1)]], 2, blocking="swap")
    with pytest.raises(UnsupportedPolicy, match=r"j0\.0 of shop does not"):
        run_rule(held, make_rule("HEFT"))
    with pytest.raises(InputError, match="HEFT-READY"):
        make_rule("HEFTY")
    with pytest.raises(InputError, match="at least 2 tasks"):
        made_up_graph(0, 1)
    with pytest.raises(InputError, match="cannot be read"):
        read_graphs(tmp_path)
    (tmp_path / "soc_top.json").write_text('{"pes": [],\n}')
    with pytest.raises(InputError, match=r"soc_top\.json:2: is not JSON"):
        read_graphs(tmp_path)
    (tmp_path / "soc_top.json").write_text('{"pes": []}')
    with pytest.raises(InputError, match="not as expected"):
        read_graphs(tmp_path)


def test_jobs_of_one_problem_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chip.json"
    file.write_text(
        '{"resources": ["p0", "p1"], "tasks": [{"id": "a", "modes": [{"duration": 2, "uses": ["p0"]}, {"duration": 3, "uses": ["p1"]}]},'
        ' {"id": "b", "modes": [{"duration": 4, "uses": ["p0"]}, {"duration": 3, "uses": ["p1"]}]}],'
        ' "lags": [{"from": ["a", "end"], "to": ["b", "start"], "min": 0, "by_modes": [[0, 1, 9], [1, 0, 9]]}],'
        ' "jobs": [{"id": "j", "tasks": ["a", "b"]}]}'
    )
    assert rota(["dispatch", str(file), "--rule", "heft,etf,met,eft-blind", "--most-inside", "1", "--json"]) == 0
    assert '"makespan": 6' in capsys.readouterr().out


def test_jobs_in_another_order_than_they_arrive() -> None:
    """One that arrives later and is named first does not push out one that is inside."""
    problem: Problem = task_graphs([FORK, FORK, FORK])
    luck = Realization(arrival={"j0": 3, "j1": 0, "j2": 1})
    for rule in graph_rule_names():
        run = run_rule(problem, make_rule(rule, 0, 1), luck)
        assert check_run(problem, luck, run).ok
        assert min(run.schedule.start[f"j0.t{k}"] for k in range(3)) >= max(run.end[f"j1.t{k}"] for k in range(3))
    assert check(problem, Schedule(run.schedule.start, run.schedule.mode)).ok
