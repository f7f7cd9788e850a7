"""From a model, a device and its cost constants to `StepTables`: what every kernel of a step moves and computes, on one rank.

Vectorised over the number of tokens. Where a kernel's time is not a function of what the tables allow, the approximation is this:

- *Sliding windows*: windowed layers are charged attention over (and memory for) a share ``min(1, window / 2048)`` of the context.
  That is exact at contexts of 2048 tokens; windows of 2048 and more count as full attention.
- *Multi-head latent attention*: decode reads the latent cache and works on it directly (the absorbed form); prefill expands keys
  and values, and expands those of cached tokens again in every chunk.
- *Experts*: tokens choose experts independently with fixed probabilities, equal ones unless a Zipf exponent is given. Real
  routers are skewed and correlated in time, so the number of experts touched is an upper bound.
- Embedding lookup, positions and sampling are not priced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rota.catalog.shapes import Accelerator, Link, ModelShape
from rota.catalog.sizes import kv_bytes_per_layer, parameters, rank_kv_heads
from rota.cost.constants import AllReduce, Constants, default_all_reduce
from rota.cost.tables import StepTables

Floats = NDArray[np.float64]

#: Rows of a matrix product are computed in tiles of so many tokens (of 16 in grouped products of experts).
TILE, EXPERT_TILE = 64, 16
#: Bytes of an activation.
ACTIVATION = 2.0
#: Contexts at which windowed attention is exact, tokens.
WINDOW_CONTEXT = 2048
#: Emitted tokens that the table of the output head covers.
HEAD_ROWS = 1024
#: Pipeline stages on different nodes talk over a 400 Gb/s network port per device (an assumption).
NETWORK = Link("network", 50e9, 15e-6, "assumed: one 400 Gb/s port per device")


def touched_experts(tokens: ArrayLike, experts: ArrayLike, per_token: ArrayLike, skew: float = 0.0) -> Floats:
    """Expected number of distinct experts that `tokens` tokens use.

    Parameters
    ----------
    tokens : array_like
    experts, per_token : array_like
        Experts of a layer, and how many each token uses.
    skew : float
        Zipf exponent of the experts' popularity; 0 for uniform.
    """
    n, e, k = (np.asarray(x, dtype=np.float64) for x in (tokens, experts, per_token))
    if skew == 0.0:
        return np.asarray(e * -np.expm1(n * np.log1p(-np.minimum(k / e, 1 - 1e-16))))
    chances = expert_chances(int(e), float(k), skew)
    return np.array(-np.expm1(n[..., None] * np.log1p(-np.minimum(chances, 1 - 1e-16))).sum(axis=-1))


def expert_chances(experts: int, per_token: float, skew: float) -> Floats:
    """Probability that a token uses each expert, at most 1 and `per_token` in sum, falling as ``rank ** -skew``."""
    weights = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    certain = 0
    while True:
        chances = np.ones(experts)
        chances[certain:] = weights[certain:] * (per_token - certain) / weights[certain:].sum()
        if certain >= per_token or chances[certain] <= 1.0:
            return np.minimum(chances, 1.0)
        certain += 1


def padded_rows(rows: ArrayLike, touched: ArrayLike) -> Floats:
    """Rows that a grouped product computes for `rows` rows over `touched` experts: whole tiles, so half a tile more on average."""
    useful, groups = np.asarray(rows, dtype=np.float64), np.asarray(touched, dtype=np.float64)
    return np.asarray(np.maximum(EXPERT_TILE * groups, useful + groups * (EXPERT_TILE - 1) / 2))


def attended_share(model: ModelShape) -> float:
    """Share of the context that an average layer attends to and keeps; below 1 with sliding windows (see the module's text)."""
    if not model.window:
        return 1.0
    return 1.0 - model.window_layers / model.layers * (1.0 - min(1.0, model.window / WINDOW_CONTEXT))


def step_tables(
    model: ModelShape,
    device: Accelerator,
    link: Link,
    constants: Constants,
    *,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    form: str = "bf16",
    n_max: int = 8192,
    skew: float = 0.0,
) -> StepTables:
    """Price the steps of a deployment.

    Parameters
    ----------
    model : ModelShape
        With the bytes per weight and per KV element that are deployed.
    device : Accelerator
    link : Link
        Between the devices of a node.
    constants : Constants
    tensor_parallel_size, pipeline_parallel_size : int
    form : str
        Number format that linear layers compute in: ``"bf16"``, ``"fp8"`` or ``"int8"``.
    n_max : int
        Tokens up to which steps are tabulated; the slope of the last tile goes on.
    skew : float
        Zipf exponent of expert popularity.

    Returns
    -------
    StepTables
    """
    rank = _Rank(model, device, link, constants, tensor_parallel_size, form, skew)
    stages = pipeline_parallel_size
    n_layers = -(-model.layers // stages) * stages
    whole = model.layers / n_layers
    n = np.arange(n_max + 1, dtype=np.float64)
    layer = rank.layer(n)
    sparse = (model.layers - model.dense_layers) / model.layers if model.experts else 0.0
    read = np.zeros(2)
    if model.experts:
        matrices = 3 if model.gated else 2
        weight = model.expert_weight_bytes or model.weight_bytes
        read = sparse * whole * matrices * model.hidden * model.expert_ffn * weight * rank.touched(n)
    pairs = rank.attended() * model.heads * _pair_flops(model)
    counted = parameters(model)
    flops = 2.0 * (counted.linear - counted.norms + counted.active_experts) / model.layers
    plain = max(2.0, model.weight_bytes)
    weights = (counted.attention + counted.dense + counted.shared) * model.weight_bytes
    weights += (counted.router + counted.norms) * plain
    prefill, decode = constants.kernels["prefill"], constants.kernels["decode"]
    peak, bandwidth = device.flops["bf16"], device.bandwidth
    inside = tensor_parallel_size * stages <= device.max_tp
    hop = link if inside else NETWORK
    joule_flop, joule_byte = _energy(device, constants, form)
    return StepTables(
        layer=_extended(layer),
        head=_extended(rank.head(np.arange(HEAD_ROWS + 1, dtype=np.float64))),
        n_layers=n_layers,
        stages=stages,
        prefill_floor=prefill.floor,
        prefill_flop_s=pairs / tensor_parallel_size / (peak * prefill.flop_efficiency),
        prefill_byte_s=rank.prefill_byte_s(),
        query_byte_s=rank.query_bytes() / (bandwidth * prefill.byte_efficiency),
        decode_floor=decode.floor,
        decode_byte_s=rank.decode_byte_s(),
        launch=constants.host.launch,
        cpu=constants.host.cpu,
        cpu_per_seq=constants.host.cpu_per_seq,
        send=hop.latency if stages > 1 else 0.0,
        send_per_token=2 * model.hidden * ACTIVATION / (0.7 * hop.bandwidth) if stages > 1 else 0.0,
        expert_bytes=_extended(read),
        linear_flops=flops * whole,
        attention_flops=pairs * whole,
        weight_bytes=weights / model.layers * whole,
        kv_bytes=kv_bytes_per_layer(model) * rank.attended() * whole,
        joule_flop=joule_flop,
        joule_byte=joule_byte,
        idle_watts=device.idle_watts * tensor_parallel_size * stages,
        source=constants.source,
        error=rank.errors(),
    )


@dataclass(frozen=True, slots=True)
class _Rank:
    """One tensor-parallel rank: seconds of its kernels by number of tokens."""

    model: ModelShape
    device: Accelerator
    link: Link
    constants: Constants
    k: int
    form: str
    skew: float

    def layer(self, n: Floats) -> Floats:
        """An average layer without attention itself."""
        m = self.model
        both = self.projections(n) + 2 * self.all_reduce(n) + self.pointwise(n)
        dense = self.feed_forward(n, m.ffn) if m.ffn else np.zeros_like(n)
        if not m.experts:
            return _from_one(both + dense, n)
        share = m.dense_layers / m.layers
        return _from_one(both + share * dense + (1 - share) * self.sparse(n), n)

    def projections(self, n: Floats) -> Floats:
        """Queries, keys, values and output."""
        m, heads = self.model, self.heads
        if not m.kv_lora:
            kv = rank_kv_heads(m, self.k)
            return self.linear(n, m.hidden, (heads + 2 * kv) * m.head_dim) + self.linear(n, heads * m.head_dim, m.hidden)
        wide = heads * (m.nope_dim + m.rope_dim)
        queries = self.linear(n, m.q_lora or m.hidden, wide) + (self.linear(n, m.hidden, m.q_lora) if m.q_lora else 0.0)
        latent = self.linear(n, m.hidden, m.kv_lora + m.rope_dim)
        expanded = self.linear(n, m.kv_lora, heads * (m.nope_dim + m.v_head_dim))
        return queries + latent + expanded + self.linear(n, heads * m.v_head_dim, m.hidden)

    def feed_forward(self, n: Floats, width: int) -> Floats:
        """A dense block, its activation included."""
        own = -(-width // self.k)
        up = 2 * own if self.model.gated else own
        products = self.linear(n, self.model.hidden, up) + self.linear(n, own, self.model.hidden)
        return products + self.streamed(n, up + own)

    def sparse(self, n: Floats) -> Floats:
        """Router, routed experts and always-on shared ones."""
        m, own = self.model, -(-self.model.expert_ffn // self.k)
        matrices = 3 if m.gated else 2
        weight = m.expert_weight_bytes or m.weight_bytes
        form = "int4" if weight < 1 else self.form if weight == 1 else "bf16"
        touched, rows = self.touched(n), n * m.experts_per_token
        flops = 2 * matrices * m.hidden * own * self.padded(n, touched)
        moved = weight * matrices * m.hidden * own * touched + ACTIVATION * rows * (2 * m.hidden + matrices * own)
        routed = self.constants.kernel("experts", form).seconds(flops, moved, self.peak(form), self.device.bandwidth)
        router = self.linear(n, m.hidden, m.experts, "bf16", 2.0) + self.streamed(n, 2 * m.experts)
        return routed + router + (self.feed_forward(n, m.shared_ffn) if m.shared_ffn else 0.0)

    def padded(self, n: Floats, touched: Floats) -> Floats:
        return padded_rows(n * self.model.experts_per_token, touched)

    def touched(self, n: Floats) -> Floats:
        return touched_experts(n, self.model.experts, self.model.experts_per_token, self.skew)

    def linear(self, n: Floats, inputs: float, outputs: float, form: str = "", weight: float = 0.0) -> Floats:
        """A matrix product of `n` rows."""
        form, weight = form or self.form, weight or self.model.weight_bytes
        flops = 2 * np.ceil(n / TILE) * TILE * inputs * outputs
        moved = weight * inputs * outputs + ACTIVATION * (inputs + outputs) * n
        return self.constants.kernel("linear", form).seconds(flops, moved, self.peak(form), self.device.bandwidth)

    def streamed(self, n: Floats, width: float) -> Floats:
        """An element-wise kernel that reads and writes `width` elements per token in all."""
        kernel = self.constants.kernels["pointwise"]
        return kernel.seconds(0.0, ACTIVATION * width * n, self.device.flops["bf16"], self.device.bandwidth)

    def pointwise(self, n: Floats) -> Floats:
        """Two norms with their residuals, rotary embedding, residual addition, and the write of keys and values."""
        m = self.model
        cached = (m.kv_lora + m.rope_dim) if m.kv_lora else 2 * rank_kv_heads(m, self.k) * m.head_dim
        rotated = 2 * (self.heads * m.head_dim + cached / 2)
        norms = 2 * self.streamed(n, 4 * m.hidden) + self.streamed(n, 3 * m.hidden)
        return norms + self.streamed(n, rotated) + self.streamed(n, 2 * cached)

    def all_reduce(self, n: Floats) -> Floats:
        return self.collective().seconds(n * self.model.hidden * ACTIVATION, self.k)

    def collective(self) -> AllReduce:
        """Of the device count, or an estimate from the link."""
        return self.constants.all_reduce.get(self.k) or default_all_reduce(self.link, self.k)

    def head(self, n: Floats) -> Floats:
        """The output head of `n` emitted tokens; ranks gather their parts of the vocabulary."""
        m = self.model
        part = -(-m.vocab // self.k)
        seconds = self.linear(n, m.hidden, part, "bf16", 2.0) + self.streamed(n, 4 * m.hidden)
        if self.k > 1:
            seconds = seconds + self.collective().seconds(n * m.vocab * ACTIVATION / 2, self.k)
        return _from_one(seconds, n)

    def decode_byte_s(self) -> float:
        """Seconds per context token of decode attention: reading the cache, or computing on it where that is slower."""
        kernel, m = self.constants.kernels["decode"], self.model
        read = kv_bytes_per_layer(m, self.k) / (self.device.bandwidth * kernel.byte_efficiency)
        flops = self.heads * (2 * (2 * m.kv_lora + m.rope_dim) if m.kv_lora else 4 * m.head_dim)
        return float(np.hypot(read, flops / (self.device.flops["bf16"] * kernel.flop_efficiency))) * self.attended()

    def prefill_byte_s(self) -> float:
        """Seconds per context token of prefill attention."""
        m, bandwidth = self.model, self.device.bandwidth * self.constants.kernels["prefill"].byte_efficiency
        if not m.kv_lora:
            return kv_bytes_per_layer(m, self.k) / bandwidth * self.attended()
        width = self.heads * (m.nope_dim + m.v_head_dim)
        linear = self.constants.kernel("linear", self.form)
        expansion = 2 * m.kv_lora * width / (self.peak(self.form) * linear.flop_efficiency)
        return ACTIVATION * (width + self.heads * m.rope_dim) / bandwidth + expansion

    def query_bytes(self) -> float:
        """Bytes per new token of prefill attention: its query in, its output out."""
        value = self.model.v_head_dim if self.model.kv_lora else self.model.head_dim
        return ACTIVATION * self.heads * (self.model.head_dim + value)

    def attended(self) -> float:
        return attended_share(self.model)

    def errors(self) -> dict[str, float]:
        """Relative errors of the parts, by how they are known."""
        found = {_label("linear", self.constants.kernel("linear", self.form)): self.constants.kernel("linear", self.form).error}
        if self.model.experts:
            weight = self.model.expert_weight_bytes or self.model.weight_bytes
            kernel = self.constants.kernel("experts", "int4" if weight < 1 else self.form if weight == 1 else "bf16")
            found[_label("experts, with linear", kernel)] = kernel.error
        if self.k > 1:
            found[_label("all-reduce, with linear", self.collective())] = self.collective().error
        for kind in ("prefill", "decode"):
            kernel = self.constants.kernels[kind]
            found[_label(f"{kind} attention", kernel)] = kernel.error
        found["cpu (assumed)"] = self.constants.host.error
        return found

    @property
    def heads(self) -> int:
        return -(-self.model.heads // self.k)

    def peak(self, form: str) -> float:
        return self.device.flops.get(form, self.device.flops["bf16"])


def _label(kind: str, entry: object) -> str:
    return f"{kind} ({'hold-out' if getattr(entry, 'fitted', False) else 'estimate'})"


def _pair_flops(model: ModelShape) -> float:
    """FLOPs per head for one query and one key in prefill: the score and the weighted sum."""
    return 2.0 * (model.head_dim + model.v_head_dim) if model.kv_lora else 4.0 * model.head_dim


def _from_one(seconds: Floats, n: Floats) -> Floats:
    """No tokens, no time."""
    return np.where(n > 0, seconds, 0.0)


def _extended(table: Floats) -> Floats:
    """One more entry, so that the last slope is that of a whole tile: beyond its end a table goes on along it."""
    span = min(TILE, len(table) - 1)
    return np.append(table, table[-1] + (table[-1] - table[-1 - span]) / span)


def _energy(device: Accelerator, constants: Constants, form: str) -> tuple[float, float]:
    """Joules per FLOP and per byte, such that a device that computes all the time draws 95% of its limit and one that only reads
    memory draws 55%, as is typical of prefill and of small-batch decode on data-centre GPUs (an assumption, not a fit)."""
    linear = constants.kernel("linear", form)
    rate = device.flops.get(form, device.flops["bf16"]) * linear.flop_efficiency
    stream = device.bandwidth * min(1.0, linear.byte_efficiency)
    above = device.max_watts - device.idle_watts
    reading = max(0.55 * device.max_watts - device.idle_watts, 0.2 * above)
    return (0.95 * device.max_watts - device.idle_watts) / rate, reading / stream
