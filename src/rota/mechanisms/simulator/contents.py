"""Contents of KV blocks as numbers, and which block holds which (compiled).

A content is a block's tokens and all before them. `number_runs` numbers those of a trace along the tree of its prefixes, so that the
blocks of a prompt have consecutive numbers, but where prompts branch. The cache keeps them in pages of 16: whoever walks a prefix looks
up one page in 16 blocks, and memory is bounded by the blocks that are cached, whatever the trace.
"""

from __future__ import annotations

import numpy as np

from rota.jit import njit
from rota.mechanisms.simulator.hash_map import find, insert, mix, remove
from rota.mechanisms.simulator.state import CHANGED, COPY, ENTRY, P_NUMBER, P_USED, PAGE_BITS, PAGE_FREE, VERSION

PAGE = 1 << PAGE_BITS


@njit(cache=True)
def number_runs(hash_ids, hash_start):
    """Number of every hash run together with all runs before it, int32 like `hash_ids`: equal where these are, from 0.

    A run that is new follows the number before it; so only the first new run of each request is entered into a map.
    """
    size = 16
    while size < 2 * hash_start.size:
        size *= 2
    branches = np.zeros((size, 2), np.int64)
    numbers = np.empty(hash_ids.size, np.int32)
    run_of = np.empty(hash_ids.size, np.int32)  # by number: where its hash id stands
    begins = np.zeros(hash_ids.size + 1, np.bool_)  # by number: whether it does not follow the number before it
    used = 0
    for i in range(hash_start.size - 1):
        at = -1
        known = True
        for j in range(hash_start[i], hash_start[i + 1]):
            if known and at >= 0 and at + 1 < used and not begins[at + 1] and hash_ids[run_of[at + 1]] == hash_ids[j]:
                at += 1
            else:
                if known:
                    key = mix(at, hash_ids[j])
                    row = find(branches, key)
                    known = row >= 0
                    if known:
                        at = branches[row, 1]
                    else:
                        insert(branches, key, used)
                        begins[used] = True
                if not known:
                    at = used
                    run_of[used] = j
                    used += 1
            numbers[j] = at
    return numbers


@njit(cache=True)
def contents(e, sid, begin, end):
    """Write the numbers of the contents of blocks `begin` to `end` of a sequence into ``e.numbers``, from 0 on.

    Where the trace says nothing about its tokens they are the sequence's own.
    """
    numbers, per = e.numbers, e.chain_block[0]
    i = begin
    if per > 0:
        first, last = e.chain_start[sid], e.chain_start[sid + 1]
        run = first + begin // per
        within = begin % per
        while i < end and run < last:
            number = e.chain[run] * per
            upto = min(per, within + end - i)
            for k in range(within, upto):
                numbers[i - begin] = number + k
                i += 1
            run += 1
            within = 0
    own = e.chain_block[1] + sid * e.numbers.size
    for k in range(i, end):
        numbers[k - begin] = own + k


@njit(cache=True)
def page_of(e, page):
    """Row of a page, or that of an empty one."""
    at = find(e.page_map, page + 1)
    return e.page_map[at, 1] if at >= 0 else 0


@njit(cache=True)
def first_block(e, number):
    """The block first entered under a content, plus 1, or 0."""
    return e.pages[page_of(e, number >> PAGE_BITS), number & (PAGE - 1)]


@njit(cache=True)
def content_of(e, b):
    """What an entered block holds."""
    entry = e.block[b, ENTRY]
    return e.page[entry >> PAGE_BITS, P_NUMBER] << PAGE_BITS | entry & (PAGE - 1)


@njit(cache=True)
def enter(e, number, b, row):
    """A block now holds a content; behind those that do already. `row` may be that of its page, and is what comes back."""
    cache, block, pages = e.cache, e.block, e.pages
    cache[VERSION] += 1
    cache[CHANGED] = cache[VERSION]
    if e.page[row, P_NUMBER] != number >> PAGE_BITS:
        row = page_of(e, number >> PAGE_BITS)
    if row == 0:
        row = cache[PAGE_FREE]
        cache[PAGE_FREE] = e.page[row, P_NUMBER]
        e.page[row, P_NUMBER] = number >> PAGE_BITS
        insert(e.page_map, (number >> PAGE_BITS) + 1, row)
    at = number & (PAGE - 1)
    block[b, ENTRY] = row << PAGE_BITS | at
    block[b, COPY] = 0
    if pages[row, at] == 0:
        pages[row, at] = b + 1
        e.page[row, P_USED] += 1
        return row
    last = pages[row, at] - 1
    while block[last, COPY] > 0:
        last = block[last, COPY] - 1
    block[last, COPY] = b + 1
    return row


@njit(cache=True)
def forget(e, b):
    """An entered block loses its content; a copy takes its place."""
    cache, block, pages = e.cache, e.block, e.pages
    cache[VERSION] += 1
    row, at = block[b, ENTRY] >> PAGE_BITS, block[b, ENTRY] & (PAGE - 1)
    block[b, ENTRY] = 0
    first = pages[row, at] - 1
    if first != b:
        while block[first, COPY] != b + 1:
            first = block[first, COPY] - 1
        block[first, COPY] = block[b, COPY]
        return
    pages[row, at] = block[b, COPY]
    if block[b, COPY] > 0:
        cache[CHANGED] = cache[VERSION]
        return
    e.page[row, P_USED] -= 1
    if e.page[row, P_USED] == 0:
        remove(e.page_map, e.page[row, P_NUMBER] + 1)
        e.page[row, P_NUMBER] = cache[PAGE_FREE]
        cache[PAGE_FREE] = row
