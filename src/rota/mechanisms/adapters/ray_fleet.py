"""Several engines behind one router, each a Ray actor: requests in, tokens out, as with one engine.

The router is the simulator's own (`rota.mechanisms.routing`). It looks at what the replicas have reported: with engines on the wall's clock
that is the state after the last step that has come back; engines on a cost model's clock are driven to the moment of the arrival first, and
then the fleet routes as the simulator does, request by request.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rota.errors import RotaError
from rota.mechanisms.adapters.ray_tasks import connect
from rota.mechanisms.engine import Engine, Output, SamplingParams
from rota.mechanisms.routing import check_router, choose

#: Most seconds that a replica with nothing to compute stays silent.
REST = 0.01


class Report(NamedTuple):
    """What a replica has done: outputs with the fleet's numbers, and requests of its own that wait for their first step."""

    outputs: list[Output]
    queued: int


class Replica:
    """One engine in a process of its own.

    Parameters
    ----------
    make : callable
        Makes the engine, there.
    """

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._engine = make()
        self._numbers: dict[int, int] = {}

    def add(self, number: int, prompt: Sequence[int], params: SamplingParams, about: dict[str, Any]) -> None:
        """Take a request in, under the fleet's number for it."""
        self._numbers[self._engine.add_request(prompt, params, **about)] = number

    def advance(self, until: float | None) -> Report:
        """Run one step, or all steps that begin before `until` on the engine's clock."""
        engine = self._engine
        outputs: list[Output] = []
        if until is None:
            outputs += engine.step()
            if not outputs and engine.has_work:
                time.sleep(min(max(0.0, engine.next_event - engine.clock.now()), REST))
        else:
            while engine.has_work and engine.next_event < until:
                outputs += engine.step()
        stats = engine.stats()
        told = [output._replace(sid=self._numbers[output.sid]) for output in outputs]
        for output in outputs:
            if output.finish is not None:
                del self._numbers[output.sid]
        return Report(told, stats.requests - stats.finished - stats.n_running)


class Fleet:
    """Engines of one kind on a Ray cluster.

    Parameters
    ----------
    make : callable
        Makes an engine; called once in each replica's process, so it has to be importable there.
    replicas : int
    router : str
        As in `rota.mechanisms.simulator.simulate`.
    address : str
        As in `rota.mechanisms.adapters.ray_tasks.RayTasks`.
    seed : int
        Of the random router, and of requests that bring no seed: their tokens do not depend on where they run.
    cpus, gpus : float
        What each replica takes of the cluster.

    Raises
    ------
    InputError
        No such router; no Ray, or no cluster.
    """

    def __init__(
        self, make: Callable[[], Engine], replicas: int, router: str = "least-outstanding", *, address: str = "local", seed: int = 0,
        cpus: float = 1, gpus: float = 0,
    ) -> None:  # fmt: skip
        check_router(router, replicas)
        self._ray = ray = connect(address, math.ceil(replicas * cpus) if address == "local" else None)
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus)(Replica)
        self._replicas = [actor.remote(make) for _ in range(replicas)]
        self._router, self._seed = router, seed
        self._random = np.random.default_rng(seed)
        self._replica_of: dict[int, int] = {}  # of requests that have not ended
        self._programs: dict[int, int] = {}
        self._open = [0] * replicas  # requests, including those that are known to end later than now
        self._ends: list[deque[float]] = [deque() for _ in range(replicas)]
        self._queued = [0] * replicas
        self._working: dict[Any, int] = {}
        self._routed = 0

    @property
    def has_work(self) -> bool:
        """Whether a request has not ended yet."""
        return bool(self._replica_of)

    def add_request(
        self, prompt: Sequence[int], params: SamplingParams | None = None, *, priority: int = 0, tenant: int = 0, program: int = -1,
        arrival: float | None = None,
    ) -> int:  # fmt: skip
        """Route a request; parameters as in `Engine.add_request`. Returns the number under which its outputs come.

        Raises
        ------
        InputError
            As there.
        """
        params = params or SamplingParams()
        number = self._routed
        if params.seed is None:
            params = replace(params, seed=(self._seed * 0x9E3779B97F4A7C15 + number) % (1 << 64))
        where = self._route(program, math.inf if arrival is None else arrival)
        about = {"priority": priority, "tenant": tenant, "program": program, "arrival": arrival}
        self._get(self._replicas[where].add.remote(number, list(prompt), params, about), where)
        self._routed += 1
        self._open[where] += 1
        self._queued[where] += 1
        self._replica_of[number] = where
        if self._router == "program" and program >= 0:
            self._programs[program] = where
        return number

    def replica_of(self, number: int) -> int:
        """Where a request that has not ended runs."""
        return self._replica_of[number]

    def step(self) -> list[Output]:
        """Let every replica that has work run a step, wait for the first one, and tell what has come of it."""
        busy = set(self._replica_of.values()) - set(self._working.values())
        for where in sorted(busy):
            self._working[self._replicas[where].advance.remote(None)] = where
        if not self._working:
            return []
        ready, _ = self._ray.wait(list(self._working))
        return [output for reference in ready for output in self._take(reference, self._working.pop(reference))]

    def run_until(self, moment: float) -> list[Output]:
        """Run, on all replicas, every step that begins before `moment` on their clocks."""
        references = [replica.advance.remote(moment) for replica in self._replicas]
        return [output for where, reference in enumerate(references) for output in self._take(reference, where)]

    def close(self) -> None:
        """End the replicas, and the cluster if it was started here."""
        for replica in self._replicas:
            self._ray.kill(replica)
        self._ray.shutdown()

    def _route(self, program: int, when: float) -> int:
        drawn = int(self._random.integers(0, len(self._replicas)))
        if program in self._programs:
            return self._programs[program]
        for where, ends in enumerate(self._ends):
            while ends and ends[0] <= when:
                ends.popleft()
                self._open[where] -= 1
        return choose(self._router, len(self._replicas), self._routed, drawn, lambda: self._open, lambda: self._queued)

    def _take(self, reference: Any, where: int) -> list[Output]:
        report: Report = self._get(reference, where)
        outputs, self._queued[where] = report
        for output in outputs:
            if output.finish is not None:
                self._ends[where].append(output.time)
                del self._replica_of[output.sid]
        return outputs

    def _get(self, reference: Any, where: int) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            lost = sum(i == where for i in self._replica_of.values())
            raise RotaError(f"replica {where} of {len(self._replicas)} was lost with {lost} requests; start the fleet again") from None
