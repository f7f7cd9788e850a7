"""The arrays that one simulated engine lives in, and their layout. Nothing here computes.

Public columns (what policies may see) are in `rota.contracts.columns`; the private ones are here. One `State` is one engine; engines
of a fleet share the per-request arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rota.contracts import columns as col
from rota.contracts.serving import FUTURE, HELD_COLUMNS
from rota.cost import kernel as cost_kernel
from rota.cost.engine import EngineSpec
from rota.errors import InputError
from rota.results.run import TBT_BINS
from rota.workload.trace import Trace

# private per-request columns, int64
# (those that every request uses come first, so that they share cache lines)
(OUTPUT, JOIN, BUCKET, FRESH, MARK, ADMITTED, LOADING, LEVEL, B_NEXT, B_PREV, SLOT, COMMITTED, RECOMPUTED, CACHED, CHILD, SIBLING,
 REPLICA, HITS, IDLE, AS_OF) = range(20)  # fmt: skip
OWN_COLUMNS = 20
# private entries of ctl, after the public ones; WATCH: stop when so many dependent requests are due (0: never)
(IN_HEAD, IN_TAIL, WAIT_TAIL, PRE_TAIL, AVAIL, LEFT, DONE, CACHING, PEAK, EVENTS, PLANS, STEPS, LOG_ON, LOG_ROWS, BAD, SERIAL,
 COMPRESS, N_REL, TAKE_REL, N_PAUSED, GHOSTS, GHOST_CONTEXT, LAST_FINISHED, SLOTS_FREE, LEVELS,
 BUDGET, FRESH_PLAN, WATCH, FLAGS, ADMISSIONS, N_ENDING, FOLLOWS, N_ARRIVED, N_FINISHED, N_PINS,
 EVICTIONS, REQUESTS, HOST_FREE, HOST_BLOCKS, SWAPPED_OUT) = range(24, 64)  # fmt: skip
# entries of flt
# RELOAD: seconds that the next step takes longer because KV goes to host memory or comes back; RELOAD_BLOCK, SWAP_BLOCK: of one block
NOW, UNTIL, WAKE_AT, TL_WIDTH, NEXT_EVENT, RELOAD, RELOAD_BLOCK, SWAP_BLOCK = range(8)
# entries of grp, int64 (groups, GRP): the standing set (AVAIL) and, with pipeline parallelism, the sets in flight
# (G_AT: the step modulo the block size, which is the bucket whose members need a block in the next step)
G_N, G_STEP, G_CONTEXT, G_HEAP, G_STACK, G_FRESH, G_BUCKETED, G_NUMBER, G_SHARED, G_AT = range(10)
GRP = 10
#: A heap entry is the step at which a member is due, shifted by so many bits, and its sid: entries compare as (step, sid) do.
SID_BITS = 28
# entries of lane, int64 (lanes, LANE): steps in flight
L_GROUP, L_WORK, L_LO, L_HI, L_ACTIVE, L_LEFT = range(6)
LANE = 6
# entries of acc, float64
(A_BUSY, A_STEPS, A_DECODE, A_PREFILL, A_CONTEXT, A_AREA, A_PCONTEXT, A_EXPERT, A_PASSES, A_SHARED) = range(10)
ACC = 10
# timeline columns: sequences decoding, prompt tokens, blocks used, waiting, busy; each times seconds (tokens excepted)
TL_BINS, TL_COLUMNS = 1024, 5
#: Rows that a cache holds: columns of many requests are filled so many rows at a time, which takes half as long for a million.
CACHED_ROWS = 4096
#: Entries of `out` beyond one work item and two list entries per seat; bounds how many requests one plan can reject.
OUT_ROOM = 8192
# log columns: start, end, decodes, prefill tokens, steps, blocks used
LOG_COLUMNS = 6
# columns of block, int32: holders; where in `pages` its content stands; where in `free` it waits; the next one of the same content, plus 1
REFS, ENTRY, AT, COPY = range(4)
BLOCK_COLUMNS = 4
# entries of cache: of `free`, the valid entries lie within; changes so far, and as of the last one that was not just a loss; the first unused page
FREE_BEGIN, FREE_END, VERSION, CHANGED, PAGE_FREE = range(5)
# pages of contents, 1 << PAGE_BITS each; columns of page, int64: its number (of an unused row: the next one), contents in it
PAGE_BITS = 4
P_NUMBER, P_USED = range(2)
# columns of host, int64, and entries of host_ctl: rows used, the least and the most recently used, blocks copied back
H_CONTENT, H_PREV, H_NEXT = range(3)
H_USED, H_FIRST, H_LAST, H_LOADED = range(4)


class State(NamedTuple):
    seq: np.ndarray
    own: np.ndarray
    tim: np.ndarray
    ctl: np.ndarray
    flt: np.ndarray
    out: np.ndarray
    grp: np.ndarray
    last: np.ndarray  # time of each group's last token
    heap: np.ndarray
    stack_step: np.ndarray
    stack_gap: np.ndarray
    fresh: np.ndarray
    bucket: np.ndarray
    bucket_head: np.ndarray
    bucket_tail: np.ndarray
    ending: np.ndarray  # ended in the present step, blocks not yet given back
    lane: np.ndarray
    lane_end: np.ndarray
    lane_work: np.ndarray
    stage_free: np.ndarray
    paused: np.ndarray
    ghosts: np.ndarray
    level_tail: np.ndarray
    inbox: np.ndarray
    rel: np.ndarray
    delay: np.ndarray
    cp: np.ndarray
    layer: np.ndarray
    head: np.ndarray
    expert: np.ndarray
    decode_table: np.ndarray
    prefill_table: np.ndarray
    prefill_long: np.ndarray
    acc: np.ndarray
    hist: np.ndarray
    timeline: np.ndarray
    log: np.ndarray
    block: np.ndarray
    claims: np.ndarray  # by block: the claim under which it was last taken
    free: np.ndarray  # idle blocks, the least recently used first, and stale entries; a ring
    cache: np.ndarray
    pages: np.ndarray  # by content: the block first entered, plus 1; row 0 stays empty
    page: np.ndarray
    page_map: np.ndarray  # map from page to row
    numbers: np.ndarray  # contents of the blocks of the sequence that is looked at
    held: np.ndarray  # block table: blocks of each running sequence
    slots: np.ndarray
    running: np.ndarray  # `rota.contracts.serving.EngineView.held`
    chain: np.ndarray  # number of each hash run with all that precede it
    chain_start: np.ndarray
    chain_block: np.ndarray  # blocks of a run, and a number larger than all contents that the trace tells
    arrived: np.ndarray  # what a policy that follows has not been told of yet
    finished: np.ndarray
    readers: np.ndarray  # members of each group that hold a block, if attention reads such blocks once
    host: np.ndarray  # contents in host memory, a doubly linked list by use
    host_table: np.ndarray  # map from content to row of host
    host_ctl: np.ndarray
    kept: np.ndarray  # tokens of each waiting sequence whose KV was swapped out; of no length without host memory for that


def request_columns(trace: Trace, engine: EngineSpec) -> dict[str, np.ndarray]:
    """The arrays that all engines of a fleet share."""
    n = len(trace)
    seq = np.zeros((n, col.SEQ_COLUMNS), np.int64)
    own = np.zeros((n, OWN_COLUMNS), np.int64)
    tim = np.empty((n, col.TIM_COLUMNS))
    for at in range(0, n, CACHED_ROWS):
        rows = slice(at, at + CACHED_ROWS)
        prompt = trace.prompt[rows]
        limit = np.maximum(engine.max_len - prompt, 1)
        seq[rows, col.PROMPT] = seq[rows, col.KNOWN] = prompt
        seq[rows, col.PHASE] = FUTURE
        seq[rows, col.MAX_NEW] = limit if trace.max_new is None else np.minimum(trace.max_new[rows], limit)
        own[rows, OUTPUT] = trace.output[rows]
        own[rows, BUCKET] = -1
        tim[rows] = np.nan
        tim[rows, col.ARRIVED] = trace.arrival[rows]
        tim[rows, col.MAX_TBT] = 0.0
    if trace.after is not None:
        own[:, [CHILD, SIBLING]] = -1
    levels = np.zeros(1, np.int64)
    if trace.priority is not None:
        seq[:, col.PRIORITY] = trace.priority
        levels, own[:, LEVEL] = np.unique(trace.priority, return_inverse=True)
    if trace.tenant is not None:
        seq[:, col.TENANT] = trace.tenant
    delay = np.zeros(0)
    if trace.after is not None:
        assert trace.delay is not None
        delay = np.ascontiguousarray(trace.delay, np.float64)
        tim[trace.after >= 0, col.ARRIVED] = np.nan
        for child in np.flatnonzero(trace.after >= 0)[::-1]:
            parent = trace.after[child]
            own[child, SIBLING] = own[parent, CHILD]
            own[parent, CHILD] = child
    shared = {"seq": seq, "own": own, "tim": tim, "delay": delay, "levels": levels}
    if trace.program is not None:
        shared["program"], shared["first"], shared["turn"] = _programs(trace.program)
    if trace.tool is not None:
        shared["tool"] = trace.tool
    return shared


def _programs(program: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per request: its program or -1, the row of the program's first turn, and how many turns came before."""
    rows = np.arange(len(program))
    order = np.argsort(program, kind="stable")
    begins = np.r_[True, np.diff(program[order]) != 0]
    at = np.maximum.accumulate(np.where(begins, rows, 0))
    first, turn = np.empty_like(rows), np.empty_like(rows)
    first[order], turn[order] = order[at], rows - at
    alone = program < 0
    return program, np.where(alone, rows, first), np.where(alone, 0, turn)


