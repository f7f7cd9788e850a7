"""An open-addressing map from positive numbers to small ones, in an int64 array (rows, 2) whose length is a power of two (compiled)."""

from __future__ import annotations

import numpy as np

from rota.jit import njit


@njit(cache=True)
def mix(a, b):
    """A 64-bit identity of the pair (a, b), positive."""
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) + np.uint64(0x632BE59BD9B4E019)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.int64((x >> np.uint64(1)) | np.uint64(1))


@njit(cache=True)
def _home(table, key):
    """Where a key would like to be: neighbouring keys far apart (Knuth's multiplicative hashing)."""
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (table.shape[0] - 1)


@njit(cache=True)
def find(table, key):
    """Row of `key`, or -1."""
    mask = table.shape[0] - 1
    at = _home(table, key)
    while table[at, 0] != 0:
        if table[at, 0] == key:
            return at
        at = (at + 1) & mask
    return -1


@njit(cache=True)
def insert(table, key, number):
    """Enter a key that is not there."""
    mask = table.shape[0] - 1
    at = _home(table, key)
    while table[at, 0] != 0:
        at = (at + 1) & mask
    table[at, 0] = key
    table[at, 1] = number


@njit(cache=True)
def remove(table, key):
    """Delete a key that is there, moving later ones back so that no gap splits the run."""
    mask = table.shape[0] - 1
    hole = find(table, key)
    at = hole
    while True:
        at = (at + 1) & mask
        if table[at, 0] == 0:
            break
        if ((at - _home(table, table[at, 0])) & mask) >= ((at - hole) & mask):
            table[hole, 0] = table[at, 0]
            table[hole, 1] = table[at, 1]
            hole = at
    table[hole, 0] = 0
