"""KV blocks with identities: the prefix cache of one simulated engine (compiled).

As in vLLM v1 [0.10]: full blocks are entered under the identity of their content and everything before it; blocks that nobody
holds stay in the cache and wait, least recently used first, to be taken for new use; a released sequence gives its blocks back end
first, so that the end goes before the beginning. A second block with the same content is entered too, behind the first.
Engines without a prefix cache only count blocks and never come here.

Blocks wait in ``e.free``, in order; one that is held again leaves a stale entry there, which is skipped: AT says where the valid one is.
"""

from __future__ import annotations

from rota.contracts.columns import BLOCK_SIZE, BLOCKS, COMPUTED, FREE, KNOWN
from rota.jit import njit
from rota.mechanisms.simulator.contents import PAGE, content_of, contents, enter, first_block, forget, page_of
from rota.mechanisms.simulator.host_cache import has, put, touch
from rota.mechanisms.simulator.state import (
    AS_OF,
    AT,
    CHANGED,
    COMMITTED,
    ENTRY,
    FREE_BEGIN,
    FREE_END,
    H_LOADED,
    HITS,
    IDLE,
    LOADING,
    PAGE_BITS,
    REFS,
    RELOAD,
    RELOAD_BLOCK,
    SERIAL,
    SLOT,
    SLOTS_FREE,
    VERSION,
)


@njit(cache=True)
def look_up(e, sid):
    """Bring HITS and IDLE of a waiting sequence up to date: blocks of its longest cached prefix, of at most its known tokens less one,
    and free ones that this takes: idle blocks, and blocks for copies of what is in host memory.

    While the cache only loses contents, the last block tells of all: whoever let go of it last had one of each content before it, and
    let go of those later. (Not so in host memory.)
    """
    ctl, own = e.ctl, e.own
    seen, hits = own[sid, AS_OF], own[sid, HITS]
    if seen == e.cache[VERSION]:
        return
    own[sid, AS_OF] = e.cache[VERSION]
    hosted = e.host.shape[0] > 0
    if seen >= e.cache[CHANGED] and not hosted:
        contents(e, sid, max(0, hits - 1), hits)
        if hits == 0 or first_block(e, e.numbers[0]) > 0:
            return
    most = (e.seq[sid, KNOWN] - 1) // ctl[BLOCK_SIZE]
    contents(e, sid, 0, most)
    numbers = e.numbers
    block, pages = e.block, e.pages
    page, row, hits, idle = -1, 0, 0, 0
    while hits < most:
        number = numbers[hits]
        if number >> PAGE_BITS != page:
            page = number >> PAGE_BITS
            row = page_of(e, page)
        b = pages[row, number & (PAGE - 1)] - 1
        if b >= 0:
            idle += block[b, REFS] == 0
        elif hosted and has(e, number):
            idle += 1
        else:
            break
        hits += 1
    own[sid, HITS] = hits
    own[sid, IDLE] = idle


@njit(cache=True)
def unclaimed(e, sid, claim, take):
    """IDLE of a sequence that was just looked up, less the idle blocks taken under the same `claim`, a number from `new_claim`: sequences
    admitted together share them. `take` takes the rest.
    """
    contents(e, sid, 0, e.own[sid, HITS])
    numbers = e.numbers
    block, pages, claims = e.block, e.pages, e.claims
    page, row, idle = -1, 0, 0
    for i in range(e.own[sid, HITS]):
        number = numbers[i]
        if number >> PAGE_BITS != page:
            page = number >> PAGE_BITS
            row = page_of(e, page)
        b = pages[row, number & (PAGE - 1)] - 1
        if b < 0:
            idle += 1
        elif block[b, REFS] == 0 and claims[b] != claim:
            idle += 1
            if take:
                claims[b] = claim
    return idle


@njit(cache=True)
def new_claim(e):
    """A number that no block is claimed under."""
    e.ctl[SERIAL] += 1
    return e.ctl[SERIAL]


@njit(cache=True)
def _changed(e):
    e.cache[VERSION] += 1
    e.cache[CHANGED] = e.cache[VERSION]


@njit(cache=True)
def hold_prefix(e, sid):
    """Give a newly admitted sequence a block table and the cached prefix. What is in host memory gets its blocks from `load`."""
    ctl, block, held, pages = e.ctl, e.block, e.held, e.pages
    _changed(e)
    ctl[SLOTS_FREE] -= 1
    slot = e.slots[ctl[SLOTS_FREE]]
    e.own[sid, SLOT] = slot
    most = (e.seq[sid, KNOWN] - 1) // ctl[BLOCK_SIZE]
    contents(e, sid, 0, most)
    numbers = e.numbers
    hosted = e.host.shape[0] > 0
    page, row, hits, idle, loading = -1, 0, 0, 0, 0
    while hits < most:
        number = numbers[hits]
        if number >> PAGE_BITS != page:
            page = number >> PAGE_BITS
            row = page_of(e, page)
        b = pages[row, number & (PAGE - 1)] - 1
        if b >= 0:
            if block[b, REFS] == 0:
                block[b, AT] = -1
                idle += 1
            block[b, REFS] += 1
        elif hosted and touch(e, number):
            loading += 1
        else:
            break
        held[slot, hits] = b
        hits += 1
    ctl[FREE] -= idle
    e.own[sid, LOADING] = loading
    e.seq[sid, BLOCKS] = hits
    e.seq[sid, COMPUTED] = hits * ctl[BLOCK_SIZE]
    e.own[sid, COMMITTED] = hits


