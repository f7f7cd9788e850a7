"""Reads the stored Vidur runs and its exact operation tables, for the parity tests.

Rule 7 of the runs' notes, in full detail, as it had to be for agreement:

- The nine linear operations count once each; KV save is looked up at the exact number of tokens, the linear ones at the next
  multiple of 8. 32 layers; nothing for embedding, head or sampling.
- Decode attention is looked up at the batch of decodes and ``ceil64(int(mean processed tokens))``, where processed tokens of a
  decode are prompt + generated, the token being fed included; times 1.1 if there is more than one.
- Prefill attention is looked up at the sum of each prompt's cached tokens rounded up to 64 and at ``round(sqrt(sum c^2))`` new
  tokens; times 1.1 if there is more than one.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from rota.cost.engine import EngineSpec
from rota.cost.tables import TABLE, StepTables
from rota.workload.trace import Trace

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("ROTA_SHARED", ROOT / ".." / "shared")) / "data" / "fidelity" / "vidur"
LINEAR = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj", "mlp_act", "attn_rope", "input_layernorm",
          "post_attention_layernorm", "add")  # fmt: skip
#: The stored figures are rounded to seven decimals.
ROUNDING = 0.5e-7
BLOCKS = 29_696


def need(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"the stored Vidur runs are not here ({name}); set ROTA_SHARED to the folder that has data/fidelity/vidur")
    return path


def engine():
    """Llama-3-8B on one A100 as Vidur priced it."""
    ops = np.load(need("optables_ms_exact.npz"))
    linear = sum(ops[f"lin_{name}"] for name in LINEAR)
    tokens = np.arange(1, len(ops["kvsave"]) + 1)
    layer = np.concatenate([[0.0], linear[-(-tokens // 8) - 1] + ops["kvsave"]])
    tables = StepTables(layer=layer * 1e-3, head=np.zeros(2), n_layers=32, kind=TABLE, kv_scale=64, batch_factor=1.1,
                        decode_table=ops["decode"] * 1e-3, prefill_table=ops["prefill_chunk_1_512"] * 1e-3,
                        prefill_long=ops["prefill_kv0"] * 1e-3)  # fmt: skip
    return EngineSpec(tables=tables, blocks=BLOCKS, block_size=16, max_len=16384)


def stored(name):
    """One stored run as ``(trace, columns)``."""
    with open(need(name), newline="") as file:
        rows = list(csv.DictReader(file))
    column = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    trace = Trace(
        arrival=column["arrived_at"], prompt=column["prefill"].astype(np.int64), output=column["decode"].astype(np.int64)
    )
    return trace, column
