"""Where batching policies and engines meet: what a policy sees, what it may decide, and the rules a decision must obey.

Nothing here computes. A policy reads an `EngineView` and returns a `StepPlan`; the engine (simulated or real) checks the plan
against rules I1-I9 and carries it out, or raises `rota.errors.PlanRejected` with the rule's name.

A plan says what *changes*. All sequences in decode that are not inside a running step form the **standing decode set**; a plan
with ``decode=True`` gives each of them one token without listing them. A plan holds for up to `repeat` steps, as long as none of
these happens: an arrival (if `wake` has ARRIVAL), a finish (if it has FINISH), the time `wake_at` comes, a prompt completes or can no
longer advance by the planned tokens, or free KV blocks minus the standing set's need falls below `headroom`. Then the policy is asked
again. A plan must repeat only where asking at every step would give the same answer; the step-by-step reference mode of the simulator
checks that.

A preempted sequence goes back to the queue. Its KV is dropped and computed again later (**recompute**), or, if the plan names it in `swap`,
copied to host memory, as far as it is complete in all layers; an open chunk is dropped either way. When work is planned for it again, what
was kept is copied back into blocks of the device (those that the prefix cache still has are reused), and the work goes on from there:
`SeqView.n_reusable` counts it. Both copies pass before the step that follows and lengthen it.

A **pin** keeps the cached KV of a prefix from being taken for other use, though no running sequence holds it. It needs a prefix cache.

Rules
-----
I1  A sequence appears at most once in a plan's work, is known, and is not inside a running step.
I2  A work item has 1 <= n_tokens <= n_known - n_computed (after prefix reuse); with an open chunk, the same tokens and the next layers.
I3  Tokens of a step <= max_step_tokens; sequences held <= max_seqs.
I4  After evictions, KV blocks exist for everything the step computes or reserves, and host blocks for what is swapped.
I5  A sequence advances, and emits, only when all its planned tokens have passed the last layer.
I6  A decode sequence is never listed as work; the standing set runs as a whole, less the paused.
I7  An evicted or rejected sequence has no work in the same plan; only running ones are evicted, only waiting ones admitted or rejected.
    Only evicted ones are swapped, once, and only by a policy that requires ``swap``.
I8  Progress: an empty plan needs `wake_at`, a future arrival or a step in flight; otherwise the engine is stuck.
I9  Conservation: when all is done every block, of device and host, is free and every pin released; a policy that pins is asked once more at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rota.workload.trace import Trace

#: Wake flags of a plan.
ARRIVAL, FINISH = 1, 2
#: Repeat until something happens.
ALWAYS = 1 << 40
#: Phases of a sequence.
FUTURE, WAITING, PREFILL, DECODE, FINISHED, REJECTED = range(6)
#: What an engine can be asked for beyond whole-prompt steps. ``oracle`` is the truth about the trace (`OraclePolicy`): simulators only.
#: ``swap``: preempted KV can be kept in host memory (`StepPlan.swap`).
#: ``shared_attention``: decode attention reads KV blocks that several sequences hold once for all of them. ``host_attention``: see
#: `rota.contracts.offload`.
CAPABILITIES = frozenset(
    {"chunk", "hybrid", "layers", "prefix_cache", "priority", "padded", "pause", "pin", "oracle", "shared_attention", "host_attention", "swap"}
)


#: Columns of `EngineView.held`; as the properties of `SeqView` of these names.
H_SID, H_PROMPT, H_KNOWN, H_COMPUTED, H_MAX_NEW, H_BLOCKS, H_PHASE = range(7)
HELD_COLUMNS = 7


class Work(NamedTuple):
    """Prompt tokens of one sequence to compute in this step. A waiting sequence with work is thereby admitted.

    Attributes
    ----------
    sid : int
        Sequence.
    n_tokens : int
        New tokens, beyond what is computed or reused from the prefix cache.
    reserve_to : int
        KV tokens to hold afterwards; 0 means just what is computed.
    layers : tuple of int or None
        Half-open layer range; None for all. All ranged items of a plan share one range.
    """

    sid: int
    n_tokens: int
    reserve_to: int = 0
    layers: tuple[int, int] | None = None


class Pin(NamedTuple):
    """Hold the cached KV of a request's leading tokens, running or ended.

    Attributes
    ----------
    key : int
        The policy's name for it (a program, a group); a key that is pinned already is replaced.
    sid : int
    n_tokens : int
        As many whole blocks of these as are in the prefix cache are held.
    """

    key: int
    sid: int
    n_tokens: int


class StepPlan(NamedTuple):
    """One decision. See the module's text for what `repeat`, `wake` and `headroom` promise.

    Attributes
    ----------
    work : tuple of Work
    decode : bool
        Whether the standing decode set takes one token each.
    evict : tuple of int
        Running sequences that lose their KV blocks: they go back to the queue, keeping their generated tokens. With
        first-come order each goes to the head in the order given, so the last one named ends up first.
    reject : tuple of int
        Waiting sequences that can never run; they finish with an error.
    pause : tuple of int
        Decoding sequences left out of this step.
    padded : bool
        Sequences that finish during this plan keep their row and blocks until a plan without it (static batching).
    repeat, wake, headroom : int
    wake_at : float
        Ask again at the first step that ends at this time or later, seconds; with an empty plan, no later than this.
    pin : tuple of Pin
        Applied before anything else in the plan.
    unpin : tuple of int
        Keys to let go of, next; their blocks may be used by the same plan. After an empty plan with pins the policy is asked again
        at once.
    swap : tuple of int
        Those of `evict` whose computed KV is kept in host memory; that of the others is recomputed.
    """

    work: tuple[Work, ...] = ()
    decode: bool = True
    evict: tuple[int, ...] = ()
    reject: tuple[int, ...] = ()
    pause: tuple[int, ...] = ()
    padded: bool = False
    repeat: int = 1
    wake: int = ARRIVAL | FINISH
    headroom: int = 0
    wake_at: float = float("inf")
    pin: tuple[Pin, ...] = ()
    unpin: tuple[int, ...] = ()
    swap: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine is, as far as a policy may know. Tokens and blocks; `blocks` is the KV capacity of the deployment.

    `prefill` are (a, b, c): measured beforehand, a + b n + c n^2 seconds are what a prompt of n tokens takes alone (given to
    policies that pin). `reload` is the
    seconds per token of bringing KV back from host memory; infinity without a cache there.
    """

    n_layers: int
    block_size: int
    blocks: int
    max_seqs: int
    max_step_tokens: int
    max_len: int
    tp: int = 1
    pp: int = 1
    capabilities: frozenset[str] = CAPABILITIES
    prefill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reload: float = float("inf")


