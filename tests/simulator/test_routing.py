"""Routing that keeps the turns of a program together."""

import numpy as np
import pytest

from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from tests.policies.test_state import agents, engine


def test_turns_of_a_program_stay_on_one_replica_and_find_their_prefix_there():
    trace = agents(400, seed=2)
    runs = {router: simulate(trace, make_policy("vllm-v1"), engine(), replicas=3, router=router) for router in ("program", "round-robin")}
    replica = runs["program"].replica
    first = replica[np.searchsorted(trace.program, trace.program)]
    np.testing.assert_array_equal(replica, first)
    assert len(set(replica)) == 3
    assert runs["program"].cached.sum() > 1.5 * runs["round-robin"].cached.sum()


@pytest.mark.parametrize("compress", [True, False])
def test_without_programs_it_is_least_outstanding(compress):
    trace = agents(200).with_columns(program=None, tool=None, tools=())
    a, b = (simulate(trace, make_policy("sarathi"), engine(), replicas=2, router=r, compress=compress) for r in ("program", "least-outstanding"))
    np.testing.assert_array_equal(a.replica, b.replica)
    np.testing.assert_array_equal(a.finish, b.finish)