@njit(cache=True)
def load(e, sid):
    """Copy what a newly admitted sequence finds in host memory into free blocks, the least recently used ones; there are as many."""
    slot = e.own[sid, SLOT]
    row = 0
    for i in range(e.seq[sid, BLOCKS]):
        if e.held[slot, i] < 0:
            _take(e, slot, i, i + 1)
            contents(e, sid, i, i + 1)
            row = enter(e, e.numbers[0], e.held[slot, i], row)
    e.host_ctl[H_LOADED] += e.own[sid, LOADING]
    e.flt[RELOAD] += e.own[sid, LOADING] * e.flt[RELOAD_BLOCK]
    e.own[sid, LOADING] = 0


@njit(cache=True)
def _take(e, slot, begin, end):
    """Fill a part of a block table with the least recently used idle blocks, for new use: what they hold goes to host memory, if any."""
    block, free, held = e.block, e.free, e.held
    ring = free.size - 1
    at = e.cache[FREE_BEGIN]
    for i in range(begin, end):
        while block[free[at & ring], AT] != at & ring:
            at += 1
        b = free[at & ring]
        at += 1
        block[b, AT] = -1
        block[b, REFS] = 1
        if block[b, ENTRY] != 0:
            number = content_of(e, b)
            forget(e, b)
            put(e, number)
        held[slot, i] = b
    e.cache[FREE_BEGIN] = at
    e.ctl[FREE] -= end - begin


@njit(cache=True)
def _let_go(e, blocks):
    """One holder less of each of these blocks, end first; those without one are the most recently used of the idle ones."""
    block, free = e.block, e.free
    ring = free.size - 1
    if e.cache[FREE_END] - e.cache[FREE_BEGIN] + blocks.size > free.size:
        _drop_stale(e)
    at = e.cache[FREE_END]
    for i in range(blocks.size - 1, -1, -1):
        b = blocks[i]
        holders = block[b, REFS] - 1
        block[b, REFS] = holders
        if holders == 0:
            free[at & ring] = b
            block[b, AT] = at & ring
            at += 1
    e.ctl[FREE] += at - e.cache[FREE_END]
    e.cache[FREE_END] = at


@njit(cache=True)
def _drop_stale(e):
    """Close the gaps in `free`; at most half of it is valid."""
    block, free = e.block, e.free
    ring = free.size - 1
    end = e.cache[FREE_BEGIN]
    for at in range(e.cache[FREE_BEGIN], e.cache[FREE_END]):
        b = free[at & ring]
        if block[b, AT] == at & ring:
            free[end & ring] = b
            block[b, AT] = end & ring
            end += 1
    e.cache[FREE_END] = end


@njit(cache=True)
def grow(e, sid, blocks):
    """Extend a sequence's table to `blocks` blocks, the least recently used free ones; the caller has checked that there are as many."""
    if blocks > e.seq[sid, BLOCKS]:
        _take(e, e.own[sid, SLOT], e.seq[sid, BLOCKS], blocks)
        e.seq[sid, BLOCKS] = blocks


@njit(cache=True)
def commit(e, sid, computed, own):
    """Enter all full blocks of the first `computed` tokens; those that only this sequence can ask for again only with `own`."""
    full = computed // e.ctl[BLOCK_SIZE]
    if not own:
        full = min(full, (e.chain_start[sid + 1] - e.chain_start[sid]) * e.chain_block[0]) if e.chain_block[0] > 0 else 0
    begin = e.own[sid, COMMITTED]
    if begin >= full:
        return
    slot = e.own[sid, SLOT]
    contents(e, sid, begin, full)
    numbers = e.numbers
    row = 0
    for i in range(begin, full):
        b = e.held[slot, i]
        if e.block[b, ENTRY] == 0:
            row = enter(e, numbers[i - begin], b, row)
    e.own[sid, COMMITTED] = full


@njit(cache=True)
def release(e, sid):
    """Give back all blocks of a sequence, end first, and its table."""
    ctl, held = e.ctl, e.held
    _changed(e)
    slot = e.own[sid, SLOT]
    _let_go(e, held[slot, : e.seq[sid, BLOCKS]])
    e.slots[ctl[SLOTS_FREE]] = slot
    ctl[SLOTS_FREE] += 1
    e.own[sid, SLOT] = -1
    e.own[sid, COMMITTED] = 0


@njit(cache=True)
def _find(e, sid, most):
    """Write the cached blocks, at most `most`, with which a request begins into ``e.numbers``. How many there are."""
    contents(e, sid, 0, most)
    numbers, pages = e.numbers, e.pages
    page, row = -1, 0
    for i in range(most):
        number = numbers[i]
        if number >> PAGE_BITS != page:
            page = number >> PAGE_BITS
            row = page_of(e, page)
        b = pages[row, number & (PAGE - 1)] - 1
        if b < 0:
            return i
        numbers[i] = b
    return most


@njit(cache=True)
def pin(e, sid, most):
    """Hold the cached blocks, at most `most`, with which a request begins. How many: they stay the first of their contents until `unpin`."""
    _changed(e)
    found = _find(e, sid, most)
    block, blocks = e.block, e.numbers
    idle = 0
    for i in range(found):
        b = blocks[i]
        if block[b, REFS] == 0:
            block[b, AT] = -1
            idle += 1
        block[b, REFS] += 1
    e.ctl[FREE] -= idle
    return found


@njit(cache=True)
def unpin(e, sid, pinned):
    """Let go of so many pinned blocks, end first."""
    _changed(e)
    _let_go(e, e.numbers[: _find(e, sid, pinned)])


@njit(cache=True)
def held_once(e, sid, pinned):
    """How many of so many pinned blocks have one holder."""
    n = 0
    for i in range(_find(e, sid, pinned)):
        n += e.block[e.numbers[i], REFS] == 1
    return n
