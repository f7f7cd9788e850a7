"""What the host side of a split engine costs: attention over KV in host memory, and what crosses the link to the device.

All times are of one layer, of the whole engine: hosts and links of its devices work side by side, each on its share of the heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rota.catalog.shapes import Host, Link, ModelShape
from rota.catalog.sizes import kv_bytes_per_layer, kv_bytes_per_token
from rota.cost.constants import Host as HostConstants

#: Bytes of an activation.
ACTIVATION = 2.0
#: Share of host memory that KV may take unless told otherwise; the rest is for the operating system and the engine (an assumption).
KV_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Seconds of the host's part in one layer.

    Parameters
    ----------
    floor : float
        One call of host attention, however small.
    context_s : float
        Per token of context that it reads.
    latency : float
        Of the link, once each way.
    send_s, back_s : float
        Per sequence: its query, key and value to the host, and its attention output back.
    kv_s : float
        Per token whose KV of this layer is copied from one tier to the other.
    error : float
        Relative error of these (an estimate: none is fitted).
    source : str
    """

    floor: float = 0.0
    context_s: float = 0.0
    latency: float = 0.0
    send_s: float = 0.0
    back_s: float = 0.0
    kv_s: float = 0.0
    error: float = 0.0
    source: str = ""

    def attention(self, context: float, calls: int = 1) -> float:
        """Seconds of `calls` calls of host attention over so many tokens of context in all; 0 for no context."""
        return calls * self.floor + self.context_s * context if context > 0 else 0.0

    def exchange(self, sequences: int) -> float:
        """Seconds in which the vectors of so many sequences go to the host and come back; 0 for none."""
        return 2 * self.latency + (self.send_s + self.back_s) * sequences if sequences else 0.0

    def scaled(self, factor: float) -> HostCosts:
        """A copy whose attention is slower by `factor`."""
        return replace(self, floor=self.floor * factor, context_s=self.context_s * factor)


def host_costs(model: ModelShape, host: Host, link: Link, constants: HostConstants, attended: float, devices: int = 1) -> HostCosts:
    """Price the host's part.

    Parameters
    ----------
    model : ModelShape
    host, link : Host, Link
        Of one device.
    constants : Host constants of `rota.cost.constants`
    attended : float
        Share of the context that an average layer attends to.
    devices : int
        Devices of the engine.
    """
    cached = kv_bytes_per_layer(model)
    wide = model.heads * (model.v_head_dim if model.kv_lora else model.head_dim)
    fresh = ACTIVATION * model.heads * model.head_dim + cached
    over = link.bandwidth * constants.link_efficiency * devices
    return HostCosts(
        floor=constants.attention_floor,
        context_s=cached * attended / (host.bandwidth * constants.attention_efficiency * devices),
        latency=link.latency,
        send_s=fresh / over,
        back_s=ACTIVATION * wide / over,
        kv_s=cached * attended / over,
        error=constants.error,
        source=f"{host.name}: {host.bandwidth / 1e9:.1f} GB/s of memory at {constants.attention_efficiency:.0%}, "
        f"{link.name} at {constants.link_efficiency:.0%}, per device (assumed)",
    )


def host_blocks(model: ModelShape, block_size: int, swap_space: float, attended: float) -> int:
    """KV blocks that `swap_space` bytes of host memory hold."""
    return int(swap_space // (kv_bytes_per_token(model) * attended * block_size))
