"""Lists of policies, JSON that every parser accepts, and help that needs nothing heavy."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.cli.main import run
from rota.cli.options import split_policies
from rota.cli.output import invocation, print_json
from rota.errors import InputError

VERBS = ["demo", "compare", "simulate", "capacity", "frontier", "policies", "calibrate"]
NESTED = [
    *(["catalog", kind] for kind in ("models", "devices", "links")),
    *(["workload", verb] for verb in ("list", "show", "fit", "fit-error", "generate")),
]
CHOICES = ["sarathi", "orca", "sarathi:max_num_seqs=4", "vllm-v1:max_num_seqs=8,max_num_batched_tokens=64", "static:padded=true"]


@given(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=6), st.integers(0, 6))
def test_lists_of_policies_split_where_policies_end(policies: list[str], cut: int) -> None:
    assert split_policies([",".join(policies)]) == policies
    parts = [",".join(part) for part in (policies[:cut], policies[cut:]) if part]
    assert split_policies(parts) == policies


def test_no_list_means_one_of_each_way_to_batch() -> None:
    from rota.policies.registry import STANDARD, policy_names

    assert split_policies(None) == split_policies([]) == list(STANDARD)
    assert set(STANDARD) < set(policy_names())


@pytest.mark.parametrize(
    "text", ["", ",", "sarathi,", "max_num_seqs=3", "sarathi,max_num_seqs=3", "sarathi:max_num_seqs=3,,orca"]
)
def test_lists_that_make_no_sense(text: str) -> None:
    with pytest.raises(InputError, match="--policy"):
        split_policies([text])


class Pair(NamedTuple):
    low: float
    high: float


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_is_strict_and_loses_only_what_json_cannot_say(value: object) -> None:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_json(value)
    read = json.loads(out.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read == _without_nan(value)


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return value


def test_json_takes_arrays_and_named_tuples(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": np.array([1.0, np.nan]), "b": Pair(1.0, math.inf), "c": np.int64(3)})
    assert json.loads(capsys.readouterr().out) == {"a": [1.0, None], "b": {"low": 1.0, "high": None}, "c": 3}


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS), ["catalog"], ["workload"], *NESTED], ids=" ".join)
def test_every_help_answers_and_most_show_an_example(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb, "--help"]) == 0
    said = capsys.readouterr()
    assert f"Example: rota {' '.join(verb)}".strip() in " ".join(said.out.split())
    assert said.err == ""


def test_help_loads_nothing_heavy() -> None:
    script = "import sys; from rota.cli.main import run; status = run(['--help']); print(*sys.modules); sys.exit(status)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert "Usage: rota" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & {"numpy", "numba", "polars", "plotly", "rota.mechanisms.simulator"}


def test_reports_repeat_the_command_as_a_shell_reads_it() -> None:
    run(["compare", "my trace.csv", "--slo", "p99 tbt=0.1"])
    assert invocation() == "rota compare 'my trace.csv' --slo 'p99 tbt=0.1'"


@pytest.mark.parametrize("verb", ["models", "devices", "links"])
def test_the_catalog_lists_what_can_be_loaded(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rota import catalog

    assert run(["catalog", verb, "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    known = {"models": catalog.model_names, "devices": catalog.device_names, "links": catalog.link_names}[verb]()
    assert names == known
    assert run(["catalog", verb]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == known
    assert run(["catalog", verb, "--sources"]) == 0
    assert capsys.readouterr().out.count("\n    ") == len(known)


def test_policies_lists_what_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policies", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    from rota.policies.registry import policy_names

    assert split_policies([row["name"] for row in rows]) == policy_names()
    assert run(["policies"]) == 0
    assert "max_num_batched_tokens" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import rota

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"rota {rota.__version__}\n"
