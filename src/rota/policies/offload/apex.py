"""APEX: decode attention of part of the sequences on the host, with the overlap that promises most, asynchronous if need be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rota.contracts.offload import ASYNC, BARRIER, HOST_ATTENTION, OVERLAPS, PIPELINED, SERIAL, OffloadPlan, OffloadView
from rota.contracts.serving import Limits, SeqView, StepPlan
from rota.errors import InputError
from rota.policies.batching.policy import Batching, step_tokens, whole
from rota.policies.batching.vllm_v0 import VllmV0
from rota.policies.offload.neo import step_parts
from rota.policies.offload.pipelining import divide
from rota.policies.offload.tiers import Placed, Tiers

#: Contexts are looked up in the profile in steps of so many tokens; between them a decision stands.
GRAIN = 64
AUTO = "auto"
#: What is quicker than this counts as free, seconds.
LEAST = 1e-12


class _Choice(NamedTuple):
    """An overlap and its sub-batches; whether exact contexts were looked at, so that it holds for one step only."""

    overlap: str
    batches: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    exact: bool = False


def pipelining_pays(device_rate: float, host_rate: float, linear: float, attention: float) -> bool:
    """Whether pipelined decode steps beat steps of the device alone (the paper's equation 6).

    Parameters
    ----------
    device_rate, host_rate : float
        Sequences per second whose attention of a layer is computed on the device and on the host.
    linear, attention : float
        Seconds of a layer: everything but attention, and attention of the device's sequences.
    """
    if linear <= 0.0 or attention <= 0.0:
        return True
    return device_rate / host_rate < 2 * linear / attention + 3 + attention / linear


class Apex(Batching):
    """APEX. Without host memory it is `VllmV0`.

    With ``overlap="auto"``, decode-only steps are pipelined where equation 6 says that this pays, and overlapped asynchronously elsewhere;
    in steps with prompts the larger predicted number of tokens per second decides. Sequences go to the host as long as its attention
    for all of them, one layer each, takes no longer than a pass of the device through all layers: more would only wait for each other.

    Parameters
    ----------
    max_num_batched_tokens : int or None
        Most tokens in a step; a longer prompt is rejected. None stands for the larger of 2048 and the engine's longest request.
    max_num_seqs : int
        Most sequences held at once, on both tiers.
    overlap : str
        ``"auto"``, or one of ``"pipelined"``, ``"async"`` and ``"barrier"`` for all steps.
    host_load : float
        Most host attention per pass, as a share of the pass.
    """

    name = "apex"
    title = "APEX: attention of some sequences on the host, asynchronous overlap"
    paper = "Fan et al., APEX, IPDPS 2026 (arXiv 2506.03296)"
    requires = frozenset({"hybrid", HOST_ATTENTION})

    def __init__(
        self, *, max_num_batched_tokens: int | None = None, max_num_seqs: int = 256, overlap: str = AUTO, host_load: float = 1.0
    ) -> None:  # fmt: skip
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        if max_num_batched_tokens is not None:
            self.max_step_tokens = step_tokens(max_num_batched_tokens, self.max_seqs)
        choices = (AUTO, *OVERLAPS[1:])
        if overlap not in choices:
            raise InputError(f"overlap must be one of {', '.join(choices)}, not {overlap!r}")
        if isinstance(host_load, bool) or not isinstance(host_load, int | float) or not 0 < host_load < float("inf"):
            raise InputError(f"host_load must be a number above 0, not {host_load!r}; 1 is all that the host can do")
        self.overlap = overlap
        self.host_load = float(host_load)
        self._alone = VllmV0(max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs)
        self._tiers = Tiers(self.max_seqs, max_num_batched_tokens)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        self._alone.start(limits)
        self._tiers.start(limits)

    def plan(self, view: OffloadView) -> OffloadPlan:
        """Place, then choose how to overlap."""
        if view.host_blocks == 0:
            return OffloadPlan(self._alone.plan(view))
        placed = self._tiers.place(view, lambda seq, device, host: self._admits(view, seq, device, host))
        if placed.reject:
            return OffloadPlan(StepPlan(decode=False, evict=tuple(placed.evict), reject=tuple(placed.reject)), tuple(placed.move))
        overlap, batches, exact = self._overlap(view, placed)
        # what is decided on coarse contexts stands until one of them may have changed
        changes = placed.work or placed.move or placed.evict
        repeat = 1 if exact or changes else min(_stands(view, placed.device), _stands(view, placed.host))
        step = StepPlan(tuple(placed.work), evict=tuple(placed.evict), repeat=repeat)
        return OffloadPlan(step, tuple(placed.move), tuple(placed.to_host), overlap, batches)

    def _admits(self, view: OffloadView, seq: SeqView, device: list[int], host: list[int]) -> bool:
        """Whether the host can attend for one more."""
        linear = view.costs.linear(len(device))
        each_pass = self.limits.n_layers * (linear + view.costs.device(len(device), _coarse(view, device)))
        return view.costs.host(len(host) + 1, _coarse(view, host) + seq.n_known) <= self.host_load * each_pass

    def _overlap(self, view: OffloadView, placed: Placed) -> _Choice:
        host, idle = placed.host, not placed.device and not placed.work
        if not host:
            return _Choice(SERIAL)
        if self.overlap == BARRIER or idle:
            return _Choice(BARRIER)  # the device has nothing else to do than to wait
        if self.overlap == ASYNC:
            return _Choice(ASYNC)
        pipelined = self.overlap == PIPELINED or self._pays(view, placed)
        if not pipelined and not placed.work:
            return _Choice(ASYNC)
        # where decode steps are asynchronous, those with a token open are not to begin it again
        tokens, attention = step_parts(view, placed)
        free = host if pipelined else [sid for sid in host if not view.seq(sid).in_flight]
        division = divide(free, view.contexts(free), tokens, attention, view.costs)
        own = len(placed.device) + len(placed.work)
        seconds = view.costs.linear(tokens) + attention
        late = 0.0 if pipelined else self._late(view, host, seconds, attention)
        waits = max(0.0, view.host_backlog - seconds) / self.limits.n_layers
        if division.host and (own + division.host) * seconds > (own + late) * (division.seconds + waits):
            return _Choice(PIPELINED, (division.first, division.second), True)
        return _Choice(SERIAL if self.overlap == PIPELINED else ASYNC, exact=True)

    def _pays(self, view: OffloadView, placed: Placed) -> bool:
        """Equation 6 for the decodes of this step."""
        if not placed.device:
            return True
        device, host, costs = placed.device, placed.host, view.costs
        linear, attention = costs.linear(len(device)), costs.device(len(device), _coarse(view, device))
        host_seconds = max(costs.host(len(host), _coarse(view, host)), LEAST)
        return pipelining_pays(len(device) / max(attention, LEAST), len(host) / host_seconds, linear, attention)

    def _late(self, view: OffloadView, host: list[int], seconds: float, attention: float) -> float:
        """Host tokens that an asynchronous step is worth: each sequence moves on by a layer, and by all as far as the host keeps up."""
        each = max(view.costs.host(len(host), _coarse(view, host)), LEAST) / len(host)
        keeps_up = min(len(host), attention / each)
        return min(seconds / each, len(host) / self.limits.n_layers + keeps_up)


def _coarse(view: OffloadView, sids: Sequence[int]) -> int:
    """Contexts of these sequences together, the mean rounded up to the profile's grain."""
    return len(sids) * (int(view.contexts(sids).sum()) // len(sids) // GRAIN + 1) * GRAIN if sids else 0


def _stands(view: OffloadView, sids: Sequence[int]) -> int:
    """Steps for which `_coarse` of them cannot change."""
    return GRAIN - int(view.contexts(sids).sum()) // len(sids) % GRAIN if sids else 1 << 40