class SeqView(Protocol):
    """One request as the engine knows it now. Reading is live; do not keep it beyond the `plan` call."""

    @property
    def sid(self) -> int: ...
    @property
    def arrival(self) -> float: ...
    @property
    def phase(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def tenant(self) -> int: ...
    @property
    def n_prompt(self) -> int:
        """Prompt tokens as submitted; never rewritten."""
    @property
    def n_known(self) -> int:
        """Prompt plus generated tokens; kept by recompute."""
    @property
    def n_computed(self) -> int:
        """Tokens whose KV is complete in all layers."""
    @property
    def n_reusable(self) -> int:
        """Waiting only: leading tokens whose KV is in the prefix cache (whole blocks) or was swapped out, whichever are more, at most
        n_known - 1."""
    @property
    def max_new(self) -> int: ...
    @property
    def kv_blocks(self) -> int: ...
    @property
    def layer_cursor(self) -> int:
        """Next layer of the open chunk; 0 when no chunk is open."""
    @property
    def in_flight(self) -> bool: ...
    @property
    def preemptions(self) -> int: ...
    @property
    def program(self) -> int:
        """Program (agent session) that this is a turn of; -1 for none."""
    @property
    def turn(self) -> int:
        """Turns of the program before this one."""
    @property
    def program_arrival(self) -> float:
        """When the program's first turn arrived; the request's own arrival if it has no program."""
    @property
    def tool(self) -> int:
        """Finished only: index of the tool that the answer calls; -1 if it calls none, and the program is over."""
    @property
    def first_scheduled(self) -> float:
        """NaN until then."""
    @property
    def finished_at(self) -> float:
        """NaN until then."""


class Ledger(Protocol):
    """Scratch KV accounting for one `plan` call; nothing done here touches the engine."""

    def free(self) -> int:
        """Blocks free now, idle cached ones included."""
    def need(self, sid: int, upto_tokens: int) -> int:
        """Free blocks that holding `upto_tokens` tokens of `sid` would use up, beside those reserved here already."""
    def reserve(self, sid: int, upto_tokens: int) -> bool:
        """Take `need` blocks if there are as many."""
    def evict(self, sid: int) -> None:
        """Give back the blocks that only `sid` holds."""
    def unpin(self, key: int) -> None:
        """Give back the blocks that only this pin holds."""


class EngineView(Protocol):
    """What a policy sees of its engine, at one instant."""

    @property
    def now(self) -> float: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def n_decode(self) -> int:
        """Sequences in the standing decode set."""
    @property
    def decode_need(self) -> int:
        """Blocks the standing set takes in its next step."""
    @property
    def free_blocks(self) -> int: ...
    @property
    def free_host_blocks(self) -> int:
        """Free blocks of host memory, for policies that require ``swap``; else 0."""
    @property
    def n_running(self) -> int:
        """Sequences held, in flight or not."""
    @property
    def n_waiting(self) -> int: ...
    @property
    def n_prefill(self) -> int:
        """Admitted sequences with an unfinished prompt, in flight or not."""
    @property
    def prefills(self) -> Sequence[SeqView]:
        """Admitted sequences with an unfinished prompt, not in flight, in admission order."""
    @property
    def waiting(self) -> Iterator[SeqView]:
        """The queue, first to be served first: evicted ones ahead of arrivals, or by (priority, arrival) if the policy says so."""
    @property
    def running(self) -> Sequence[SeqView]:
        """All held sequences not in flight, in admission order. Costs time in proportion to their number."""
    @property
    def arrived(self) -> Sequence[SeqView]:
        """Requests that joined the queue by arriving since the policy was last asked, in order; for a policy that `follows`."""
    @property
    def finished(self) -> Sequence[SeqView]:
        """Requests that finished since the policy was last asked, in order; for a policy that `follows`."""
    @property
    def held(self) -> NDArray[np.int64]:
        """All sequences held, in flight or not, in admission order, as numbers: int64 (n, `HELD_COLUMNS`); good until asked again."""
    def seq(self, sid: int) -> SeqView: ...
    def ledger(self) -> Ledger: ...
    def pinned_blocks(self, key: int) -> int:
        """Blocks that unpinning `key` alone would free; 0 if there is no such pin."""


@runtime_checkable
class BatchPolicy(Protocol):
    """Decides, before every step that needs a decision, what the engine does.

    Attributes
    ----------
    name : str
        As registered.
    requires : frozenset of str
        Capabilities without which it refuses to start.
    order : str
        ``"fcfs"`` or ``"priority"``: how the engine keeps the waiting queue.
    prefix_caching : bool
        Whether the engine keeps a prefix cache for it.
    max_seqs : int
        Most sequences held at once.
    max_step_tokens : int
        Most tokens it will put into one step; 0 for as many as there are.
    follows : bool
        Whether it reads `EngineView.arrived` and `EngineView.finished`.
    """

    name: str
    requires: frozenset[str]
    order: str
    prefix_caching: bool
    max_seqs: int
    max_step_tokens: int
    follows: bool

    def start(self, limits: Limits) -> None:
        """Called once, before the first plan, by an engine of these limits. Resets all state."""

    def plan(self, view: EngineView) -> StepPlan:
        """The decision for the step that begins now."""


class OraclePolicy(Protocol):
    """A policy that requires ``oracle``: an upper bound for others, labelled as such."""

    def tell(self, trace: Trace) -> None:
        """Called once, before `BatchPolicy.start`: the requests with their true output lengths, rows by sid."""
