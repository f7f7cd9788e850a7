"""What the engine's compiled kernels are made of, against NumPy and PyTorch."""

import numpy as np
import pytest

from tests.engine.tiny import torch

from rota.jit import njit  # isort: skip
from rota.mechanisms.engine.intrinsics import exp, narrow, widen  # isort: skip
from rota.mechanisms.engine.softmax import LOW, padded, soften  # isort: skip


@njit
def to_bfloat16(x, out):
    for i in range(x.size):
        out[i] = narrow(x[i], out)


@njit
def from_bfloat16(bits, out):
    for i in range(bits.size):
        out[i] = widen(bits[i])


@njit
def exponentials(x, out):
    for i in range(x.size):
        out[i] = exp(x[i])


@njit
def running(scores, cuts, weights, fades):
    top, total = scores.dtype.type(LOW), scores.dtype.type(0.0)
    for i in range(len(cuts)):
        top, total, fades[i] = soften(scores[i], cuts[i, 0], cuts[i, 1], top, total)
        weights[i] = scores[i]
    return total


def test_bfloat16_is_pytorchs():
    generator = np.random.default_rng(0)
    x = np.concatenate([
        generator.standard_normal(10_000).astype(np.float32) * 10.0 ** generator.integers(-30, 30, 10_000).astype(np.float32),
        np.array([0.0, -0.0, 1.0, np.inf, -np.inf, 1.00390625, 1.01171875, 3.4e38], np.float32),  # two ties among them
    ])  # fmt: skip
    expected = torch.from_numpy(x).bfloat16()
    bits, back = np.empty(x.size, np.uint16), np.empty_like(x)
    to_bfloat16(x, bits)
    assert (bits == expected.view(torch.int16).numpy().view(np.uint16)).all()
    from_bfloat16(bits, back)
    assert (back == expected.float().numpy()).all()


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_exponentials(dtype, error):
    x = np.concatenate([-np.logspace(-9, np.log10(86.0), 20_000), [0.0]]).astype(dtype)
    found = np.empty_like(x)
    exponentials(x, found)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=error)
    exponentials(np.array([-200.0, LOW], dtype), found[:2])
    assert (found[:2] < 1e-37).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [4, 16, 21])
def test_a_softmax_in_pieces_is_one_of_the_whole(dtype, size):
    generator = np.random.default_rng(size)
    pieces = 5
    scores = (10 * generator.standard_normal((pieces, padded(size)))).astype(dtype)
    cuts = np.array([[1, size]] + [[0, size]] * (pieces - 2) + [[0, size - 2]])
    scores[2, 1] = LOW
    counted = np.zeros(scores.shape, bool)
    for i, (begin, end) in enumerate(cuts):
        counted[i, begin:end] = True
    counted[2, 1] = False
    exact = np.where(counted, np.exp(scores.astype(np.float64) - scores[counted].max()), 0.0)
    weights, fades = np.empty_like(scores), np.empty(pieces, dtype)
    total = running(scores.copy(), cuts, weights, fades)
    later = np.concatenate([np.cumprod(fades[:0:-1])[::-1], [1.0]])
    np.testing.assert_allclose(weights * later[:, None] / total, exact / exact.sum(), rtol=1e-5, atol=1e-7)
    assert (weights[~counted] == 0).all()
