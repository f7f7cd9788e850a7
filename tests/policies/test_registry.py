"""Policies by name, and what is said to someone who gets a name or an option wrong."""

from importlib.metadata import EntryPoint

import pytest

from rota.contracts.serving import CAPABILITIES, BatchPolicy
from rota.errors import InputError
from rota.policies import registry
from rota.policies.registry import describe, make_policy, parse_policy, policy_names


def test_every_policy_can_be_made_described_and_copied():
    rows = {row["name"]: row for row in describe()}
    assert list(rows) == policy_names()
    assert len(rows) >= 8
    for name, row in rows.items():
        policy = make_policy(name, **row["options"])  # the defaults, given explicitly, are accepted
        assert isinstance(policy, BatchPolicy)
        assert policy.name == name
        assert policy.requires <= CAPABILITIES
        assert row["title"]
        assert row["paper"]


def test_text_with_options():
    policy = parse_policy("sarathi:max_num_batched_tokens=256,max-num-seqs=64,watermark=0")
    assert (policy.max_step_tokens, policy.max_seqs, policy.watermark) == (256, 64, 0.0)
    policy = parse_policy(" vllm-v1:enable_prefix_caching=false,scheduling_policy=priority ")
    assert (policy.prefix_caching, policy.order) == (False, "priority")
    assert parse_policy("vllm-v0:max_num_batched_tokens=none").max_step_tokens == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sarathy", "did you mean sarathi"),
        ("", "choose from static, orca"),
        (
            "sarathi:chunk_size=3",
            "no option 'chunk_size'.*sarathi accepts max_num_batched_tokens=512, max_num_seqs=128, watermark=0.01",
        ),
        ("sarathi:max_num_seq=3", "did you mean max_num_seqs"),
        ("sarathi:max_num_seqs", "is not option=value"),
        ("sarathi:", "is not option=value"),
        ("sarathi:max_num_seqs=", "is not option=value"),
        ("sarathi:max_num_seqs=4,max_num_seqs=5", "twice"),
        ("sarathi:max_num_seqs=0", "max_num_seqs must be a whole number of at least 1, not 0"),
        ("sarathi:max_num_seqs=-3", "at least 1, not -3"),
        ("sarathi:max_num_seqs=2.5", "at least 1, not 2.5"),
        ("sarathi:max_num_seqs=many", "at least 1, not 'many'"),
        ("sarathi:max_num_seqs=true", "at least 1, not True"),
        ("sarathi:max_num_batched_tokens=64", "max_num_batched_tokens=64 is below max_num_seqs=128"),
        ("sarathi:watermark=1", "from 0 to below 1, not 1"),
        ("sarathi:watermark=nan", "from 0 to below 1, not nan"),
        ("sarathi-dynamic:low_chunk_size=2000", "low_chunk_size=2000 is above max_num_batched_tokens=1024"),
        ("vllm-v0:max_num_batched_tokens=100", "max_num_batched_tokens=100 is below max_num_seqs=256"),
        ("vllm-v1:scheduling_policy=lifo", "'fcfs' or 'priority', not 'lifo'"),
        ("vllm-v1:enable_prefix_caching=maybe", "True or False, not 'maybe'"),
        ("vllm-v1:long_prefill_token_threshold=-1", "at least 0, not -1"),
        ("layered:stages=12", "power of two"),
        ("layered:unit=0", "unit must be a whole number of at least 1"),
        ("static:padded=2", "padded must be True or False"),
        ("orca:max_num_batched_tokens=9", "orca accepts max_num_seqs=16"),
        ("neo:max_num_batched_tokens=9", "max_num_batched_tokens=9 is below max_num_seqs=256"),
        ("apex:overlap=sideways", "overlap must be one of auto, pipelined, async, barrier, not 'sideways'"),
        ("apex:host_load=0", "host_load must be a number above 0, not 0"),
        ("apex:host_load=inf", "host_load must be a number above 0, not inf"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(text, says):
    with pytest.raises(InputError, match=says) as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


def test_other_packages_add_policies(monkeypatch):
    points = {
        "mine": EntryPoint("mine", "rota.policies.batching.orca:OrcaPaged", registry.GROUP),
        "gone": EntryPoint("gone", "no_such_package.at_all:Policy", registry.GROUP),
        "odd": EntryPoint("odd", "fractions:Fraction", registry.GROUP),
        "sarathi": EntryPoint("sarathi", "builtins:dict", registry.GROUP),
    }
    monkeypatch.setattr(registry, "_plugins", lambda: points)
    assert policy_names()[-3:] == ["gone", "mine", "odd"]
    assert make_policy("mine", max_num_seqs=3).max_seqs == 3
    assert make_policy("sarathi").name == "sarathi"  # a built-in name cannot be taken
    with pytest.raises(InputError, match="cannot load no_such_package.at_all:Policy"):
        make_policy("gone")
    points["builtin"] = EntryPoint("builtin", "builtins:dict", registry.GROUP)
    with pytest.raises(InputError, match="no signature found"):
        make_policy("builtin")
    with pytest.raises(InputError, match="did not return a BatchPolicy"):
        make_policy("odd")


def test_warming_up_runs_every_policy():
    from rota.warmup import warm_up

    assert warm_up() == len(policy_names())
