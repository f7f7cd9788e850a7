"""Measures an engine for its costs: a sweep of its runner, and between its parts requests that show what policy and bookkeeping cost beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from rota.contracts.serving import BatchPolicy
from rota.cost.step_samples import SampleFile, StepSample
from rota.errors import InputError
from rota.mechanisms.engine.clock import BusyClock
from rota.mechanisms.engine.drive import Drive
from rota.mechanisms.engine.engine import Engine
from rota.mechanisms.engine.loading import load_engine
from rota.mechanisms.engine.log import Entry, Log
from rota.mechanisms.engine.step_times import samples_of
from rota.mechanisms.engine.sweep import Step, Sweep
from rota.workload.trace import Trace

Progress = Callable[[int, int], None]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
#: No single step takes more than this share of the time that a calibration may take.
SHARE = 1 / 200
#: Conversations that are served at a time, their turns, and their longest prompts and answers: steps as serving makes them, and how
#: bookkeeping grows with sequences.
TOGETHER = (1, 2, 4, 8, 16, 32)
TURNS, PROMPT, OUTPUT = 3, 512, 24
#: Steps of decodes follow on their like, which leave in the caches what they read: so many are computed before one is timed.
BEFORE = 2
#: Largest number of sequences that is measured; beyond that, costs go on along a line.
MOST_SEQS = 64


def busy_clock(name: str, *, device: str, threads: int) -> BusyClock:
    """The clock of a measurement: ``"wall"``, or ``"cpu"``, which leaves out what other programs take of the machine.

    Raises
    ------
    InputError
        For another name, and where CPU time does not tell how long something takes.
    """
    if name not in CLOCKS:
        raise InputError(f"unknown clock {name!r}; choose one of {', '.join(CLOCKS)}")
    if name == "cpu" and (threads != 1 or device != "cpu"):
        raise InputError(f"CPU time does not tell how long {threads} threads on {device} take; add --device cpu --threads 1, or use the wall's")
    return BusyClock(CLOCKS[name])


def open_engine(conditions: Mapping[str, Any], policy: BatchPolicy, log: Log, source: Callable[[], float] | None = None) -> Engine:
    """An engine under the conditions of a measurement (`rota.cost.measured.Measured.conditions`); `source` replaces its clock's.

    Raises
    ------
    InputError, DoesNotFit, UnsupportedPolicy
        As `load_engine`; for a clock that does not suit.
    """
    c = conditions
    clock = busy_clock(c["clock"], device=c["device"], threads=c["threads"]) if source is None else BusyClock(source)
    return load_engine(
        c["model_dir"], policy, dtype=c["dtype"], weight_format=c["weight_format"], device=c["device"], kv_bytes=c["kv_bytes"],
        block_size=c["block_size"], max_model_len=c["max_model_len"], clock=clock, log=log, threads=c["threads"],
        kv_cache_dtype=c.get("kv_cache_dtype", "auto"),
    )  # fmt: skip


def measure(
    engine: Engine, log: list[Entry], kept: SampleFile, *, clock: str = "wall", rounds: int = 5, budget: float = 180.0,
    most_tokens: int = 2048, seed: int = 0, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Measure into `kept`, beginning where it left off. Ctrl-C leaves there what has been measured.

    Parameters
    ----------
    engine : Engine
        Without requests, on a `busy_clock` of the same name.
    log : list
        The engine's.
    kept : SampleFile
    clock : str
        One of `CLOCKS`.
    rounds : int
        How often everything is measured.
    budget : float
        Seconds on the wall after which no new round begins. One round is always made; what a step may take follows from it.
    most_tokens : int
        Largest chunk, if the budget allows it.
    seed : int
    progress : callable, optional
        Called with (measurements done, all of them).
    """
    for done, total in turns(engine, log, kept, clock=clock, rounds=rounds, budget=budget, most_tokens=most_tokens, seed=seed):
        if progress:
            progress(done, total)


def turns(
    engine: Engine, log: list[Entry], kept: SampleFile, *, clock: str, rounds: int, budget: float, most_tokens: int, seed: int
) -> Iterator[tuple[int, int]]:
    """`measure`, one measurement after the other: (measurements done, all of them)."""
    if "most_tokens" not in kept.notes:
        kept.note("most_tokens", sweep_of(engine, clock, most_tokens, seed).affordable(budget * SHARE))
    sweep = sweep_of(engine, clock, kept.notes["most_tokens"], seed)
    began, done, each = time.monotonic(), 0, len(sweep.grid) + len(sweep.random) + len(TOGETHER)
    prepared: set[Step | int] = set()  # what the first time shows is that it is the first time
    for number in range(rounds):
        if number and done >= kept.count and time.monotonic() - began > budget:
            break
        steps = sweep.round(number)
        for part, size in enumerate(TOGETHER):  # in turns, so that neither shows the machine as it is at one moment
            for held_out, step in steps[part :: len(TOGETHER)]:
                if done >= kept.count:
                    for _ in range(BEFORE if not step.chunks else step not in prepared):
                        sweep.measure(step)
                    prepared.add(step)
                    samples = sweep.measure(step)
                    kept.add([] if held_out else samples, samples if held_out else [])
                done += 1
                yield done, rounds * each
            if done >= kept.count:
                for tokens in range(2 * number + (size in prepared), 2 * number + 2):
                    log.clear()
                    for _ in conversations(engine, seed, size, tokens).steps():
                        yield done, rounds * each
                prepared.add(size)
                kept.add(*split(samples_of(log), seed))
                log.clear()
            done += 1
            yield done, rounds * each
    yield rounds * each, rounds * each


def sweep_of(engine: Engine, clock: str, most_tokens: int, seed: int = 0) -> Sweep:
    """A sweep of an engine that has no requests."""
    limits = engine.core.limits
    return Sweep(
        engine.runner, blocks=limits.blocks, block_size=limits.block_size, max_len=engine.max_len, clock=CLOCKS[clock],
        most_tokens=most_tokens, most_seqs=min(limits.max_seqs, MOST_SEQS), seed=seed,
    )  # fmt: skip


def conversations(engine: Engine, seed: int, size: int, tokens: int) -> Drive:
    """So many conversations at a time for the engine to serve under its own policy, each request as soon as the one before has ended; their
    tokens depend on `tokens`, their lengths do not."""
    room = min(engine.max_len, engine.core.limits.blocks * engine.core.limits.block_size)
    output = max(1, min(OUTPUT, room // 4))
    n = TURNS * size
    draw = np.random.default_rng((seed, 1 << 21, size))
    trace = Trace(
        arrival=np.zeros(n), prompt=np.exp(draw.uniform(0.0, np.log(max(2, min(PROMPT, room - output))), n)).astype(np.int64),
        output=draw.integers(max(1, output // 2), output + 1, n), after=np.arange(-size, n - size).clip(-1), delay=np.zeros(n),
    )  # fmt: skip
    draw = np.random.default_rng((seed, size, tokens))
    return Drive(engine, trace, lambda row: draw.integers(0, engine.runner.vocab, int(trace.prompt[row])).tolist())


def split(samples: Iterable[StepSample], seed: int) -> tuple[list[StepSample], list[StepSample]]:
    """Those to fit and those to check the fit on."""
    parts: tuple[list[StepSample], list[StepSample]] = ([], [])
    for sample in samples:
        parts[sample.held_out(seed)].append(sample)
    return parts


