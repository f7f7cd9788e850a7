"""The exact method for total tardiness against all permutations, and against published optima."""

import json
import time
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.policies.dispatch.sequencing import total_tardiness
from rota.policies.solvers import tardiness
from rota.policies.solvers.tardiness import minimise_tardiness

jobs = st.lists(st.tuples(st.integers(0, 12), st.integers(-5, 45)), max_size=7)


def columns(pairs):
    return np.array([p for p, _ in pairs], np.int64), np.array([d for _, d in pairs], np.int64)


def hard(n, seed=0):
    """Durations and due dates of the hardest class: spread 0.2, tardiness factor 0.6."""
    rng = np.random.default_rng(seed)
    p = rng.integers(1, 101, n)
    return p, rng.integers(int(p.sum() * 0.3), int(p.sum() * 0.5) + 1, n)


@given(jobs, st.integers(0, 20))
def test_no_permutation_is_better(pairs, start):
    p, d = columns(pairs)
    found = minimise_tardiness(p, d, start)
    assert sorted(found.order.tolist()) == list(range(len(p)))
    assert found.value == found.bound == total_tardiness(found.order, p, d, start)
    assert found.value == min(total_tardiness(np.array(o, np.int64), p, d, start) for o in permutations(range(len(p))))


@given(jobs)
def test_a_tiny_memory_changes_nothing(pairs):
    p, d = columns(pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tardiness, "_MEMORY_BITS", 1)
        value = minimise_tardiness(p, d).value
    assert value == minimise_tardiness(p, d).value


@pytest.mark.parametrize(("name", "step"), [("n20_uniform", 16), ("n20_normal", 16), ("n100", 8), ("n200", 10)])
def test_published_optima(shared, name, step):
    with (shared / "data" / "shop" / "tardiness" / f"{name}.jsonl").open() as lines:
        for line in list(lines)[::step]:
            case = json.loads(line)
            if min(case["p"]) >= 0:
                assert minimise_tardiness(case["p"], case["d"]).value == case["opt"], case["name"]


def test_a_hundred_jobs_take_less_than_a_second():
    minimise_tardiness(*hard(10))  # compiles
    began = time.process_time()
    found = minimise_tardiness(*hard(100))
    assert time.process_time() - began < 1
    assert found.value == found.bound > 0


def test_out_of_time_there_is_an_order_and_a_bound():
    p, d = hard(200)
    best = minimise_tardiness(p, d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tardiness, "_SLICE", 1)
        found = minimise_tardiness(p, d, wall_s=0)
    assert found.bound <= best.value <= found.value == total_tardiness(found.order, p, d)
    assert found.bound < found.value


def test_what_cannot_be_solved_is_said():
    with pytest.raises(InputError, match="job 1 has the duration -2"):
        minimise_tardiness(np.array([1, -2]), np.array([3, 3]))
    with pytest.raises(InputError, match="2 durations and 1 due dates"):
        minimise_tardiness(np.array([1, 2]), np.array([3]))
