"""What people get wrong: every case ends in one clear line on stderr, exit status 2, and no file left behind."""

from __future__ import annotations

import codecs
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from rota.cli.main import run

try:
    import pty
except ImportError:  # Windows
    pty = None  # type: ignore[assignment]

HEADER = "arrival,prompt,output\n"
GOOD = HEADER + "".join(f"{i * 0.5},{200 + 10 * i},{20 + i}\n" for i in range(12))
ON = ["--model", "llama-3-8b", "--device", "a100-80g"]

# what is in the trace, and what the message has to name: where, what, and a way out
BAD_TRACES = {
    "empty file": ("", ["trace.csv"]),
    "header without rows": (HEADER, ["trace.csv"]),
    "NaN arrival": (HEADER + "0,10,5\nnan,10,5\n", ["trace.csv", "3", "arrival"]),
    "infinite arrival": (HEADER + "0,10,5\ninf,10,5\n", ["trace.csv", "3", "arrival"]),
    "negative arrival": (HEADER + "-1,10,5\n0,10,5\n", ["trace.csv", "2", "arrival"]),
    "missing arrival": (HEADER + "0,10,5\n,10,5\n", ["trace.csv", "3", "arrival"]),
    "zero prompt": (HEADER + "0,10,5\n1,0,5\n", ["trace.csv", "3", "prompt"]),
    "negative prompt": (HEADER + "0,10,5\n1,-7,5\n", ["trace.csv", "3", "prompt"]),
    "zero output": (HEADER + "0,10,5\n1,10,0\n", ["trace.csv", "3", "output"]),
    "fraction of a token": (HEADER + "0,10,5\n1,10.5,5\n", ["trace.csv", "3", "prompt"]),
    "words for numbers": (HEADER + "0,10,5\n1,many,5\n", ["trace.csv", "3", "prompt", "many"]),
    "unsorted arrivals": (HEADER + "5,10,5\n1,10,5\n", ["trace.csv", "3", "sort"]),
    "missing column": ("arrival,prompt\n0,10\n", ["trace.csv", "output"]),
    "no columns known": ("a,b,c\n1,2,3\n", ["trace.csv"]),
    "too few fields": (HEADER + "0,10,5\n1,10\n", ["trace.csv", "3"]),
    "binary rubbish": ("\x00\x01\udcff\udcfe", ["trace.csv"]),
}

