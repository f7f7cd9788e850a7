"""KV blocks with identities: the prefix cache of one simulated engine (compiled).

As in vLLM v1 [0.10]: full blocks are entered under the identity of their content and everything before it; blocks that nobody
holds stay in the cache and wait, least recently used first, to be taken for new use; a released sequence gives its blocks back end
first, so that the end goes before the beginning. A second block with the same content is entered too, behind the first.
Engines without a prefix cache only count blocks and never come here.
"""

from __future__ import annotations

import numpy as np

from rota.contracts.columns import BLOCK_SIZE, BLOCKS, COMPUTED, FREE, KNOWN
from rota.jit import njit
from rota.mechanisms.simulator.hash_map import find, insert, remove
from rota.mechanisms.simulator.host_cache import has, put, touch
from rota.mechanisms.simulator.state import (
    CLAIM,
    COMMITTED,
    CONTENT,
    F_NEXT,
    F_PREV,
    FREE_FIRST,
    FREE_LAST,
    H_LOADED,
    LOADING,
    REFS,
    RELOAD,
    RELOAD_BLOCK,
    SERIAL,
    SLOT,
    SLOTS_FREE,
)


@njit(cache=True)
def mix(a, b):
    """A 64-bit identity of the pair (a, b), never 0."""
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) + np.uint64(0x632BE59BD9B4E019)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.int64(x | np.uint64(1))


@njit(cache=True)
def chain_hashes(hash_ids, hash_start):
    """Identity of every hash run together with all runs before it, int64 like `hash_ids`."""
    chain = np.empty_like(hash_ids)
    for i in range(hash_start.size - 1):
        h = np.int64(1)
        for j in range(hash_start[i], hash_start[i + 1]):
            h = mix(h, hash_ids[j])
            chain[j] = h
    return chain


@njit(cache=True)
def content(e, sid, i):
    """Identity of block `i` of a sequence and all before it; its own where the trace says nothing about its tokens."""
    per = e.chain_block[0]
    if per > 0:
        at = e.chain_start[sid] + i // per
        if at < e.chain_start[sid + 1]:
            return mix(e.chain[at], i % per)
    return mix(~np.int64(sid), i)


@njit(cache=True)
def _unlink(e, b):
    before, after = e.block[b, F_PREV], e.block[b, F_NEXT]
    if before >= 0:
        e.block[before, F_NEXT] = after
    else:
        e.ctl[FREE_FIRST] = after
    if after >= 0:
        e.block[after, F_PREV] = before
    else:
        e.ctl[FREE_LAST] = before
    e.ctl[FREE] -= 1


@njit(cache=True)
def lookup_prefix(e, sid, claim, take):
    """(blocks, free ones that it takes) of the longest cached prefix of a waiting sequence, at most its known tokens less one.

    It takes idle blocks, and others for copies of what is in host memory. Idle blocks that were taken under the same `claim`, a number
    from `new_claim`, do not count: sequences admitted together share them.
    """
    most = (e.seq[sid, KNOWN] - 1) // e.ctl[BLOCK_SIZE]
    idle = 0
    for i in range(most):
        at = find(e.table, content(e, sid, i))
        if at < 0:
            if not has(e, content(e, sid, i)):
                return i, idle
            idle += 1
            continue
        b = e.table[at, 1]
        if e.block[b, REFS] == 0 and e.block[b, CLAIM] != claim:
            idle += 1
            if take:
                e.block[b, CLAIM] = claim
    return most, idle


@njit(cache=True)
def new_claim(e):
    """A number that no block is claimed under."""
    e.ctl[SERIAL] += 1
    return e.ctl[SERIAL]


@njit(cache=True)
def hold_prefix(e, sid):
    """Give a newly admitted sequence a block table and the cached prefix. What is in host memory gets its blocks from `load`."""
    block, held, table = e.block, e.held, e.table
    e.ctl[SLOTS_FREE] -= 1
    slot = e.slots[e.ctl[SLOTS_FREE]]
    e.own[sid, SLOT] = slot
    most = (e.seq[sid, KNOWN] - 1) // e.ctl[BLOCK_SIZE]
    hits = 0
    e.own[sid, LOADING] = 0
    while hits < most:
        key = content(e, sid, hits)
        at = find(table, key)
        if at < 0:
            if not has(e, key):
                break
            touch(e, key)
            held[slot, hits] = -1
            e.own[sid, LOADING] += 1
            hits += 1
            continue
        b = table[at, 1]
        if block[b, REFS] == 0:
            _unlink(e, b)
        block[b, REFS] += 1
        held[slot, hits] = b
        hits += 1
    e.seq[sid, BLOCKS] = hits
    e.seq[sid, COMPUTED] = hits * e.ctl[BLOCK_SIZE]
    e.own[sid, COMMITTED] = hits


