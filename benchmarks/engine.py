"""Speed of the engine on a CPU: prefill and decode tokens per second of a random 125M-parameter Llama, against others, and its bookkeeping.

    python benchmarks/engine.py [--threads 2] [--prompt 128] [--output 128] [--formats float32 bfloat16 int8 w8a8] [--batches 1 16]
                                [--peer vllm=PYTHON] [--peer transformers=PYTHON] [--json FILE]

Every figure is the best of `--repeat` runs through `Engine` itself: requests in, tokens out, policy, sampling and all. Prefill is the time
until all first tokens are there, decode the time from then on. A peer runs in a Python of its own (`benchmarks/engine_peers.py`) on the same
weights, in all its settings; ratios are to the best of them for each batch and phase.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch

from rota.cost.tables import StepTables
from rota.mechanisms.engine import Choice, Engine, ModelClock, SamplingParams
from rota.mechanisms.engine.model_runner import ModelRunner, load_runner
from rota.policies.registry import make_policy

MODEL = ["--shape", "llama-125m", "--dtype", "float32", "--max-model-len", "1024"]


def run(runner: ModelRunner, batch: int, prompt: int, output: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Prefill and decode tokens per second of `batch` requests that come at once."""
    policy = make_policy("sarathi", max_num_batched_tokens=4096, max_num_seqs=max(16, batch))
    engine = Engine(runner, policy, blocks=batch * ((prompt + output) // 16 + 2) + 8)
    generator = torch.Generator().manual_seed(batch)
    params = SamplingParams(max_tokens=output, temperature=0.0, ignore_eos=True)
    for _ in range(batch):
        engine.add_request(torch.randint(5, 30000, (prompt,), generator=generator).tolist(), params)
    began, waiting = clock(), batch
    while waiting:
        waiting -= sum(o.token >= 0 for o in engine.step()) if engine.stats().generated_tokens < batch else waiting
    first, made = clock(), engine.stats().generated_tokens
    while engine.has_work:
        engine.step()
    end = clock()
    return batch * prompt / (first - began), (batch * output - made) / (end - first)


def peer_rows(name: str, python: str, folder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What a peer reaches in each of its settings."""
    how = ["--threads", options.threads, "--prompt", options.prompt, "--output", options.output, "--repeat", options.repeat]
    command = [python, Path(__file__).with_name("engine_peers.py"), name, folder, *how, "--batches", *options.batches]
    found = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in found.splitlines() if line.startswith('{"peer"')]


def ratios(rows: list[dict[str, Any]]) -> None:
    """Ours over the best of each peer, float32 apart, for each batch."""
    peers = sorted({row["peer"] for row in rows} - {"rota"})
    for name in [*peers, *(["all"] if len(peers) > 1 else [])]:
        for alike in (False, True):
            for row in rows:
                others = [
                    other for other in rows
                    if other["peer"] != "rota" and name in (other["peer"], "all") and other["batch"] == row["batch"]
                    and (not alike or other["setting"].startswith(("float32", "fp32")))
                ]  # fmt: skip
                if row["peer"] == "rota" and others and (row["setting"] == "float32" or not alike):
                    each = {phase: row[phase] / max(other[phase] for other in others) for phase in ("prefill", "decode")}
                    whom = f"{name}{' in float32' if alike else ''}"
                    print(f"{row['setting']:>9}, batch {row['batch']:>2}, to {whom}: prefill {each['prefill']:.2f}x, decode {each['decode']:.2f}x")


class NoModel:
    """A runner that computes nothing."""

    n_layers, vocab, max_len, end_tokens = 12, 32000, 4096, frozenset()

    def allocate(self, blocks: int, block_size: int) -> None: ...
    def forget(self, seq: object) -> None: ...
    def run(self, rows: list, tables: object) -> list[Choice]:
        return [Choice(1)] * sum(row.emits for row in rows)


def overhead(seqs: int, policy: str) -> float:
    """Seconds of policy and bookkeeping per step with so many sequences in decode, asked before every step."""
    import numpy as np

    tables = StepTables(layer=np.arange(9.0), head=np.arange(9.0), n_layers=12)
    best = float("inf")
    for _ in range(3):
        engine = Engine(NoModel(), make_policy(policy), blocks=seqs * 80, clock=ModelClock(tables), compress=False)
        for _ in range(seqs):
            engine.add_request([1] * 100, SamplingParams(max_tokens=1000, temperature=0.0))
        while engine.core.waiting or engine.core.prefills or not engine.core.decodes:
            engine.step()
        began = time.thread_time()
        for _ in range(300):
            engine.step()
        best = min(best, (time.thread_time() - began) / 300)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: for one thread on a machine shared with others")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--formats", nargs="*", default=["float32", "bfloat16", "int8", "w8a8"])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="vllm, transformers, onnxruntime, openvino")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    clock = time.process_time if options.cpu_time else time.perf_counter
    for policy in ("sarathi", "vllm-v1", "layered"):
        print(f"bookkeeping with 64 sequences, {policy}: {1e3 * overhead(64, policy):.3f} ms a step (CPU time)")
    kind = "CPU time" if options.cpu_time else "wall time"
    print(f"{'engine':>13} {'setting':>24} {'batch':>6} {'prefill':>9} {'decode':>9}   tokens/s, {options.threads} threads, {kind}")
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(f"{row['peer']:>13} {row['setting']:>24} {row['batch']:>6} {row['prefill']:>9.0f} {row['decode']:>9.1f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-m", "rota", "make-model", folder, *MODEL, "--overwrite"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        for name in options.formats:
            dtype, weights = (name, "plain") if name in ("float32", "bfloat16") else ("float32", name)
            runner = load_runner(folder, dtype=dtype, weight_format=weights, device="cpu")
            for batch in options.batches:
                run(runner, batch, options.prompt, 2, clock)  # as the peers do
                runs = [run(runner, batch, options.prompt, options.output, clock) for _ in range(options.repeat)]
                prefill, decode = (max(figures) for figures in zip(*runs, strict=True))
                add({"peer": "rota", "setting": name, "batch": batch, "prefill": prefill, "decode": decode})
            del runner
        for peer in options.peer:
            name, _, python = peer.partition("=")
            for row in peer_rows(name, python, folder, options):
                add(row)
    ratios(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