# arguments after "compare <good trace>", and what the message has to name
BAD_OPTIONS = {
    "no model": (["--device", "a100-80g"], ["--model"]),
    "no device": (["--model", "llama-3-8b"], ["--device"]),
    "unknown model": (["--model", "llama-3-8bb", "--device", "a100-80g"], ["llama-3-8bb", "llama-3-8b"]),
    "unknown device": (["--model", "llama-3-8b", "--device", "a100-80"], ["a100-80", "a100-80g"]),
    "unknown policy": ([*ON, "--policy", "sarathy"], ["sarathy", "sarathi"]),
    "unknown policy option": ([*ON, "--policy", "sarathi:max_tokens=5"], ["max_tokens", "max_num_batched_tokens"]),
    "policy option without value": ([*ON, "--policy", "sarathi:max_num_seqs"], ["max_num_seqs"]),
    "policy option that is no number": ([*ON, "--policy", "sarathi:max_num_seqs=lots"], ["max_num_seqs", "lots"]),
    "policy with budget 0": ([*ON, "--policy", "sarathi:max_num_batched_tokens=0"], ["max_num_batched_tokens"]),
    "offline with a pace": ([*ON, "--offline", "--rate", "2"], ["--offline", "--rate"]),
    "offline with an objective": ([*ON, "--offline", "--slo", "ttft=2"], ["--offline", "--slo"]),
    "whole jobs online": ([*ON, "--policy", "batchllm"], ["batchllm", "--offline"]),
    "tokenizer without prompts": ([*ON, "--tokenizer", "tokenizer.json"], ["not a file of prompts"]),
    "contradictory policy options": (
        [*ON, "--policy", "sarathi:max_num_batched_tokens=16,max_num_seqs=64"],
        ["max_num_batched_tokens", "max_num_seqs"],
    ),
    "empty policy name": ([*ON, "--policy", "sarathi,,orca"], ["empty"]),
    "option before any policy": ([*ON, "--policy", "watermark=0.1"], ["watermark=0.1"]),
    "policy twice": ([*ON, "--policy", "sarathi,sarathi"], ["sarathi", "twice"]),
    "model larger than the device": (["--model", "llama-3-70b", "--device", "a100-80g"], ["GB", "tensor_parallel_size"]),
    "room for weights but not for one request": ([*ON, "--gpu-memory-utilization", "0.21"], ["GB"]),
    "no memory at all": ([*ON, "--gpu-memory-utilization", "0"], ["gpu_memory_utilization"]),
    "more memory than there is": ([*ON, "--gpu-memory-utilization", "1.5"], ["gpu_memory_utilization"]),
    "heads do not divide": ([*ON, "-tp", "7"], ["tensor_parallel_size"]),
    "too many devices": ([*ON, "-tp", "32"], ["tensor_parallel_size"]),
    "zero stages": ([*ON, "-pp", "0"], ["pipeline_parallel_size"]),
    "block size 0": ([*ON, "--block-size", "0"], ["block_size"]),
    "prompt longer than the model": ([*ON, "--max-model-len", "256"], ["256"]),
    "unknown dtype": ([*ON, "--dtype", "fp3"], ["fp3"]),
    "rate and scale": ([*ON, "--rate", "3", "--scale", "2"], ["--rate", "--scale"]),
    "negative rate": ([*ON, "--rate", "-3"], ["--rate"]),
    "rate NaN": ([*ON, "--rate", "nan"], ["--rate"]),
    "rate that is a word": ([*ON, "--rate", "fast"], ["--rate", "number"]),
    "limit 0": ([*ON, "--limit", "0"], ["--limit"]),
    "negative seed": ([*ON, "--seed", "-1"], ["--seed"]),
    "no replications": ([*ON, "--seeds", "0"], ["seeds"]),
    "no processes": ([*ON, "--jobs", "0"], ["--jobs"]),
    "no replicas": ([*ON, "--replicas", "0"], ["--replicas"]),
    "router without a choice": ([*ON, "--router", "least-outstanding"], ["--router", "--replicas"]),
    "unknown router": ([*ON, "--router", "psychic", "--replicas", "2"], ["psychic", "round-robin"]),
    "objective that cannot be read": ([*ON, "--slo", "quick"], ["quick"]),
    "objective on something unknown": ([*ON, "--slo", "happiness=2"], ["happiness"]),
    "warm-up of everything": ([*ON, "--warmup", "1"], ["warm"]),
    "unknown option": ([*ON, "--modle", "x"], ["--modle"]),
    "report into a missing folder": ([*ON, "--html", "nowhere/report.html"], ["nowhere"]),
    "report onto a folder": ([*ON, "--html", "."], ["folder"]),
    "unknown table format": ([*ON, "--export", "rows.xlsx"], ["xlsx", "parquet"]),
    "two results into one file": ([*ON, "--html", "out.json", "--export", "out.json"], ["out.json", "different"]),
    "sweep without a report": ([*ON, "--sweep", "sarathi:max_num_batched_tokens=128..512"], ["--sweep", "--html"]),
    "sweep of nothing": ([*ON, "--html", "r.html", "--sweep", "sarathi:max_num_batched_tokens=512..128"], ["512..128"]),
    "calibration file that is not there": ([*ON, "--calibration", "nothing.toml"], ["nothing.toml"]),
}

