"""A model on devices: what fits, and what a step costs. Joins the catalog, the cost constants and the options that vLLM has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rota.catalog import load_device, load_host, load_link, load_model, usual_host
from rota.catalog.shapes import Accelerator, Host, Link, ModelShape
from rota.catalog.sizes import kv_bytes_per_token, weight_bytes
from rota.cost.constants import Constants, load_constants
from rota.cost.host import KV_SHARE, host_blocks, host_costs
from rota.cost.offload import GIB, Offload, offload
from rota.cost.roofline import attended_share, step_tables
from rota.errors import DoesNotFit, InputError

if TYPE_CHECKING:
    from rota.cost.engine import EngineSpec
    from rota.cost.tables import StepTables

#: Bytes per weight of the number formats that `dtype` takes; 4-bit ones carry a scale for every 32 weights.
WEIGHTS = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.53125}
KV = {"bf16": 2.0, "fp8": 1.0}
ALIASES = {"bfloat16": "bf16", "float16": "bf16", "fp16": "bf16", "half": "bf16", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}
#: What a serving engine keeps on a device besides weights, KV and activations: its context, graphs and communicators, bytes.
RUNTIME = 1.0e9
#: How much of a device's memory an engine can be given at most without failing now and then (common advice for small cards).
FULLEST = 0.95
#: Largest step that is tabulated and whose activations are planned for, tokens.
MOST_TOKENS, FEWEST_TOKENS = 16384, 4096
#: Sequences whose logits an engine keeps room for (vLLM's max_num_seqs).
LOGIT_ROWS = 256
#: What the energy of a run is computed from (`StepTables`).
ENERGY = ("n_layers", "linear_flops", "attention_flops", "weight_bytes", "kv_bytes", "joule_flop", "joule_byte", "idle_watts")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the fullest rank, bytes: what may be used, what is spoken for, and what a token of context takes."""

    usable: float
    weights: float
    activations: float
    runtime: float
    kv_per_token: float

    @property
    def for_kv(self) -> float:
        return self.usable - self.weights - self.activations - self.runtime


