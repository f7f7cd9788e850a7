"""Prefix discovery against sorting in Python, and the one-level collapse against trying all."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.policies.offline.prefix_tree import enlarged, ideal, one_level, prefix_tree, saved

PROMPTS = st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=1, max_size=12)


def tree_of(prompts):
    start = np.concatenate([[0], np.cumsum([len(p) for p in prompts])]).astype(np.int64)
    return prefix_tree(np.array(list(chain.from_iterable(prompts)), np.int64), start)


def common(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@settings(max_examples=300, deadline=None)
@given(PROMPTS)
def test_tree_holds_what_the_prompts_share(prompts):
    tree = tree_of(prompts)
    assert [prompts[i] for i in tree.order] == sorted(prompts)
    for i, p in enumerate(prompts):
        others = [common(p, q) for j, q in enumerate(prompts) if j != i]
        assert tree.depth[tree.node[i]] == max(others, default=0)
    below = {v: {tuple(prompts[i][: tree.depth[v]]) for i in rows_below(tree, v)} for v in range(len(tree.parent))}
    assert all(len(prefixes) == 1 for v, prefixes in below.items() if v), "rows below a node share its prefix"
    assert all(tree.depth[tree.parent[v]] < tree.depth[v] for v in range(1, len(tree.parent)))
    distinct = {tuple(p[: k + 1]) for p in prompts for k in range(len(p))}
    assert ideal(tree) == sum(map(len, prompts)) - len(distinct)


def rows_below(tree, v):
    found = []
    for row, node in enumerate(tree.node):
        while node != v and node >= 0:
            node = tree.parent[node]
        if node == v:
            found.append(row)
    return found


def brute_force(tree):
    """Open every subset of nodes; each row goes to its deepest open ancestor."""
    inner = range(1, len(tree.parent))
    best = 0
    for opened in chain.from_iterable(combinations(inner, k) for k in range(len(inner) + 1)):
        group = []
        for node in tree.node:
            while node > 0 and node not in opened:
                node = tree.parent[node]
            group.append(max(node, 0))
        best = max(best, saved(tree, np.array(group)))
    return best


@settings(max_examples=300, deadline=None)
@given(PROMPTS)
def test_one_level_is_the_optimum(prompts):
    tree = tree_of(prompts)
    most = brute_force(tree)
    assert saved(tree, one_level(tree)) == most
    assert 0 <= saved(tree, enlarged(tree)) <= most <= ideal(tree)


def test_groups_are_prefixes_of_their_rows():
    prompts = [[0, 0, 1, 2], [0, 0, 1, 3], [0, 5], [0, 6], [7]]
    tree = tree_of(prompts)
    # one group of the first two saves 3, one of the first four 3 too, but both together save 3 + 1
    group = one_level(tree)
    assert tree.depth[group].tolist() == [3, 3, 1, 1, 0]
    assert saved(tree, group) == 4
    assert ideal(tree) == 5
    assert np.array_equal(enlarged(tree), group)


def test_the_local_rule_can_lose():
    # neither pair gains by leaving "1" (it saves 1 symbol and computes "1" again), but if both leave, "1" alone is not computed at all
    prompts = [[1, 1], [1, 0, 0], [1, 0], [], [1, 1]]
    tree = tree_of(prompts)
    assert saved(tree, one_level(tree)) == brute_force(tree) == 4
    assert saved(tree, enlarged(tree)) == 3


@pytest.mark.parametrize("prompts", [[[]], [[1]], [[1], [1]], [[], [], [1, 2]]])
def test_edges(prompts):
    tree = tree_of(prompts)
    assert saved(tree, one_level(tree)) == brute_force(tree) == ideal(tree)
