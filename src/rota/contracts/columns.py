"""The columns behind an engine view, for policies that also carry a Numba-compiled twin of `plan`.

A twin is ``plan(seq, tim, ctl, par, out) -> None``, compiled with `TWIN`. It reads the same state as the Python view, as arrays, and
writes its plan into `out`; it must not write anywhere else. `TwinPolicy` is the extra protocol such a policy offers.

Sequences are rows of `seq`; lists are threaded through it (NEXT): the waiting queue from ``ctl[WAIT_HEAD]``, the running list, in
admission order, from ``ctl[RUN_HEAD]``; the unfinished prompts (PNEXT), in admission order, from ``ctl[PRE_HEAD]``. -1 ends a list.
KNOWN, COMPUTED and BLOCKS of decoding rows are up to date only where the next step could be short of blocks: when ``ctl[FREE] -
ctl[DECODE_NEED]`` is at most 1 plus, if there are unfinished prompts, the blocks that they could take in a step. The engine sees to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numba import types
from numpy.typing import NDArray

# columns of seq, int64 (n, SEQ_COLUMNS)
(PROMPT, KNOWN, COMPUTED, PHASE, BLOCKS, PRIORITY, TENANT, MAX_NEW, CURSOR, CHUNK, FLIGHT, NEXT, PREV, PNEXT, PPREV, PREEMPTIONS,
 REUSABLE, IDLE_HITS) = range(18)  # fmt: skip
SEQ_COLUMNS = 18
# columns of tim, float64 (n, TIM_COLUMNS)
ARRIVED, FIRST_SCHEDULED, FIRST_TOKEN, FINISHED_AT, LAST_TOKEN, MAX_TBT = range(6)
TIM_COLUMNS = 6
# entries of ctl, int64
(N_WAITING, WAIT_HEAD, N_RUNNING, RUN_HEAD, RUN_TAIL, N_PREFILL, PRE_HEAD, N_DECODE, DECODE_NEED, FREE, BLOCK_SIZE, TOTAL_BLOCKS,
 MAX_SEQS, MAX_STEP_TOKENS, MAX_LEN, N_LAYERS, STAGES, IN_FLIGHT) = range(18)  # fmt: skip
# A twin finds REUSABLE and IDLE_HITS (cached blocks of that prefix that nobody holds, and that no row further ahead would take) filled
# in for the rows at the head of the queue that one step of MAX_STEP_TOKENS could admit, each with all its remaining tokens.
CTL_SIZE = 64
# layout of out, int64: a header, then the lists one after the other: evict, reject, pause (one entry each), work (WORK_SIZE each)
DECODE_FLAG, REPEAT, WAKE, HEADROOM, PADDED, N_EVICT, N_REJECT, N_PAUSE, N_WORK, N_PIN_CHANGES = range(10)
HEADER = 10  # (twins do not pin, and leave N_PIN_CHANGES, pins set and released, alone; nor do they swap)
#: Added to an evicted sequence's number where its KV is kept in host memory.
SWAPPED = 1 << 40
WORK_SIZE = 5  # sid, n_tokens, reserve_to, first layer, end layer (0, 0 for all layers)

INTS = types.Array(types.int64, 1, "C")
ROWS = types.Array(types.int64, 2, "C")
FLOATS = types.Array(types.float64, 1, "C")
FLOAT_ROWS = types.Array(types.float64, 2, "C")
#: Numba signature of a compiled twin.
TWIN = types.void(ROWS, FLOAT_ROWS, INTS, INTS, INTS)

Twin = Callable[
    [NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], None
]


class TwinPolicy(Protocol):
    """A policy that also decides in compiled code, and then decides the same."""

    def twin(self) -> tuple[Twin, NDArray[np.int64]] | None:
        """The compiled function and its parameters `par`, or None if it decides in Python after all; called after `start`."""
