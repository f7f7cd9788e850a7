"""The prefix cache's second level: contents that device blocks have lost, kept in host memory, least recently used out first (compiled).

A block that is taken for other use leaves its content here; a prompt whose prefix goes on here gets it copied back into free device
blocks, which takes time in the step that begins with it. The copy to the host is not charged: engines write it while they compute.
"""

from __future__ import annotations

from rota.jit import njit
from rota.mechanisms.simulator.hash_map import find, insert, remove
from rota.mechanisms.simulator.state import H_CONTENT, H_FIRST, H_LAST, H_NEXT, H_PREV, H_USED


@njit(cache=True)
def has(e, number):
    """Whether a content is in host memory."""
    return find(e.host_table, number + 1) >= 0


@njit(cache=True)
def put(e, number):
    """A content has lost its device block: it is now the most recently used one here, and the least recently used one may have to go."""
    host, ctl = e.host, e.host_ctl
    if host.shape[0] == 0 or touch(e, number):
        return
    if ctl[H_USED] < host.shape[0]:
        row = ctl[H_USED]
        ctl[H_USED] += 1
    else:
        row = ctl[H_FIRST]
        remove(e.host_table, host[row, H_CONTENT] + 1)
        _unlink(e, row)
    host[row, H_CONTENT] = number
    insert(e.host_table, number + 1, row)
    _append(e, row)


@njit(cache=True)
def touch(e, number):
    """Mark a content as used just now. Whether it is here."""
    at = find(e.host_table, number + 1)
    if at < 0:
        return False
    row = e.host_table[at, 1]
    _unlink(e, row)
    _append(e, row)
    return True


@njit(cache=True)
def _unlink(e, row):
    host, ctl = e.host, e.host_ctl
    before, after = host[row, H_PREV], host[row, H_NEXT]
    if before >= 0:
        host[before, H_NEXT] = after
    else:
        ctl[H_FIRST] = after
    if after >= 0:
        host[after, H_PREV] = before
    else:
        ctl[H_LAST] = before


@njit(cache=True)
def _append(e, row):
    host, ctl = e.host, e.host_ctl
    last = ctl[H_LAST]
    host[row, H_PREV] = last
    host[row, H_NEXT] = -1
    if last >= 0:
        host[last, H_NEXT] = row
    else:
        ctl[H_FIRST] = row
    ctl[H_LAST] = row
