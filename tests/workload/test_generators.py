"""Generators: the distributions they promise, the chains and prefixes they build, and their text form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.workload import load_trace
from rota.workload.agents import AGENTS, Agent, Tool, agents
from rota.workload.generators import bursts, closed_loop, gamma, poisson, shared_prefix
from rota.workload.grammar import KINDS, generate_text, options
from rota.workload.lengths import PRESETS, Independent, Spread
from rota.workload.prefix import ideal_hit_ratio
from rota.workload.trace import Trace
from tests.workload.traces import assert_same

LENGTHS = Independent(Spread.fixed(100), Spread.uniform(10, 30))


def gaps(trace: Trace) -> np.ndarray:
    return np.diff(trace.arrival, prepend=0.0)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_stated_mean_and_variation(cv: float) -> None:
    found = gaps(gamma(200_000, 4.0, cv, lengths=LENGTHS, seed=1))
    assert found.mean() == pytest.approx(0.25, rel=0.03)
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_counts_are_poisson() -> None:
    trace = poisson(100_000, 5.0, lengths=LENGTHS)
    counts = np.bincount(trace.arrival.astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.05)
    assert np.mean(counts == 0) == pytest.approx(np.exp(-5.0), rel=0.1)


def test_bursts_keep_the_mean_and_switch_between_two_rates() -> None:
    trace = bursts(200_000, 2.0, on=10, off=50, quiet=0.1, lengths=LENGTHS, seed=2)
    assert len(trace) / trace.arrival[-1] == pytest.approx(2.0, rel=0.05)
    # index of dispersion of a Markov-modulated Poisson process over long windows (Fischer and Meier-Hellstern, 1993)
    high, low, up, down = 8.0, 0.8, 1 / 50, 1 / 10
    share = up / (up + down)
    limit = 1 + 2 * share * (1 - share) * (high - low) ** 2 / (2.0 * (up + down))
    counts = np.bincount((trace.arrival / 300).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(limit, rel=0.2)
    steady = bursts(100_000, 2.0, quiet=1.0, lengths=LENGTHS)
    assert gaps(steady).std() / gaps(steady).mean() == pytest.approx(1.0, rel=0.02)


@given(st.integers(1, 60), st.integers(1, 12))
def test_closed_loop_clients_wait_for_their_own_answers(n: int, clients: int) -> None:
    trace = closed_loop(n, clients, Spread.uniform(1, 3), lengths=LENGTHS)
    assert trace.after is not None
    assert trace.delay is not None
    first = trace.after < 0
    assert first.sum() == min(n, clients)
    assert np.all((trace.delay[~first] >= 1) & (trace.delay[~first] <= 3))
    # nobody is waited for by two requests
    assert len(set(trace.after[~first].tolist())) == (~first).sum()
    assert np.all(np.arange(n)[~first] - trace.after[~first] == min(n, clients))


def test_shared_prefix_groups_share_their_whole_blocks_and_nothing_else() -> None:
    n, groups, common = 400, 4, 1000
    trace = shared_prefix(n, groups=groups, prefix=Spread.fixed(common), lengths=LENGTHS)
    assert np.all(trace.prompt == common + 100)
    reusable = (n - groups) * (common // 16) * 16
    assert ideal_hit_ratio(trace) == reusable / trace.prompt.sum()
    skewed = shared_prefix(4000, groups=4, skew=1.0, lengths=LENGTHS)
    assert skewed.hash_ids is not None
    assert skewed.hash_start is not None
    count = np.unique(skewed.hash_ids[skewed.hash_start[:-1]], return_counts=True)[1]
    np.testing.assert_allclose(np.sort(count)[::-1] / 4000, np.array([12, 6, 4, 3]) / 25, atol=0.03)


def test_agent_turns_extend_the_conversation() -> None:
    tools = (Tool("a", 1, Spread.fixed(0.5)), Tool("b", 3, Spread.fixed(2.0)))
    kind = Agent(Spread.uniform(1, 9), Spread.uniform(50, 90), Spread.uniform(5, 50), Spread.uniform(3, 40), tools, system=64)
    trace = agents(300, 2.0, kind, seed=5)
    assert trace.after is not None
    assert trace.delay is not None
    assert trace.program is not None
    assert trace.tool is not None
    later = trace.after >= 0
    before = trace.after[later]
    assert np.all(before == np.flatnonzero(later) - 1)
    assert np.array_equal(trace.program[later], trace.program[before])
    # the answer calls the tool whose time passes before the next turn; the last answer calls none
    assert np.array_equal(np.array([0.5, 2.0])[trace.tool[before]], trace.delay[later])
    assert np.array_equal(np.flatnonzero(trace.tool < 0), np.setdiff1d(np.arange(len(trace)), before))
    assert trace.tools == ("a", "b")
    grown = trace.prompt[later] - trace.prompt[before] - trace.output[before]
    assert np.all((grown >= 5) & (grown <= 50))
    assert np.all((trace.prompt[~later] >= 114) & (trace.prompt[~later] <= 154))
    assert set(trace.delay[later].tolist()) == {0.5, 2.0}
    assert np.mean(trace.delay[later] == 2.0) == pytest.approx(0.75, abs=0.05)
    assert trace.hash_ids is not None
    assert trace.hash_start is not None
    rows = np.split(trace.hash_ids, trace.hash_start[1:-1])
    assert all(len(row) == -(-(p + o) // 16) for row, p, o in zip(rows, trace.prompt, trace.output, strict=True))
    for child, mother in zip(np.flatnonzero(later), before, strict=True):
        assert np.array_equal(rows[child][: len(rows[mother])], rows[mother])
    firsts = [rows[i] for i in np.flatnonzero(~later)]
    assert len({tuple(row[:4]) for row in firsts}) == 1
    assert len({int(row[4]) for row in firsts}) == len(firsts)


def test_agents_end_before_they_grow_too_long() -> None:
    trace = agents(50, agent=Agent(turns=Spread.fixed(50), max_total=9000))
    # turn k of the default sizes needs 2000 + 200 + 700 k tokens
    assert len(trace) == 50 * 10
    assert (trace.prompt + trace.output).max() == 8500
    with pytest.raises(InputError, match="first turns exceed max_total"):
        agents(5, agent=Agent(max_total=2000))


@pytest.mark.parametrize("name", list(AGENTS))
def test_agents_by_name(name: str) -> None:
    trace = load_trace(name)
    assert trace.after is not None
    assert (trace.after < 0).sum() == 250
    turns = np.bincount(trace.program)
    assert np.median(turns) == pytest.approx(AGENTS[name].turns.a, rel=0.15)
    assert ideal_hit_ratio(trace) > 0.75
    short = load_trace(name, limit=7000)
    assert len(short) == 7000
    # the program that was cut off ends where it was cut
    assert short.tool[-1] == -1


def test_software_agents_have_the_published_sizes() -> None:
    trace = load_trace("swe-agents", seed=1)
    assert trace.after is not None
    assert trace.delay is not None
    assert trace.tool is not None
    later = np.flatnonzero(trace.after >= 0)
    before = trace.after[later]
    # some 18 turns; first prompts of 2.7k tokens; results of 600; tools of 0.3, 0.5, 2 and 20 s (medians)
    assert np.median(np.bincount(trace.program)) == pytest.approx(18, rel=0.1)
    assert np.median(trace.prompt[trace.after < 0]) == pytest.approx(2700, rel=0.05)
    assert np.median(trace.prompt[later] - trace.prompt[before] - trace.output[before]) == pytest.approx(600, rel=0.05)
    for tool, seconds in enumerate((0.3, 0.5, 2.0, 20.0)):
        assert np.median(trace.delay[later][trace.tool[before] == tool]) == pytest.approx(seconds, rel=0.15)


@pytest.mark.parametrize(
    ("name", "percentiles", "most"),
    [("sharegpt-like", (1730, 5696, 415, 834), 8192), ("arxiv-like", (7059, 12985, 208, 371), 16384)],
)
def test_presets_have_the_published_percentiles(name: str, percentiles: tuple[int, ...], most: int) -> None:
    prompt, output = PRESETS[name].draw(np.random.default_rng(0), 400_000)
    found = [np.percentile(v, q) for v in (prompt, output) for q in (50, 90)]
    np.testing.assert_allclose(found, percentiles, rtol=0.01)
    assert (prompt + output).max() <= most


@given(st.floats(0.1, 1e5), st.floats(1, 20))
def test_lognormal_percentiles(p50: float, ratio: float) -> None:
    values = Spread.lognormal(p50, p50 * ratio).draw(np.random.default_rng(0), 20_000)
    assert np.median(values) == pytest.approx(p50, rel=0.1)
    assert np.percentile(values, 90) == pytest.approx(p50 * ratio, rel=0.15)


def test_uniform_tokens_reach_both_ends_equally() -> None:
    values = Spread.uniform(1, 4).tokens(np.random.default_rng(0), 100_000)
    np.testing.assert_allclose(np.bincount(values)[1:] / 100_000, 0.25, atol=0.01)


def test_text_and_function_agree() -> None:
    assert_same(
        generate_text("poisson:rate=5, n=300, prompt=1000/3000, output=50..300, max_total=4000", seed=4),
        poisson(300, 5.0, lengths=Independent(Spread.lognormal(1000, 3000), Spread.uniform(50, 300), 4000), seed=4),
    )
    assert_same(
        generate_text("closed-loop:clients=8,n=1e2,think=1..3,prompt=100,output=10..30", seed=1),
        closed_loop(100, 8, Spread.uniform(1, 3), lengths=LENGTHS, seed=1),
    )
    assert_same(
        generate_text("agents:programs=9,turns=3,time=0.5/3,system=32"),
        agents(9, agent=Agent(turns=Spread.fixed(3), tools=(Tool("tool", 1, Spread.lognormal(0.5, 3)),), system=32)),
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_generator_works_by_its_name_and_its_listed_defaults(kind: str) -> None:
    plain = load_trace(kind, seed=3)
    given = ",".join(f"{name}={value}" for name, value in options(kind).items() if value)
    assert_same(plain, load_trace(f"{kind}:{given}", seed=3))
    assert not np.array_equal(plain.arrival, load_trace(kind, seed=4).arrival)
    assert len(load_trace(kind, limit=17)) == 17


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("poisson:speed=3", r"has no option 'speed'; it takes n=1000, rate=1, prompt=1000, output=200"),
        ("poisson:rate", "rate needs a value; write rate=1"),
        ("poisson:rate=", "rate needs a value"),
        ("poisson:rate=5,rate=6", "rate is there twice"),
        ("poisson:rate=-5", "rate must be a positive number, not -5"),
        ("poisson:rate=nan", "rate must be a positive number"),
        ("poisson:rate=fast", "rate must be a number, not 'fast'"),
        ("poisson:n=2.5", "n must be a whole number"),
        ("poisson:n=inf", "n must be a whole number"),
        ("poisson:n=0", "must be at least 1, not 0"),
        ("poisson:prompt=9..3", "'9..3' is not a quantity"),
        ("poisson:prompt=0/3", "is not a quantity"),
        ("poisson:prompt=1000,max_total=100", "hardly any request fits"),
        ("poisson:max_total=-1", "max_total must be 0"),
        ("poisson:lengths=nowhere", "unknown lengths 'nowhere'; choose one of azure-conv"),
        ("poisson:lengths=azure-conv,prompt=5", "leave out prompt"),
        ("gamma:cv=0", "cv must be a positive number"),
        ("bursts:quiet=2", "quiet must be from 0 to 1"),
        ("closed-loop:clients=0", "clients must be a positive number"),
        ("closed-loop:ramp=-1", "ramp must be 0 or"),
        ("shared-prefix:skew=-1", "skew must be 0 or"),
        ("agents:programs=0", "programs must be at least 1"),
        ("agents:system=-5", "system of at least 0"),
        ("poison:rate=5", "unknown generator 'poison'; choose one of poisson"),
        ("azure-chat", "neither a file nor a workload; choose one of azure-conv"),
    ],
)
def test_wrong_texts_are_explained(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_trace(text)
