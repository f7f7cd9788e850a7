"""Rules for one machine: the paper's example, equivalences, and the moves of the augmented rules against a direct search."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.policies.dispatch.augmented import augmented
from rota.policies.dispatch.edd import edd
from rota.policies.dispatch.eddc import eddc
from rota.policies.dispatch.mdd import mdd
from rota.policies.dispatch.mddc import mddc
from rota.policies.dispatch.psk import psk
from rota.policies.dispatch.sequencing import sequence, total_tardiness

# the example of the paper on MDDC
P = np.array([10, 11, 10, 10, 11, 10])
D = np.array([15, 11, 13, 11, 12, 11])
jobs = st.lists(st.tuples(st.integers(1, 20), st.integers(-10, 60)), min_size=1, max_size=9)


def columns(pairs):
    return np.array([p for p, _ in pairs]), np.array([d for _, d in pairs])


def test_the_papers_example():
    assert sequence(mdd, P, D).tolist() == [1, 0, 2, 3, 5, 4]
    assert sequence(mddc, P, D).tolist() == [3, 5, 2, 0, 1, 4]
    assert total_tardiness(sequence(mdd, P, D), P, D) == 144
    assert total_tardiness(sequence(mddc, P, D), P, D) == 141
    assert min(total_tardiness(np.array(o), P, D) for o in permutations(range(6))) == 141


@given(jobs)
def test_psk_is_mdd_that_prefers_the_shorter_of_equals(pairs):
    p, d = columns(pairs)
    shortest_first = np.lexsort((d, p))
    other = shortest_first[sequence(mdd, p[shortest_first], d[shortest_first])]
    assert total_tardiness(sequence(psk, p, d), p, d) == total_tardiness(other, p, d)


@given(jobs)
def test_edd_minimises_the_largest_lateness(pairs):
    p, d = columns(pairs[:6])

    def worst(order):
        return (np.cumsum(p[order]) - d[order]).max()

    assert worst(sequence(edd, p, d)) == min(worst(np.array(o)) for o in permutations(range(len(p))))


@given(jobs)
def test_eddc_in_its_own_words(pairs):
    p, d = columns(pairs)
    order = sorted(range(len(p)), key=lambda j: (p[j], d[j]))
    for i in range(1, len(p)):
        for j in range(i, 0, -1):
            if d[order[j]] >= d[order[j - 1]]:
                break
            if d[order[j - 1]] > sum(p[order[:j]]):
                order[j - 1], order[j] = order[j], order[j - 1]
    assert eddc(p, d).tolist() == order


@pytest.mark.parametrize("rule", [edd, mdd, mddc, psk])
@given(pairs=jobs, start=st.integers(0, 30))
def test_augmented_rules_make_the_best_move_after_every_job(rule, pairs, start):
    p, d = columns(pairs)
    plain = sequence(rule, p, d, start)
    order = []
    for job in plain:
        order.append(job)
        moved = [order[:i] + order[i + 1 :] + [order[i]] for i in range(len(order))]
        order = min([order, *moved], key=lambda o: total_tardiness(np.array(o), p, d, start))
    assert augmented(rule, p, d, start).tolist() == order


@pytest.mark.parametrize("rule", [edd, mdd, mddc, psk])
@given(pairs=jobs)
def test_every_job_once(rule, pairs):
    p, d = columns(pairs)
    for order in (sequence(rule, p, d), augmented(rule, p, d), eddc(p, d)):
        assert sorted(order.tolist()) == list(range(len(p)))
