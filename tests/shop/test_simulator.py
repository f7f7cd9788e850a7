"""The shop simulator: what it realises passes the independent check, never gets stuck, and is the same compiled, interrupted or resumed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.contracts.dispatch import Order, Start, Startable, View, WaitUntilNextEvent
from rota.contracts.shop import Event, Job, Lag, Mode, Problem, Resource, Task, Use
from rota.errors import InputError, UnsupportedPolicy
from rota.mechanisms.shop.compiled import columns
from rota.mechanisms.shop.plant import plant
from rota.mechanisms.shop.simulator import Run, Simulator, simulate
from rota.policies.dispatch.online import Random, make_rule, rule_names
from rota.studies.dispatch import check_run, run_rule
from rota.workload.shop.build import flexible_job_shop, job_shop, open_shop, precedence, project, task_graph
from rota.workload.shop.realization import Realization, draw
from tests.shop.test_cpsat import FT06

CLASSICAL = [name for name in rule_names() if name != "RANDOM"]
seeds = st.integers(0, 10**6)


def random_shop(rng: random.Random, blocking: str, ways: int = 1) -> Problem:
    """Jobs may come back to a machine, stay on it, and have operations that take no time; some jobs are released later."""
    machines = rng.randint(1, 5)
    jobs = []
    for _ in range(rng.randint(1, 8)):
        operations = []
        for _ in range(rng.randint(1, 6)):
            some = rng.sample(range(machines), min(machines, rng.randint(1, ways)))
            operations.append([(machine, rng.randint(0, 9)) for machine in some])
        jobs.append(operations)
    return flexible_job_shop(jobs, machines, blocking=blocking)


def random_luck(rng: random.Random, problem: Problem) -> Realization:
    seed = rng.randrange(1000)
    breakdowns = rng.choice([None, (12.0, 4.0)])
    return draw(problem, seed, noise=rng.choice([0, 0.5]), interruptions=rng.choice([0, 0.3]), breakdowns=breakdowns,
                arrivals=rng.choice([0, 5]), restarts=rng.random() < 0.5)  # fmt: skip


@given(seeds, st.sampled_from(["none", "swap", "no-swap"]), st.integers(1, 3))
def test_never_stuck_and_always_a_schedule(seed: int, blocking: str, ways: int) -> None:
    rng = random.Random(seed)
    problem = random_shop(rng, blocking, ways)
    luck = random_luck(rng, problem)
    most_inside = rng.choice([0, 1, 2, 4])
    run = simulate(problem, make_rule(rng.choice(rule_names()), seed, most_inside), luck)
    report = check_run(problem, luck, run)
    assert report.ok, report.violations
    assert report.terms["makespan"] == run.makespan
    assert not most_inside or inside_at_once(problem, run) <= most_inside


def inside_at_once(problem: Problem, run: Run) -> int:
    """The most jobs that were inside at one time."""
    spans = [(min(run.schedule.start[t] for t in job.tasks), max(run.end[t] for t in job.tasks)) for job in problem.jobs]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


@given(seeds)
def test_finite_buffers(seed: int) -> None:
    rng = random.Random(seed)
    problem = buffered_shop(rng)
    luck = random_luck(rng, problem)
    report = check_run(problem, luck, simulate(problem, Random(seed), luck))
    assert report.ok, report.violations


def buffered_shop(rng: random.Random) -> Problem:
    """Blocking machines, and between operations sometimes a buffer of one or two places."""
    machines = rng.randint(2, 4)
    resources = [Resource(f"m{i}") for i in range(machines)] + [Resource(f"b{i}", rng.randint(1, 2)) for i in range(2)]
    tasks, lags, jobs = [], [], []
    for j in range(rng.randint(2, 7)):
        places = []
        for _ in range(rng.randint(1, 4)):
            places.append((f"m{rng.randrange(machines)}", rng.randint(0, 9)))
            if rng.random() < 0.5:
                places.append((f"b{rng.randrange(2)}", 0))
        names = [f"{j}.{k}" for k in range(len(places))]
        for k, (place, ticks) in enumerate(places):
            until = Event(names[k + 1], "start") if k + 1 < len(names) else None
            tasks.append(Task(names[k], (Mode(ticks, (Use(place, 1, until),)),)))
            if until:
                lags.append(precedence(names[k], names[k + 1]))
        jobs.append(Job(f"job{j}", tuple(names)))
    return Problem(tuple(tasks), tuple(resources), tuple(lags), tuple(jobs))


@given(seeds, st.sampled_from(["none", "swap"]))
def test_compiled_and_interpreted_runs_are_the_same(seed: int, blocking: str) -> None:
    rng = random.Random(seed)
    problem = random_shop(rng, blocking)
    luck = random_luck(rng, problem)
    most_inside = rng.choice([0, 1, 2, 3])
    for name in CLASSICAL:
        fast, slow = (run_rule(problem, make_rule(name, 0, most_inside), luck, compiled=compiled) for compiled in (None, False))
        assert columns(plant(problem, luck)) is not None
        assert (fast.schedule.start, fast.end, fast.rotations) == (slow.schedule.start, slow.end, slow.rotations), name


@given(seeds, st.sampled_from(["none", "swap"]))
def test_what_does_not_happen_changes_nothing(seed: int, blocking: str) -> None:
    problem = random_shop(random.Random(seed), blocking)
    never = Realization({}, {resource.id: ((10**9, 10**9 + 1),) for resource in problem.resources}, {job.id: 0 for job in problem.jobs})
    for luck in (never, draw(problem, seed, interruptions=0, noise=0)):
        assert simulate(problem, make_rule("MWKR"), luck) == simulate(problem, make_rule("MWKR"))


@given(seeds, st.sampled_from(["none", "swap", "no-swap"]))
def test_a_snapshot_goes_on_as_the_run_did(seed: int, blocking: str) -> None:
    rng = random.Random(seed)
    problem = random_shop(rng, blocking)
    luck = random_luck(rng, problem)
    whole = simulate(problem, make_rule("SPT"), luck)
    shop = Simulator(problem, luck)
    assert shop.run(make_rule("SPT"), until=-1) is None
    shop.run(make_rule("SPT"), until=whole.makespan // 2)
    kept = shop.snapshot()
    first = shop.run(make_rule("LPT"))
    shop.restore(kept)
    assert shop.run(make_rule("SPT")) == whole
    shop.restore(kept)
    assert shop.run(make_rule("LPT")) == first


@pytest.mark.parametrize("seed", range(20))
def test_open_shops_projects_and_task_graphs(seed: int) -> None:
    rng = random.Random(seed)
    n = 8
    edges = [(i, j, rng.randint(0, 6)) for j in range(n) for i in range(j) if rng.random() < 0.3]
    problems = [
        open_shop([[rng.randint(0, 9) for _ in range(3)] for _ in range(4)]),
        project([[(rng.randint(1, 9), (rng.randint(0, 2), rng.randint(0, 3)))] for _ in range(n)], (3, 4), (),
                [(i, j) for i, j, _ in edges]),
        task_graph([[rng.randint(1, 9) for _ in range(3)] for _ in range(n)], edges),
    ]  # fmt: skip
    for problem in problems:
        for rule in (Random(seed), make_rule("MWKR")):
            luck = random_luck(rng, problem) if not problem.lags else Realization()
            report = check_run(problem, luck, simulate(problem, rule, luck))
            assert report.ok, report.violations


def test_three_jobs_in_a_ring() -> None:
    """Each wants the machine of the next when all are done at 2; only turning together gets them on, and it takes no time."""
    jobs = [[(k, 2), ((k + 1) % 3, 3)] for k in range(3)]
    run = simulate(job_shop(jobs, 3, blocking="swap"), make_rule("FIFO"))
    assert (run.makespan, run.rotations) == (5, 1)
    assert run.schedule.start == {f"j{j}.{k}": 2 * k for j in range(3) for k in range(2)}
    # without swaps one has to stay outside
    assert simulate(job_shop(jobs, 3, blocking="no-swap"), make_rule("FIFO")).makespan > 5


def test_breakdowns_suspend_work_and_keep_the_machine() -> None:
    problem = job_shop([[(0, 4)], [(0, 2)]], 1)
    luck = Realization(down={"m0": ((1, 3), (5, 6))})
    run = simulate(problem, make_rule("FIFO"), luck)
    assert run.end == {"j0.0": 7, "j1.0": 9}
    luck = Realization(down={"m0": ((0, 3),)}, arrival={"j0": 5})
    assert simulate(problem, make_rule("FIFO"), luck).schedule.start == {"j0.0": 5, "j1.0": 3}


@pytest.mark.parametrize("compiled", [None, False])
def test_interrupted_work_begins_anew(compiled: bool | None) -> None:
    """Two pieces of 4 ticks: the first is lost at 3 and at 8, the second fits exactly before the next breakdown."""
    problem = job_shop([[(0, 4)], [(0, 4)]], 1)
    luck = Realization(down={"m0": ((3, 5), (8, 9), (17, 30))}, restarts=True)
    run = run_rule(problem, make_rule("FIFO"), luck, compiled=compiled)
    assert run.end == {"j0.0": 13, "j1.0": 17}
    assert check_run(problem, luck, run).ok
    again = replace(luck, restarts=False)
    assert not check_run(problem, again, run).ok
    assert run_rule(problem, make_rule("FIFO"), again, compiled=compiled).end == {"j0.0": 6, "j1.0": 11}


@pytest.mark.parametrize("compiled", [None, False])
def test_a_limit_on_jobs_inside(compiled: bool | None) -> None:
    jobs = [[(0, 2), (1, 3)], [(2, 1), (1, 1)], [(2, 5)]]
    problem = job_shop(jobs, 3, blocking="swap")
    free, one = (run_rule(problem, make_rule("FIFO", 0, most), compiled=compiled).schedule.start for most in (0, 1))
    assert free == {"j0.0": 0, "j0.1": 2, "j1.0": 0, "j1.1": 1, "j2.0": 1}
    assert one == {"j0.0": 0, "j0.1": 2, "j1.0": 5, "j1.1": 6, "j2.0": 7}


def test_a_machine_that_is_down_keeps_the_job_that_is_done() -> None:
    problem = job_shop([[(0, 2), (1, 1)]], 2, blocking="swap")
    assert simulate(problem, make_rule("FIFO"), Realization(down={"m0": ((2, 9),)})).schedule.start["j0.1"] == 9


class Spy:
    """Remembers what it saw."""

    name = "spy"

    def __init__(self, decide: Callable[[View], Start | Order | WaitUntilNextEvent]) -> None:
        self.decide = decide
        self.seen: list[tuple[int, int | None, set[str], bool]] = []

    def choose(self, view: View) -> Start | Order | WaitUntilNextEvent:
        self.seen.append((view.now, view.next_event, set(view.jobs), view.resources["m0"].up))
        assert {job.id for job in view.known.jobs} == set(view.jobs)
        assert {name for name, one in view.committed.items() if not one.done and one.end < view.now} == set()
        return self.decide(view)


def test_rules_see_neither_noise_nor_what_is_to_come() -> None:
    problem = job_shop([[(0, 4)], [(1, 4)], [(0, 1)]], 2)
    luck = Realization({("j0.0", 0): 9}, {"m0": ((2, 3), (6, 7))}, {"j1": 3, "j2": 5})
    spy = Spy(lambda view: Start(view.startable[0].task))
    run = simulate(problem, spy, luck)
    assert run.end == {"j0.0": 11, "j1.0": 7, "j2.0": 12}
    # at 3 the work of 4 is expected to end at 4
    assert spy.seen == [(0, None, {"j0"}, True), (3, 4, {"j0", "j1"}, True), (11, None, {"j0", "j1", "j2"}, True)]


def test_an_order_is_for_the_instant_and_passes_over_what_has_become_impossible() -> None:
    problem = job_shop([[(0, 2)], [(0, 3)], [(1, 1)]], 2)
    spy = Spy(lambda view: Order((Start("j1.0"), Start("j0.0"), Start("j2.0"))))
    assert simulate(problem, spy).schedule.start == {"j1.0": 0, "j0.0": 3, "j2.0": 0}
    assert [seen[0] for seen in spy.seen] == [0, 3]


def test_waiting_until_a_time() -> None:
    spy = Spy(lambda view: Start("j0.0") if view.now >= 7 else WaitUntilNextEvent(7))
    assert simulate(job_shop([[(0, 2)]], 1), spy).schedule.start == {"j0.0": 7}


def test_mistakes_of_rules_are_named() -> None:
    problem = job_shop([[(0, 2), (0, 1)]], 1)
    with pytest.raises(UnsupportedPolicy, match="spy starts j0.1 in mode 0 at 0, which cannot start"):
        simulate(problem, Spy(lambda view: Start("j0.1")))
    with pytest.raises(UnsupportedPolicy, match="spy leaves 2 tasks of shop waiting at 0 and nothing will happen"):
        simulate(problem, Spy(lambda view: WaitUntilNextEvent()))


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(UnsupportedPolicy, match="cannot handle max_lags of shop"):
        simulate(job_shop([[(0, 2), (0, 1)]], 1, blocking="no-wait"), make_rule("FIFO"))
    tasks = (Task("a", (Mode(1),)), Task("b", (Mode(1),)))
    with pytest.raises(UnsupportedPolicy, match="from an end to a start"):
        simulate(Problem(tasks, lags=(Lag(Event("a", "start"), Event("b", "start"), 2),)), make_rule("FIFO"))
    with pytest.raises(InputError, match="ascending"):
        Realization(down={"m0": ((3, 5), (4, 6))})
    with pytest.raises(InputError, match="unknown dispatch rule"):
        make_rule("best")


def test_luck_is_the_same_for_all_and_its_parts_do_not_mix() -> None:
    problem = job_shop(FT06, 6)
    both = draw(problem, 3, noise=0.2, breakdowns=(50, 10), arrivals=4)
    assert both == draw(problem, 3, noise=0.2, breakdowns=(50, 10), arrivals=4)
    assert both.arrival == draw(problem, 3, arrivals=4).arrival
    assert both.work == draw(problem, 3, noise=0.2).work != draw(problem, 4, noise=0.2).work
    for task in problem.tasks:
        assert abs(both.work[task.id, 0] - task.modes[0].duration) <= 0.2 * task.modes[0].duration + 0.5
    with pytest.raises(InputError, match="noise"):
        draw(problem, 0, noise=1)
    with pytest.raises(InputError, match="breakdowns"):
        draw(problem, 0, breakdowns=(0, 5))


@given(seeds, st.sampled_from(CLASSICAL))
def test_one_order_for_the_instant_is_as_good_as_one_start_after_the_other(seed: int, name: str) -> None:
    """Without blocking what can start at an instant is there when the rule is first asked, but for operations that take no time."""
    rng = random.Random(seed)
    jobs = [[(rng.randrange(3), rng.randint(1, 9)) for _ in range(rng.randint(1, 5))] for _ in range(6)]
    problem = job_shop(jobs, 3)
    rule = make_rule(name)

    class AtOnce:
        name = "at once"

        def choose(self, view: View) -> Order:
            left, order = list(view.startable), []
            while left:
                order.append(rule.choose(Only(view, left)))  # type: ignore[arg-type]
                left = [one for one in left if one.task != order[-1].task]
            return Order(tuple(order))

    assert simulate(problem, AtOnce()).schedule == simulate(problem, rule).schedule


class Only:
    """A view with some of what can start."""

    def __init__(self, view: View, startable: list[Startable]) -> None:
        self.jobs = view.jobs
        self.startable = startable
