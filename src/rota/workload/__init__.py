"""What arrives: traces of requests, read from files, drawn from fitted distributions, or generated; nothing about engines."""

from __future__ import annotations

from pathlib import Path

from rota.errors import InputError
from rota.workload.trace import Trace

__all__ = ["Trace", "builtin_names", "load_trace"]


def builtin_names() -> list[str]:
    """Names of the workloads that come with Rota."""
    from rota.workload.builtin import builtin_names as names

    return names()


def load_trace(
    source: str | Path, *, rate: float | None = None, scale: float | None = None, limit: int | None = None, seed: int = 0,
    sort: bool = False, drop_invalid: bool = False, arrivals: str | None = None, tokenizer: str | None = None,
) -> Trace:  # fmt: skip
    """A trace from a file of requests or of prompts, a built-in workload, a fitted workload's file, or a generator.

    Parameters
    ----------
    source : str or Path
        A trace file (`rota.workload.readers`), a file of prompts (`rota.workload.prompts`; all at time 0), a name of
        `builtin_names`, a ``.json`` file from ``rota workload fit``, or a generator such as
        ``poisson:rate=5,prompt=1000,output=50..300,n=2000`` (`rota.workload.grammar`). Files go before names.
    rate : float, optional
        Stretch or squeeze the arrivals to this mean, per second (of requests; of programs, where requests follow each other).
        Their pattern stays. A file without arrival times gets Poisson arrivals of this rate.
    scale : float, optional
        Multiply the rate of arrivals instead.
    limit : int, optional
        Only the first so many requests. Built-in and fitted workloads draw exactly as many; their default is as many as were
        recorded.
    seed : int
        Of everything that is drawn. A recorded trace with its own arrivals is the same for every seed.
    sort, drop_invalid : bool
        For files: sort by arrival; leave out rows that make no sense. Else such files are refused.
    arrivals : str, optional
        ``"poisson"`` replaces the arrivals by a Poisson process, of `rate` or else of the mean rate there was.
    tokenizer : str, optional
        For a file of prompts: a ``tokenizer.json``.

    Raises
    ------
    InputError
        If the source is unknown or wrong (file and line are named), or options make no sense or contradict each other.
    """
    from rota.workload.transform import at_rate, faster, head, mean_rate, poisson_arrivals

    if rate is not None and scale is not None:
        raise InputError("rate and scale both set the arrival rate; give one of them")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")
    if seed < 0:
        raise InputError(f"seed must not be negative ({seed})")
    if arrivals not in (None, "poisson"):
        raise InputError(f"arrivals must be 'poisson' or left out, not {arrivals!r}")
    trace = _load(source, rate, limit, seed, sort, drop_invalid, tokenizer)
    if limit is not None:
        trace = head(trace, limit)
    if arrivals == "poisson":
        target = mean_rate(trace) * (scale or 1.0) if rate is None else rate
        return poisson_arrivals(trace, target, seed)
    if rate is not None and len(trace) > 1:
        trace = at_rate(trace, rate)
    return trace if scale is None else faster(trace, scale)


def _load(
    source: str | Path, rate: float | None, limit: int | None, seed: int, sort: bool, drop_invalid: bool, tokenizer: str | None
) -> Trace:
    from rota.workload.prompts import is_prompts, read_prompts

    path, text = Path(source), str(source)
    if is_prompts(path):
        return read_prompts(path, tokenizer).trace()
    if tokenizer is not None:
        raise InputError(f"{text}: is not a file of prompts, so there is nothing for a tokenizer to do; leave it out")
    if not path.exists():
        from rota.workload.builtin import builtin_names, generate
        from rota.workload.grammar import KINDS, generate_text, is_generator

        if is_generator(text):
            return generate_text(text, limit, seed)
        if text in builtin_names():
            return generate(text, limit, seed)
        if not path.suffix and "/" not in text:
            kind, colon, _ = text.partition(":")
            if colon:
                raise InputError(f"unknown generator {kind!r}; choose one of {', '.join(KINDS)}")
            raise InputError(
                f"{text}: neither a file nor a workload; choose one of {', '.join(builtin_names())}, "
                f"or a generator ({', '.join(KINDS)}), such as poisson:rate=5"
            )
    if path.suffix == ".json" and path.is_file():
        from rota.workload.builtin import read_fitted

        return read_fitted(path).generate(limit, seed)
    from rota.workload.readers import read_trace

    return read_trace(path, rate=rate, seed=seed, sort=sort, drop_invalid=drop_invalid)
