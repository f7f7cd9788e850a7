"""What several verbs share: the options that name a trace and a deployment, and lists of policies.

Nothing here imports numbers or simulators at the top: ``rota --help`` has to answer at once.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from rota.errors import InputError

if TYPE_CHECKING:
    from rota.cost.deployment import Deployment
    from rota.cost.measured import Measured
    from rota.results.slo import SLO
    from rota.studies.replicate import Pool, TraceSource
    from rota.workload.trace import Trace

_TRACE, _DEPLOYMENT, _FLEET = "Trace", "Deployment", "Fleet"
#: What a file of measured costs has settled.
ENGINE_OPTIONS = (
    "model", "device", "tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "block_size", "max_model_len", "dtype",
    "kv_cache_dtype", "kv_offloading_size", "calibration", "host", "swap_space",
)  # fmt: skip
ROUTERS = "round-robin, random, least-outstanding, least-queued or program (turns of a program stay together)"


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar)


@dataclass(frozen=True, slots=True)
class Workload:
    """The options that name a trace."""

    trace: Annotated[
        str,
        typer.Argument(
            metavar="TRACE",
            help="A trace file, a built-in workload (rota workload list) or a generator such as poisson:rate=5,n=2000.",
        ),
    ]
    rate: Annotated[
        float | None, _option("--rate", panel=_TRACE, help="Stretch or squeeze arrivals to this mean rate, requests/s.")
    ] = None
    scale: Annotated[float | None, _option("--scale", panel=_TRACE, help="Multiply the arrival rate by this.")] = None
    limit: Annotated[int | None, _option("--limit", panel=_TRACE, help="Only the first N requests.", metavar="N")] = None
    seed: Annotated[int, _option("--seed", panel=_TRACE, help="Of everything random.")] = 0
    sort: Annotated[bool, _option("--sort", panel=_TRACE, help="Sort the trace by arrival first.")] = False
    drop_invalid: Annotated[
        bool,
        _option("--drop-invalid", panel=_TRACE, help="Leave out rows that make no sense (zero lengths) instead of stopping."),
    ] = False

    arrivals: Annotated[
        str | None,
        _option("--arrivals", panel=_TRACE, help="poisson: replace the arrivals by a Poisson process of the same rate."),
    ] = None
    tokenizer: Annotated[
        str | None,
        _option("--tokenizer", panel=_TRACE, help="For prompts given as text: a tokenizer.json; else 4 bytes count as a token."),
    ] = None

    def check(self) -> None:
        """Find contradictions before anything is read."""
        if self.rate is not None and self.scale is not None:
            raise InputError("--rate and --scale both set the arrival rate; give one of them")
        for name, value in (("--rate", self.rate), ("--scale", self.scale)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be a positive number, not {value:g}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit must be at least 1, not {self.limit}")
        if self.seed < 0:
            raise InputError(f"--seed must not be negative ({self.seed})")

    def load(self, seed: int | None = None) -> Trace:
        """The trace, generated with `seed` if it is not a recorded one."""
        from rota.workload import load_trace

        self.check()
        return load_trace(
            self.trace, rate=self.rate, scale=self.scale, limit=self.limit, seed=self.seed if seed is None else seed,
            sort=self.sort, drop_invalid=self.drop_invalid, arrivals=self.arrivals, tokenizer=self.tokenizer,
        )  # fmt: skip

    def source(self, seeds: int = 2) -> TraceSource:
        """What studies with so many replications ask for traces: a recorded one as it is, or the function that draws one."""
        if not Path(self.trace).exists():
            return self.load
        first = self.load()
        if seeds < 2:
            return first
        # a file of lengths, or of a fit, gives other arrivals for another seed
        other = self.load(self.seed + 1)
        recorded = len(first) == len(other) and bool((first.arrival == other.arrival).all())
        return first if recorded else self.load


@dataclass(frozen=True, slots=True)
class Setup(Workload):
    """The options that name a trace and a deployment to run it on."""

    model: Annotated[
        str,
        _option(
            "--model",
            "-m",
            panel=_DEPLOYMENT,
            help="A model of rota catalog models, or a Hugging Face config.json.",
            metavar="MODEL",
        ),
    ] = ""
    device: Annotated[
        str, _option("--device", "-d", panel=_DEPLOYMENT, help="An accelerator of rota catalog devices.", metavar="DEVICE")
    ] = ""
    tensor_parallel_size: Annotated[
        int, _option("--tensor-parallel-size", "-tp", panel=_DEPLOYMENT, help="Devices that share each layer.", metavar="N")
    ] = 1
    pipeline_parallel_size: Annotated[
        int, _option("--pipeline-parallel-size", "-pp", panel=_DEPLOYMENT, help="Stages that share the layers out.", metavar="N")
    ] = 1
    gpu_memory_utilization: Annotated[
        float, _option("--gpu-memory-utilization", panel=_DEPLOYMENT, help="Share of device memory to use.", metavar="SHARE")
    ] = 0.9
    block_size: Annotated[int, _option("--block-size", panel=_DEPLOYMENT, help="Tokens per KV block.", metavar="N")] = 16
    max_model_len: Annotated[
        int | None,
        _option("--max-model-len", panel=_DEPLOYMENT, help="Longest prompt + output; default: the model's own.", metavar="N"),
    ] = None
    dtype: Annotated[
        str | None,
        _option("--dtype", panel=_DEPLOYMENT, help="Number format of the weights: bf16, fp8, int8, int4; default: the model's."),
    ] = None
    kv_cache_dtype: Annotated[
        str | None, _option("--kv-cache-dtype", panel=_DEPLOYMENT, help="Number format of the KV cache; default: the model's.")
    ] = None
    kv_offloading_size: Annotated[
        float, _option("--kv-offloading-size", panel=_DEPLOYMENT, help="GiB of host memory for KV that leaves the prefix cache.", metavar="GIB")
    ] = 0.0
    calibration: Annotated[
        str | None, _option("--calibration", panel=_DEPLOYMENT, help="Cost constants written by rota calibrate.", metavar="FILE")
    ] = None
    costs: Annotated[
        str | None,
        _option("--costs", panel=_DEPLOYMENT, help="An engine that rota calibrate measured, instead of --model and --device.", metavar="FILE"),
    ] = None
    host: Annotated[
        str | None,
        _option("--host", panel=_DEPLOYMENT, help="A host of rota catalog hosts, for KV in host memory; default: the usual one."),
    ] = None
    swap_space: Annotated[
        float | None, _option("--swap-space", panel=_DEPLOYMENT, help="GiB of host memory for KV, behind each device.", metavar="GIB")
    ] = None
    drop_long: Annotated[
        bool, _option("--drop-long", panel=_TRACE, help="Leave out requests longer than the model takes instead of stopping.")
    ] = False
    replicas: Annotated[int, _option("--replicas", panel=_FLEET, help="Engines behind one router.", metavar="N")] = 1
    router: Annotated[str, _option("--router", panel=_FLEET, help=f"{ROUTERS[0].upper()}{ROUTERS[1:]}.")] = "round-robin"

    def check(self) -> None:
        """Find contradictions before anything is read."""
        Workload.check(self)
        if self.costs is not None:
            given = [f.name for f in fields(Setup) if f.name in ENGINE_OPTIONS and getattr(self, f.name) != f.default]
            if given:
                raise InputError(f"--costs is of a model on a device as it was measured; leave out --{given[0].replace('_', '-')}")
        elif not self.model:
            raise InputError("no model given; add --model, such as --model llama-3-8b (rota catalog models lists them)")
        elif not self.device:
            raise InputError("no device given; add --device, such as --device a100-80g (rota catalog devices lists them)")
        if self.replicas < 1:
            raise InputError(f"--replicas must be at least 1, not {self.replicas}")
        if self.replicas == 1 and self.router != "round-robin":
            raise InputError(
                f"--router {self.router} has nothing to choose from with one replica; add --replicas 2 or more, or leave it out"
            )

    def load(self, seed: int | None = None) -> Trace:
        """The trace, without what is too long for the model if the user said so."""
        trace = Workload.load(self, seed)
        if not self.drop_long:
            return trace
        from rota.workload.transform import within

        return within(trace, self.deployment().max_len)

    def deployment(self) -> Deployment | Measured:
        """The model on the device."""
        self.check()
        if self.costs is not None:
            from rota.cost.measured import read_costs

            return read_costs(self.costs)
        from rota.cost.deployment import Deployment

        given: dict[str, Any] = {
            name: value
            for name in ("max_model_len", "dtype", "kv_cache_dtype", "calibration", "host", "swap_space")
            if (value := getattr(self, name)) is not None
        }
        return Deployment(
            self.model, self.device, tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size, gpu_memory_utilization=self.gpu_memory_utilization,
            block_size=self.block_size, kv_offloading_size=self.kv_offloading_size, **given,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job(Setup):
    """The options of verbs that also take offline jobs."""

    offline: Annotated[
        bool, _option("--offline", panel=_TRACE, help="An offline job: all requests at time 0; only the time of the whole counts.")
    ] = False

    def check(self) -> None:
        """Find contradictions before anything is read."""
        Setup.check(self)
        paced = [name for name in ("rate", "scale", "arrivals") if getattr(self, name) is not None]
        if self.offline and paced:
            raise InputError(f"--offline lets all requests arrive at time 0; leave out --{paced[0]}")

    def load(self, seed: int | None = None) -> Trace:
        """The trace, all at once if it is a job."""
        if not self.offline:
            return Setup.load(self, seed)
        from rota.workload.transform import at_once

        return at_once(Setup.load(self, seed))


def takes(options: type[Workload]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the fields of `options` in front of a verb's own parameters; the verb gets them as its first argument."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(options, include_extras=True)
        shared = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name],
                default=inspect.Parameter.empty if f.default is MISSING else f.default,
            )
            for f in fields(options)
        ]  # fmt: skip
        own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
        names = {f.name for f in fields(options)}

        def run(**values: Any) -> None:
            verb(options(**{name: values.pop(name) for name in names}), **values)

        run.__name__, run.__doc__, run.__module__ = verb.__name__, verb.__doc__, verb.__module__
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*shared, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
        )
        run.__annotations__ = {}
        return run

    return decorate


Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", "--policies", "-p", metavar="LIST",
        help="Policies, by commas, each with options of its own: sarathi,vllm-v1:max_num_batched_tokens=512. Default: one of each way to batch.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", metavar="N", help="Processes; default: one per core.")]

Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT; --jobs limits its tasks."),
]


def split_policies(given: list[str] | None, default: Sequence[str] = ()) -> list[str]:
    """Policies out of comma-separated lists, or `default`, or the standard ones; ``a:x=1,y=2,b`` is a with two options, and b.

    Raises
    ------
    InputError
        If a name is missing, unknown, or its options are not its own.
    """
    from rota.policies.registry import STANDARD, parse_policy

    if not given:
        return list(default or STANDARD)
    found: list[str] = []
    for text in given:
        for piece in (part.strip() for part in text.split(",")):
            is_option = "=" in piece and ":" not in piece.partition("=")[0]
            if not piece:
                raise InputError(f"--policy {text!r} has an empty name; separate policies by single commas")
            if is_option and found and ":" in found[-1]:
                found[-1] += f",{piece}"
            elif is_option:
                raise InputError(f"--policy {text!r}: option {piece!r} belongs to no policy; write name:{piece}")
            else:
                found.append(piece)
    for name in found:
        parse_policy(name)
    return found


def objective(text: str | None) -> SLO | None:
    """The objective that an option names."""
    if text is None:
        return None
    from rota.results.slo import SLO

    return SLO.parse(text)


def cores(jobs: int | None) -> int:
    """Processes to use."""
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}")
    if jobs is not None:
        return jobs
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(jobs: int | None, ray: str | None) -> int | Pool:
    """What runs the tasks: processes here, or a Ray cluster."""
    here = cores(jobs)
    if ray is None:
        return here
    from rota.mechanisms.adapters.ray_tasks import RayTasks

    return RayTasks(ray, jobs)
