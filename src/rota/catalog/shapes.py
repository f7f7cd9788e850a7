"""What accelerators, links and models are, as plain validated data. Nothing here computes time.

Units: bytes, bytes/s, FLOP/s (dense, no sparsity), watts, seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """A connection between accelerators: `bandwidth` in bytes/s per direction per device, `latency` in seconds."""

    name: str
    bandwidth: float
    latency: float
    source: str = ""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device: peak rates, memory and power, as published.

    Parameters
    ----------
    name : str
        Catalog key, such as ``"a100-80g"``.
    flops : dict of str to float
        Peak dense FLOP/s by number format: ``"bf16"`` (or fp16), and where supported ``"fp8"``, ``"int8"``, ``"fp4"``.
    memory : float
        Device memory, bytes, as its driver reports it.
    bandwidth : float
        Memory bandwidth, bytes/s.
    link : str
        Name of the scale-up `Link` (NVLink, PCIe, xGMI, HCCS) that tensor parallelism uses.
    max_tp : int
        Devices reachable over that link in one node.
    idle_watts, max_watts : float
        Power at idle and at the published limit.
    usd_per_hour : float
        A typical on-demand cloud price, for cost per million tokens; see `source`.
    source : str
        Where the facts come from.
    """

    name: str
    flops: dict[str, float]
    memory: float
    bandwidth: float
    link: str
    max_tp: int
    idle_watts: float
    max_watts: float
    usd_per_hour: float
    source: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """What stands behind one device: its share of host memory (bytes), of that memory's bandwidth (bytes/s), and the link between.

    Parameters
    ----------
    name : str
        Catalog key, such as ``"g4dn-4xlarge"``.
    memory, bandwidth : float
    link : str
        Name of the `Link` between host and device.
    devices : tuple of str
        Accelerators that usually come with it.
    source : str
    """

    name: str
    memory: float
    bandwidth: float
    link: str
    devices: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The shape of a decoder-only transformer: everything its cost depends on, nothing about its weights.

    Parameters
    ----------
    layers, hidden, heads, kv_heads, vocab : int
    head_dim : int
        Width of one query and key head; with multi-head latent attention `nope_dim` + `rope_dim`.
    ffn : int
        Width of the dense feed-forward block (0 if every layer is sparse).
    gated : bool
        Three matrices (gate, up, down) instead of two.
    experts, experts_per_token, expert_ffn, shared_ffn : int
        Mixture of experts: routed experts per layer, how many each token uses, the width of one, and the total width of
        always-on shared experts. 0 for dense models.
    dense_layers : int
        Leading layers that are dense in a sparse model.
    kv_lora, rope_dim, q_lora, v_head_dim, nope_dim : int
        Multi-head latent attention (DeepSeek): the cached latent width, the cached rotary part, and the projections' sizes.
        0 for ordinary attention.
    window, window_layers : int
        Sliding-window length and the number of layers that use it; 0 for full attention.
    weight_bytes, expert_weight_bytes, kv_bytes : float
        Bytes per parameter, per routed-expert parameter (0 means as `weight_bytes`) and per cached KV element.
    max_len : int
        Longest context (prompt + output) in tokens.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_len: int
    source: str
    gated: bool = True
    tied: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    dense_layers: int = 0
    kv_lora: int = 0
    rope_dim: int = 0
    q_lora: int = 0
    nope_dim: int = 0
    v_head_dim: int = 0
    window: int = 0
    window_layers: int = 0
    weight_bytes: float = 2.0
    expert_weight_bytes: float = 0.0
    kv_bytes: float = 2.0
    aliases: tuple[str, ...] = ()
