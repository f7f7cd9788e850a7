"""A policy put together on the command line: ``composed:batching=sarathi,order=fcfs,...``, each part by name with its defaults."""

from __future__ import annotations

from collections.abc import Callable

from rota.errors import InputError
from rota.policies.admission.aggressive import Aggressive
from rota.policies.admission.conservative import Conservative
from rota.policies.admission.lightllm import LightLLM
from rota.policies.admission.past_future import PastFuture
from rota.policies.batching.composed import Composed
from rota.policies.order.fcfs import Fcfs
from rota.policies.order.program import ProgramOrder
from rota.policies.order.shortest import ShortestPrompt
from rota.policies.order.vtc import VTC
from rota.policies.parts import Admission, Order, Retention, Victim
from rota.policies.retention.fixed import FixedTtl
from rota.policies.retention.pins import Pins
from rota.policies.retention.pressure import UntilPressure
from rota.policies.retention.ttl import Ttl
from rota.policies.victim.latest import LatestAdmitted, LatestArrival
from rota.policies.victim.program import LatestProgram

ORDERS: dict[str, Callable[[], Order]] = {
    "fcfs": Fcfs, "priority": lambda: Fcfs(by_priority=True), "shortest-prompt": ShortestPrompt, "vtc": VTC, "program": ProgramOrder,
}  # fmt: skip
#: Beyond the prefix cache: KV held between the turns of a program.
HELD: dict[str, Callable[[], Retention]] = {
    "ttl": Ttl, "fixed-ttl": FixedTtl, "until-pressure": UntilPressure, "forever": lambda: UntilPressure("deadlock"),
}  # fmt: skip
RETENTIONS = ("none", "lru", *HELD)
ADMISSIONS: dict[str, Callable[[], Admission]] = {
    "aggressive": Aggressive, "conservative": Conservative, "lightllm": LightLLM, "past-future": PastFuture,
}  # fmt: skip
VICTIMS: dict[str, Callable[[], Victim]] = {
    "latest-arrival": LatestArrival, "latest-admitted": LatestAdmitted, "latest-program": LatestProgram,
}  # fmt: skip


def own_victim(batching: str) -> str:
    """The victim that a batching has by nature."""
    return "latest-admitted" if batching == "vllm-v1" else "latest-arrival"


class Custom(Composed):
    """Parts by name.

    Parameters
    ----------
    batching, order, admission : str
    victim : str or None
        None: as the batching has it, ``latest-admitted`` for vllm-v1, else ``latest-arrival``.
    watermark : float or None
        Of aggressive admission. None: 0.01; 0 with vllm-v1 and orca-paged, which know none.
    retention : str
        ``none``: a finished request's KV is dropped; ``lru``: it stays in the prefix cache until its blocks are wanted. Between the
        turns of a program it is held there, with ``ttl`` as in `continuum`, ``fixed-ttl``, ``until-pressure`` or ``forever``.
    max_num_batched_tokens, max_num_seqs : int or None
        None: as the batching has it.
    """

    def __init__(
        self, *, batching: str = "sarathi", order: str = "fcfs", admission: str = "aggressive", victim: str | None = None,
        watermark: float | None = None, retention: str = "none", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        if watermark is None:
            watermark = 0.01 if batching in ("sarathi", "vllm-v0") else 0.0
        if victim is None:
            victim = own_victim(batching)
        for kind, name, known in (("order", order, ORDERS), ("admission", admission, ADMISSIONS), ("victim", victim, VICTIMS),
                                  ("retention", retention, RETENTIONS)):  # fmt: skip
            if name not in known:
                raise InputError(f"{kind} must be one of {', '.join(known)}, not {name!r}")
        chosen = Aggressive(watermark) if admission == "aggressive" else ADMISSIONS[admission]()
        pins = Pins(HELD[retention]()) if retention in HELD else None
        queue = ProgramOrder(pins) if order == "program" else ORDERS[order]()
        super().__init__(
            queue, chosen, VICTIMS[victim](), batching=batching, max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs, prefix_caching=retention != "none", pins=pins,
        )  # fmt: skip
