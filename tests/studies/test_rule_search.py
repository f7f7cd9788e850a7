"""The search for dispatch rules: batched evaluation against one instance at a time, edits that stay expressions, and a search that pays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.policies.dispatch.edd import edd
from rota.policies.dispatch.sequencing import sequence, total_tardiness
from rota.studies.rule_search import (
    MDD,
    NAMES,
    OPERATORS,
    Instances,
    edited,
    evaluate,
    parts,
    replaced,
    search,
    size,
    tardiness,
    text,
)

expressions = st.recursive(
    st.sampled_from(NAMES) | st.floats(-3, 3), lambda inner: st.tuples(st.sampled_from(list(OPERATORS)), inner, inner), max_leaves=8
)


def test_all_instances_at_once_as_one_by_one():
    drawn = Instances.drawn(40, 12, seed=3)
    by_due = [total_tardiness(sequence(edd, p, d), p, d) for p, d in zip(drawn.p, drawn.d, strict=True)]
    assert tardiness("d", drawn).tolist() == by_due

    def first_of_mdd(now, p, d):
        return int(np.argmin(np.maximum(now + p, d)))

    one_by_one = [total_tardiness(sequence(first_of_mdd, p, d), p, d) for p, d in zip(drawn.p, drawn.d, strict=True)]
    assert tardiness(MDD, drawn).tolist() == one_by_one


def test_drawn_instances_follow_the_generator():
    drawn = Instances.drawn(500, 20, seed=1, factors=(0.4,))
    assert drawn.p.min() >= 1 and drawn.p.max() <= 100
    total = drawn.p.sum(1, keepdims=True)
    assert (drawn.d >= np.floor(total * 0.1)).all() and (drawn.d <= total * 1.1).all()  # 1 - 0.4 -+ at most 0.5
    assert abs((drawn.d / total).mean() - 0.6) < 0.02
    assert (np.diff(drawn.d, axis=1) >= 0).all()


@given(expressions, expressions, st.integers(0, 10**6))
def test_an_edit_is_an_expression_again(rule, other, seed):
    new = edited(rule, other, np.random.default_rng(seed))
    drawn = Instances.drawn(3, 4, seed=0)
    with np.errstate(all="ignore"):
        late = tardiness(new, drawn)
    assert late.shape == (3,) and (late >= 0).all()
    assert size(new) == len(parts(new))


@given(expressions)
def test_parts_are_where_they_say(rule):
    for way, part in parts(rule):
        assert replaced(rule, way, part) == rule
        assert (way == ()) == (size(part) == size(rule))


@given(expressions)
def test_text_is_the_expression(rule):
    known = {name: np.array([float(i + 1)]) for i, name in enumerate(NAMES)}
    source = text(rule)
    with np.errstate(all="ignore"):
        value = evaluate(rule, known)
        if "/" not in source:
            scope = known | {"max": np.maximum, "min": np.minimum}
            assert np.allclose(eval(source, {}, scope), value, rtol=1e-2, atol=1e-2)


def test_a_short_search_improves_mdd_and_repeats():
    train = Instances.drawn(300, 15, seed=0)
    found = search(MDD, train, wall_s=60, seed=1, most=150)
    assert found.score < tardiness(MDD, train).mean()
    assert found.score == pytest.approx(tardiness(found.rule, train).mean())
    assert [score for _, score, _ in found.history] == sorted((score for _, score, _ in found.history), reverse=True)
    again = search(MDD, train, wall_s=60, seed=1, most=150)
    assert (again.rule, again.score, again.tried) == (found.rule, found.score, 150)
