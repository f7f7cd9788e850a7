"""How much KV the prefix cache can keep in host memory, and what it takes to bring it back to the device."""

from __future__ import annotations

import math
from typing import NamedTuple

from rota.catalog import load_link
from rota.catalog.shapes import Link
from rota.errors import InputError

GIB = 1 << 30
#: Share of the link's bandwidth that copies of KV from pinned host memory reach, assumed.
COPY_EFFICIENCY = 0.75
#: Links to the host of devices that have a faster one among themselves; PCIe 4.0 where nothing is said.
TO_HOST = {"nvlink4": "pcie-gen5", "nvlink5": "pcie-gen5", "xgmi": "pcie-gen5"}


class Offload(NamedTuple):
    """KV blocks in host memory, and seconds per token of copying them back."""

    blocks: int
    reload: float


def offload(size: float, devices: int, link: Link, kv_per_token: float, block_size: int) -> Offload:
    """What host memory of `size` GiB holds.

    Parameters
    ----------
    size : float
        For all devices of the engine together.
    devices : int
        Each copies its own share, at the same time.
    link : Link
        Between devices; that to the host is the same if it is PCIe.
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
    way = link if link.name.startswith("pcie") else load_link(TO_HOST.get(link.name, "pcie-gen4"))
    blocks = math.floor(size * GIB / devices / (kv_per_token * block_size))
    if blocks < 1:
        raise InputError(f"kv_offloading_size={size:g} GiB does not hold one KV block; raise it, or leave it out")
    return Offload(blocks, kv_per_token / (COPY_EFFICIENCY * way.bandwidth))
