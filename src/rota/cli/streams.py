"""`rota streams`: live or recorded video sessions, watching and speaking in turns or at once."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from rota.cli.options import Json
from rota.cli.output import Figure, print_json, print_rows
from rota.errors import InputError

_SPREAD = "such as 256, 128..512 (uniform) or 256/400 (log-normal: p50/p90)."


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("streams")(streams)


def streams(
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="A model of rota catalog models, or a config.json.")],
    device: Annotated[str, typer.Option("--device", "-d", metavar="DEVICE", help="An accelerator of rota catalog devices.")],
    sessions: Annotated[int, typer.Option("--sessions", metavar="N", help="Sessions at once, or in all with --rate.")] = 1,
    frames: Annotated[int, typer.Option("--frames", metavar="N", help="Frames of a session.")] = 30,
    frame_interval: Annotated[float, typer.Option("--frame-interval", metavar="S", help="Seconds between frames; 0 for a recorded clip.")] = 0.5,
    frame_tokens: Annotated[str, typer.Option("--frame-tokens", metavar="N", help=f"Tokens of a frame, {_SPREAD}")] = "256",
    group_tokens: Annotated[str, typer.Option("--group-tokens", metavar="N", help="Text tokens per frame.")] = "3",
    last_tokens: Annotated[str | None, typer.Option("--last-tokens", metavar="N", help="After the last frame; default: as after others.")] = None,
    prompt_tokens: Annotated[str, typer.Option("--prompt-tokens", metavar="N", help="Before the first frame.")] = "64",
    rate: Annotated[float, typer.Option("--rate", metavar="R", help="Sessions per second, Poisson; 0: all begin in one interval.")] = 0.0,
    deadline: Annotated[float | None, typer.Option("--deadline", metavar="S", help="For a frame's text; default: the frame interval.")] = None,
    tensor_parallel_size: Annotated[int, typer.Option("--tensor-parallel-size", "-tp", metavar="N", help="Devices that share each layer.")] = 1,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", metavar="N", help="Longest session; default: the model's own.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option("--max-num-seqs", metavar="N", help="Most sessions held at once; default: 256.")] = None,
    max_num_batched_tokens: Annotated[
        int, typer.Option("--max-num-batched-tokens", metavar="N", help="Most tokens of a step; small ones let text ride on frames.")
    ] = 2048,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    json: Json = False,
) -> None:  # fmt: skip
    """Compare taking turns (a frame, its text, the next frame) with decoupled lanes, on one device and with a device per lane.

    Frames cost what their tokens cost; a vision encoder is not priced.

    Example: rota streams --model qwen2.5-vl-7b --device a100-80g --frame-interval 0.06 --frame-tokens 512 --group-tokens 4
    """
    from rota.cost.deployment import Deployment
    from rota.studies.streams import compare_streams
    from rota.workload.lengths import Spread
    from rota.workload.streams import streams as generate

    if deadline is not None and not deadline > 0:
        raise InputError(f"--deadline must be a positive number of seconds, not {deadline:g}")
    given = {"--frame-tokens": frame_tokens, "--group-tokens": group_tokens, "--prompt-tokens": prompt_tokens}
    if last_tokens is not None:
        given["--last-tokens"] = last_tokens
    tokens = {}
    for option, text in given.items():
        try:
            tokens[option[2:].replace("-", "_")] = Spread.parse(text)
        except InputError as error:
            raise InputError(f"{option}: {error}") from None
    work = generate(sessions, frames, frame_interval, rate=rate, seed=seed, **tokens)
    within = frame_interval or math.inf if deadline is None else deadline
    deployment = Deployment(model, device, tensor_parallel_size=tensor_parallel_size, max_model_len=max_model_len)
    seats = max(1, min(256, max_num_batched_tokens)) if max_num_seqs is None else max_num_seqs
    rows = compare_streams(work, deployment, deadline=within, max_num_seqs=seats, max_num_batched_tokens=max_num_batched_tokens)
    if json:
        print_json({"sessions": work.source, "engine": deployment.label, "deadline": within, "rows": rows})
        return
    typer.echo(f"{work.source[:1].upper()}{work.source[1:]}; {deployment.label}")
    print_rows([_row(row, within) for row in rows])
    typer.echo("overlapped and gap-isolated position ids make the same plans as group-decoupled")


def _row(row: dict[str, object], deadline: float) -> dict[str, object]:
    def ms(name: str) -> Figure:
        return Figure(f"{1e3 * float(str(row[name])):,.0f}")

    shown: dict[str, object] = {
        "discipline": row["discipline"], "lanes": "one device" if row["devices"] == 1 else "a device each",
        "delay p50 (ms)": ms("delay_p50"), "delay p99 (ms)": ms("delay_p99"),
    }  # fmt: skip
    if deadline < math.inf:
        shown[f"within {deadline:g} s"] = Figure(f"{float(str(row['on_time'])):.1%}")
    shown |= {"frames/s": row["frames_per_second"], "text tokens/s": row["text_tokens_per_second"], "makespan (s)": row["makespan"]}
    busy = [f"{float(str(value)):.0%}" for name, value in row.items() if name.startswith("busy_")]
    return shown | {"busy": Figure(" + ".join(busy))}
