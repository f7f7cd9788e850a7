"""The groups of an offline job: requests that share a prefix, and how much output they promise for their prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rota.contracts.offline import Ints, Job
from rota.policies.offline.prefix_tree import one_level, prefix_tree


class Group:
    """Requests that share a prefix, and how far they have got.

    Attributes
    ----------
    rank : int
        Place in the order.
    prefix : int
        Tokens shared, in whole runs; 0 for a request by itself.
    waiting : list of int
        Members to be admitted, the next one last.
    unfinished, running : int
        Members.
    leader : int
        The member that computes the prefix; -1 for none.
    ready : bool
        Whether the prefix is in the cache, and held there.
    """

    __slots__ = ("leader", "prefix", "rank", "ready", "running", "unfinished", "waiting")

    def __init__(self, rank: int, prefix: int) -> None:
        self.rank = rank
        self.prefix = prefix
        self.waiting: list[int] = []
        self.unfinished = 0
        self.running = 0
        self.leader = -1
        self.ready = prefix == 0


def shared_prefixes(job: Job) -> tuple[Ints, Ints]:
    """Group and shared tokens of each request, with one shared prefix per request and the most tokens saved.

    A prefix leaves at least one token of each member's prompt, because a request computes something of its own to begin.

    Returns
    -------
    group : int64 (n,)
        Numbers from 0 on, in order of first appearance; requests that share nothing have one each.
    prefix : int64 (n,)
    """
    n = len(job.prompt)
    whole = np.minimum(np.diff(job.start), (job.prompt - 1) // job.run_tokens)
    within = np.arange(len(job.runs)) - np.repeat(job.start[:-1], np.diff(job.start))
    kept = within < np.repeat(whole, np.diff(job.start))
    tree = prefix_tree(job.runs[kept], np.concatenate([[0], np.cumsum(whole)]))
    node = one_level(tree)
    alone = node == 0
    key = np.where(alone, len(tree.parent) + np.arange(n), node)
    return in_order_of_appearance(key), tree.depth[node] * job.run_tokens


def in_order_of_appearance(key: Ints) -> Ints:
    """Keys numbered from 0 on."""
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[inverse]


def ratios(group: Ints, prefix: Ints, prompt: Ints, output: Ints) -> NDArray[np.float64]:
    """Output tokens over prompt tokens of each group, its prefix counted once."""
    outputs = np.bincount(group, weights=output)
    own = np.bincount(group, weights=prompt - prefix)
    shared = np.zeros(len(own))
    shared[group] = prefix
    return outputs / (own + shared)


def ranks(group: Ints, prefix: Ints, prompt: Ints, output: Ints) -> Ints:
    """Place of each request's group, int64 (n,): the most output per prompt token first, so that decodes run beside prompts of later ones."""
    order = np.argsort(-ratios(group, prefix, prompt, output), kind="stable")
    return np.argsort(order)[group]
