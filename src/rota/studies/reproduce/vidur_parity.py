"""Does the simulator decide and time as Vidur does? Per request, on Vidur's own operation tables and arrivals."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from rota.cost.engine import EngineSpec
from rota.cost.parity import vidur_tables
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from rota.studies.reproduce.claim import NEEDS_DATA, NOT, REPRODUCED, Finding, Options, Report, Table
from rota.workload.trace import Trace

#: KV blocks of the reference runs, and their longest request.
BLOCKS, LONGEST = 29_696, 16_384
#: Agreement asked of every request, seconds; the reference files round durations to 1e-7 s.
TOLERANCE, ROUNDING = 1e-9, 0.5e-7
_ENOUGH = 1e-12


def compare_run(path: Path, engine: EngineSpec, replicas: int = 1, router: str = "round-robin") -> dict[str, object]:
    """Largest difference of TTFT and E2E, seconds, between one stored run and ours."""
    stored = np.genfromtxt(path, delimiter=",", names=True)
    trace = Trace(arrival=stored["arrived_at"], prompt=stored["prefill"].astype(np.int64), output=stored["decode"].astype(np.int64),
                  name=path.stem)  # fmt: skip
    if path.stem.startswith("sarathi"):
        policy = make_policy("sarathi", max_num_batched_tokens=512, max_num_seqs=512)
    else:
        policy = make_policy("vllm-v0", max_num_batched_tokens=16_384, max_num_seqs=512, padded_prompts=True)
    run = simulate(trace, policy, engine, replicas=replicas, router=router)
    ttft = np.abs(run.first_token - run.arrival - stored["ttft"])
    e2e = np.abs(run.finish - run.arrival - stored["e2e"])
    return {"run": path.stem, "policy": policy.name, "requests": len(trace), "TTFT max |d| (s)": float(ttft.max()),
            "E2E max |d| (s)": float(e2e.max())}  # fmt: skip


def run(options: Options) -> Report:
    """Every single-replica run in the folder."""
    began = time.perf_counter()
    claim = "Per-request TTFT and E2E equal Vidur's"
    conditions = "Llama-3-8B, one A100, Azure conversation lengths, Vidur's operation tables"
    if options.data is None:
        why = "give the folder with optables_ms_exact.npz and the stored runs: --data DIR"
        return Report("vidur-parity", [Finding(claim, conditions, "equal to 1e-9 s", "-", NEEDS_DATA, why)])
    folder = Path(options.data)
    engine = EngineSpec(tables=vidur_tables(folder / "optables_ms_exact.npz"), blocks=BLOCKS, max_len=LONGEST, label="llama-3-8b (Vidur)")
    rows = [compare_run(path, engine) for path in sorted(folder.glob("*_q*_n*.csv"))]
    findings = []
    for row in rows:
        worst = max(float(str(row["TTFT max |d| (s)"])), float(str(row["E2E max |d| (s)"])))
        good = worst <= ROUNDING + TOLERANCE
        findings.append(Finding(
            claim, f"{conditions}; {row['run']}", "equal to 1e-9 s", f"largest difference {worst:.2g} s over {row['requests']} requests",
            REPRODUCED if good else NOT, "the stored figures are rounded to 1e-7 s" if worst > _ENOUGH and good else "",
        ))  # fmt: skip
    return Report("vidur-parity", findings, [Table("Largest differences", rows)], seconds=time.perf_counter() - began)
