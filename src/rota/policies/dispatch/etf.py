"""ETF, earliest task first (Hwang, Chow, Anger and Lee 1989), online: of all ready tasks and processors the pair that can start first."""

from __future__ import annotations

from dataclasses import dataclass, field

from rota.contracts.dispatch import Start, View, WaitUntilNextEvent
from rota.policies.dispatch.graphs import Graphs


@dataclass(slots=True)
class Etf:
    """For one run. Pairs that can start first are those that can start now: nothing waits on purpose.

    Ties go to the task with the highest static level, then to where it ends first (its processors differ), then in the problem's order.
    """

    name: str = "ETF"
    most_inside: int = 0
    _graphs: Graphs = field(default_factory=Graphs, init=False, repr=False)

    def choose(self, view: View) -> Start | WaitUntilNextEvent:
        """Start the best pair of now."""
        self._graphs.update(view.known)
        inside = set(self._graphs.let_in(view, self.most_inside))
        pairs = [one for one in view.startable if one.job in inside]
        if not pairs:
            return WaitUntilNextEvent()
        best = min(pairs, key=lambda one: (-self._graphs.nodes[one.task].level, one.work))
        return Start(best.task, best.mode)
