"""`rota bench`: a trace against a real server, measured as the simulator measures."""

from __future__ import annotations

import asyncio
import hashlib
import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rota.cli.compare import Export, Slo, Warmup
from rota.cli.options import Json, Workload, check_outputs, objective, print_json, takes
from rota.cli.simulate import print_run
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.mechanisms.client.record import Record
    from rota.mechanisms.client.server import Served
    from rota.workload.trace import Trace

INTERRUPTED = 130
#: What a client cannot see.
UNSEEN = ("preemptions", "preemptions_per_request", "recomputed_tokens", "prefill_saved", "shared_reads")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bench")(takes(Workload)(bench))


def bench(
    setup: Workload,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="An OpenAI-compatible server.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="NAME", help="Default: the first that it serves.")] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", envvar="ROTA_API_KEY", metavar="KEY", help="If it wants one.")] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Prompts of words, for servers that take no token ids; their lengths are then near the trace's.")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Use chat completions, which only take text.")] = False,
    stop_early: Annotated[
        bool, typer.Option("--stop-early", help="Let answers end where the model ends them, for servers without ignore_eos.")
    ] = False,
    vocab: Annotated[int | None, typer.Option("--vocab", metavar="N", help="Token ids to draw from; default: as the server says.")] = None,
    max_concurrency: Annotated[int | None, typer.Option("--max-concurrency", metavar="N", help="Requests under way at once.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For one answer.")] = 3600.0,
    drop_long: Annotated[bool, typer.Option("--drop-long", help="Leave out requests longer than the model takes.")] = False,
    record: Annotated[
        str | None, typer.Option("--record", metavar="FILE", help="Keep every answer's times here (.jsonl); go on from it if it is there.")
    ] = None,
    slo: Slo = None,
    warmup: Warmup = 0.0,
    export: Export = None,
    json: Json = False,
) -> None:
    """Send a trace to a server at its times, and report as rota simulate does. Ctrl-C reports what there is.

    Example: rota bench poisson:rate=4,prompt=100,output=30,n=200 --url http://127.0.0.1:8000
    """
    setup.check()
    check_outputs(record=record, export=export)
    for option, value in (("--vocab", vocab), ("--max-concurrency", max_concurrency), ("--timeout", timeout)):
        if value is not None and not value > 0:
            raise InputError(f"{option} must be positive, not {value:g}")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--url {url!r} must begin with http:// or https://")
    if find_spec("aiohttp") is None:
        raise InputError("this needs aiohttp; install the extra: pip install 'rota[engine]'")
    if export:
        from rota.results.frame import check_format

        check_format(export)
    target = objective(slo)

    from rota.mechanisms.client.drive import drive, measured
    from rota.mechanisms.client.prompts import text_prompts, token_prompts
    from rota.mechanisms.client.record import Record
    from rota.mechanisms.client.server import USUAL_VOCAB, Server
    from rota.report.progress import ProgressBars
    from rota.results.summary import summarise

    trace = setup.load()
    extra: dict[str, Any] = {"temperature": 0} | ({} if stop_early else {"ignore_eos": True})

    async def run(bars: ProgressBars) -> tuple[Trace, Record, Served, bool]:
        async with Server(url, key=api_key, chat=chat, timeout=timeout) as server:
            served = await server.served(model)
            work = _fitting(trace, served, drop_long)
            size = vocab or served.vocab or USUAL_VOCAB
            prompts = text_prompts(work, setup.seed) if text or chat else token_prompts(work, size, setup.seed)
            kept = Record(None if record is None else Path(record), _head(work, server.url, served.model, setup.seed, text or chat))
            with kept:
                try:
                    await drive(
                        work, server, served.model, prompts, kept, options=extra, max_concurrency=max_concurrency,
                        progress=bars.task("answers"),
                    )  # fmt: skip
                except asyncio.CancelledError:  # Ctrl-C
                    return work, kept, served, False
            return work, kept, served, True

    with ProgressBars(quiet=json) as bars:
        work, kept, served, complete = asyncio.run(run(bars))
    if not kept.rows:
        raise KeyboardInterrupt
    problems = [row for row in kept.rows.values() if row.error]
    if len(problems) == len(kept.rows):
        hint = "" if text or chat else " (--text if it takes no token ids, --stop-early if it does not know ignore_eos)"
        raise InputError(f"{url}: no request was answered; the first error: {problems[0].error}; mend the request{hint} or the server")
    conditions = {"url": url, "model": served.model, "seed": setup.seed, "source": "measured", "complete": complete, "replicas": 1}
    found = measured(work, kept, "measured", f"{served.model} at {url}", conditions)
    figures = summarise(found, target, warmup=warmup) | dict.fromkeys(UNSEEN, math.nan)
    if json:
        errors = {row.error: sum(other.error == row.error for other in problems) for row in problems}
        print_json({
            "policy": found.policy, "trace": found.trace, "deployment": found.deployment, "figures": figures, "totals": found.totals,
            "conditions": found.meta, "errors": errors,
        })  # fmt: skip
    else:
        print_run(found, figures, "measured" if complete else f"measured, interrupted after {len(kept.rows):,} of {len(work):,} requests")
        for status, example in {row.status: row.error for row in problems}.items():
            count = sum(row.status == status for row in problems)
            typer.echo(f"{count:,} requests failed with {f'status {status}' if status else 'no answer'}: {example}")
    if export:
        from rota.results.frame import requests_frame, write_frame

        write_frame(requests_frame(found), export)
    if not complete:
        raise typer.Exit(INTERRUPTED)


def _fitting(trace: Trace, served: Served, drop: bool) -> Trace:
    """The trace as far as the model takes it."""
    if not served.max_len:
        return trace
    from rota.workload.transform import within

    if drop:
        return within(trace, served.max_len)
    long = trace.prompt + trace.output > served.max_len
    if long.any():
        row = int(long.argmax())
        raise InputError(
            f"{int(long.sum()):,} of {len(trace):,} requests are longer than the {served.max_len:,} tokens that {served.model} takes "
            f"(row {row}: {trace.prompt[row]:,} + {trace.output[row]:,}); add --drop-long to leave them out"
        )
    return trace


def _head(trace: Trace, url: str, model: str, seed: int, text: bool) -> dict[str, Any]:
    """What a record is of."""
    state = hashlib.sha256()
    for column in (trace.arrival, trace.prompt, trace.output):
        state.update(column.tobytes())
    return {"measurement": 1, "trace": trace.name, "requests": len(trace), "digest": state.hexdigest()[:16], "url": url, "model": model,
            "seed": seed, "text": text}  # fmt: skip