def new_state(
    trace: Trace, shared: dict[str, np.ndarray], engine: EngineSpec, *, max_seqs: int, max_step_tokens: int, caching: bool,
    priority: bool, follows: bool, shared_attention: bool, swap: bool, compress: bool, log: bool, seed: int,
    chains: tuple[np.ndarray, np.ndarray],
) -> State:  # fmt: skip
    """An idle engine. Raises `InputError` where the trace's hash runs do not consist of whole KV blocks."""
    n, size, pp = len(trace), engine.block_size, engine.pp
    seats = min(max_seqs, n)
    host_blocks = engine.host_blocks if swap else 0
    ctl = np.zeros(col.CTL_SIZE, np.int64)
    for at, value in (
        (col.WAIT_HEAD, -1), (col.RUN_HEAD, -1), (col.RUN_TAIL, -1), (col.PRE_HEAD, -1), (WAIT_TAIL, -1), (PRE_TAIL, -1),
        (col.FREE, engine.blocks), (col.TOTAL_BLOCKS, engine.blocks), (col.BLOCK_SIZE, size), (col.MAX_SEQS, max_seqs),
        (col.MAX_STEP_TOKENS, max_step_tokens), (col.MAX_LEN, engine.max_len), (col.N_LAYERS, engine.tables.n_layers),
        (col.STAGES, pp), (CACHING, caching), (COMPRESS, compress), (LOG_ON, log),
        (LEVELS, len(shared["levels"]) if priority else 0), (FOLLOWS, follows), (REQUESTS, n),
        (HOST_FREE, host_blocks), (HOST_BLOCKS, host_blocks),
    ):  # fmt: skip
        ctl[at] = value
    flt = np.zeros(8)
    flt[WAKE_AT] = flt[UNTIL] = np.inf
    flt[RELOAD_BLOCK] = engine.reload * size
    flt[SWAP_BLOCK] = engine.tables.host.kv_s * engine.tables.n_layers * size
    flt[TL_WIDTH] = max(float(trace.arrival.max()) / TL_BINS, 1e-3)
    groups = pp + 1 if pp > 1 else 1
    stack = 4 * seats + 64
    grp = np.zeros((groups, GRP), np.int64)
    grp[:, G_NUMBER] = np.arange(groups)
    blocks = engine.blocks if caching else 1
    block = np.zeros((blocks, BLOCK_COLUMNS), np.int32)
    held = np.zeros((seats, engine.max_len // size + 2) if caching else (1, 1), np.int32)
    free = np.zeros(1 << (2 * blocks - 1).bit_length(), np.int32)
    page = np.zeros((blocks + 1, 2), np.int64)
    page[:, P_NUMBER] = np.arange(1, blocks + 2)
    page[0, P_NUMBER] = -1
    cache = np.array([0, blocks, 1, 1, 1], np.int64)
    if caching:
        if trace.hash_ids is not None and trace.hash_block % size:
            raise InputError(f"block_size {size} must divide the trace's hash block of {trace.hash_block} tokens; choose another block_size")
        free[:blocks] = block[:, AT] = np.arange(blocks)
        ctl[SLOTS_FREE] = seats
    copies = engine.offload_blocks if caching else 0
    per = trace.hash_block // size if trace.hash_ids is not None and caching else 0
    t = engine.tables
    return State(
        seq=shared["seq"], own=shared["own"], tim=shared["tim"], ctl=ctl, flt=flt,
        out=np.zeros(col.HEADER + (col.WORK_SIZE + 2) * seats + OUT_ROOM, np.int64),
        grp=grp, last=np.zeros(groups), heap=np.zeros((groups, seats + 1), np.int64),
        stack_step=np.zeros((groups, stack), np.int64), stack_gap=np.zeros((groups, stack)),
        fresh=np.zeros((groups, seats + 1), np.int64), bucket=np.zeros((groups, size), np.int64),
        bucket_head=np.full((groups, size), -1, np.int64),
        bucket_tail=np.full((groups, size), -1, np.int64), ending=np.zeros(seats + 1, np.int64),
        lane=np.zeros((pp, LANE), np.int64), lane_end=np.full(pp, np.inf),
        lane_work=np.zeros((pp if pp > 1 else 1, seats + 1, col.WORK_SIZE) if pp > 1 else (1, 1, col.WORK_SIZE), np.int64),
        stage_free=np.zeros(pp), paused=np.zeros(seats + 1, np.int64), ghosts=np.zeros(seats + 1, np.int64),
        level_tail=np.full(max(1, len(shared["levels"])), -1, np.int64), inbox=np.zeros(0, np.int64),
        rel=np.zeros(n + 1 if trace.after is not None else 1, np.int64), delay=shared["delay"],
        cp=cost_kernel.pack(t, seed), layer=t.layer, head=t.head, expert=t.expert_bytes, decode_table=t.decode_table,
        prefill_table=t.prefill_table, prefill_long=t.prefill_long, acc=np.zeros(ACC), hist=np.zeros(TBT_BINS, np.int64),
        timeline=np.zeros((TL_BINS, TL_COLUMNS)), log=np.zeros((4096 if log else 1, LOG_COLUMNS)),
        block=block, claims=np.zeros(blocks, np.int64), free=free, cache=cache,
        pages=np.zeros((blocks + 1, 1 << PAGE_BITS), np.int32), page=page, page_map=np.zeros((1 << (2 * blocks).bit_length(), 2), np.int64),
        numbers=np.zeros(held.shape[1], np.int64), held=held,
        running=np.zeros((seats, HELD_COLUMNS), np.int64),
        slots=np.arange(seats if caching else 1, dtype=np.int64)[::-1].copy(), chain=chains[0], chain_start=chains[1],
        chain_block=np.array([per, len(chains[0]) * per], np.int64),
        arrived=np.zeros(n if follows else 1, np.int64), finished=np.zeros(n if follows else 1, np.int64),
        readers=np.zeros((groups, blocks if shared_attention else 0), np.int64),
        host=np.zeros((copies, 3), np.int64), host_table=np.zeros((1 << max(1, (2 * copies).bit_length()), 2), np.int64),
        host_ctl=np.array([0, -1, -1, 0], np.int64), kept=np.zeros(n if host_blocks else 0, np.int64),
    )  # fmt: skip
