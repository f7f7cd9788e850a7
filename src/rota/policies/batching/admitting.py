"""Policies that are known for their admission: first come, first served on any batching, differing only in who may join when."""

from __future__ import annotations

from rota.policies.admission.aggressive import Aggressive
from rota.policies.admission.conservative import Conservative
from rota.policies.admission.lightllm import LightLLM
from rota.policies.admission.oracle import OracleLengths
from rota.policies.admission.past_future import PastFuture
from rota.policies.batching.composed import Composed
from rota.policies.batching.custom import VICTIMS, own_victim
from rota.policies.order.fcfs import Fcfs
from rota.policies.parts import Admission
from rota.workload.trace import Trace


class Admitting(Composed):
    """One admission part on a batching of choice.

    Parameters
    ----------
    admission : Admission
    batching : str
        ``vllm-v0`` (prompts first, as in the engine that these rules were made for), ``orca-paged``, ``sarathi`` or ``vllm-v1``.
    max_num_batched_tokens, max_num_seqs : int or None
        None: as the batching has it.
    """

    def __init__(self, admission: Admission, batching: str, max_num_batched_tokens: int | None, max_num_seqs: int | None) -> None:
        super().__init__(
            Fcfs(), admission, VICTIMS[own_victim(batching)](), batching=batching, max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        )  # fmt: skip


class AggressiveAdmission(Admitting):
    """`rota.policies.admission.aggressive.Aggressive`."""

    name = "aggressive"
    title = "Aggressive admission: whatever fits now, less a watermark"
    paper = "Kwon et al., PagedAttention, SOSP 2023"

    def __init__(
        self, *, watermark: float = 0.01, batching: str = "vllm-v0", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(Aggressive(watermark), batching, max_num_batched_tokens, max_num_seqs)


class ConservativeAdmission(Admitting):
    """`rota.policies.admission.conservative.Conservative`."""

    name = "conservative"
    title = "Conservative admission: room for everybody's longest output"
    paper = "Yu et al., Orca, OSDI 2022; with the peak, LightLLM's router"

    def __init__(
        self, *, overcommit: float = 1.0, peak: bool = False, batching: str = "vllm-v0", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(Conservative(overcommit=overcommit, peak=peak), batching, max_num_batched_tokens, max_num_seqs)


class LightLLMAdmission(Admitting):
    """`rota.policies.admission.lightllm.LightLLM`."""

    name = "lightllm"
    title = "LightLLM's router: peak of memory under a rule of thumb for lengths"
    paper = "LightLLM, router before Past-Future, 2024"

    def __init__(
        self, *, router_token_ratio: float = 0.0, batching: str = "vllm-v0", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(LightLLM(router_token_ratio=router_token_ratio), batching, max_num_batched_tokens, max_num_seqs)


class PastFutureAdmission(Admitting):
    """`rota.policies.admission.past_future.PastFuture`."""

    name = "past-future"
    title = "Past-Future: peak of memory under lengths sampled from recent outputs"
    paper = "Gong et al., Past-Future Scheduler, ASPLOS 2025"

    def __init__(
        self, *, reserve: float = 0.05, window: int = 200, futures: int = 5, initial: int | None = None, redraw: float | None = None,
        seed: int = 0, batching: str = "vllm-v0", max_num_batched_tokens: int | None = None, max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        part = PastFuture(reserve=reserve, window=window, futures=futures, initial=initial, redraw=redraw, seed=seed)
        super().__init__(part, batching, max_num_batched_tokens, max_num_seqs)


class OracleAdmission(Admitting):
    """`rota.policies.admission.oracle.OracleLengths`: needs a mechanism that knows true output lengths, hence a simulated engine."""

    name = "oracle-lengths"
    title = "ORACLE: peak of memory under true output lengths (not for real engines)"
    paper = "Gong et al., Past-Future Scheduler, ASPLOS 2025 (upper bound)"

    def __init__(
        self, *, batching: str = "vllm-v0", max_num_batched_tokens: int | None = None, max_num_seqs: int | None = None
    ) -> None:
        self._oracle = OracleLengths()
        super().__init__(self._oracle, batching, max_num_batched_tokens, max_num_seqs)
        self.requires |= {"oracle"}

    def tell(self, trace: Trace) -> None:
        """What no policy can see."""
        self._oracle.lengths = trace.output
