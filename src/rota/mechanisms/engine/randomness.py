"""Random numbers by counter: a request's seed and a token's position give the number, whatever else is drawn, and in whatever order."""

from __future__ import annotations

import numpy as np

from rota.jit import njit


@njit(cache=True)
def philox(counter, key):
    """Philox4x32-10 (Salmon et al., 2011): uint32 (4,) and (2,) to uint32 (4,)."""
    c0, c1, c2, c3 = np.uint64(counter[0]), np.uint64(counter[1]), np.uint64(counter[2]), np.uint64(counter[3])
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (b >> shift) ^ c1 ^ k0, b & low, (a >> shift) ^ c3 ^ k1, a & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.array([c0, c1, c2, c3], dtype=np.uint32)


def uniform(seed: int, position: int) -> float:
    """A number from 0 to below 1, of 53 bits, for the token at `position` of the request with `seed`."""
    counter = np.array([position & 0xFFFFFFFF, position >> 32, 0, 0], np.uint32)
    key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32)
    words = philox(counter, key)
    return float((int(words[0]) << 21) | (int(words[1]) >> 11)) / 9007199254740992.0
