"""Synthetic workloads. Each is a function of how many requests, how long they are and when they come, and of a seed.

Independent requests: `poisson`, `gamma`, `bursts`. Dependent ones: `closed_loop`. Shared leading tokens: `shared_prefix`.
A whole job at once: `documents`.
Multi-turn programs live in `rota.workload.agents`. `rota.workload.grammar` reads all of them from text.
"""

from __future__ import annotations

import math

import numpy as np

from rota.errors import InputError
from rota.workload.lengths import Lengths, Spread
from rota.workload.prefix import ragged
from rota.workload.trace import Floats, Ints, Trace

#: Tokens per hash run of generated prefixes: vLLM's default block.
HASH_BLOCK = 16
NOTHING, PREFIX = Spread.fixed(0), Spread.fixed(2000)
#: Of `documents`: made up, after the mixtures that BatchLLM describes (some answers short, some long, prompts mostly shared).
SIZE, QUERIES, QUESTION = Spread.lognormal(1800, 3500), Spread.uniform(2, 30), Spread.uniform(20, 120)
BRIEF, EXTENDED = Spread.uniform(5, 60), Spread.uniform(200, 600)


def poisson(n: int = 1000, rate: float = 1.0, *, lengths: Lengths, seed: int = 0) -> Trace:
    """Independent requests at a constant mean rate.

    Parameters
    ----------
    n : int
        Requests.
    rate : float
        Mean arrivals per second.
    lengths : Lengths
        Of prompts and outputs, tokens.
    seed : int

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    return gamma(n, rate, 1.0, lengths=lengths, seed=seed, name="poisson")


def gamma(n: int = 1000, rate: float = 1.0, cv: float = 2.0, *, lengths: Lengths, seed: int = 0, name: str = "gamma") -> Trace:
    """Independent requests whose gaps are gamma-distributed.

    Parameters
    ----------
    n, rate, lengths, seed
        As in `poisson`.
    cv : float
        Coefficient of variation of the gaps: 1 is Poisson, above it comes in clusters, below it is more even.
    """
    rng = _checked(n, seed, rate=rate, cv=cv)
    gaps = rng.gamma(1 / cv**2, cv**2 / rate, n)
    source = f"gamma gaps, cv {cv:g}" if cv != 1 else "Poisson"
    return _trace(rng, np.cumsum(gaps), lengths, name, f"{source}, rate {rate:g}/s")


def bursts(
    n: int = 1000, rate: float = 1.0, on: float = 10.0, off: float = 50.0, quiet: float = 0.1, *, lengths: Lengths, seed: int = 0
) -> Trace:
    """Independent requests that come in bursts: a Poisson process that switches between two rates (Markov-modulated).

    Parameters
    ----------
    n, rate, lengths, seed
        As in `poisson`; `rate` is the mean over a long time.
    on, off : float
        Mean duration of bursts and of the time between them, seconds; both exponential.
    quiet : float
        Rate between bursts, relative to the rate in a burst (0 to 1).
    """
    rng = _checked(n, seed, rate=rate, on=on, off=off)
    if not 0 <= quiet <= 1:
        raise InputError(f"quiet must be from 0 to 1, not {quiet:g}")
    share = on / (on + off)
    high = rate / (share + (1 - share) * quiet)
    work = np.cumsum(rng.exponential(1.0, n))
    begins_on = rng.random() < share
    edges, passed = np.zeros(1), np.zeros(1)
    while passed[-1] < work[-1]:
        cycles = 16 + int((work[-1] - passed[-1]) / (rate * (on + off)))
        spans = rng.exponential(1.0, 2 * cycles) * np.tile([on, off] if begins_on else [off, on], cycles)
        rates = np.tile([high, high * quiet] if begins_on else [high * quiet, high], cycles)
        edges = np.concatenate([edges, edges[-1] + np.cumsum(spans)])
        passed = np.concatenate([passed, passed[-1] + np.cumsum(spans * rates)])
    source = f"bursts at {high:.3g}/s for {on:g} s, {high * quiet:.3g}/s for {off:g} s between"
    return _trace(rng, np.interp(work, passed, edges), lengths, "bursts", source)


def closed_loop(
    n: int = 1000, clients: int = 32, think: Spread = NOTHING, ramp: float = 1.0, *, lengths: Lengths, seed: int = 0
) -> Trace:
    """Clients that each wait for an answer, think, and ask again.

    Parameters
    ----------
    n, lengths, seed
        As in `poisson`.
    clients : int
        How many ask at the same time, at most.
    think : Spread
        Seconds between an answer and the next request.
    ramp : float
        The clients begin at random times within so many seconds.
    """
    rng = _checked(n, seed, clients=clients)
    if not 0 <= ramp < math.inf:
        raise InputError(f"ramp must be 0 or a positive number of seconds, not {ramp:g}")
    clients = min(clients, n)
    rows = np.arange(n)
    first = rows < clients
    arrival = np.zeros(n)
    arrival[first] = np.sort(rng.uniform(0.0, ramp, clients))
    delay = np.where(first, 0.0, think.draw(rng, n))
    prompt, output = lengths.draw(rng, n)
    return Trace(
        arrival=arrival, prompt=prompt, output=output, after=np.where(first, -1, rows - clients), delay=delay, name="closed-loop",
        source=f"generated: {clients} clients in a closed loop, seed {seed}",
    )  # fmt: skip


def shared_prefix(
    n: int = 1000, rate: float = 1.0, groups: int = 10, prefix: Spread = PREFIX, skew: float = 0.0, *,
    lengths: Lengths, seed: int = 0,
) -> Trace:  # fmt: skip
    """Independent requests in groups; those of a group begin with the same tokens.

    Parameters
    ----------
    n, rate, seed
        As in `poisson`.
    groups : int
    prefix : Spread
        Tokens that a group's prompts have in common.
    skew : float
        Popularity of the k-th group is k ** -skew (Zipf); 0 makes all equally popular.
    lengths : Lengths
        Of what follows the prefix, and of outputs.
    """
    rng = _checked(n, seed, rate=rate, groups=groups)
    if not 0 <= skew < math.inf:
        raise InputError(f"skew must be 0 or a positive number, not {skew:g}")
    arrival = np.cumsum(rng.exponential(1.0 / rate, n))
    popularity = np.arange(1, groups + 1, dtype=float) ** -skew
    group = rng.choice(groups, n, p=popularity / popularity.sum())
    common = prefix.tokens(rng, groups)[group]
    own, output = lengths.draw(rng, n)
    prompt = common + own
    ids, start = _prefix_runs(group, common, prompt)
    return Trace(
        arrival=arrival, prompt=prompt, output=output, hash_ids=ids, hash_start=start, hash_block=HASH_BLOCK,
        name="shared-prefix", source=f"generated: {groups} groups, Poisson, rate {rate:g}/s, seed {seed}",
    )  # fmt: skip


def documents(
    documents: int = 120, size: Spread = SIZE, queries: Spread = QUERIES, question: Spread = QUESTION, brief: Spread = BRIEF,
    extended: Spread = EXTENDED, heavy: float = 0.4, *, seed: int = 0,
) -> Trace:  # fmt: skip
    """An offline job: questions about documents, all there at time 0, in random order. Prompts are a document and a question.

    Parameters
    ----------
    documents : int
    size : Spread
        Tokens of a document.
    queries : Spread
        Questions about a document.
    question : Spread
        Tokens of a question.
    brief, extended : Spread
        Output tokens of the two kinds of documents. `estimate` is the mean of the kind, `max_new` its largest.
    heavy : float
        Share of the documents with extended answers.
    seed : int
    """
    rng = _checked(documents, seed)
    if not 0 <= heavy <= 1:
        raise InputError(f"heavy must be from 0 to 1, not {heavy:g}")
    document = np.repeat(np.arange(documents), queries.tokens(rng, documents))
    document = rng.permutation(document)
    n = len(document)
    extends = (rng.permutation(documents) < round(heavy * documents))[document]
    common = size.tokens(rng, documents)[document]
    output = np.where(extends, extended.tokens(rng, n), brief.tokens(rng, n))
    estimate, max_new = np.ones(n, np.int64), output.copy()
    for kind in (extends, ~extends):
        if kind.any():
            estimate[kind], max_new[kind] = round(output[kind].mean()), output[kind].max()
    prompt = common + question.tokens(rng, n)
    ids, start = _prefix_runs(document, common, prompt)
    return Trace(
        arrival=np.zeros(n), prompt=prompt, output=output, max_new=max_new, estimate=estimate, hash_ids=ids, hash_start=start,
        hash_block=HASH_BLOCK, name="documents", source=f"generated: questions about {documents} documents, seed {seed}",
    )  # fmt: skip


def _prefix_runs(group: Ints, common: Ints, prompt: Ints) -> tuple[Ints, Ints]:
    """Hash ids and where each row's begin, of prompts whose first `common` tokens are their group's."""
    # a run that holds the end of the prefix also holds what is the request's own, so it is not shared
    shared, runs = common // HASH_BLOCK, -(-prompt // HASH_BLOCK)
    row, at = ragged(runs)
    stride = int(shared.max(initial=0))
    own = (int(group.max()) + 1) * stride + np.arange(len(row))
    return np.where(at < shared[row], group[row] * stride + at, own), np.concatenate([[0], np.cumsum(runs)])


def _checked(n: int, seed: int, **positive: float) -> np.random.Generator:
    if n < 1:
        raise InputError(f"n, the number of requests, must be at least 1, not {n}")
    if seed < 0:
        raise InputError(f"seed must not be negative ({seed})")
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be a positive number, not {value:g}")
    return np.random.default_rng(seed)


def _trace(rng: np.random.Generator, arrival: Floats, lengths: Lengths, name: str, source: str) -> Trace:
    prompt, output = lengths.draw(rng, len(arrival))
    return Trace(arrival=arrival, prompt=prompt, output=output, name=name, source=f"generated: {source}")
