"""`rota serve`: an OpenAI-compatible server whose scheduler is one of the policies of `rota compare`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from rota.cli.options import split_policies
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.mechanisms.server.front import Front
    from rota.mechanisms.server.run import Running

_MODEL, _SERVER = "Model", "Server"
FAILED = 1
NEEDED = ("torch", "safetensors", "tokenizers", "fastapi", "uvicorn", "jinja2", "prometheus_client")
MIB, GIB = 1 << 20, 1 << 30


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve")(serve)


def _model(*names: str, help: str, metavar: str | None = None) -> object:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=_MODEL)


def _server(*names: str, help: str, metavar: str | None = None) -> object:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=_SERVER)


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL_DIR", help="A Hugging Face model directory (rota make-model makes one).")],
    policy: Annotated[
        str, typer.Option("--policy", "-p", metavar="POLICY", help="What schedules, with options: sarathi:max_num_batched_tokens=256.")
    ] = "sarathi",
    host: Annotated[str, _server("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, _server("--port", help="0 takes a free one.")] = 8000,
    served_model_name: Annotated[
        str | None, _server("--served-model-name", help="What clients call the model; default: the directory's name.", metavar="NAME")
    ] = None,
    api_key: Annotated[
        list[str] | None, _server("--api-key", help="Clients need it (several may be given), or set ROTA_API_KEY.", metavar="KEY")
    ] = None,
    chat_template: Annotated[
        str | None, _server("--chat-template", help="Instead of the model's own.", metavar="FILE")
    ] = None,
    max_outstanding: Annotated[
        int, _server("--max-outstanding", help="Requests running and waiting; beyond that clients get 429.", metavar="N")
    ] = 1024,
    max_body: Annotated[float, _server("--max-body", help="MiB that a request may have.", metavar="MIB")] = 8.0,
    shutdown_timeout: Annotated[
        float, _server("--shutdown-timeout", help="Seconds that running requests get to finish.", metavar="SECONDS")
    ] = 30.0,
    log: Annotated[str | None, _server("--log", help="Where JSON log lines go; default: standard error.", metavar="FILE")] = None,
    step_log: Annotated[
        str | None, _server("--step-log", help="Write what every step did and took (.jsonl), for rota calibrate --from-log.", metavar="FILE")
    ] = None,
    dtype: Annotated[str, _model("--dtype", help="float32, bfloat16, float16; auto: bfloat16 on a GPU, float32 on a CPU.")] = "auto",
    weights: Annotated[str, _model("--weight-format", help="plain, int8 (weights of 8 bits) or w8a8 (CPU).", metavar="FORMAT")] = "plain",
    device: Annotated[str, _model("--device", "-d", help="cpu, cuda, or auto.")] = "auto",
    kv_cache_dtype: Annotated[
        str, _model("--kv-cache-dtype", help="As --dtype; auto: the same, but bfloat16 beside weights of 8 bits on a CPU.")
    ] = "auto",
    kv_cache_memory: Annotated[
        float | None, _model("--kv-cache-memory", help="GiB for the KV cache; default: 1 on a CPU, what is free on a GPU.", metavar="GIB")
    ] = None,
    swap_space: Annotated[
        float, _model("--swap-space", help="GiB of host memory for KV that a policy swaps out (vllm-v0:preemption=swap).", metavar="GIB")
    ] = 4.0,
    block_size: Annotated[int, _model("--block-size", help="Tokens per KV block.", metavar="N")] = 16,
    max_model_len: Annotated[
        int | None, _model("--max-model-len", help="Longest prompt + output; default: the model's own.", metavar="N")
    ] = None,
    threads: Annotated[int | None, _model("--threads", help="Of the processor; default: one per core.", metavar="N")] = None,
    seed: Annotated[int, _model("--seed", help="Of requests that bring none.")] = 0,
) -> None:  # fmt: skip
    """Serve a model to OpenAI clients, scheduled by a policy of your choice.

    Example: rota serve docs-lm --policy sarathi:max_num_batched_tokens=256
    """
    names = split_policies([policy])
    if len(names) != 1:
        raise InputError(f"--policy names {len(names)} policies; a server runs one")
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, not {port}")
    if kv_cache_memory is not None and not 0 < kv_cache_memory < 1 << 20:
        raise InputError(f"--kv-cache-memory must be a positive number of GiB, not {kv_cache_memory:g}")
    if not 0 <= swap_space < 1 << 20:
        raise InputError(f"--swap-space must be 0 or a number of GiB, not {swap_space:g}")
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"--threads must be from 1 to 1024, not {threads}")
    if not 0 < max_body < 1 << 20:
        raise InputError(f"--max-body must be a positive number of MiB, not {max_body:g}")
    keys = [key for key in (*(api_key or ()), os.environ.get("ROTA_API_KEY", "")) if key]
    _check_extra()
    from rota.mechanisms.engine.heap import settled_heap
    from rota.mechanisms.engine.log import LogFile
    from rota.mechanisms.server.front import Limits
    from rota.mechanisms.server.opening import open_model
    from rota.mechanisms.server.run import listen
    from rota.mechanisms.server.run import serve as run
    from rota.policies.registry import parse_policy

    listen(host, port).close()  # before a model is loaded for minutes
    limits = Limits(max_outstanding, int(max_body * MIB), shutdown_timeout)
    with ExitStack() as stack:
        stream = sys.stderr if log is None else stack.enter_context(_log_file(log))
        steps = None if step_log is None else stack.enter_context(LogFile(Path(step_log)))
        front = open_model(
            Path(model), parse_policy(names[0]), name=served_model_name, limits=limits,
            template=None if chat_template is None else Path(chat_template), dtype=dtype, weight_format=weights, device=device,
            kv_cache_dtype=kv_cache_dtype,
            kv_bytes=None if kv_cache_memory is None else int(kv_cache_memory * GIB), swap_bytes=int(swap_space * GIB),
            block_size=block_size, max_model_len=max_model_len, seed=seed, log=steps,
            threads=threads,
        )  # fmt: skip
        stack.enter_context(settled_heap())
        well = run(front, host=host, port=port, keys=keys, log=stream, ready=partial(_ready, front, names[0]))
    if not well:
        raise typer.Exit(FAILED)


def _check_extra() -> None:
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}; install the extra: pip install 'rota[engine]'")


def _ready(front: Front, policy: str, running: Running) -> None:
    """Tell a person where it is and what to try."""
    engine = front.engine.core.limits
    path, asked = ("completions", {"prompt": "Return"}) if front.template is None else (
        "chat/completions", {"messages": [{"role": "user", "content": "What does os.path.join do?"}]}
    )  # fmt: skip
    body = json.dumps({"model": front.model, **asked, "max_tokens": 60, "stream": True})
    typer.echo(
        f"{front.model} under {policy} at {running.address}/v1, KV cache for {engine.blocks * engine.block_size:,} tokens; Ctrl-C stops it\n"
        f"Try: curl -N {running.address}/v1/{path} -H 'Content-Type: application/json' -d '{body}'"
    )
    sys.stdout.flush()


def _log_file(path: str) -> TextIO:
    try:
        return open(path, "a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}); choose another --log") from None
