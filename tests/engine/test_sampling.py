"""Tokens are drawn from the distribution that the parameters describe, by counter, and penalties are what their formulas say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="sampling needs PyTorch (extra engine)")

from rota.errors import InputError  # noqa: E402
from rota.mechanisms.engine.parameters import SamplingParams  # noqa: E402
from rota.mechanisms.engine.randomness import philox, uniform  # noqa: E402
from rota.mechanisms.engine.sampling import choose, draw, penalised  # noqa: E402
from rota.mechanisms.engine.sequences import Seq  # noqa: E402


@pytest.mark.parametrize(("counter", "key", "expected"), [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
])  # fmt: skip
def test_philox_gives_its_authors_known_answers(counter, key, expected):
    assert philox(np.array(counter, np.uint32), np.array(key, np.uint32)).tolist() == expected


def test_uniform_numbers_are_uniform_and_depend_on_both_arguments():
    numbers = np.array([[uniform(seed, position) for position in range(100)] for seed in range(100)])
    assert len(np.unique(numbers)) == 10_000
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert ((counts - 500) ** 2 / 500).sum() < 43.8  # chi-squared, 19 degrees of freedom, 0.1%
    assert uniform(-1, 0) == uniform((1 << 64) - 1, 0)


def filtered(logits, p):
    """The distribution, written out: temperature, min-p, top-k, top-p."""
    probs = np.exp(logits / p.temperature - np.max(logits / p.temperature))
    probs /= probs.sum()
    probs[probs < p.min_p * probs.max()] = 0
    order = np.argsort(-probs, kind="stable")
    if p.top_k:
        probs[order[p.top_k :]] = 0
    probs /= probs.sum()
    before = np.cumsum(probs[order]) - probs[order]
    probs[order[before >= p.top_p]] = 0
    return probs / probs.sum()


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10**6), n=st.sampled_from([5, 40, 3000]), temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 0, 1, 3, 1500]), top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]), min_p=st.sampled_from([0.0, 0.02, 0.5]),
)  # fmt: skip
def test_equal_shares_of_the_unit_interval_fall_on_tokens_as_the_distribution_says(seed, n, temperature, top_k, top_p, min_p):
    logits = np.random.default_rng(seed).normal(0, 2, n)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = filtered(logits, params)
    parts = 200
    drawn = draw(torch.from_numpy(logits).expand(parts, n), [params] * parts, [(i + 0.5) / parts for i in range(parts)])
    found = np.bincount(drawn, minlength=n)
    assert (expected[drawn] > 0).all()
    assert np.abs(found / parts - expected).max() <= 1 / parts + 1e-9


def test_a_share_next_to_one_still_finds_a_possible_token():
    logits = torch.tensor([0.0, 1.0, -200.0, -1000.0])
    for options in ({}, {"top_p": 0.999}, {"min_p": 0.1}, {"top_k": 2}):
        assert draw(logits[None], [SamplingParams(**options)], [math.nextafter(1.0, 0.0)])[0] in (0, 1)


@given(seed=st.integers(0, 10**6))
def test_neighbours_change_nothing(seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.integers(-5, 5, (6, 2000)) + 0.0)  # many ties
    kinds = [dict(), dict(top_k=5), dict(top_p=0.9), dict(min_p=0.1), dict(top_k=1500, top_p=0.99), dict(temperature=50.0, top_p=0.999)]
    params, shares = [SamplingParams(**kind) for kind in kinds], rng.random(6).tolist()
    together = draw(logits, params, shares)
    assert together == [draw(logits[i : i + 1], params[i : i + 1], shares[i : i + 1])[0] for i in range(6)]


def sequence(prompt, generated, **options):
    seq = Seq(0, [*prompt, *generated], 0.0, 100, SamplingParams(**options))
    seq.n_prompt = len(prompt)
    return seq


def test_penalties_follow_their_formulas():
    logits = torch.tensor([2.0, -2.0, 1.0, 0.5, 3.0], dtype=torch.float64)
    seq = sequence([0], [1, 1, 3], repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, logit_bias={4: -3.0})
    expected = [2.0 / 2, -2.0 * 2 - 0.5 - 0.5, 1.0, 0.5 / 2 - 0.5 - 0.25, 0.0]
    assert penalised(logits, seq).tolist() == expected
    assert logits.tolist() == [2.0, -2.0, 1.0, 0.5, 3.0]


def test_the_slightest_temperature_takes_the_likeliest_token():
    logits = torch.tensor([[1e4, 1.0, -1e4]])
    for temperature in (0.0, 1e-300, 1e-6, 1e-4):
        assert choose(logits, [sequence([0], [], temperature=temperature)])[0].token == 0


@pytest.mark.parametrize("options", [dict(), dict(temperature=0.0), dict(top_p=0.5), dict(top_k=2, min_p=0.1)])
def test_logits_that_are_no_numbers_cost_no_neighbour_anything(options):
    logits = torch.tensor([[math.nan] * 4, [0.0, 9.0, 1.0, 2.0]])
    broken, sound = choose(logits, [sequence([0], [], **options), sequence([0], [], **options)])
    assert 0 <= broken.token < 4
    assert sound == choose(logits[1:], [sequence([0], [], **options)])[0]


def test_logprobs_are_of_the_unmodified_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    (choice,) = choose(logits, [sequence([0], [], temperature=0.0, logprobs=2, logit_bias={2: 50.0})])
    expected = (logits[0] - logits[0].logsumexp(0)).tolist()
    assert choice.token == 2
    assert choice.logprob == pytest.approx(expected[2])
    assert [token for token, _ in choice.top] == [0, 1]
    assert [p for _, p in choice.top] == pytest.approx(expected[:2])


@pytest.mark.parametrize("options", [
    dict(temperature=-0.1), dict(temperature=math.nan), dict(top_p=0.0), dict(top_p=1.1), dict(top_k=-1), dict(min_p=2), dict(max_tokens=0),
    dict(presence_penalty=3), dict(repetition_penalty=0.0), dict(stop=("",)), dict(logprobs=21), dict(logit_bias={1: 101.0}),
    dict(logit_bias={-1: 1.0}), dict(seed=1 << 70), dict(stop_token_ids=(-1,)), dict(temperature=True), dict(max_tokens=1.5),
])  # fmt: skip
def test_values_out_of_range_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SamplingParams(**options)
