"""Products of small matrices in registers, for compiled kernels: Numba's own loops keep sums in memory."""

from __future__ import annotations

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Rows and columns of a product: sums that fill eight registers, of 512 or of 256 bits.
ROWS, COLUMNS = 4, 32 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 16


def _product(added):
    def typed(typingctx, a, a_at, a_stride, b, b_at, b_stride, n, c, c_at, c_stride):
        def generate(context, builder, sig, args):
            number = context.get_data_type(sig.args[0].dtype)
            row = ir.VectorType(number, COLUMNS)
            size = context.get_abi_sizeof(number)
            a, b, c = (context.make_array(sig.args[i])(context, builder, args[i]).data for i in (0, 3, 7))
            _, a_at, a_stride, _, b_at, b_stride, n, _, c_at, c_stride = args

            def place(array, at):
                return builder.bitcast(builder.gep(array, [at]), row.as_pointer())

            to = [place(c, builder.add(c_at, builder.mul(c_stride, ir.Constant(c_stride.type, r)))) for r in range(ROWS)]
            sums = [cgutils.alloca_once(builder, row) for _ in range(ROWS)]
            for at, sum_ in zip(to, sums, strict=True):
                builder.store(builder.load(at, align=size) if added else ir.Constant(row, None), sum_)
            with cgutils.for_range(builder, n) as loop:
                columns = builder.load(place(b, builder.add(b_at, builder.mul(loop.index, b_stride))), align=size)
                for r, sum_ in enumerate(sums):
                    at = builder.add(a_at, builder.add(loop.index, builder.mul(a_stride, ir.Constant(a_stride.type, r))))
                    one = builder.insert_element(ir.Constant(row, ir.Undefined), builder.load(builder.gep(a, [at])), ir.IntType(32)(0))
                    all_ = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), None))
                    more = builder.fmul(all_, columns, flags=("fast",))
                    builder.store(builder.fadd(builder.load(sum_), more, flags=("fast",)), sum_)
            for at, sum_ in zip(to, sums, strict=True):
                builder.store(builder.load(sum_), at, align=size)
            return context.get_dummy_value()

        return types.void(a, *(types.intp,) * 2, b, *(types.intp,) * 3, c, *(types.intp,) * 2), generate

    return typed


#: ``product(a, a_at, a_stride, b, b_at, b_stride, n, c, c_at, c_stride)``: C = A B with A (`ROWS`, n), B (n, `COLUMNS`) and C in flat arrays, from
#: a place on with so many numbers between rows; ``product_added``: C = C + A B.
product, product_added = intrinsic(_product(False)), intrinsic(_product(True))
