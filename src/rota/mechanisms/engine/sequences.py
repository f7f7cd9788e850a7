"""One request inside the engine, and the queue it waits in. A `Seq` is its own `SeqView`: what it shows is what the engine knows."""

from __future__ import annotations

import hashlib
import math
from array import array
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterator

from rota.contracts.serving import DECODE, FUTURE, PREFILL, WAITING
from rota.mechanisms.engine.parameters import SamplingParams


class Seq:
    """A request and its progress. See `rota.contracts.serving.SeqView` for the public attributes.

    Parameters
    ----------
    sid : int
    tokens : list of int
        Prompt tokens; generated ones are appended.
    arrival : float
        Seconds on the engine's clock.
    max_new : int
        Declared limit on generated tokens.
    params : SamplingParams
    priority, tenant, program : int
    keys : list of int, optional
        Identities of its blocks, where they are known without the tokens (a replayed log).

    Attributes
    ----------
    seed : int
        Of its random choices.
    lookup : callable
        How many of its leading tokens are in the prefix cache.
    """

    __slots__ = (
        "admitted", "arrival", "cached", "chunk", "committed", "finished_at", "first_scheduled", "first_token", "kept", "keys", "layer_cursor",
        "leaving", "lookup", "max_new", "n_blocks", "n_computed", "n_kept", "n_known", "n_prompt", "params", "phase", "preemptions", "priority",
        "program", "program_arrival", "recomputed", "seed", "sid", "slot", "tenant", "tokens", "tool", "turn",
    )  # fmt: skip

    def __init__(
        self, sid: int, tokens: list[int], arrival: float, max_new: int, params: SamplingParams, *, priority: int = 0, tenant: int = 0,
        program: int = -1, keys: list[int] | None = None,
    ) -> None:  # fmt: skip
        self.sid = sid
        self.tokens = tokens
        self.arrival = arrival
        self.max_new = max_new
        self.params = params
        self.priority, self.tenant, self.program = priority, tenant, program
        self.turn, self.program_arrival, self.tool = 0, arrival, -1
        self.phase = FUTURE
        self.n_prompt = self.n_known = len(tokens)
        self.n_computed = 0
        self.layer_cursor = self.chunk = 0
        self.preemptions = self.recomputed = self.cached = 0
        self.first_scheduled = self.first_token = self.finished_at = math.nan
        self.admitted = -1
        self.leaving = False  # cancelled inside an open chunk: ends when that closes
        self.slot, self.n_blocks, self.committed = -1, 0, 0
        self.keys = [] if keys is None else keys
        self.kept: list[int] = []  # blocks of host memory
        self.n_kept = 0  # tokens in them
        self.seed = 0
        self.lookup: Callable[[Seq], int] = _nothing_cached

    @property
    def n_reusable(self) -> int:
        return self.lookup(self) if self.phase == WAITING else 0

    @property
    def kv_blocks(self) -> int:
        return self.n_blocks

    @property
    def in_flight(self) -> bool:
        return False  # steps are carried out one at a time

    @property
    def n_generated(self) -> int:
        return self.n_known - self.n_prompt

    def block_key(self, i: int, size: int) -> int:
        """Identity of block `i` and everything before it: a digest of 128 bits, so that nobody can make two prompts meet."""
        while len(self.keys) <= i:
            at = len(self.keys) * size
            digest = hashlib.blake2b(digest_size=16)
            digest.update((self.keys[-1] if self.keys else 0).to_bytes(16, "little"))
            digest.update(array("i", self.tokens[at : at + size]).tobytes())
            self.keys.append(int.from_bytes(digest.digest(), "little"))
        return self.keys[i]


def _nothing_cached(seq: Seq) -> int:
    return 0


def is_held(seq: Seq) -> bool:
    """Whether it is in prefill or decode."""
    return seq.phase in (PREFILL, DECODE)


class ArrivalQueue:
    """The waiting queue in order of arrival; evicted sequences go to its head."""

    def __init__(self) -> None:
        self._seqs: OrderedDict[int, Seq] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seqs)

    def __iter__(self) -> Iterator[Seq]:
        return iter(self._seqs.values())

    def add(self, seq: Seq, *, evicted: bool) -> None:
        seq.phase = WAITING
        self._seqs[seq.sid] = seq
        if evicted:
            self._seqs.move_to_end(seq.sid, last=False)

    def remove(self, seq: Seq) -> None:
        del self._seqs[seq.sid]


class PriorityQueue:
    """The waiting queue by (priority, arrival)."""

    def __init__(self) -> None:
        self._seqs: list[Seq] = []

    def __len__(self) -> int:
        return len(self._seqs)

    def __iter__(self) -> Iterator[Seq]:
        return iter(self._seqs)

    def add(self, seq: Seq, *, evicted: bool) -> None:
        seq.phase = WAITING
        insort(self._seqs, seq, key=lambda s: (s.priority, s.arrival, s.sid))

    def remove(self, seq: Seq) -> None:
        self._seqs.remove(seq)
