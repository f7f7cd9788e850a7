"""The engine: requests in, tokens out, one step at a time, in whatever order its policy decides.

Not thread-safe: one thread adds, cancels and steps. A step takes as long as the model computes; between steps, requests come and go.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

from rota.contracts.offline import OfflinePolicy
from rota.contracts.serving import FINISHED, FUTURE, BatchPolicy
from rota.errors import InputError, UnsupportedPolicy
from rota.mechanisms.engine.clock import Clock, WallClock
from rota.mechanisms.engine.core import EngineCore, Row
from rota.mechanisms.engine.log import Arrived, Called, Cancelled, Ended, Entry, Log, Planned, Stepped
from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.runner import Choice, Runner
from rota.mechanisms.engine.sequences import Seq
from rota.mechanisms.engine.text import Tokenizer, TokenText


class Output(NamedTuple):
    """Something that happened to a request.

    Attributes
    ----------
    sid : int
    token : int
        The new token; -1 if there is none (cancelled, rejected, out of memory).
    text : str
        What can be shown of the answer beyond what was shown before; always empty without a tokenizer. Text that may yet turn out to
        begin a stop text, or half a character, is held back.
    logprob : float or None
    top : tuple of (int, float)
        Likeliest tokens and their log-probabilities, if asked for.
    finish : str or None
        None while the answer goes on; ``"stop"`` (a stop token or text), ``"length"`` (of the answer, the model or the memory),
        ``"cancelled"``, or ``"rejected"`` (the policy found that it can never run).
    time : float
        Seconds on the engine's clock.
    """

    sid: int
    token: int
    text: str
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    finish: str | None
    time: float


class Stats(NamedTuple):
    """The engine at this moment, and counters since its start. Of those that wait, `n_swapped` have KV in host memory."""

    n_waiting: int
    n_swapped: int
    n_running: int
    blocks: int
    free_blocks: int
    steps: int
    requests: int
    finished: int
    preemptions: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


class Engine:
    """A model, a policy, and the requests between them.

    Parameters
    ----------
    runner : Runner
        Such as `rota.mechanisms.engine.model_runner.ModelRunner`.
    policy : BatchPolicy
        Copied.
    blocks, block_size : int
        KV blocks, and tokens in each.
    max_len : int, optional
        Longest prompt and answer together; at most (and by default) what the model allows.
    clock : Clock, optional
        The wall's by default.
    tokenizer : Tokenizer, optional
        Gives outputs a text, and is needed for stop texts.
    log : Log, optional
        Gets an entry for everything that happens (`rota.mechanisms.engine.log`); a list grows without bound.
    seed : int
        What requests without a seed derive theirs from.
    compress : bool
        False asks the policy before every step.
    prefill_fit : tuple of float
        `rota.contracts.serving.Limits.prefill`, for policies that pin.
    host_blocks : int
        KV blocks of host memory, for policies that swap; others get none.

    Raises
    ------
    InputError, UnsupportedPolicy
        For senseless sizes; for a policy that requires what this engine cannot do.
    """

    def __init__(
        self, runner: Runner, policy: BatchPolicy, *, blocks: int, block_size: int = 16, max_len: int | None = None,
        clock: Clock | None = None, tokenizer: Tokenizer | None = None, log: Log | None = None, seed: int = 0,
        compress: bool = True, prefill_fit: tuple[float, float, float] = (0.0, 0.0, 0.0), host_blocks: int = 0,
    ) -> None:  # fmt: skip
        if isinstance(policy, OfflinePolicy):
            raise UnsupportedPolicy(f"policy {policy.name} plans whole jobs and cannot serve requests as they come; choose another policy")
        if blocks < 1 or block_size < 1:
            raise InputError(f"blocks and block_size must be at least 1, not {blocks} and {block_size}")
        self.runner = runner
        self.max_len = min(runner.max_len, max_len or runner.max_len)
        self.core = EngineCore(
            policy, n_layers=runner.n_layers, blocks=blocks, block_size=block_size, max_len=self.max_len, prefill_fit=prefill_fit,
            compress=compress, host_blocks=host_blocks if "swap" in policy.requires else 0,
        )  # fmt: skip
        self._capacity = min(self.max_len, blocks * block_size)
        self.clock = WallClock() if clock is None else clock
        self.log = log
        self._tokenizer = tokenizer
        self._seed = seed
        self._texts: dict[int, TokenText] = {}
        self._live: dict[int, Seq] = {}
        self._inbox: list[tuple[float, int]] = []
        self._outbox: list[Output] = []
        self._next_sid = 0
        self._count = dict.fromkeys(("steps", "finished", "preemptions", "prompt_tokens", "cached_tokens", "generated_tokens"), 0)
        runner.allocate(blocks, block_size)
        if self.core.pool.host_blocks:
            runner.allocate_host(self.core.pool.host_blocks)

    def add_request(
        self, prompt: Sequence[int], params: SamplingParams | None = None, *, priority: int = 0, tenant: int = 0, program: int = -1,
        arrival: float | None = None,
    ) -> int:  # fmt: skip
        """Take a request in. Its tokens come out of `step`.

        Parameters
        ----------
        prompt : sequence of int
            Token ids, at least one.
        params : SamplingParams, optional
        priority : int
            Smaller runs first, under a policy that looks at it.
        tenant : int
        program : int
            Agent session that this is a turn of; -1 for none.
        arrival : float, optional
            Seconds on the engine's clock, not before now; by default now.

        Returns
        -------
        int
            The request's number, as in `Output.sid`.

        Raises
        ------
        InputError
            For an empty or too long prompt, tokens that are not in the vocabulary, or stop texts without a tokenizer.
        """
        params = params or SamplingParams()
        self._check(prompt, params)
        sid = self._next_sid
        self._next_sid += 1
        now = self.clock.now()
        arrival = now if arrival is None else max(arrival, now)
        most = self.max_len - len(prompt)
        seq = Seq(
            sid, list(prompt), arrival, most if params.max_tokens is None else min(params.max_tokens, most), params,
            priority=priority, tenant=tenant, program=program,
        )  # fmt: skip
        seq.seed = self._seed * 0x9E3779B97F4A7C15 + sid if params.seed is None else params.seed
        if self._tokenizer is not None:
            self._texts[sid] = TokenText(self._tokenizer, params.stop)
        self._live[sid] = seq
        heapq.heappush(self._inbox, (arrival, sid))
        return sid

    def cancel(self, sid: int) -> bool:
        """End a request, if it has not ended; its KV is freed at once (see `EngineCore.cancel` for the two cases where it is later).

        Returns whether there was anything to end. The next `step` gives out a last output with ``finish="cancelled"``.
        """
        seq = self._live.get(sid)
        if seq is None or seq.leaving:
            return False
        now = self.clock.now()
        if seq.phase == FUTURE:
            self._inbox.remove((seq.arrival, sid))
            heapq.heapify(self._inbox)
            self._end(seq, "cancelled", now)
            return True
        self._note(Cancelled(now, sid))
        if self.core.cancel(seq, now):
            self.runner.forget(seq)
            self._end(seq, "cancelled", now)
        return True

    def set_tool(self, sid: int, tool: int) -> None:
        """Say, before the next `step`, that an answer that has just ended calls a tool: its program will come back for another turn.

        Policies that hold the KV of programs (`continuum` and others) take a program for over otherwise.
        """
        seq = self.core.seqs.get(sid)
        if seq is not None and seq.phase == FINISHED:
            seq.tool = tool
            self._note(Called(self.clock.now(), sid, tool))

    def step(self) -> list[Output]:
        """Run one step, if there is anything to run; what came of it, and of cancellations and rejections since the last call.

        Returns at once if there is nothing to do; see `next_event` for when there will be.

        Raises
        ------
        PlanRejected
            The policy broke a rule of the contract. The engine is then of no further use.
        """
        if self._ready():
            self._run()
        outputs, self._outbox = self._outbox, []
        return outputs

    @property
    def has_work(self) -> bool:
        """Whether a request has not ended yet."""
        return bool(self._live)

    @property
    def next_event(self) -> float:
        """Seconds on the engine's clock when, as far as is known, there will be something to do; infinity if that depends on others."""
        if self._outbox or self.core.left > 0:
            return self.clock.now()
        core, arrival = self.core, self._next_arrival()
        if core.waits:
            return min(arrival, core.plan.wake_at)
        return self.clock.now() if core.waiting or core.held or core.pins else arrival

    def sequence(self, sid: int) -> Seq | None:
        """The state of a request that has not ended, which others may read and keep; None if there is no such request."""
        return self._live.get(sid)

    def stats(self) -> Stats:
        """See `Stats`."""
        core = self.core
        return Stats(
            n_waiting=len(core.waiting), n_swapped=core.pool.n_swapped, n_running=len(core.held), blocks=core.limits.blocks,
            free_blocks=core.pool.free, requests=self._next_sid, **self._count,
        )  # fmt: skip

    # -- inside

    def _check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        most = self._capacity - 1
        if not prompt:
            raise InputError("the prompt is empty; give at least one token")
        if len(prompt) > most:
            raise InputError(f"the prompt has {len(prompt)} tokens, but this engine holds at most {most} and one of the answer; shorten it")
        if not all(0 <= token < self.runner.vocab for token in prompt):
            raise InputError(f"the prompt has a token outside the vocabulary of {self.runner.vocab}; use the model's own tokenizer")
        if params.stop and self._tokenizer is None:
            raise InputError("stop texts need a tokenizer, and this engine has none; use stop_token_ids")

    def _ready(self) -> bool:
        """Ask the policy until there is a step to run. False if there is none before something else happens."""
        core = self.core
        if core.still_holds(self.clock.now(), self._next_arrival()):
            return True
        core.left = 0
        while True:
            now = self.clock.now()
            busy = len(core.waiting) + len(core.held) > 0
            if core.waits or not (busy or core.pins):
                wake = min(self._next_arrival(), core.plan.wake_at if core.waits else math.inf)
                if wake == math.inf and busy:
                    core.refuse(8, f"an empty plan although {len(core.waiting)} requests wait and nothing else will happen")
                if wake == math.inf or (wake > now and not self.clock.skip_to(wake)):
                    return False
                now = self.clock.now()
            self._deliver(now)
            plan = core.decide(now)
            self._note(Planned(now, plan))
            self._count["preemptions"] += len(plan.evict)
            for sid in plan.evict:
                self.runner.forget(core.seqs[sid])
            for seq in core.rejected:  # one that has run before has outgrown the memory
                self._end(seq, "rejected", now, "length" if seq.n_generated else "rejected")
            core.rejected.clear()
            if core.left > 0:
                return True

    def _deliver(self, now: float) -> None:
        """Requests whose time has come join the queue."""
        while self._inbox and self._inbox[0][0] <= now:
            _, sid = heapq.heappop(self._inbox)
            seq = self._live[sid]
            self._note(Arrived(now, sid, seq.arrival, seq.n_prompt, seq.max_new, seq.priority, seq.tenant, seq.program))
            self.core.arrive(seq)

    def _run(self) -> None:
        core, start = self.core, self.clock.now()
        rows = core.begin()
        copied = self._copy() if core.copies_out or core.copies_in else ()
        choices = self.runner.run(rows, core.pool.tables) if rows else []
        self.clock.spend(rows, [ghost.n_known for ghost in core.ghosts] if core.plan.decode else (), copied)
        now = self.clock.now()
        emitting = [row.seq for row in rows if row.emits]
        self._count_first(emitting)
        outputs = [self._output(seq, choice, now) for seq, choice in zip(emitting, choices, strict=True)]
        core.complete(rows, [output.token for output in outputs], [output.finish is not None for output in outputs], now)
        self._note(_stepped(start, now, rows, sum(copied)))
        self._count["steps"] += 1
        self._count["generated_tokens"] += len(outputs)
        self._outbox += outputs
        for seq, output in zip(emitting, outputs, strict=True):
            if output.finish is not None:
                self._close(seq, output.finish, now)
        for seq in core.ended_late(now):
            if seq.sid in self._live:
                self.runner.forget(seq)
                self._end(seq, "cancelled", now)

    def _copy(self) -> list[int]:
        """Carry out what swapping wants copied; blocks of each copy."""
        out, back = self.core.copies_out, self.core.copies_in
        self.runner.copy(out, back)
        copied = [len(copy.host) for copy in (*out, *back)]
        out.clear()
        back.clear()
        return copied

    def _count_first(self, emitting: list[Seq]) -> None:
        for seq in emitting:
            if seq.n_known == seq.n_prompt:
                self._count["prompt_tokens"] += seq.n_prompt
                self._count["cached_tokens"] += seq.cached

    def _output(self, seq: Seq, choice: Choice, now: float) -> Output:
        """What a chosen token means for its request: text, and whether it is the last."""
        token, params, text, finish = choice.token, seq.params, "", None
        if token in params.stop_token_ids or (token in self.runner.end_tokens and not params.ignore_eos):
            finish = "stop"
        shown = self._texts.get(seq.sid)
        if shown is not None and finish is None:
            text, stopped = shown.push(token)
            finish = "stop" if stopped else None
        if finish is None and (seq.n_generated + 1 >= seq.max_new or seq.n_known + 1 > self._capacity):
            finish = "length"
        if shown is not None and finish is not None:
            text += shown.rest()
        return Output(seq.sid, token, text, choice.logprob, choice.top, finish, now)

    def _end(self, seq: Seq, reason: str, now: float, finish: str | None = None) -> None:
        """A request is over without a last token; `finish` is what its client is told, if that is not the reason."""
        shown = self._texts.get(seq.sid)
        self._outbox.append(Output(seq.sid, -1, shown.rest() if shown else "", None, (), finish or reason, now))
        self._close(seq, reason, now)

    def _close(self, seq: Seq, reason: str, now: float) -> None:
        del self._live[seq.sid]
        self._texts.pop(seq.sid, None)
        self._count["finished"] += 1
        if self.log is not None:
            size = self.core.limits.block_size
            keys = tuple(seq.block_key(i, size) for i in range(seq.n_known // size))
            self.log.append(Ended(now, seq.sid, seq.n_known, reason, keys))

    def _next_arrival(self) -> float:
        return self._inbox[0][0] if self._inbox else math.inf

    def _note(self, entry: Entry) -> None:
        if self.log is not None:
            self.log.append(entry)


def _stepped(start: float, now: float, rows: Sequence[Row], copied: int) -> Stepped:
    contexts = [row.start + 1 for row in rows if row.decode]
    chunks = [row for row in rows if not row.decode]
    layers = chunks[0].layers if chunks else (0, 0)
    cut = tuple((row.start, row.n_tokens) for row in chunks)
    return Stepped(start, now, len(contexts), sum(contexts), cut, layers, sum(row.emits for row in chunks), copied)