@dataclass(frozen=True)
class Deployment:
    """A model on one or more devices, as one engine.

    Parameters
    ----------
    model : str, Path or ModelShape
        A catalog name, the path of a Hugging Face ``config.json``, or a shape.
    device : str, Path or Accelerator
    tensor_parallel_size, pipeline_parallel_size : int
        Devices that share each layer, and stages that share the layers out. Layers that do not divide are rounded up: every
        stage is then as slow as the fullest.
    gpu_memory_utilization : float
        Share of device memory to use, in (0, 1].
    block_size : int
        Tokens per KV block.
    max_model_len : int, optional
        Longest prompt + output in tokens; default: the model's own.
    dtype : str, optional
        Format of the weights: ``"bf16"``, ``"fp8"``, ``"int8"`` or ``"int4"``; default: the model's own. 8-bit formats also
        compute in 8 bits where the device can; ``"int4"`` computes in bf16. Embedding, head, router and norms stay at 2 bytes.
    kv_cache_dtype : str, optional
        ``"bf16"`` or ``"fp8"``; default: the model's own.
    calibration : str or Path, optional
        Cost constants written by ``rota calibrate``; default: those shipped for the device.
    expert_skew : float
        Zipf exponent of the popularity of experts; 0 for equal chances.
    kv_offloading_size : float
        Host memory, in GiB for all devices together, in which a prefix cache keeps KV that loses its place on the device; 0 for none.
    host : str or Host, optional
        What stands behind each device, a catalog name; default: what the device usually comes with. Only policies that put KV
        into host memory use it.
    swap_space : float, optional
        Host memory for KV behind each device, GiB; default: three quarters of what the host has.

    Raises
    ------
    InputError
        If a name is unknown or options contradict each other or the model.
    DoesNotFit
        If the memory cannot hold the model and one request of `max_model_len`, with the arithmetic.
    """

    model: str | Path | ModelShape
    device: str | Path | Accelerator
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    max_model_len: int | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    calibration: str | Path | None = None
    expert_skew: float = 0.0
    kv_offloading_size: float = 0.0
    host: str | Host | None = None
    swap_space: float | None = None
    shape: ModelShape = field(init=False, repr=False)
    accelerator: Accelerator = field(init=False, repr=False)
    link: Link = field(init=False, repr=False)
    behind: Host = field(init=False, repr=False)
    constants: Constants = field(init=False, repr=False)
    max_len: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = self.model if isinstance(self.model, ModelShape) else load_model(self.model)
        device = self.device if isinstance(self.device, Accelerator) else load_device(self.device)
        link = load_link(device.link)
        behind = usual_host(device) if self.host is None else self.host if isinstance(self.host, Host) else load_host(self.host)
        _check_options(self)
        if self.swap_space is not None and self.swap_space > behind.memory / GIB:
            raise InputError(f"swap_space is {self.swap_space:g} GiB, but {behind.name} has {behind.memory / GIB:.0f} GiB; lower it")
        share = self.kv_offloading_size / (self.tensor_parallel_size * self.pipeline_parallel_size)
        if share > behind.memory / GIB:
            raise InputError(
                f"kv_offloading_size is {share:g} GiB per device, but {behind.name} has {behind.memory / GIB:.0f} GiB behind each; "
                f"lower it, or name another host (rota catalog hosts)"
            )
        _check_split(shape, device, self.tensor_parallel_size, self.pipeline_parallel_size)
        max_len = shape.max_len if self.max_model_len is None else self.max_model_len
        if max_len > shape.max_len:
            raise InputError(f"max_model_len is {max_len}, but {shape.name} takes {shape.max_len} tokens at most; lower it")
        shape = _with_formats(shape, self.dtype, self.kv_cache_dtype)
        constants = load_constants(device, link, self.calibration)
        found = {"shape": shape, "accelerator": device, "link": link, "behind": behind, "constants": constants, "max_len": max_len}
        for name, value in found.items():
            object.__setattr__(self, name, value)
        self.blocks(0)
        self.offload()

    @property
    def gpus(self) -> int:
        """Devices of one engine."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def form(self) -> str:
        """Number format that linear layers compute in."""
        if self.shape.weight_bytes != 1.0:
            return "bf16"
        wanted = "int8" if _format("dtype", self.dtype, WEIGHTS) == "int8" else "fp8"
        return wanted if wanted in self.accelerator.flops else "bf16"

    @property
    def label(self) -> str:
        """Such as ``"llama-3-8b on a100-80g"`` or ``"yi-34b on 2x a100-80g (tp 2)"``."""
        many = f"{self.gpus}x " if self.gpus > 1 else ""
        sizes = {"tp": self.tensor_parallel_size, "pp": self.pipeline_parallel_size}
        parts = [f"{name} {size}" for name, size in sizes.items() if size > 1]
        parts += [str(self.dtype)] if self.dtype else []
        return f"{self.shape.name} on {many}{self.accelerator.name}" + (f" ({', '.join(parts)})" if parts else "")

    def memory(self, max_step_tokens: int = 0) -> Memory:
        """What the fullest rank holds when a step takes up to so many tokens (0: those of a longest request, at most 16,384)."""
        return self._memory(self.tensor_parallel_size, max_step_tokens)

    def _memory(self, ranks: int, max_step_tokens: int = 0) -> Memory:
        m, stages = self.shape, self.pipeline_parallel_size
        tokens = min(max_step_tokens or self.max_len, MOST_TOKENS)
        dense = (3 if m.gated else 2) * -(-max(m.ffn, m.shared_ffn) // ranks)
        routed = m.experts_per_token * (m.hidden + (3 if m.gated else 2) * -(-m.expert_ffn // ranks)) if m.experts else 0
        activations = 2.0 * tokens * (4 * m.hidden + max(dense, routed)) + 4.0 * LOGIT_ROWS * -(-m.vocab // ranks)
        usable = self.accelerator.memory * self.gpu_memory_utilization
        weights = weight_bytes(m, ranks, stages)
        return Memory(usable, weights, activations, RUNTIME, kv_bytes_per_token(m, ranks, stages) * attended_share(m))

    def blocks(self, max_step_tokens: int = 0) -> int:
        """KV blocks that fit.

        Raises
        ------
        DoesNotFit
            If they hold less than one request of `max_len` tokens.
        """
        memory = self.memory(max_step_tokens)
        count = math.floor(memory.for_kv / (memory.kv_per_token * self.block_size))
        if count * self.block_size < self.max_len:
            raise DoesNotFit(self._arithmetic(memory, max(0, count) * self.block_size))
        return count

    def offload(self) -> Offload:
        """What `kv_offloading_size` holds, and the time to bring it back."""
        link, efficiency = load_link(self.behind.link), self.constants.host.link_efficiency
        return offload(self.kv_offloading_size, self.gpus, link, efficiency, self.memory().kv_per_token, self.block_size)

    def engine(self, max_step_tokens: int = 0) -> EngineSpec:
        """The engine for a policy that puts up to so many tokens into a step (0: no limit).

        Raises
        ------
        InputError
            If `max_step_tokens` is negative.
        DoesNotFit
            If the activations of such steps leave too little room for KV.
        """
        from rota.cost.engine import EngineSpec

        if max_step_tokens < 0:
            raise InputError(f"max_step_tokens must not be negative ({max_step_tokens})")
        n_max = min(max(max_step_tokens, FEWEST_TOKENS), MOST_TOKENS)
        tables = step_tables(
            self.shape, self.accelerator, self.link, self.constants,
            tensor_parallel_size=self.tensor_parallel_size, pipeline_parallel_size=self.pipeline_parallel_size,
            form=self.form, n_max=n_max, skew=self.expert_skew,
        )  # fmt: skip
        tables, swap_blocks = self._with_host(tables)
        memory, blocks = self.memory(max_step_tokens), self.blocks(max_step_tokens)
        origin = {name: kernel.origin for name, kernel in self.constants.kernels.items()}
        if self.tensor_parallel_size > 1:
            found = self.constants.all_reduce.get(self.tensor_parallel_size)
            origin["all_reduce"] = found.origin if found else f"estimate from {self.link.name}"
        meta: dict[str, object] = {
            "model": self.shape.name,
            "device": self.accelerator.name,
            "gpus": self.gpus,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "dtype": self.form if self.dtype is None else self.dtype,
            "usd_per_hour": self.accelerator.usd_per_hour * self.gpus,
            "blocks": blocks,
            "cost_source": f"{tables.source}: {self.constants.name}",
            "cost_error": dict(tables.error),
            "cost_origin": origin,
            "memory": f"{_gb(memory.usable)} usable = {_gb(memory.weights)} weights + {_gb(memory.activations)} activations + "
            f"{_gb(memory.runtime)} runtime + {_gb(memory.for_kv)} KV ({blocks * self.block_size:,} tokens), per device",
            "host": f"{swap_blocks:,} KV blocks; {tables.host.source}",
            "energy": {name: getattr(tables, name) for name in ENERGY},
        }
        copies = self.offload()
        if copies.blocks:
            meta["host memory"] = (
                f"{self.kv_offloading_size:g} GiB = {copies.blocks * self.block_size:,} tokens of KV, back at {copies.reload * 1e6:.3g} us per token"
            )
        return EngineSpec(
            tables=tables,
            blocks=blocks,
            block_size=self.block_size,
            max_len=self.max_len,
            tp=self.tensor_parallel_size,
            pp=self.pipeline_parallel_size,
            label=self.label,
            offload_blocks=copies.blocks,
            reload=copies.reload,
            meta=meta,
            host_blocks=swap_blocks,
        )

    def _with_host(self, tables: StepTables) -> tuple[StepTables, int]:
        """The tables with the host's part, and the KV blocks that host memory holds."""
        attended, behind = attended_share(self.shape), self.behind
        costs = host_costs(self.shape, behind, load_link(behind.link), self.constants.host, attended, self.gpus)
        space = KV_SHARE * behind.memory if self.swap_space is None else self.swap_space * GIB
        return replace(tables, host=costs), host_blocks(self.shape, self.block_size, space * self.gpus, attended)

    def _arithmetic(self, memory: Memory, tokens: int) -> str:
        one = memory.kv_per_token * self.max_len
        limit, each = f"{self.gpu_memory_utilization:.0%}", _gb(self.accelerator.memory)
        text = (
            f"{self.shape.name} does not fit {self.accelerator.name}: per device {_gb(memory.weights)} weights + "
            f"{_gb(memory.activations)} activations + {_gb(memory.runtime)} runtime + {_gb(one)} KV of one request of "
            f"{self.max_len:,} tokens > {_gb(memory.usable)} ({limit} of {each}); "
        )
        if tokens >= 4 * self.block_size:
            text += f"set max_model_len to {tokens} or less, or "
        text += self._fuller()
        more = self._enough()
        text += f"use tensor_parallel_size={more}" if more else "use more or larger devices"
        return text + (" or a smaller dtype" if self.shape.weight_bytes > 1 else "")

    def _fuller(self) -> str:
        """Advice to use more of the device's memory, where that would make room for a short request."""
        if self.gpu_memory_utilization >= FULLEST:
            return ""
        memory = self._memory(self.tensor_parallel_size)
        room = memory.for_kv + (FULLEST - self.gpu_memory_utilization) * self.accelerator.memory
        tokens = math.floor(room / (memory.kv_per_token * self.block_size)) * self.block_size
        return f"raise gpu_memory_utilization to {FULLEST} (then max_model_len up to {min(tokens, self.max_len)} fits), or " if tokens >= 512 else ""

    def _enough(self) -> int:
        """The smallest larger number of tensor-parallel ranks that would hold the model and one request; 0 if there is none."""
        for ranks in range(self.tensor_parallel_size + 1, self.accelerator.max_tp + 1):
            try:
                _check_split(self.shape, self.accelerator, ranks, self.pipeline_parallel_size)
            except InputError:
                continue
            memory = self._memory(ranks)
            if memory.for_kv >= memory.kv_per_token * (self.max_len + self.block_size):
                return ranks
        return 0


