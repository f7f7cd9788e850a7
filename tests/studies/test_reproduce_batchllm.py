"""The measures of BatchLLM's study, and that its verdicts follow from them."""

import numpy as np
import pytest

from rota.mechanisms.simulator.simulate import job_of
from rota.policies.offline.groups import shared_prefixes
from rota.policies.registry import parse_policy
from rota.studies.reproduce.batchllm import (
    FULL,
    GROUPED,
    NO_GROUPS,
    SEATS,
    SIZES,
    SORTED,
    TOKENS,
    VLLM,
    Result,
    _collapse,
    _distinct,
    _grouping,
    _sorted,
    _total,
    variants,
)
from rota.studies.reproduce.claim import NOT, PARTLY, REPRODUCED
from rota.workload import load_trace
from rota.workload.prefix import ideal_hit_ratio
from rota.workload.transform import take


def test_every_policy_of_the_grid_exists_and_the_baseline_has_the_whole_grid():
    for grid in variants().values():
        for policy in grid:
            parse_policy(policy)
    assert len(variants()[VLLM]) == sum(seats <= tokens for seats in SEATS for tokens in TOKENS)
    assert variants()[VLLM] == variants()[SORTED]


def test_sorting_brings_documents_together_and_distinct_tokens_are_what_nobody_shares():
    job = load_trace("documents:documents=9,size=320", seed=1)
    group, _ = shared_prefixes(job_of(take(job, _sorted(job)), "test"))
    assert (np.diff(np.flatnonzero(np.diff(group))) > 0).all()
    assert np.count_nonzero(np.diff(group)) == group.max() == 8
    assert _distinct(job) == pytest.approx((1 - ideal_hit_ratio(job)) * job.prompt.sum())


def results(seconds):
    return {(name, kv): [Result(t, 0.5, 0.5, 1.0, "")] for name, times in seconds.items() for kv, t in zip(SIZES, times, strict=True)}


@pytest.mark.parametrize(
    ("times", "verdict"), [((10, 10, 10), REPRODUCED), ((10, 10, 19), PARTLY), ((19, 19, 19), NOT)]
)
def test_the_verdict_on_the_whole_asks_for_1_3_wherever_memory_is_small(times, verdict):
    best = results({VLLM: (20, 20, 20), FULL: times})
    assert _total(best, "", need=200_000).verdict == verdict
    # a cache of three passes and more is not asked for anything
    assert _total(results({VLLM: (20, 20, 20), FULL: (10, 10, 30)}), "", need=100_000).verdict == REPRODUCED


def test_a_gain_must_be_clear():
    same = results({VLLM: (20, 20, 20), SORTED: (20, 20, 20), GROUPED: (20, 20, 20), NO_GROUPS: (20, 20, 20), FULL: (20, 20, 20)})
    assert _grouping(same, "").verdict == NOT
    assert _grouping(same | results({GROUPED: (10, 20, 20)}), "").verdict == PARTLY


def test_one_level_never_saves_more_than_every_level():
    measured = _collapse(1).measured
    every, exact, local = (float(part.split("%")[0].split()[-1]) for part in measured.split(", "))
    assert local <= exact <= every
