"""NEO: decode attention of part of the sequences on the host, overlapped by two alternating sub-batches."""

from __future__ import annotations

from rota.contracts.offload import HOST_ATTENTION, PIPELINED, SERIAL, OffloadPlan, OffloadView
from rota.contracts.serving import ALWAYS, Limits, SeqView, StepPlan
from rota.policies.batching.policy import Batching, step_tokens, whole
from rota.policies.offload.pipelining import Division, divide
from rota.policies.offload.tiers import Placed, Tiers

#: Prompts for the host are put off no further than down to so many tokens in the step.
LEAST_TOKENS = 128


class Neo(Batching):
    """NEO's scheduler.

    The step runs in sequence or pipelined, whichever gives more requests per second of device time; in sequence host decodes rest.
    The published description leaves open whether prompts bound for the host count on both sides; here they do.

    Parameters
    ----------
    max_num_batched_tokens : int or None
        Most tokens in a step; a longer prompt is rejected. None stands for the larger of 2048 and the engine's longest request.
    max_num_seqs : int
        Most sequences held at once, on both tiers.
    """

    name = "neo"
    title = "NEO: attention of some sequences on the host, two sub-batches in turn"
    paper = "Jiang et al., NEO, MLSys 2025"
    requires = frozenset({"hybrid", HOST_ATTENTION})

    def __init__(self, *, max_num_batched_tokens: int | None = None, max_num_seqs: int = 256) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        if max_num_batched_tokens is not None:
            self.max_step_tokens = step_tokens(max_num_batched_tokens, self.max_seqs)
        self._tiers = Tiers(self.max_seqs, max_num_batched_tokens)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        self._tiers.start(limits)

    def plan(self, view: OffloadView) -> OffloadPlan:
        """Place, divide, put off prompts for which the host would idle, and choose."""
        placed = self._tiers.place(view, _always)
        if placed.reject:
            return OffloadPlan(StepPlan(decode=False, evict=tuple(placed.evict), reject=tuple(placed.reject)), tuple(placed.move))
        if not (placed.work or placed.host or placed.move or placed.evict):
            return OffloadPlan(StepPlan(repeat=ALWAYS))  # with nothing on the host, nothing changes until something comes, ends or lacks a block
        division = self._divide(view, placed)
        while placed.to_host and len(placed.device) + sum(w.n_tokens for w in placed.work[:-1]) >= LEAST_TOKENS:
            put_off = placed.work.pop()
            fewer = self._divide(view, placed)
            if min(fewer.left) < 0 or fewer.host < division.host:
                placed.work.append(put_off)
                break
            placed.to_host.remove(put_off.sid)
            division = fewer
        tokens, attention = step_parts(view, placed)
        requests = len(placed.device) + len(placed.work)
        in_sequence = (view.costs.linear(tokens) + attention) * (requests + division.host)
        pipelined = division.host > 0 and (requests == 0 or division.seconds * requests < in_sequence)
        alone = () if requests or division.host or not placed.host else (placed.host[0],)
        step = StepPlan(tuple(placed.work), evict=tuple(placed.evict))
        batches = (division.first or alone, division.second) if pipelined or alone else ((), ())
        return OffloadPlan(step, tuple(placed.move), tuple(placed.to_host), PIPELINED if pipelined or alone else SERIAL, batches)

    def _divide(self, view: OffloadView, placed: Placed) -> Division:
        tokens, attention = step_parts(view, placed)
        return divide(placed.host, view.contexts(placed.host), tokens, attention, view.costs)


def step_parts(view: OffloadView, placed: Placed) -> tuple[int, float]:
    """Tokens of prompts and device decodes, and seconds of their attention in a layer."""
    prompts = [(0, w.n_tokens) for w in placed.work]
    tokens = len(placed.device) + sum(n for _, n in prompts)
    context = int(view.contexts(placed.device).sum())
    return tokens, view.costs.device(len(placed.device), context) + view.costs.prefill(prompts)


def _always(seq: SeqView, device: list[int], host: list[int]) -> bool:
    return True
