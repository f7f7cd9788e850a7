"""Passing a `State` to compiled code as one pointer.

A NamedTuple of forty arrays costs 5 us to unpack at every call from Python and as much machine code at every call inside. A `StateRef` is
the address of a table of (address, rows, columns) instead; in compiled code ``e.heap`` reads that table and gives the array.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import from_dtype

from rota.contracts.columns import SEQ_COLUMNS, TIM_COLUMNS
from rota.contracts.serving import HELD_COLUMNS
from rota.mechanisms.simulator.state import BLOCK_COLUMNS, GRP, LANE, LOG_COLUMNS, OWN_COLUMNS, PAGE_BITS, TL_COLUMNS, State


class StateRefType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="StateRef")


state_ref_type = StateRefType()


class StateRef(int):
    """Address of the table that describes a `State`; valid as long as the table that `bind` gives with it lives."""

    #: Found at once at every call; the function registered below takes 2 us more, and is for compiled functions among the arguments.
    _numba_type_ = state_ref_type


@typeof_impl.register(StateRef)
def _typeof(value, context):
    return state_ref_type


@register_model(StateRefType)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.IntType(64))


@unbox(StateRefType)
def _unbox(typ, obj, c):
    return NativeValue(c.pyapi.long_as_longlong(obj), is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


_KINDS: tuple[tuple[type, int, str], ...] = (
    (np.int64, 1, "ctl out paused ghosts level_tail inbox rel hist slots chain_start chain_block ending arrived finished host_ctl cache "
                  "claims numbers kept"),
    (np.int64, 2, "seq own grp heap stack_step fresh bucket bucket_head bucket_tail lane page page_map readers host host_table "
                  "running"),
    (np.int64, 3, "lane_work"),
    (np.float64, 1, "flt last lane_end stage_free delay cp layer head expert prefill_long acc"),
    (np.float64, 2, "tim stack_gap decode_table prefill_table timeline log"),
    (np.int32, 1, "free chain"),
    (np.int32, 2, "held pages block"),
)  # fmt: skip
_DTYPES = {name: (np.dtype(dtype), dims) for dtype, dims, names in _KINDS for name in names.split()}
_TYPES = {name: types.Array(from_dtype(dtype), dims, "C") for name, (dtype, dims) in _DTYPES.items()}
#: Arrays of known width: compiled code then finds a row without loading how wide it is.
_WIDTHS = {"seq": SEQ_COLUMNS, "own": OWN_COLUMNS, "tim": TIM_COLUMNS, "grp": GRP, "lane": LANE, "block": BLOCK_COLUMNS,
           "timeline": TL_COLUMNS, "log": LOG_COLUMNS, "page": 2, "page_map": 2, "pages": 1 << PAGE_BITS, "host": 3, "host_table": 2,
           "running": HELD_COLUMNS}  # fmt: skip
#: Arrays whose length compiled code may ask for. That of others reads as 0: no index is negative, so that the compiler need not load
#: the length to add it to one that might be.
_SIZED = {"log", "delay", "timeline", "host", "page_map", "host_table", "free", "numbers", "layer", "head", "expert", "decode_table",
          "prefill_table", "prefill_long", "lane_end"}  # fmt: skip


@infer_getattr
class _Attributes(AttributeTemplate):
    key = StateRefType

    def generic_resolve(self, typ, attr):  # type: ignore[override]
        return _TYPES.get(attr)


@lower_getattr_generic(StateRefType)
def _array(context, builder, typ, value, attr):
    """The array of that name, from the table; nobody's memory, so that nobody counts references to it."""
    array_type = _TYPES[attr]
    words = builder.inttoptr(value, ir.IntType(64).as_pointer())
    first = 4 * State._fields.index(attr)

    def entry(index):
        word = builder.load(builder.gep(words, [ir.IntType(64)(first + index)]))
        # compiled code never writes the table: what was read once may stay in a register across stores to the arrays
        word.set_metadata("invariant.load", builder.module.add_metadata([]))
        return word

    shape = [entry(1 + i) for i in range(array_type.ndim)]
    if attr in _WIDTHS:
        shape[1] = ir.IntType(64)(_WIDTHS[attr])
    itemsize = ir.IntType(64)(array_type.dtype.bitwidth // 8)
    strides = [itemsize]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], extent))
    if attr not in _SIZED:
        shape[0] = ir.IntType(64)(0)
    array = context.make_array(array_type)(context, builder)
    data = builder.inttoptr(entry(0), array.data.type)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


def bind(state: State) -> tuple[StateRef, np.ndarray]:
    """A reference to `state`, and the table that must be kept alive with it."""
    rows = []
    for name, array in zip(State._fields, state, strict=True):
        assert (array.dtype, array.ndim) == _DTYPES[name] and array.flags.c_contiguous, name
        assert name not in _WIDTHS or array.shape[1] == _WIDTHS[name], name
        rows.append((array.ctypes.data, *array.shape, 0, 0)[:4])
    table = np.array(rows, np.int64)
    return StateRef(table.ctypes.data), table
