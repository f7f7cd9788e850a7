"""`rota bench`: a trace against a real server, or an engine without one, measured as the simulator measures and compared with it."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rota.cli.compare import Export, Html, Slo, Warmup
from rota.cli.options import Json, Workload, objective, split_policies, takes
from rota.cli.output import check_outputs, print_json, print_rows
from rota.cli.simulate import print_run
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.mechanisms.client.record import Record
    from rota.mechanisms.client.server import Served
    from rota.results.run import Run
    from rota.studies.fidelity import Cell
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
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="MODEL_DIR", help="No server: run the engine in this process, and skip idle time.")
    ] = None,
    compare_sim: Annotated[
        str | None, typer.Option("--compare-sim", metavar="FILE", help="Simulate the trace too, with these costs (rota calibrate MODEL_DIR).")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", "-p", metavar="LIST", help="Of --engine; of --compare-sim, what the server runs.")
    ] = None,
    clock: Annotated[str | None, typer.Option("--clock", help="Of --engine: wall, or cpu; default: the clock of the costs, or wall.")] = None,
    slo: Slo = None,
    warmup: Warmup = 0.0,
    html: Html = None,
    export: Export = None,
    json: Json = False,
) -> None:
    """Send a trace to a server at its times, and report as rota simulate does. Ctrl-C reports what there is.

    With --compare-sim, what the simulator predicts stands beside what was measured.

    Example: rota bench poisson:rate=4,prompt=100,output=30,n=200 --url http://127.0.0.1:8000

    Without a server: rota bench poisson:rate=4,prompt=100,output=30,n=200 --engine my-model --compare-sim mine.json --policy sarathi,vllm-v1
    """
    setup.check()
    check_outputs(record=record, export=export, html=html)
    if (policy or clock or html) and engine is None and compare_sim is None:
        raise InputError("--policy, --clock and --html go with --engine or --compare-sim; name a model directory, or costs")
    names = split_policies(policy, ["sarathi"])
    if export:
        from rota.results.frame import check_format

        check_format(export)
    if engine is not None:
        from rota.cli.bench_engine import Asked
        from rota.cli.bench_engine import run as run_engine

        if record or text or chat:
            raise InputError("--record, --text and --chat are for servers; leave them out, or leave --engine out")
        _export(export, run_engine(Asked(setup, engine, names, compare_sim, clock, drop_long, objective(slo), warmup, html, json)))
        return
    if len(names) > 1 or clock or html:
        raise InputError("a server runs one policy, on its own clock; name one, and leave --clock and --html to --engine")
    for option, value in (("--vocab", vocab), ("--max-concurrency", max_concurrency), ("--timeout", timeout)):
        if value is not None and not value > 0:
            raise InputError(f"{option} must be positive, not {value:g}")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--url {url!r} must begin with http:// or https://")
    if find_spec("aiohttp") is None:
        raise InputError("this needs aiohttp; install the extra: pip install 'rota[engine]'")
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
        hint = "" if text or chat else " (--text if it takes no token ids, --vocab if it has fewer, --stop-early if it does not know ignore_eos)"
        raise InputError(f"{url}: no request was answered; the first error: {problems[0].error}; mend the request{hint} or the server")
    conditions = {"url": url, "model": served.model, "seed": setup.seed, "source": "measured", "complete": complete, "replicas": 1}
    found = measured(work, kept, "measured", f"{served.model} at {url}", conditions)
    figures = summarise(found, target, warmup=warmup) | dict.fromkeys(UNSEEN, math.nan)
    beside: list[Cell] = []
    if compare_sim is not None:
        from rota.cli.bench_engine import cell_json, cell_rows, prediction
        from rota.studies.fidelity import cells

        beside = cells(prediction(compare_sim, work, names[0], setup.seed), found)
    if json:
        errors = {row.error: sum(other.error == row.error for other in problems) for row in problems}
        print_json({
            "policy": found.policy, "trace": found.trace, "deployment": found.deployment, "figures": figures, "totals": found.totals,
            "conditions": found.meta, "errors": errors,
        } | ({"comparison": cell_json(beside)} if beside else {}))  # fmt: skip
    else:
        print_run(found, figures, "measured" if complete else f"measured, interrupted after {len(kept.rows):,} of {len(work):,} requests")
        for status, example in {row.status: row.error for row in problems}.items():
            count = sum(row.status == status for row in problems)
            typer.echo(f"{count:,} requests failed with {f'status {status}' if status else 'no answer'}: {example}")
        if beside:
            print_rows(cell_rows(beside))
    _export(export, {"measured": found})
    if not complete:
        raise typer.Exit(INTERRUPTED)


def _export(path: str | None, runs: Mapping[str, Run]) -> None:
    """A row per request and policy."""
    if path is None:
        return
    import polars as pl

    from rota.results.frame import requests_frame, write_frame

    frames = [requests_frame(run).with_columns(pl.lit(label).alias("policy")) for label, run in runs.items()]
    write_frame(pl.concat(frames), path)


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
