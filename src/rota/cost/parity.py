"""Step tables of Llama-3-8B on one A100 as Vidur priced it, from the operation tables that its reference runs used.

The nine linear operations of a layer count once each, at the tokens of the step rounded up to 8; saving keys and values is looked
up at the exact number. Decode attention is tabulated over batch and mean context, prefill attention over new and cached tokens,
contexts in steps of 64; attention of more than one sequence costs a tenth more. Embedding, head, sampling and host cost nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rota.cost.tables import TABLE, StepTables
from rota.errors import InputError

LAYERS = 32
LINEAR = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj", "mlp_act", "attn_rope",
          "input_layernorm", "post_attention_layernorm", "add")  # fmt: skip
TABLES = ("kvsave", "decode", "prefill_chunk_1_512", "prefill_kv0")


def vidur_tables(path: str | Path) -> StepTables:
    """Read ``optables_ms_exact.npz`` (milliseconds per layer).

    Raises
    ------
    InputError
        If the file cannot be read or lacks a table.
    """
    try:
        with np.load(path) as file:
            ops = {name: file[name] * 1e-3 for name in (*(f"lin_{op}" for op in LINEAR), *TABLES)}
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}; it is not an operation table of a Vidur run") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the .npz file of operation tables") from None
    linear = np.sum([ops[f"lin_{op}"] for op in LINEAR], axis=0)
    tokens = np.arange(1, len(ops["kvsave"]) + 1)
    return StepTables(
        layer=np.concatenate([[0.0], linear[-(-tokens // 8) - 1] + ops["kvsave"]]),
        head=np.zeros(2),
        n_layers=LAYERS,
        kind=TABLE,
        kv_scale=64,
        batch_factor=1.1,
        decode_table=ops["decode"],
        prefill_table=ops["prefill_chunk_1_512"],
        prefill_long=ops["prefill_kv0"],
        source="table: operation tables of a Vidur run",
    )
