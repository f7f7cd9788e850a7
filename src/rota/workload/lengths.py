"""How long prompts and outputs are: spreads of one quantity, and joint distributions of the two lengths of a request.

A `Spread` also describes think and tool times. Anything with `draw(rng, n) -> (prompt, output)` is a distribution of lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rota.errors import InputError
from rota.workload.trace import Floats, Ints

#: z of the 90th percentile of the standard normal distribution.
Z90 = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class Spread:
    """A positive quantity: fixed, uniform, or log-normal.

    Written as text: ``1000`` is fixed, ``500..2000`` uniform, ``1730/5696`` log-normal with that median and that 90th percentile.

    Parameters
    ----------
    kind : str
        ``"fixed"``, ``"uniform"`` or ``"lognormal"``.
    a, b : float
        The value twice; lower and upper end; median and 90th percentile.
    """

    kind: str
    a: float
    b: float

    @classmethod
    def fixed(cls, value: float) -> Spread:
        """Always `value`."""
        return cls("fixed", value, value)

    @classmethod
    def uniform(cls, low: float, high: float) -> Spread:
        """Anything from `low` to `high`, equally likely."""
        return cls("uniform", low, high)

    @classmethod
    def lognormal(cls, p50: float, p90: float) -> Spread:
        """Log-normal with median `p50` and 90th percentile `p90`."""
        return cls("lognormal", p50, p90)

    @classmethod
    def parse(cls, text: str) -> Spread:
        """Read the text form.

        Raises
        ------
        InputError
            If it is none of the three forms, or its numbers are negative, not finite or out of order.
        """
        for mark, kind in (("..", "uniform"), ("/", "lognormal"), (None, "fixed")):
            if mark is not None and mark not in text:
                continue
            parts = [text, text] if mark is None else text.split(mark)
            try:
                a, b = (float(part) for part in parts)
            except ValueError:
                break
            if math.isfinite(b) and 0 <= a <= b and (kind != "lognormal" or a > 0):
                return cls(kind, a, b)
            break
        raise InputError(
            f"{text!r} is not a quantity; write 1000 (fixed), 500..2000 (uniform) or 1730/5696 (log-normal: p50/p90)"
        )

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm of a log-normal spread."""
        return math.log(self.b / self.a) / Z90

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """`n` independent values."""
        if self.kind == "uniform":
            return rng.uniform(self.a, self.b, n)
        if self.kind == "lognormal":
            return np.asarray(self.a * np.exp(self.sigma * rng.standard_normal(n)))
        return np.full(n, float(self.a))

    def tokens(self, rng: np.random.Generator, n: int) -> Ints:
        """`n` independent whole numbers, at least 1."""
        values = self.draw(rng, n) if self.kind != "uniform" else rng.uniform(self.a - 0.5, self.b + 0.5, n)
        return np.maximum(1, np.rint(values)).astype(np.int64)


class Lengths(Protocol):
    """A joint distribution of prompt and output tokens."""

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        """Prompt and output tokens of `n` independent requests."""


@dataclass(frozen=True, slots=True)
class Independent:
    """Prompt and output drawn apart; requests above `max_total` tokens are drawn again, as filtered data sets have none.

    Parameters
    ----------
    prompt, output : Spread
    max_total : int
        Most prompt plus output tokens; 0 for no limit.
    """

    prompt: Spread
    output: Spread
    max_total: int = 0

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        """Prompt and output tokens of `n` independent requests.

        Raises
        ------
        InputError
            If hardly any request is within `max_total`.
        """
        prompt, output = self.prompt.tokens(rng, n), self.output.tokens(rng, n)
        if self.max_total:
            for _ in range(200):
                (long,) = np.nonzero(prompt + output > self.max_total)
                if not len(long):
                    break
                prompt[long], output[long] = self.prompt.tokens(rng, len(long)), self.output.tokens(rng, len(long))
            else:
                raise InputError(f"hardly any request fits into max_total={self.max_total} tokens; raise it, or shorten requests")
        return prompt, output


#: Stand-ins for data sets whose rows are not shipped. The medians and 90th percentiles given here are those before requests above
#: `max_total` are dropped; they were solved for so that, after it, they are the published ones:
#: ShareGPT at 8k prompt 1730/5696, output 415/834; arXiv summarisation at 16k prompt 7059/12985, output 208/371 (Agrawal et al.,
#: "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024, table 2).
PRESETS: dict[str, Independent] = {
    "sharegpt-like": Independent(Spread.lognormal(4114.2, 42387.5), Spread.lognormal(417.65, 842.30), 8192),
    "arxiv-like": Independent(Spread.lognormal(7902.3, 18236.3), Spread.lognormal(208.31, 371.88), 16384),
}
