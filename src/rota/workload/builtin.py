"""Workloads known by name: fitted distributions of public traces, stand-ins for data sets, and kinds of agents."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from rota.errors import InputError
from rota.files import write_text
from rota.workload.agents import AGENTS, agents
from rota.workload.fitted import FittedWorkload
from rota.workload.generators import poisson
from rota.workload.lengths import PRESETS, Lengths
from rota.workload.trace import Trace
from rota.workload.transform import head

#: Requests (or, of agents, programs) of workloads that no trace stands behind.
DEFAULT_N, DEFAULT_PROGRAMS = 2000, 250
_ABOUT = {
    "azure-conv": "chat requests to Azure, November 2023 (fitted)",
    "azure-code": "code completion requests to Azure, November 2023 (fitted)",
    "mooncake-conv": "conversations with shared prefixes, Kimi, 2024 (fitted)",
    "sharegpt-like": "log-normal lengths with the percentiles of ShareGPT up to 8k tokens, Poisson at 1/s",
    "arxiv-like": "log-normal lengths with the percentiles of arXiv summarisation up to 16k tokens, Poisson at 1/s",
    "swe-agents": "programs of some 18 turns with file, shell and test tools, 0.1 programs/s",
    "bfcl-agents": "programs of some 6 turns with web search, 0.1 programs/s",
}


def builtin_names() -> list[str]:
    """Names that `rota.workload.load_trace` takes."""
    return list(_ABOUT)


def about(name: str) -> str:
    """A line that says what a built-in workload is."""
    return _ABOUT[_known(name)]


def fitted_names() -> list[str]:
    """Those built-in workloads that are fitted to recorded traces."""
    return [name for name in _ABOUT if _file(name).is_file()]


def fitted(name: str) -> FittedWorkload:
    """A built-in fitted workload, with the error of its fit.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in _ABOUT or not _file(name).is_file():
        raise InputError(f"unknown fitted workload {name!r}; choose one of {', '.join(fitted_names())}")
    return _load(name)


def read_fitted(path: str | Path) -> FittedWorkload:
    """The fitted workload in a file that `write_fitted` wrote.

    Raises
    ------
    InputError
        If it is not one.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions") from None
    except ValueError:
        raise InputError(f"{path}: is not valid JSON; a trace in JSON has one object per line and is called .jsonl") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: is not a fitted workload; a trace in JSON has one object per line and is called .jsonl")
    return FittedWorkload.from_dict(values, str(path))


def write_fitted(workload: FittedWorkload, path: str | Path) -> Path:
    """Write a fitted workload to a ``.json`` file, whole or not at all; `rota.workload.load_trace` draws from such a file.

    Raises
    ------
    InputError
        If the file cannot be written, or its name does not end in ``.json``.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise InputError(f"{path}: fitted workloads are written as .json; rename the file")
    write_text(path, _entries(workload.to_dict(), 0) + "\n")
    return path


def _entries(values: dict[str, Any], depth: int) -> str:
    pad = "  " * (depth + 1)
    texts = {
        key: _entries(value, depth + 1) if isinstance(value, dict) else _compact(value, pad) for key, value in values.items()
    }
    return "{\n" + ",\n".join(f"{pad}{json.dumps(key)}: {text}" for key, text in texts.items()) + "\n" + "  " * depth + "}"


def _compact(value: Any, pad: str) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(f"{pad}  {_compact(row, pad)}" for row in value) + f"\n{pad}]"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def lengths_of(name: str) -> Lengths:
    """The lengths of a built-in workload with independent requests.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name in fitted_names():
        return _load(name)
    raise InputError(f"unknown lengths {name!r}; choose one of {', '.join([*fitted_names(), *PRESETS])}")


def generate(name: str, n: int | None = None, seed: int = 0) -> Trace:
    """Draw a built-in workload.

    Parameters
    ----------
    name : str
    n : int, optional
        Requests. Default: as many as its trace has; 2,000, or 250 programs, where there is no trace behind it.
    seed : int

    Raises
    ------
    InputError
        If the name is unknown or `n` below 1.
    """
    _known(name)
    if name in PRESETS:
        return poisson(DEFAULT_N if n is None else n, lengths=PRESETS[name], seed=seed).with_columns(name=name)
    if name in AGENTS:
        programs = DEFAULT_PROGRAMS
        while True:
            trace = agents(programs, agent=AGENTS[name], seed=seed, name=name)
            if n is None or len(trace) >= n:
                return trace if n is None else head(trace, n)
            programs *= 2
    return _load(name).generate(n, seed)


def _known(name: str) -> str:
    if name not in _ABOUT:
        raise InputError(f"unknown workload {name!r}; choose one of {', '.join(_ABOUT)}")
    return name


def _file(name: str) -> Any:
    return resources.files("rota.workload") / "data" / f"{name}.json"


@cache
def _load(name: str) -> FittedWorkload:
    return FittedWorkload.from_dict(json.loads(_file(name).read_text(encoding="utf-8")), name)
