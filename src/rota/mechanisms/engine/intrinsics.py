"""What compiled kernels of the engine need beyond Numba: bfloat16 (kept as uint16), an exponential and a maximum that
vectorise, prefetching."""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


@intrinsic
def _to_float(typingctx, bits):
    """The float32 of 32 bits."""
    return types.float32(types.uint32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def _to_bits(typingctx, x):
    """The 32 bits of a float32."""
    return types.uint32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))


def widen(x):
    """An element of an array of floating-point numbers, where uint16 stands for bfloat16."""


def narrow(x, like):
    """`x` as an element of arrays such as `like`; to bfloat16 it is rounded to the nearest, ties to even."""


def exp(x):
    """The exponential of a number at most zero; below the smallest normal number, something smaller still. In single precision within 3e-7."""


def prefetch(array, i, j):
    """Ask for ``array[i, j]``'s cache line, and do not wait."""


@overload(widen, inline="always")
def _widen(x):
    if x == types.uint16:
        return lambda x: _to_float(np.uint32(x) << np.uint32(16))
    return lambda x: x


@overload(narrow, inline="always")
def _narrow(x, like):
    if like.dtype != types.uint16:
        return lambda x, like: x

    def rounded(x, like):
        bits = _to_bits(x)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return rounded


@overload(exp, inline="always")
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def single(x):
        # 2^n e^r with |r| <= log(2) / 2, log(2) in two parts so that r is exact; the series of e^r to the sixth power
        x = max(x, np.float32(-87.0))
        n = np.rint(x * np.float32(1.4426950408889634))
        r = x - n * np.float32(0.693145751953125) - n * np.float32(1.4286068203094172e-06)
        y = np.float32(1.0 / 720.0)
        y = y * r + np.float32(1.0 / 120.0)
        y = y * r + np.float32(1.0 / 24.0)
        y = y * r + np.float32(1.0 / 6.0)
        y = y * r + np.float32(0.5)
        y = y * r * r + r + np.float32(1.0)
        return y * _to_float(np.uint32((np.int32(n) + np.int32(127)) << np.int32(23)))

    return single


@intrinsic
def larger(typingctx, x, y):
    """The larger of two numbers of a type. Unlike `max`, LLVM finds the largest of an array with it in vectors; what it gives for NaN is open."""

    def generate(context, builder, sig, args):
        x, y = args
        return builder.select(builder.fcmp_ordered(">", x, y, flags=("fast",)), x, y, flags=("fast",))

    return x(x, x), generate


@intrinsic
def _prefetch(typingctx, array, i, j):
    def generate(context, builder, sig, args):
        pages = context.make_array(sig.args[0])(context, builder, args[0])
        pointer = cgutils.get_item_pointer(context, builder, sig.args[0], pages, list(args[1:]), wraparound=False)
        i32 = ir.IntType(32)
        place = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, i32(0), i32(3), i32(1)])  # to be read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@overload(prefetch, inline="always")
def _prefetch_line(array, i, j):
    return lambda array, i, j: _prefetch(array, i, j)
