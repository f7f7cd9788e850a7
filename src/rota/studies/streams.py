"""Streaming sessions under every discipline, side by side: on one device, and on two with a lane each."""

from __future__ import annotations

from rota.catalog.sizes import kv_bytes_per_token
from rota.cost.deployment import Deployment
from rota.mechanisms.simulator.streams import simulate_streams
from rota.policies.streams.registry import stream_policy
from rota.results.streams import summarise_streams
from rota.workload.streams import Streams

#: Disciplines that differ to a scheduler; overlapped and gap-isolated make the same plans as group-decoupled.
DISCIPLINES = ("interleave", "group-decoupled")


def compare_streams(
    streams: Streams, deployment: Deployment, *, deadline: float, max_num_seqs: int = 256, max_num_batched_tokens: int = 2048
) -> list[dict[str, object]]:
    """A row per discipline and number of devices.

    Parameters
    ----------
    streams : Streams
    deployment : Deployment
        Of one device; with two, KV passes over its link.
    deadline : float
        Seconds from a frame's arrival within which its text should be complete.
    max_num_seqs, max_num_batched_tokens : int
        Of every discipline.

    Returns
    -------
    list of dict
        ``discipline``, ``devices``, and the figures of `rota.results.streams.summarise_streams`.

    Raises
    ------
    InputError, DoesNotFit
        As `simulate_streams`.
    """
    engine = deployment.engine(max_num_batched_tokens)
    transfer = kv_bytes_per_token(deployment.shape, deployment.tensor_parallel_size) / deployment.link.bandwidth
    rows: list[dict[str, object]] = []
    for devices in (1, 2):
        for name in DISCIPLINES:
            policy = stream_policy(name, max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens)
            run = simulate_streams(streams, policy, engine, devices=devices, transfer=transfer)
            rows.append({"discipline": name, "devices": devices, **summarise_streams(run, deadline)})
    return rows
