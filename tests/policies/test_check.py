"""`check_policy` passes every policy here and names the promise that a broken one breaks."""

import pytest

from rota.contracts.check import check_policy
from rota.contracts.serving import ALWAYS, StepPlan, Work
from rota.errors import PlanRejected
from rota.mechanisms.simulator import simulate
from rota.policies.batching.orca import OrcaPaged
from rota.policies.registry import make_policy

GOOD = {
    "static": dict(max_num_seqs=4, padded=True),
    "orca": dict(max_num_seqs=4),
    "flover": dict(max_num_seqs=4),
    "orca-paged": dict(max_num_seqs=6),
    "vllm-v0": dict(max_num_seqs=6),
    "vllm-v1": dict(max_num_seqs=6, max_num_batched_tokens=24, scheduling_policy="priority"),
    "sarathi": dict(max_num_seqs=6, max_num_batched_tokens=24),
    "sarathi-dynamic": dict(max_num_seqs=6, max_num_batched_tokens=32, chunk_schedule_max_tokens=64),
    "layered": dict(max_num_seqs=6, max_cohort_tokens=64, unit=8, stages=4),
    "neo": dict(max_num_seqs=6),
    "apex": dict(max_num_seqs=6),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_policies_pass(name):
    check_policy(make_policy(name, **GOOD[name]), simulate, seed=1, problems=12)


class Changed(OrcaPaged):
    """Paged Orca with its plans changed on the way out."""

    def __init__(self, change, **attributes):
        super().__init__(max_num_seqs=6)
        self.change = change
        vars(self).update(attributes)

    def plan(self, view):
        return self.change(super().plan(view))

    twin = None


def twice(plan):
    return plan._replace(work=plan.work + plan.work)


def too_many(plan):
    return plan._replace(work=tuple(Work(w.sid, w.n_tokens + 1, w.reserve_to) for w in plan.work))


def greedy(plan):
    return plan._replace(work=tuple(Work(w.sid, w.n_tokens, 10**6) for w in plan.work))


def deaf(plan):
    return plan if plan.work else plan._replace(repeat=ALWAYS, wake=0)


@pytest.mark.parametrize(
    ("rule", "change", "attributes"),
    [
        ("I1", twice, {}),
        ("I2", too_many, {}),
        ("I3", lambda plan: plan, {"max_step_tokens": 3}),
        ("I4", greedy, {}),
        ("I8", lambda plan: StepPlan(), {}),
        ("repeat", deaf, {}),
        ("attributes", lambda plan: plan, {"order": "lifo"}),
        ("attributes", lambda plan: plan, {"requires": frozenset({"telepathy"})}),
        ("attributes", lambda plan: plan, {"max_seqs": 0}),
    ],
)
def test_a_broken_promise_is_named(rule, change, attributes):
    with pytest.raises(PlanRejected) as caught:
        check_policy(Changed(change, **attributes), simulate)
    assert caught.value.rule == rule


def test_a_twin_that_decides_otherwise_is_found():
    class Liar(OrcaPaged):
        def twin(self):
            function, par = super().twin()
            par[0] = 1  # one seat only
            return function, par

    with pytest.raises(PlanRejected, match="problem .* of seed") as caught:
        check_policy(Liar(max_num_seqs=6), simulate)
    assert caught.value.rule == "twin"


def test_something_else_than_a_policy_is_refused():
    with pytest.raises(PlanRejected, match="must all be there"):
        check_policy(object(), simulate)
