"""An open-addressing map from 64-bit identities to small numbers, in an int64 array (rows, 2) whose length is a power of two (compiled).

An identity may be entered more than once; it is found under the number that was entered first. 0 is no identity.
"""

from __future__ import annotations

import numpy as np

from rota.jit import njit


@njit(cache=True)
def find(table, key):
    """Row of the number first entered under `key`, or -1."""
    mask = table.shape[0] - 1
    at = (key & np.int64(0x7FFFFFFFFFFFFFFF)) & mask
    while table[at, 0] != 0:
        if table[at, 0] == key:
            return at
        at = (at + 1) & mask
    return -1


@njit(cache=True)
def insert(table, key, number):
    mask = table.shape[0] - 1
    at = (key & np.int64(0x7FFFFFFFFFFFFFFF)) & mask
    while table[at, 0] != 0:
        at = (at + 1) & mask
    table[at, 0] = key
    table[at, 1] = number


@njit(cache=True)
def remove(table, key, number):
    """Delete an entry, moving later ones back so that no gap splits the run; equal keys keep their order."""
    mask = table.shape[0] - 1
    hole = find(table, key)
    while table[hole, 0] != key or table[hole, 1] != number:
        hole = (hole + 1) & mask
    at = hole
    while True:
        at = (at + 1) & mask
        if table[at, 0] == 0:
            break
        home = (table[at, 0] & np.int64(0x7FFFFFFFFFFFFFFF)) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            table[hole, 0] = table[at, 0]
            table[hole, 1] = table[at, 1]
            hole = at
    table[hole, 0] = 0
