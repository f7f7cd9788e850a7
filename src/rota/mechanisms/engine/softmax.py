"""The running softmax over a block's scores (compiled): online softmax (Milakov and Gimelshein 2018)."""

from __future__ import annotations

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import exp, larger

#: Numbers that are computed together: what a vector register of 512 bits holds in single precision. Loops over fewer are not vectorised.
LANES = 16
#: A score that counts for nothing.
LOW = -1e30


@njit(inline="always")
def padded(n):
    """Room for `n` scores."""
    return -(-n // LANES) * LANES


@njit(inline="always")
def soften(scores, n, top, total, fade, at):
    """Turn a piece of each of four rows of scores into weights relative to the largest so far; four at once, so that none waits for another.

    Parameters
    ----------
    scores : (4 n,)
        Overwritten. What does not count has to be `LOW`.
    top, total, fade : arrays
        Of all rows, the four from `at` on: largest score and sum of weights, `LOW` and 0 at the beginning, updated; and by what earlier weights
        have to be multiplied. A row of which nothing counted yet may get weights, which the first score that counts puts out again.
    """
    a, b, c, d = scores[:n], scores[n : 2 * n], scores[2 * n : 3 * n], scores[3 * n : 4 * n]
    top_a, top_b, top_c, top_d = top[at], top[at + 1], top[at + 2], top[at + 3]
    high_a, high_b, high_c, high_d = top_a, top_b, top_c, top_d
    for p in range(n):
        high_a, high_b, high_c, high_d = larger(high_a, a[p]), larger(high_b, b[p]), larger(high_c, c[p]), larger(high_d, d[p])
    more_a = more_b = more_c = more_d = scores.dtype.type(0.0)
    for p in range(n):
        a[p], b[p], c[p], d[p] = exp(a[p] - high_a), exp(b[p] - high_b), exp(c[p] - high_c), exp(d[p] - high_d)
        more_a += a[p]
        more_b += b[p]
        more_c += c[p]
        more_d += d[p]
    fade[at], fade[at + 1], fade[at + 2], fade[at + 3] = exp(top_a - high_a), exp(top_b - high_b), exp(top_c - high_c), exp(top_d - high_d)
    total[at] = total[at] * fade[at] + more_a
    total[at + 1] = total[at + 1] * fade[at + 1] + more_b
    total[at + 2] = total[at + 2] * fade[at + 2] + more_c
    total[at + 3] = total[at + 3] * fade[at + 3] + more_d
    top[at], top[at + 1], top[at + 2], top[at + 3] = high_a, high_b, high_c, high_d
