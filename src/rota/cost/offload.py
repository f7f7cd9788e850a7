"""How much KV the prefix cache can keep in host memory, and what it takes to bring it back to the device."""

from __future__ import annotations

import math
from typing import NamedTuple

from rota.catalog.shapes import Link
from rota.errors import InputError

GIB = 1 << 30


class Offload(NamedTuple):
    """KV blocks in host memory, and seconds per token of copying them back."""

    blocks: int
    reload: float


def offload(size: float, devices: int, link: Link, efficiency: float, kv_per_token: float, block_size: int) -> Offload:
    """What host memory of `size` GiB holds.

    Parameters
    ----------
    size : float
        For all devices of the engine together.
    devices : int
        Each copies its own share, at the same time.
    link : Link
        Between a device and its host.
    efficiency : float
        Share of the link's bandwidth that copies reach.
    kv_per_token : float
        Bytes on the fullest device.
    block_size : int

    Raises
    ------
    InputError
        If `size` is negative or not a number.
    """
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 <= size < math.inf:
        raise InputError(f"kv_offloading_size must be 0 (off) or a number of GiB, not {size!r}")
    if size == 0:
        return Offload(0, 0.0)
    blocks = math.floor(size * GIB / devices / (kv_per_token * block_size))
    if blocks < 1:
        raise InputError(f"kv_offloading_size={size:g} GiB does not hold one KV block; raise it, or leave it out")
    return Offload(blocks, kv_per_token / (efficiency * link.bandwidth))