def _check_options(given: Deployment) -> None:
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "block_size", "max_model_len"):
        value = getattr(given, name)
        if value is None and name == "max_model_len":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    share = given.gpu_memory_utilization
    if not (isinstance(share, int | float) and 0 < share <= 1):
        raise InputError(f"gpu_memory_utilization must be above 0 and at most 1, not {share!r}; 0.9 is usual")
    if given.swap_space is not None and not given.swap_space >= 0:
        raise InputError(f"swap_space must be 0 or a number of GiB, not {given.swap_space!r}")
    if not 0 <= given.expert_skew <= 3:
        raise InputError(f"expert_skew must be from 0 (equal chances) to 3, not {given.expert_skew!r}")
    _format("dtype", given.dtype, WEIGHTS)
    _format("kv_cache_dtype", given.kv_cache_dtype, KV)


def _check_split(shape: ModelShape, device: Accelerator, ranks: int, stages: int) -> None:
    if ranks > device.max_tp:
        raise InputError(
            f"tensor_parallel_size is {ranks}, but a node joins {device.max_tp} {device.name}; lower it or add pipeline stages"
        )
    sizes = {"attention heads": shape.heads, "feed-forward width": shape.ffn, "expert width": shape.expert_ffn}
    for what, size in sizes.items():
        if size % ranks:
            raise InputError(f"tensor_parallel_size is {ranks}, which does not divide {shape.name}'s {what} ({size}); change it")
    if not shape.kv_lora and shape.kv_heads % ranks and ranks % shape.kv_heads:
        raise InputError(
            f"tensor_parallel_size is {ranks}; {shape.name} has {shape.kv_heads} KV heads; one must divide the other"
        )
    if stages > shape.layers:
        raise InputError(f"pipeline_parallel_size is {stages}, but {shape.name} has {shape.layers} layers; lower it")


def _format(name: str, given: str | None, known: dict[str, float]) -> str | None:
    """The number format under its short name."""
    if given is None or given == "auto":
        return None
    short = ALIASES.get(str(given).lower(), str(given).lower())
    if short not in known:
        raise InputError(f"{name} {given!r} is unknown; use one of {', '.join(known)}, or leave it out for the model's own")
    return short


def _with_formats(shape: ModelShape, dtype: str | None, kv_cache_dtype: str | None) -> ModelShape:
    weights, cache = _format("dtype", dtype, WEIGHTS), _format("kv_cache_dtype", kv_cache_dtype, KV)
    if weights is not None:
        shape = replace(shape, weight_bytes=WEIGHTS[weights], expert_weight_bytes=0.0)
    return shape if cache is None else replace(shape, kv_bytes=KV[cache])


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
