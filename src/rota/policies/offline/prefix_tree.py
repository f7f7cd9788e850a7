"""Which prefixes a job's prompts share: the compact radix tree of all prompts, and its best collapse to one shared prefix per prompt.

Pure functions on arrays. Prompts are rows of symbols laid end to end; a symbol is a token id, or the identity of a run of tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class PrefixTree(NamedTuple):
    """The compact radix tree: its inner nodes are the prefixes that two or more rows share and then part, or end. Node 0 is the root.

    Attributes
    ----------
    order : int64 (n,)
        Rows, sorted so that those below any node are consecutive.
    node : int64 (n,)
        The deepest node that each row hangs below, by row.
    parent : int64 (m,)
        -1 for the root.
    depth : int64 (m,)
        Symbols from the beginning to the end of the node's prefix; 0 for the root.
    """

    order: Ints
    node: Ints
    parent: Ints
    depth: Ints


def prefix_tree(symbols: Ints, start: Ints) -> PrefixTree:
    """The tree of the rows ``symbols[start[i]:start[i + 1]]``.

    Parameters
    ----------
    symbols : int64 (t,)
    start : int64 (n + 1,)

    Notes
    -----
    Merge sort that carries the length of common prefixes and so compares no pair of symbols again that it knows to be equal
    (Ng and Kakehi, IEICE Trans. E91-D, 2008): O(t + n log n). The tree then follows from the common prefixes of neighbours.
    """
    order, common = _sorted_rows(symbols, start)
    node, parent, depth = _build(common)
    by_row = np.empty_like(node)
    by_row[order] = node
    return PrefixTree(order, by_row, parent, depth)


def one_level(tree: PrefixTree) -> Ints:
    """The node, by row, whose prefix the row's group shares, so that most symbols are saved with one shared prefix per row.

    Let ``f(v, u)`` be the most that the rows below node v can save if the deepest group opened above v shares u symbols. A row saves
    u. A node is opened or not: ``f(v, u) = max(sum_c f(c, u), sum_c f(c, depth(v)) - depth(v))``, where the last term is the cost of
    computing the prefix once. The first branch grows with u, so a node opens up to some ancestor, and one number per node is kept.

    Returns
    -------
    int64 (n,)
        0, the root, for rows that share nothing. Time and memory O(nodes x depth of the tree).
    """
    return _groups(tree, _opens_below(tree.parent, tree.depth, np.bincount(tree.node, minlength=len(tree.parent))))


def enlarged(tree: PrefixTree) -> Ints:
    """The same by BatchLLM's bottom-up rule, which compares locally and so may save less than `one_level`.

    From the leaves up, a child with r rows and l symbols of its own becomes a group beside its parent, whose own p symbols are
    then computed for it once more, if that saves more: ``l (r - 1) > p``. Else its rows join the parent's group.
    Source: Zheng et al., BatchLLM, MLSys 2026, as described in the paper.
    """
    m = len(tree.parent)
    rows = np.bincount(tree.node, minlength=m)
    groups: list[list[int]] = [[] for _ in range(m)]  # groups below each node that stand for themselves
    taken, joins = np.zeros(m, np.int64), np.full(m, -1)
    for v in np.argsort(-tree.depth, kind="stable")[:-1]:
        own = int(tree.depth[v] - tree.depth[tree.parent[v]])
        kept = []
        count = int(rows[v])
        for g in groups[v]:
            if (tree.depth[g] - tree.depth[v]) * (taken[g] - 1) > own:
                kept.append(g)
            else:
                joins[g] = v
                count += int(taken[g])
        taken[v] = count
        groups[tree.parent[v]] += [*kept, int(v)]
    group = np.arange(m)
    for v in np.argsort(tree.depth, kind="stable")[1:]:
        if joins[v] >= 0:
            group[v] = group[joins[v]]
    return group[tree.node]


def saved(tree: PrefixTree, group: Ints) -> int:
    """Symbols that need not be computed when the rows of each group share its prefix; an identical prompt counts in full."""
    opened = np.unique(group)
    return int(tree.depth[group].sum() - tree.depth[opened].sum())


def ideal(tree: PrefixTree) -> int:
    """Symbols that need not be computed when everything shared, at any level, is computed once."""
    above = tree.depth[tree.parent]
    above[0] = 0
    return int(tree.depth[tree.node].sum() - (tree.depth - above).sum())


@njit(cache=True)
def _parted(symbols: Ints, a: int, a_end: int, b: int, b_end: int) -> int:
    """Equal symbols of two rows from `a` and `b` on."""
    most = min(a_end - a, b_end - b)
    for i in range(most):
        if symbols[a + i] != symbols[b + i]:
            return i
    return most


@njit(cache=True)
def _sorted_rows(symbols: Ints, start: Ints) -> tuple[Ints, Ints]:
    """Rows in order, and the symbols that each has in common with the one before it (0 for the first)."""
    n = start.size - 1
    rows, common = np.arange(n), np.zeros(n, np.int64)
    rows_to, common_to = np.empty_like(rows), np.empty_like(common)
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            _merge(symbols, start, rows, common, rows_to, common_to, low, min(low + width, n), min(low + 2 * width, n))
        rows, rows_to = rows_to, rows
        common, common_to = common_to, common
        width *= 2
    return rows, common


@njit(cache=True)
def _merge(
    symbols: Ints, start: Ints, rows: Ints, common: Ints, rows_to: Ints, common_to: Ints, low: int, middle: int, high: int
) -> None:
    """Merge two sorted stretches. `with_a` and `with_b` are what their heads have in common with the last row that was put out."""
    a, b = low, middle
    with_a, with_b = 0, 0
    for to in range(low, high):
        same = 0
        if a < middle and b < high and with_a == with_b:
            i, i_end = start[rows[a]] + with_a, start[rows[a] + 1]
            j, j_end = start[rows[b]] + with_b, start[rows[b] + 1]
            same = _parted(symbols, i, i_end, j, j_end)
            from_a = i + same == i_end or (j + same < j_end and symbols[i + same] < symbols[j + same])
        else:
            from_a = b == high or (a < middle and with_a > with_b)
        if from_a:
            rows_to[to], common_to[to] = rows[a], with_a
            with_b += same
            a += 1
            with_a = common[a] if a < middle else 0
        else:
            rows_to[to], common_to[to] = rows[b], with_b
            with_a += same
            b += 1
            with_b = common[b] if b < high else 0


@njit(cache=True)
def _build(common: Ints) -> tuple[Ints, Ints, Ints]:
    """(node of each sorted row, parents, depths) of the tree whose neighbours have so much in common."""
    n = common.size
    node = np.zeros(n, np.int64)
    parent, depth = np.full(n + 1, -1), np.zeros(n + 1, np.int64)
    stack = np.zeros(n + 1, np.int64)
    top, m = 0, 1
    for i in range(1, n + 1):
        shared = common[i] if i < n else 0
        before = stack[top]
        last = -1
        while depth[stack[top]] > shared:
            last = stack[top]
            top -= 1
            parent[last] = stack[top]
        if depth[stack[top]] < shared:
            depth[m], parent[m] = shared, stack[top]
            if last >= 0:
                parent[last] = m
            top += 1
            stack[top] = m
            m += 1
        node[i - 1] = stack[top] if depth[stack[top]] > depth[before] else before
    return node, parent[:m].copy(), depth[:m].copy()


@njit(cache=True)
def _opens_below(parent: Ints, depth: Ints, rows: Ints) -> Ints:
    """By node, the deepest level of ancestors (0: root) such that the node opens where none deeper is open; -1 if it never does."""
    m = parent.size
    order = np.argsort(depth, kind="mergesort")
    level = np.zeros(m, np.int64)
    for v in order[1:]:
        level[v] = level[parent[v]] + 1
    begin = np.zeros(m + 1, np.int64)
    begin[1:] = np.cumsum(level + 1)
    # best[begin[v] + k]: most that the rows below v save if the ancestor at level k is the deepest open one (its own level: v is)
    best = np.zeros(begin[m], np.int64)
    opens = np.full(m, -1)
    for v in order[::-1]:
        above = v
        for k in range(level[v], -1, -1):
            best[begin[v] + k] += rows[v] * depth[above]
            above = parent[above]
        opened = best[begin[v] + level[v]] - depth[v]
        for k in range(level[v]):
            closed = best[begin[v] + k]
            if opened > closed:
                opens[v] = k
            best[begin[parent[v]] + k] += max(opened, closed)
    return opens


def _groups(tree: PrefixTree, opens: Ints) -> Ints:
    m = len(tree.parent)
    group, level, top = np.zeros(m, np.int64), np.zeros(m, np.int64), np.zeros(m, np.int64)
    for v in np.argsort(tree.depth, kind="stable")[1:]:
        above = tree.parent[v]
        level[v] = level[above] + 1
        opened = top[above] <= opens[v]
        top[v], group[v] = (level[v], v) if opened else (top[above], group[above])
    return group[tree.node]
