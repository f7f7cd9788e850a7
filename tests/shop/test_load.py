"""Every format is recognised by its content and read as it was written; bad files get one line that says where."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rota.contracts.shop import Event, Lag, Objective, Problem
from rota.errors import InputError
from rota.workload.shop.build import due_jobs, flexible_job_shop, job_shop, open_shop, project, single_machine
from rota.workload.shop.form import objective_from, objective_to, problem_from, problem_to
from rota.workload.shop.load import load_problem
from rota.workload.shop.sets import instance_names, read_bounds
from rota.workload.shop.write import write_problem
from tests.shop import texts
from tests.shop.random_problems import random_problem

RNG = random.Random(7)
JOBS = texts.random_jobs(RNG, 4, 3)
FLEXIBLE = [
    [[(m, RNG.randint(1, 9)) for m in RNG.sample(range(3), RNG.randint(1, 3))] for _ in range(RNG.randint(1, 4))]
    for _ in range(4)
]
DURATIONS = [[RNG.randint(0, 50) for _ in range(3)] for _ in range(5)]


def saved(tmp_path: Path, text: str, name: str = "instance.txt") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def same(found: Problem, expected: Problem) -> None:
    assert (found.tasks, found.resources, set(found.lags), found.jobs) == (
        expected.tasks,
        expected.resources,
        set(expected.lags),
        expected.jobs,
    )
    assert (found.objective, found.exclusive, found.swap) == (expected.objective, expected.exclusive, expected.swap)


@pytest.mark.parametrize("write", [texts.classic, texts.taillard, texts.taillard_without_headings])
def test_job_shops_in_three_forms(tmp_path: Path, write) -> None:
    path = saved(tmp_path, write(JOBS, 3))
    same(load_problem(path), job_shop(JOBS, 3))
    same(load_problem(path, blocking="no-swap"), job_shop(JOBS, 3, blocking="no-swap"))


def test_comments_and_titles_before_the_numbers_are_passed_over(tmp_path: Path) -> None:
    text = "#+++++\n# instance ft06\n#\n instance x\n +++++++\n Some words about it\n" + texts.classic(JOBS, 3)
    same(load_problem(saved(tmp_path, text)), job_shop(JOBS, 3))


def test_blocking_variants() -> None:
    plain, swap, fixed, at_once = (job_shop(JOBS, 3, blocking=b) for b in ("none", "swap", "no-swap", "no-wait"))
    assert {use.until for task in plain.tasks for use in task.modes[0].uses} == {None}
    assert swap.tasks[0].modes[0].uses[0].until == Event("j0.1", "start")
    assert swap.tasks[2].modes[0].uses[0].until is None
    assert (swap.swap, fixed.swap, swap.tasks == fixed.tasks) == (True, False, True)
    assert at_once.lags[0] == Lag(Event("j0.0", "end"), Event("j0.1", "start"), 0, 0)


def test_flexible_shops_and_another_reader(tmp_path: Path) -> None:
    import fjsplib

    path = saved(tmp_path, texts.fjs(FLEXIBLE, 3), "x.dat")
    same(load_problem(path), flexible_job_shop(FLEXIBLE, 3))
    theirs = fjsplib.read(path)
    assert [[[tuple(way) for way in operation] for operation in job] for job in theirs.jobs] == FLEXIBLE


def test_open_shops_in_two_forms(tmp_path: Path) -> None:
    expected = open_shop(DURATIONS)
    same(load_problem(saved(tmp_path, texts.open_shop(DURATIONS))), expected)
    shuffled = [[(m, row[m]) for m in RNG.sample(range(3), 3)] for row in DURATIONS]
    same(load_problem(saved(tmp_path, texts.taillard(shuffled, 3)), format="openshop"), expected)


@pytest.mark.parametrize("kinds", ["RR", "RRNN", "NR"])
def test_projects_and_another_reader(tmp_path: Path, kinds: str) -> None:
    import psplib

    n = 6
    modes = [
        [(RNG.randint(0, 9), [RNG.randint(0, 4) for _ in kinds]) for _ in range(2 if "N" in kinds and 0 < i < n - 1 else 1)]
        for i in range(n)
    ]
    capacity = [RNG.randint(4, 30) for _ in kinds]
    successors = [sorted(RNG.sample(range(i + 1, n), min(2, n - 1 - i))) for i in range(n)]
    path = saved(tmp_path, texts.psplib(successors, modes, capacity, kinds), "x.mm")
    found = load_problem(path)
    order = [i for kind in "RN" for i, k in enumerate(kinds) if k == kind]
    expected = project(
        [[(ticks, [demand[i] for i in order]) for ticks, demand in ways] for ways in modes], [capacity[i] for i in order if kinds[i] == "R"],
        [capacity[i] for i in order if kinds[i] == "N"], [(i, j) for i, follows in enumerate(successors) for j in follows],
    )  # fmt: skip
    same(found, expected)
    theirs = psplib.parse(path, instance_format="psplib")
    assert [[mode.duration for mode in activity.modes] for activity in theirs.activities] == [
        [mode.duration for mode in task.modes] for task in found.tasks
    ]
    assert sorted((i, j) for i, a in enumerate(theirs.activities) for j in a.successors) == sorted(
        (int(lag.a.task) - 1, int(lag.b.task) - 1) for lag in found.lags
    )


def test_projects_with_lags_and_another_reader(tmp_path: Path) -> None:
    import psplib

    durations, demand, capacity = [0, 3, 4, 0], [[0, 0], [1, 2], [3, 0], [0, 0]], [3, 2]
    lags = [(0, 1, 0), (1, 2, 2), (2, 1, -9), (2, 3, 4)]
    path = saved(tmp_path, texts.progen_max(durations, demand, capacity, lags), "x.sch")
    found = load_problem(path)
    same(found, project([[(d, demand[i])] for i, d in enumerate(durations)], capacity, [], (), lags, first=0))
    theirs = psplib.parse(path, instance_format="rcpsp_max")
    assert [(i, j, t) for i, a in enumerate(theirs.activities) for j, t in zip(a.successors, a.delays, strict=True)] == lags


def test_weighted_tardiness_files_hold_125_instances(tmp_path: Path) -> None:
    instances = [tuple([RNG.randint(1, 99) for _ in range(40)] for _ in range(3)) for _ in range(125)]
    path = saved(tmp_path, texts.weighted_tardiness(instances), "wt40.txt")
    p, w, d = instances[6]
    same(load_problem(f"{path}#7"), single_machine(due_jobs(d, w), p))
    with pytest.raises(InputError, match=r"holds 125 instances of 40 jobs; name one, as in .*wt40.txt#1"):
        load_problem(path)


def test_tables_of_jobs(tmp_path: Path) -> None:
    text = "Job,Processing Time,due,w,release,deadline\nx,5,9,2,,\ny,3,,,4,20\n\n"
    found = load_problem(saved(tmp_path, text, "jobs.csv"))
    assert [(job.id, job.due_date, job.weight, job.release_date, job.deadline) for job in found.jobs] == [
        ("x", 9, 2, 0, None),
        ("y", None, 1, 4, 20),
    ]
    assert [task.modes[0].duration for task in found.tasks] == [5, 3]
    assert found.objective == Objective.of("total_tardiness")
    assert load_problem(saved(tmp_path, "p\n5\n3\n")).objective == Objective.of("total_completion")


def test_problems_survive_their_json_form(tmp_path: Path) -> None:
    rng = random.Random(1)
    for k in range(200):
        problem = random_problem(rng, name=f"p{k}")
        assert problem_from(json.loads(json.dumps(problem_to(problem))), "x") == problem
    write_problem(problem, tmp_path / "p.json")
    assert load_problem(tmp_path / "p.json") == problem


def test_short_forms_of_json() -> None:
    data = {
        "tasks": [{"id": "a", "duration": 2, "uses": ["m"]}, {"id": "b", "duration": 1}],
        "resources": ["m"],
        "precedence": [["a", "b"]],
    }
    found = problem_from(data)
    assert found.lags == (Lag(Event("a", "end"), Event("b", "start")),)
    assert found.objective == Objective.of("makespan")


def test_the_example_of_the_documentation_is_a_problem(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "shop.md").read_text()
    example = text[text.index('    {"name": "cell"') : text.index("A schedule has")]
    problem = load_problem(saved(tmp_path, example))
    assert problem.features >= {"until", "calendar", "breaks", "modes", "consumable", "max_lags", "setups", "lexicographic"}


def test_objectives_as_text() -> None:
    found = objective_from("total-tardiness, 3*makespan+consumable:N1")
    assert found.stages == ({"total_tardiness": 1}, {"makespan": 3, "consumable:N1": 1})
    assert objective_from(objective_to(found.stages)) == found
    with pytest.raises(InputError, match="write terms as makespan"):
        objective_from("x*makespan")


def test_sets_of_instances(shared: Path) -> None:
    folder = shared / "data" / "shop"
    same(load_problem(folder / "jobshop" / "classic.jsonl#la01"), load_problem(folder / "fixtures" / "la01.txt"))
    assert len(instance_names(folder / "jobshop" / "classic.jsonl")) == 242
    assert read_bounds(folder / "jobshop" / "bounds_makespan.csv")["ft10"] == (930, 930, "optimal")
    with pytest.raises(InputError, match=r"has no instance zz; name one of its 242, as in classic.jsonl#ft06"):
        load_problem(folder / "jobshop" / "classic.jsonl#zz")


def test_contradictory_lags_of_published_instances_are_published_as_infeasible(shared: Path) -> None:
    from rota.errors import InfeasibleProblem

    refused = 0
    for name in ("j10", "j20", "ubo10"):
        path = shared / "data" / "shop" / "rcpsp_max" / f"{name}.jsonl"
        bounds = read_bounds(path.with_name(f"{name}_bounds.csv"))
        for instance in instance_names(path):
            try:
                load_problem(f"{path}#{instance}")
            except InfeasibleProblem:
                assert bounds[instance].status == "infeasible"
                refused += 1
    assert refused > 10


CLASSIC = texts.classic(JOBS, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("hello world\nthis is it\n", r":1: this is none of the formats that are known \(jobshop, "),
        ("1.5 2\n", r":1: 1.5 is not a whole number; scale"),
        ("3 two\n", r":1: 'two' is not a number"),
        ("0 3\n", r":1: 0 jobs and 3 machines"),
        (CLASSIC.rsplit("\n", 2)[0] + "\n", r":4: expected 4 rows of operations, one per job, but the file ends after 3"),
        (CLASSIC.rsplit(" ", 2)[0], r":5: the last job has 4 of 6 numbers; is the file cut off\?|one is missing"),
        (CLASSIC + CLASSIC.splitlines()[1] + "\n", r":6: there are more rows than the 4 jobs"),
        ("2 2\n0 3 1 4\n0 3 2 4\n", r":3: machine 2 does not exist; there are 0 to 1"),
        ("2 2\n0 3 1 4\n1 3 0 -4\n", r":3: duration -4 is negative"),
        ("2 2\n0 3 1 x\n1 3 0 4\n", r":2: 'x' is not a number"),
        (texts.taillard(JOBS, 3).rsplit("\n", 2)[0] + "\n", r"the file ends in row 4 of 4 of the machines, after 0 of 3 numbers; is it cut off\?"),
        (texts.taillard(JOBS, 3).partition("\nMachines")[0], r":7: a Taillard file has three headings .* found 2; is it cut off\?"),
        (texts.taillard(JOBS, 3) * 2, r":13: a second instance begins here"),
        (texts.psplib([[1], []], [[(1, [1])], [(2, [1])]], [2], "R").partition("RESOURCEAV")[0], "there is no section AVAILABILITIES"),
        (texts.psplib([[4], []], [[(1, [1])], [(2, [1])]], [2], "R"), r":14: activity 5 does not exist; there are 1 to 2"),
        (texts.psplib([[], []], [[(1, [1, 1])], [(2, [1])]], [2], "R"), r":20: 5 numbers; expected mode, duration and 1 demands"),
        (texts.progen_max([0, 3, 0], [[0], [1], [0]], [2], [(0, 1, 0)]).rsplit("\n", 3)[0], r"expected 8 lines for 1 activities .*, found 6"),
        ("job,duration\na,5\nb,\n", r":3: the duration is missing"),
        ("job,duration\na,5\nb,-1\n", r":3: duration -1 is negative"),
        ("job,duration\na,5\na,1\n", r":3: job a is defined in line 2 too"),
        ("job,duration\n", r":1: there is no job below the header; is the file cut off\?"),
        ("job,duration,weight\na,5,1\nb,1,-2\n", r":3: weight -2 is negative"),
        ("2 2\n0 3 1 4\n0 1000000000001 1 4\n", r":3: 1000000000001 is too large"),
        (texts.open_shop([[3, 4], [3, -4]]), r":3: duration -4 is negative"),
        (texts.psplib([[1], []], [[(1, [1])], [(-2, [1])]], [2], "R"), r":21: duration -2 is negative"),
        (texts.psplib([[1], []], [[(1, [1])], [(2, [-1])]], [2], "R"), r":21: demand -1 is negative"),
        (texts.psplib([[1], []], [[(1, [1])], [(2, [1])]], [-2], "R"), r":25: capacity -2 is negative"),
        (texts.psplib([[1], []], [[(1, [1])], [(2, [1])]], [2], "R").replace("  2   1   0 ", "  2   2   0 "), r":15: activity 2 has no row"),
        (texts.progen_max([0, -3, 0], [[0], [1], [0]], [2], [(0, 1, 0)]), r":6: duration -3 is negative"),
        ('{"tasks": [', r":1: is not JSON"),
        ('{"tasks": [{"id": "a", "duration": 1, "colour": 2}]}', r"tasks\[0\]: a task has no 'colour'; it may have id, modes"),
        ('{"tasks": [{"id": "a", "uses": []}]}', r"tasks\[0\]: duration is missing"),
        ('{"tasks": [{"id": "a", "duration": "x"}]}', r"the duration of task a is 'x'; times and amounts are whole numbers"),
    ],
)  # fmt: skip
def test_bad_files_say_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_problem(saved(tmp_path, text))
    assert "instance.txt" in str(caught.value) or "instance" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sets_and_bounds_say_which_line(tmp_path: Path) -> None:
    good = '{"name": "a", "p": [1], "d": [1]}\n'
    for second, message in (
        ('{"name": "b", "p": [1', r":2: is not JSON .* is the file cut off\?"),
        ('{"name": "b", "p": [-1], "d": [1]}', r":2: b: the duration of task 0 is -1"),
        ('{"name": "b", "p": [1, 2], "d": [1]}', r":2: is not an instance of a known kind"),
    ):
        with pytest.raises(InputError, match=message):
            load_problem(f"{saved(tmp_path, good + second)}#b")
    with pytest.raises(InputError, match=r"instance\.txt:2: is not JSON"):
        instance_names(saved(tmp_path, good + "{"))
    for table, message in (
        ("name,lb,ub\na,1,2\n", ":1: a table of bounds needs the columns name and status; status is missing"),
        ("name,lb,ub,status\na,1,2,open\nb,1", ":3: the row ends before its status; is the file cut off"),
        ("name,lb,ub,status\na,1,two,open\n", ":2: 'two' is not a number"),
    ):
        with pytest.raises(InputError, match=message):
            read_bounds(saved(tmp_path, table))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_problem(tmp_path / "nothing.txt")
    with pytest.raises(InputError, match="is a folder"):
        load_problem(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not a text file"):
        load_problem(tmp_path / "binary")
    with pytest.raises(InputError, match="blocking is for job shops"):
        load_problem(saved(tmp_path, "p\n1\n"), blocking="swap")
