"""Policies that are known for how they treat tenants: an order of tenants on any batching and admission."""

from __future__ import annotations

from rota.errors import InputError
from rota.policies.batching.composed import Composed
from rota.policies.batching.custom import ADMISSIONS, VICTIMS, own_victim
from rota.policies.batching.policy import flag
from rota.policies.order.prices import QUADRATIC, Cost
from rota.policies.order.rate_limit import RateLimit
from rota.policies.order.vtc import VTC
from rota.policies.parts import Order


class Fair(Composed):
    """An order of tenants.

    Parameters
    ----------
    order : Order
    batching, admission : str
        Names of parts. Where admission is ``aggressive``, requests may be evicted and served again, which counts once.
    max_num_batched_tokens, max_num_seqs : int or None
        None: as the batching has it.
    """

    def __init__(
        self, order: Order, batching: str, admission: str, max_num_batched_tokens: int | None, max_num_seqs: int | None
    ) -> None:
        if admission not in ADMISSIONS:
            raise InputError(f"admission must be one of {', '.join(ADMISSIONS)}, not {admission!r}")
        super().__init__(
            order, ADMISSIONS[admission](), VICTIMS[own_victim(batching)](), batching=batching,
            max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs,
        )  # fmt: skip


class VirtualTokenCounter(Fair):
    """`rota.policies.order.vtc.VTC`.

    Parameters
    ----------
    weights : str
        Shares of the tenants, as in ``1/2/1``; tenants beyond have 1.
    input_price, output_price : float
        Of a token, for the cost ``linear``.
    cost : str
        ``linear`` or ``quadratic``.
    predict : bool
        Charge a predicted output at admission.
    batching, admission, max_num_batched_tokens, max_num_seqs
        As in `Fair`.
    """

    name = "vtc"
    title = "Virtual token counter: the tenant that has been served least comes next"
    paper = "Sheng et al., Fairness in Serving Large Language Models, OSDI 2024"

    def __init__(
        self, *, weights: str = "", input_price: float = 1.0, output_price: float = 2.0, cost: str = "linear", predict: bool = False,
        batching: str = "vllm-v0", admission: str = "aggressive", max_num_batched_tokens: int | None = None,
        max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        for name, price in (("input_price", input_price), ("output_price", output_price)):
            if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
                raise InputError(f"{name} must be a number of at least 0, not {price!r}")
        if cost not in ("linear", "quadratic"):
            raise InputError(f"cost must be linear or quadratic, not {cost!r}")
        try:
            shares = tuple(float(part) for part in weights.split("/")) if weights else ()
        except ValueError:
            raise InputError(f"weights must be numbers with a slash between, such as 1/2/1, not {weights!r}") from None
        prices = QUADRATIC if cost == "quadratic" else Cost(float(input_price), float(output_price))
        super().__init__(VTC(prices, shares, flag("predict", predict)), batching, admission, max_num_batched_tokens, max_num_seqs)


class RequestsPerMinute(Fair):
    """`rota.policies.order.rate_limit.RateLimit`."""

    name = "rate-limit"
    title = "Rate limit: first come, first served up to so many requests per minute and tenant"
    paper = "the usual limit of gateways; baseline of Sheng et al., OSDI 2024"

    def __init__(
        self, *, requests_per_minute: int = 60, batching: str = "vllm-v0", admission: str = "aggressive",
        max_num_batched_tokens: int | None = None, max_num_seqs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(RateLimit(requests_per_minute), batching, admission, max_num_batched_tokens, max_num_seqs)
