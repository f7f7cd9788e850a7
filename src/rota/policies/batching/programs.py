"""Policies for programs of several turns, by the rule that decides how long a turn's KV is held for the next one.

All serve programs first come, first served, and evict the latest program; they differ in retention alone.
"""

from __future__ import annotations

from rota.policies.admission.aggressive import Aggressive
from rota.policies.batching.composed import Composed
from rota.policies.order.program import ProgramOrder
from rota.policies.parts import Retention
from rota.policies.retention.fixed import FixedTtl
from rota.policies.retention.pins import Pins
from rota.policies.retention.pressure import UntilPressure
from rota.policies.retention.ttl import Ttl
from rota.policies.victim.program import LatestProgram

CONTINUUM = "Continuum, arXiv 2511.02230, 2025"


class Programs(Composed):
    """Program order and victim, with a retention.

    Parameters
    ----------
    retention : Retention or None
    batching, max_num_batched_tokens, max_num_seqs
        As in `Composed`.
    """

    def __init__(
        self, retention: Retention | None, *, batching: str, max_num_batched_tokens: int | None, max_num_seqs: int | None
    ) -> None:
        pins = None if retention is None else Pins(retention)
        watermark = 0.01 if batching in ("sarathi", "vllm-v0") else 0.0
        super().__init__(
            ProgramOrder(pins), Aggressive(watermark), LatestProgram(), batching=batching,
            max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs, prefix_caching=True, pins=pins,
        )  # fmt: skip


class ProgramFcfs(Programs):
    """Programs first come, first served; KV is left to the prefix cache (least recently used goes first).

    Parameters
    ----------
    batching, max_num_batched_tokens, max_num_seqs
        As in `Composed`.
    """

    name = "program-fcfs"
    title = "Program FCFS: turns in order of their program's arrival; KV left to the prefix cache"
    paper = CONTINUUM

    def __init__(
        self, *, batching: str = "vllm-v1", max_num_batched_tokens: int | None = None, max_num_seqs: int | None = None
    ) -> None:
        super().__init__(
            None, batching=batching, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs
        )


class Continuum(Programs):
    """KV is held for the time that pays best, by the gaps recorded of the tool called.

    Parameters
    ----------
    cold_start : int
        Gaps of a tool, or of all, up to which they are too few to go by.
    batching, max_num_batched_tokens, max_num_seqs
        As in `Composed`.
    """

    name = "continuum"
    title = "Continuum: program FCFS, and KV held for a time learned from each tool's gaps"
    paper = CONTINUUM

    def __init__(
        self, *, cold_start: int = 100, batching: str = "vllm-v1", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            Ttl(cold_start), batching=batching, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs
        )


class FixedTime(Programs):
    """KV is held for a fixed time.

    Parameters
    ----------
    ttl : float
        Seconds; 0 makes it program FCFS.
    batching, max_num_batched_tokens, max_num_seqs
        As in `Composed`.
    """

    name = "fixed-ttl"
    title = "Fixed TTL: program FCFS, and KV held for a fixed time"
    paper = CONTINUUM

    def __init__(
        self, *, ttl: float = 2.0, batching: str = "vllm-v1", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            FixedTtl(ttl), batching=batching, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs
        )


class PinUntilPressure(Programs):
    """KV is held until the first in the queue, or a running request, needs the memory.

    Parameters
    ----------
    yields : {"older", "anyone"}
        Whether it makes way only for programs that began earlier, or for new ones too.
    batching, max_num_batched_tokens, max_num_seqs
        As in `Composed`.
    """

    name = "pin-until-pressure"
    title = "Pin until pressure: program FCFS, and KV held until its memory is wanted"
    paper = "own baseline"

    def __init__(
        self, *, yields: str = "older", batching: str = "vllm-v1", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            UntilPressure(yields), batching=batching, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs
        )


class PinForever(Programs):
    """KV is held until the program ends, unless nothing could run otherwise.

    Parameters
    ----------
    batching, max_num_batched_tokens, max_num_seqs
        As in `Composed`.
    """

    name = "pin-forever"
    title = "Pin forever: program FCFS, and KV held to the program's end, but for deadlocks"
    paper = "own baseline"

    def __init__(
        self, *, batching: str = "vllm-v1", max_num_batched_tokens: int | None = None, max_num_seqs: int | None = None
    ) -> None:
        super().__init__(
            UntilPressure("deadlock"), batching=batching, max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        )  # fmt: skip
