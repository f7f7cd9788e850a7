"""What the engine's compiled kernels are made of, against NumPy and PyTorch."""

import numpy as np
import pytest

from tests.engine.tiny import torch

from rota.jit import njit  # isort: skip
from rota.mechanisms.engine.intrinsics import exp, larger, narrow, widen  # isort: skip
from rota.mechanisms.engine.softmax import LOW, soften  # isort: skip
from rota.mechanisms.engine.tiles import COLUMNS, ROWS, product, product_added  # isort: skip


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
def running(scores, fades):
    """Of four rows, (pieces, 4, size): weights in place of scores; fades (pieces, 4); sums."""
    top, total = np.full(4, LOW, scores.dtype), np.zeros(4, scores.dtype)
    for i in range(len(scores)):
        soften(scores[i].ravel(), scores.shape[2], top, total, fades[i], 0)
    return total


@njit
def products(a, b, c, more):
    for i in range(0, a.shape[0], ROWS):
        for j in range(0, b.shape[1], COLUMNS):
            product(a.ravel(), i * a.shape[1], a.shape[1], b.ravel(), j, b.shape[1], len(b), c.ravel(), i * c.shape[1] + j, c.shape[1])
            product_added(a.ravel(), i * a.shape[1], a.shape[1], b.ravel(), j, b.shape[1], len(b), more.ravel(), i * c.shape[1] + j, c.shape[1])


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
    scores = (10 * generator.standard_normal((pieces, 4, size))).astype(dtype)
    scores[0, 0, 0] = scores[2, 1, 1] = scores[4, :, -2:] = LOW
    scores[:2, 2] = LOW  # two whole pieces
    counted = scores > LOW
    rows = scores.astype(np.float64).swapaxes(0, 1).reshape(4, -1)
    exact = np.exp(rows - rows.max(axis=1, keepdims=True))
    weights, fades = scores.copy(), np.empty((pieces, 4), dtype)
    total = running(weights, fades)
    later = np.concatenate([np.cumprod(fades[:0:-1], axis=0)[::-1], np.ones((1, 4), dtype)])
    found = (weights * later[:, :, None] / total[None, :, None]).swapaxes(0, 1).reshape(4, -1)
    np.testing.assert_allclose(found, exact / exact.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-7)
    assert (found.reshape(4, pieces, size).swapaxes(0, 1)[~counted] < 1e-30).all()


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_products_of_tiles(dtype, error):
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(shape).astype(dtype) for shape in ((2 * ROWS, 19), (19, 2 * COLUMNS)))
    start = generator.standard_normal((2 * ROWS, 2 * COLUMNS)).astype(dtype)
    found, more = np.full_like(start, np.nan), start.copy()
    products(a, b, found, more)
    np.testing.assert_allclose(found, a @ b, atol=error)
    np.testing.assert_allclose(more, start + a @ b, atol=error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_larger_number(dtype):
    @njit
    def largest(x):
        top = x[0]
        for i in range(x.size):
            top = larger(top, x[i])
        return top

    x = np.random.default_rng(0).standard_normal(1001).astype(dtype)
    assert largest(x) == x.max()
