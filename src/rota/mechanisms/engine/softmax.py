"""The running softmax over a block's scores (compiled): online softmax (Milakov and Gimelshein 2018)."""

from __future__ import annotations

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import exp

#: Numbers that are computed together: what a vector register of 512 bits holds in single precision. Loops over fewer are not vectorised.
LANES = 16
#: A score that counts for nothing.
LOW = -1e30


@njit(inline="always")
def padded(n):
    """Room for `n` scores."""
    return -(-n // LANES) * LANES


@njit(inline="always")
def soften(scores, begin, end, top, total):
    """Turn a block's scores into weights relative to the largest so far.

    Parameters
    ----------
    scores : (padded(block_size),)
        Of which those from `begin` to `end` count, unless they are `LOW`; overwritten, with 0 for those that do not.
    top, total : float
        Largest score and sum of weights before; `LOW` and 0 at the beginning.

    Returns
    -------
    (float, float, float)
        Both now, and by what earlier weights have to be multiplied.
    """
    low = scores.dtype.type(LOW)
    scores[:begin] = low
    scores[end:] = low
    highest = top
    for p in range(scores.size):
        highest = scores[p] if scores[p] > highest else highest
    more = scores.dtype.type(0.0)
    for p in range(scores.size):
        weight = exp(scores[p] - highest) if scores[p] > low else scores.dtype.type(0.0)
        scores[p] = weight
        more += weight
    fade = exp(top - highest)
    return highest, total * fade + more, fade
