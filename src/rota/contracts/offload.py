"""Where policies that split decode attention between device and host meet the engine: two tiers of KV, and how they overlap.

It extends `rota.contracts.serving`: an `OffloadPlan` is a `StepPlan` and what concerns the tiers. A running sequence has its whole KV on
one tier, and its decode attention runs there. Prompts are always computed on the device; those named in `to_host` leave their KV in
host memory. `EngineView.running`, `n_decode`, `decode_need` and `free_blocks` speak of the device tier alone, `n_running` of all
sequences held; `StepPlan.decode` and `pause` speak of device sequences.

The linear layers of all sequences run on the device. `overlap` says what the host does meanwhile:

- ``"serial"``: nothing. Host sequences rest.
- ``"pipelined"``: two sub-batches alternate, layer by layer. The first holds prompts and device decodes; host decodes are
  divided between both by `batches` (those in neither rest). While the host attends for one sub-batch, the device attends
  for its other members and then runs the linear layer of the other sub-batch. So each layer's weights are read twice.
- ``"async"``: one batch. A host sequence whose attention of a layer is not done when the device comes to the next layer stays behind
  and goes on when the device passes there again, a step later; its token stays open meanwhile (`SeqView.in_flight`).
- ``"barrier"``: one batch, and the device waits in every layer for the host's attention of all host sequences.

A sequence that is moved, evicted or put into a sub-batch while its token is open begins that token again.

Rules, besides I1-I9 (blocks are counted per tier)
-----
O1  Only running sequences are moved, each once, to the tier where they are not; not while they prefill. A move happens before the step,
    which takes at least as long as the copy.
O2  `to_host` names sequences whose whole prompt is work of this plan.
O3  `batches` names host decodes, each once, and only with ``"pipelined"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import BatchPolicy, EngineView, Limits, SeqView, StepPlan

DEVICE, HOST = 0, 1
SERIAL, PIPELINED, ASYNC, BARRIER = "serial", "pipelined", "async", "barrier"
OVERLAPS = (SERIAL, PIPELINED, ASYNC, BARRIER)
#: The capability that policies of this kind require.
HOST_ATTENTION = "host_attention"


class OffloadPlan(NamedTuple):
    """One decision. `StepPlan.repeat` also ends when a host sequence that goes on lacks a block.

    Attributes
    ----------
    step : StepPlan
    move : tuple of (int, int)
        Sequences and the tier to copy their KV to.
    to_host : tuple of int
        Sequences whose prompt, part of ``step.work``, leaves its KV in host memory.
    overlap : str
    batches : tuple of two tuples of int
        Host decodes of the first and of the second sub-batch.
    """

    step: StepPlan
    move: tuple[tuple[int, int], ...] = ()
    to_host: tuple[int, ...] = ()
    overlap: str = SERIAL
    batches: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


class SplitCosts(Protocol):
    """Predicted seconds of one layer, as profiling gives them.

    Attributes
    ----------
    linear_table : float64 (n + 1,)
        `linear` of 0 to n tokens; beyond, the last slope goes on.
    host_terms : (float, float, float)
        Of `host`: per call, per sequence, per token of context.
    """

    @property
    def linear_table(self) -> NDArray[np.float64]: ...
    @property
    def host_terms(self) -> tuple[float, float, float]: ...
    def linear(self, tokens: int) -> float:
        """Everything but attention, of so many tokens on the device."""
    def prefill(self, prompts: Sequence[tuple[int, int]]) -> float:
        """Attention of prompt chunks (cached tokens, new tokens) on the device."""
    def device(self, sequences: int, context: int) -> float:
        """Decode attention on the device over so many tokens of context in all."""
    def host(self, sequences: int, context: int) -> float:
        """Decode attention on the host, in one call, its exchange of vectors included."""


class OffloadView(EngineView, Protocol):
    """What such a policy sees."""

    @property
    def host_blocks(self) -> int:
        """KV blocks of host memory, used or free."""
    @property
    def free_host_blocks(self) -> int: ...
    @property
    def host_need(self) -> int:
        """Host blocks that the next tokens of all host sequences take."""
    @property
    def host_backlog(self) -> float:
        """Seconds until the host has computed all attention that it has been given."""
    @property
    def hosted(self) -> Sequence[SeqView]:
        """Sequences whose KV is in host memory, in admission order, those with an open token included."""
    @property
    def n_hosted(self) -> int:
        """How many those are."""
    @property
    def costs(self) -> SplitCosts: ...
    def contexts(self, sids: Sequence[int]) -> NDArray[np.int64]:
        """Known tokens of these sequences, which their next token attends to."""


class OffloadPolicy(BatchPolicy, Protocol):
    """A `BatchPolicy` that requires ``host_attention``; its `plan` sees two tiers and decides about both."""

    def start(self, limits: Limits) -> None:
        """Called once, before the first plan."""

    def plan(self, view: OffloadView) -> OffloadPlan:  # type: ignore[override]
        """The decision for the step that begins now."""