@njit(cache=True)
def load(e, sid):
    """Copy what a newly admitted sequence finds in host memory into free blocks, the least recently used ones; there are as many."""
    ctl, block, held = e.ctl, e.block, e.held
    slot = e.own[sid, SLOT]
    for i in range(e.seq[sid, BLOCKS]):
        if held[slot, i] >= 0:
            continue
        b = ctl[FREE_FIRST]
        _unlink(e, b)
        _empty(e, b)
        block[b, REFS] = 1
        block[b, CONTENT] = content(e, sid, i)
        insert(e.table, block[b, CONTENT], b)
        held[slot, i] = b
    e.host_ctl[H_LOADED] += e.own[sid, LOADING]
    e.flt[RELOAD] += e.own[sid, LOADING] * e.flt[RELOAD_BLOCK]
    e.own[sid, LOADING] = 0


@njit(cache=True)
def _empty(e, b):
    """A block is taken for new use: its content goes to host memory, if there is a cache."""
    if e.block[b, CONTENT] != 0:
        remove(e.table, e.block[b, CONTENT], b)
        put(e, e.block[b, CONTENT])
        e.block[b, CONTENT] = 0


@njit(cache=True)
def grow(e, sid, blocks):
    """Extend a sequence's table to `blocks` blocks, the least recently used free ones; the caller has checked that there are as many."""
    ctl, block, held = e.ctl, e.block, e.held
    slot = e.own[sid, SLOT]
    have = e.seq[sid, BLOCKS]
    b = ctl[FREE_FIRST]
    for i in range(have, blocks):
        _empty(e, b)
        block[b, REFS] = 1
        held[slot, i] = b
        b = block[b, F_NEXT]
    if blocks > have:
        ctl[FREE_FIRST] = b
        if b >= 0:
            block[b, F_PREV] = -1
        else:
            ctl[FREE_LAST] = -1
        ctl[FREE] -= blocks - have
        e.seq[sid, BLOCKS] = blocks


@njit(cache=True)
def commit(e, sid, computed, own):
    """Enter all full blocks of the first `computed` tokens; those that only this sequence can ask for again only with `own`."""
    full = computed // e.ctl[BLOCK_SIZE]
    if not own:
        per = e.chain_block[0]
        if per == 0:
            return
        full = min(full, (e.chain_start[sid + 1] - e.chain_start[sid]) * per)
    slot = e.own[sid, SLOT]
    for i in range(e.own[sid, COMMITTED], full):
        b = e.held[slot, i]
        if e.block[b, CONTENT] == 0:
            key = content(e, sid, i)
            insert(e.table, key, b)
            e.block[b, CONTENT] = key
    e.own[sid, COMMITTED] = max(full, e.own[sid, COMMITTED])


@njit(cache=True)
def release(e, sid):
    """Give back all blocks of a sequence, end first, and its table."""
    ctl, block, held = e.ctl, e.block, e.held
    slot = e.own[sid, SLOT]
    for i in range(e.seq[sid, BLOCKS] - 1, -1, -1):
        b = held[slot, i]
        block[b, REFS] -= 1
        if block[b, REFS] == 0:
            _append_free(e, b)
    e.slots[ctl[SLOTS_FREE]] = slot
    ctl[SLOTS_FREE] += 1
    e.own[sid, SLOT] = -1
    e.own[sid, COMMITTED] = 0


@njit(cache=True)
def pin(e, sid, most):
    """Hold the cached blocks, at most `most`, with which a request begins; returns them."""
    blocks = np.empty(most, np.int64)
    for i in range(most):
        at = find(e.table, content(e, sid, i))
        if at < 0:
            return blocks[:i].copy()
        b = e.table[at, 1]
        if e.block[b, REFS] == 0:
            _unlink(e, b)
        e.block[b, REFS] += 1
        blocks[i] = b
    return blocks


@njit(cache=True)
def unpin(e, blocks):
    """Let go of pinned blocks, end first."""
    for i in range(blocks.size - 1, -1, -1):
        b = blocks[i]
        e.block[b, REFS] -= 1
        if e.block[b, REFS] == 0:
            _append_free(e, b)


@njit(cache=True)
def held_once(e, blocks):
    """How many of these blocks have one holder."""
    n = 0
    for b in blocks:
        if e.block[b, REFS] == 1:
            n += 1
    return n


@njit(cache=True)
def _append_free(e, b):
    tail = e.ctl[FREE_LAST]
    e.block[b, F_PREV] = tail
    e.block[b, F_NEXT] = -1
    if tail >= 0:
        e.block[tail, F_NEXT] = b
    else:
        e.ctl[FREE_FIRST] = b
    e.ctl[FREE_LAST] = b
    e.ctl[FREE] += 1
