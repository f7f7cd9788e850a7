"""Passing a `State` to compiled code as one pointer.

A NamedTuple of forty arrays costs 5 us to unpack at every call from Python and as much machine code at every call inside. A `StateRef` is
the address of a table of (address, rows, columns) instead; in compiled code ``e.heap`` reads that table and gives the array.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, overload_attribute, register_model, typeof_impl, unbox

from rota.contracts.columns import SEQ_COLUMNS, TIM_COLUMNS
from rota.mechanisms.simulator.state import BLOCK_COLUMNS, GRP, LANE, LOG_COLUMNS, OWN_COLUMNS, TL_COLUMNS, State


class StateRef(int):
    """Address of the table that describes a `State`; valid as long as the `Bound` that made it lives."""


class StateRefType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="StateRef")


state_ref_type = StateRefType()


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


@intrinsic
def _entry(typingctx, ref, index):
    """Word `index` of the table."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        word = builder.load(builder.gep(pointer, [args[1]]))
        # compiled code never writes the table, so that words may stay in registers across stores to the arrays
        word.set_metadata("invariant.load", builder.module.add_metadata([]))
        return word

    return types.int64(state_ref_type, types.int64), codegen


@intrinsic
def _pointer(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


_INTS_1 = ["ctl", "out", "paused", "ghosts", "level_tail", "inbox", "rel", "hist", "slots", "chain", "chain_start", "chain_block", "ending",
           "arrived", "finished", "host_ctl"]  # fmt: skip
_INTS_2 = ["seq", "own", "grp", "heap", "stack_step", "fresh", "bucket", "bucket_head", "bucket_tail", "lane", "table", "block",
           "readers", "host", "host_table"]  # fmt: skip
_FLOATS_1 = ["flt", "last", "lane_end", "stage_free", "delay", "cp", "layer", "head", "expert", "prefill_long", "acc"]
_FLOATS_2 = ["tim", "stack_gap", "decode_table", "prefill_table", "timeline", "log"]


def _attribute(name: str, dtype: type, dims: int) -> None:
    at = 4 * State._fields.index(name)
    columns = _WIDTHS.get(name)

    @overload_attribute(StateRefType, name)
    def _get(e):
        if dims == 1:
            return lambda e: carray(_pointer(_entry(e, at)), (_entry(e, at + 1),), dtype)
        if columns is not None:
            return lambda e: carray(_pointer(_entry(e, at)), (_entry(e, at + 1), columns), dtype)
        if dims == 2:
            return lambda e: carray(_pointer(_entry(e, at)), (_entry(e, at + 1), _entry(e, at + 2)), dtype)
        return lambda e: carray(_pointer(_entry(e, at)), (_entry(e, at + 1), _entry(e, at + 2), _entry(e, at + 3)), dtype)


#: Arrays of known width: the compiler then computes where a row is without multiplying.
_WIDTHS = {"seq": SEQ_COLUMNS, "own": OWN_COLUMNS, "tim": TIM_COLUMNS, "grp": GRP, "lane": LANE, "block": BLOCK_COLUMNS,
           "timeline": TL_COLUMNS, "log": LOG_COLUMNS, "table": 2, "host": 3, "host_table": 2}  # fmt: skip
_KINDS = {name: (np.int64, 1) for name in _INTS_1} | {name: (np.int64, 2) for name in _INTS_2}
_KINDS |= {name: (np.float64, 1) for name in _FLOATS_1} | {name: (np.float64, 2) for name in _FLOATS_2}
_KINDS |= {"held": (np.int32, 2), "lane_work": (np.int64, 3)}
for _name in State._fields:
    _attribute(_name, *_KINDS[_name])


def bind(state: State) -> tuple[StateRef, np.ndarray]:
    """A reference to `state`, and the table that must be kept alive with it."""
    table = np.zeros((len(State._fields), 4), np.int64)
    for row, (name, array) in zip(table, state._asdict().items(), strict=True):
        dtype, dims = _KINDS[name]
        assert array.dtype == dtype and array.ndim == dims and array.flags.c_contiguous, name
        assert name not in _WIDTHS or array.shape[1] == _WIDTHS[name], name
        row[0] = array.ctypes.data
        row[1 : 1 + dims] = array.shape
    return StateRef(table.ctypes.data), table