# whole command lines
BAD_COMMANDS = {
    "no such verb": (["frobnicate"], ["frobnicate"]),
    "no trace": (["compare", *ON], ["TRACE"]),
    "trace that is not there": (["compare", "absent.csv", *ON], ["absent.csv"]),
    "unknown built-in workload": (["compare", "azure-con", *ON], ["azure-con"]),
    "generator with an unknown field": (["compare", "poisson:rate=5,colour=red", *ON], ["colour"]),
    "generator with a negative rate": (["compare", "poisson:rate=-5,n=10", *ON], ["rate"]),
    "simulate without a policy": (["simulate", "trace.csv", *ON], ["--policy"]),
    "simulate with two": (["simulate", "trace.csv", *ON, "--policy", "orca,sarathi"], ["2 policies"]),
    "capacity without an objective": (["capacity", "trace.csv", *ON], ["--slo"]),
    "capacity with a scale": (["capacity", "trace.csv", *ON, "--slo", "ttft=1", "--scale", "2"], ["--scale", "--rate"]),
    "capacity with tolerance 0": (["capacity", "trace.csv", *ON, "--slo", "ttft=1", "--tolerance", "0"], ["tolerance"]),
    "frontier without a sweep": (["frontier", "trace.csv", *ON], ["--sweep"]),
    "frontier over two options": (
        ["frontier", "trace.csv", *ON, "--sweep", "sarathi:max_num_seqs=1..4,max_num_batched_tokens=128..512"], ["one at a time"],
    ),
    "frontier with one axis": (["frontier", "trace.csv", *ON, "--sweep", "orca", "--axes", "ttft_p99"], ["two figures"]),
    "frontier with an unknown axis": (["frontier", "trace.csv", *ON, "--sweep", "orca", "--axes", "ttft_p99,joy"], ["joy"]),
    "config that is not JSON": (["compare", "trace.csv", "--model", "config.json", "--device", "a100-80g"], ["config.json"]),
    "config without its fields": (["compare", "trace.csv", "--model", "bare.json", "--device", "a100-80g"], ["bare.json"]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trace.csv").write_text(GOOD)
    (tmp_path / "config.json").write_text('{"model_type": "llama", ')
    (tmp_path / "bare.json").write_text('{"model_type": "llama"}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(arguments: list[str], wanted: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status = run(arguments)
    said = capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert said.err.startswith("rota: ")
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    for word in wanted:
        assert word in said.err, said.err
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("case", BAD_TRACES)
def test_traces(case: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text, wanted = BAD_TRACES[case]
    (folder / "trace.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    check(["compare", "trace.csv", *ON, "--html", "report.html"], wanted, capsys, folder)


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options(case: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    arguments, wanted = BAD_OPTIONS[case]
    check(["compare", "trace.csv", *arguments], wanted, capsys, folder)


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_commands(case: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    arguments, wanted = BAD_COMMANDS[case]
    check(arguments, wanted, capsys, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    check(["compare", "trace.csv", *ON, "--html", "locked/report.html"], ["locked"], capsys, folder)


def test_a_good_command_is_good(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    # the cases above would all pass if nothing ever worked
    assert run(["compare", "trace.csv", *ON, "--policy", "sarathi", "--seeds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policies"].keys() == {"sarathi"}


def test_status_and_line_reach_the_shell(folder: Path) -> None:
    command = [sys.executable, "-m", "rota", "compare", "trace.csv", "--model", "no-such-model", "--device", "a100-80g"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("rota: ")


class Terminal:
    """A command run in a terminal of its own, as a person would see it; ended, with all its processes, on leaving."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.arguments, self.folder, self.seen = arguments, folder, ""
        self.decode = codecs.getincrementaldecoder("utf-8")().decode  # a read can end within a character

    def __enter__(self) -> Terminal:
        self.keys, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *self.arguments], cwd=self.folder, stdin=terminal, stdout=subprocess.PIPE,
            stderr=terminal, text=True, start_new_session=True, env=os.environ | {"TERM": "xterm", "COLUMNS": "150"},
        )  # fmt: skip
        os.close(terminal)
        return self

    def read(self) -> bool:
        """Read what has been shown since; false if all processes have left the terminal."""
        try:
            text = os.read(self.keys, 65536)
        except OSError:  # what Linux says at the end of a terminal
            return False
        self.seen += self.decode(text)
        return bool(text)

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        os.close(self.keys)


# makes standard error the controlling terminal, so that Ctrl-C typed there reaches all processes
OWN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
from rota.cli.main import main
main()
"""


@pytest.mark.skipif(pty is None, reason="needs a pseudo-terminal")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_midway(folder: Path, jobs: str) -> None:
    heavy = "poisson:rate=20,prompt=800,output=300,n=100000"
    options = ["--policy", "vllm-v1,sarathi", "--html", "report.html", "--seeds", "20", "--jobs", jobs]
    with Terminal(["compare", heavy, *ON, *options], folder) as rota:
        while not re.search("[1-9][0-9]*/40", rota.seen):  # some simulations are done, others run or are sent to processes
            assert rota.read(), rota.seen[-500:]
        os.write(rota.keys, b"\x03")
        out, _ = rota.process.communicate(timeout=300)
        while rota.read():
            pass
    said = f"on the terminal: {rota.seen[-3000:]}\non standard output: {out[-500:]}"
    assert rota.process.returncode == 130, said
    assert rota.seen.endswith("rota: interrupted\r\n"), said
    assert "Traceback" not in rota.seen, said
    assert out.startswith("INCOMPLETE"), said
    assert {path.name for path in folder.iterdir()} == {"trace.csv", "config.json", "bare.json"}


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m rota catalog models | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120)
    # 1 is what click leaves with
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
