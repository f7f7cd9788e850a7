"""How far the groups of an offline job have got: who waits, whose prefix is being computed or held, and how many run."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from rota.contracts.serving import FINISHED, EngineView, Pin, SeqView
from rota.policies.offline.groups import Group


class Progress:
    """The groups at work, in order of rank.

    Parameters
    ----------
    rank : list of int
        Group of each request, as its place in the order.
    prefix : list of int
        Tokens that each request shares with its group.
    block_size : int

    Attributes
    ----------
    pending : list of Group
        With waiting members, the next one last.
    held : dict of int to Group
        Those whose prefix is held, by rank.
    prefix_blocks : int
        Blocks of the prefixes that are held or being computed.
    """

    def __init__(self, rank: list[int], prefix: list[int], block_size: int) -> None:
        tokens = dict(zip(rank, prefix, strict=True))
        self._groups = [Group(place, tokens[place]) for place in range(len(tokens))]
        self._rank, self._size = rank, block_size
        self._opening: list[Group] = []
        self.pending: list[Group] = []
        self.held: dict[int, Group] = {}
        self.prefix_blocks = 0

    def follow(self, view: EngineView) -> tuple[tuple[Pin, ...], tuple[int, ...]]:
        """Take in what has arrived and finished. Prefixes to hold from now on, and to let go of because nobody is left."""
        for seq in view.finished:
            group = self._groups[self._rank[seq.sid]]
            group.running -= 1
            group.unfinished -= 1
        if view.arrived:
            self._arrive(view.arrived)
        pins = self._open(view) if self._opening else ()
        over = [group for group in self.held.values() if group.unfinished == 0]
        for group in over:
            self.close(group)
        return pins, tuple(group.rank for group in over)

    def _arrive(self, seqs: Iterable[SeqView]) -> None:
        """Members that wait from now on, in order."""
        for seq in seqs:
            group = self._groups[self._rank[seq.sid]]
            if not group.waiting:
                self.pending.append(group)
            group.waiting.insert(0, seq.sid)
            group.unfinished += 1
        self.pending.sort(key=_last_first)

    def _open(self, view: EngineView) -> tuple[Pin, ...]:
        """Prefixes that have been computed since, to be held from now on."""
        pins = []
        for group in self._opening:
            leader = view.seq(group.leader)
            if leader.phase == FINISHED or leader.n_computed >= group.prefix:
                group.ready = True
                self.held[group.rank] = group
                pins.append(Pin(group.rank, group.leader, group.prefix))
        if pins:
            self._opening = [group for group in self._opening if not group.ready]
        return tuple(pins)

    def idle(self) -> list[Group]:
        """Groups that hold a prefix while no member runs."""
        return [group for group in self.held.values() if group.running == 0]

    def join(self, group: Group) -> None:
        """The next member of `group` is admitted."""
        sid = group.waiting.pop()
        group.running += 1
        if not group.ready:
            group.leader = sid
            self._opening.append(group)
            self.prefix_blocks += group.prefix // self._size

    def blocks_with(self, group: Group) -> int:
        """`prefix_blocks` with those of `group`."""
        return self.prefix_blocks + (0 if group.ready else group.prefix // self._size)

    def evict(self, sid: int) -> None:
        """A member is the next of its group again, whose prefix is lost if it was computing it."""
        group = self._groups[self._rank[sid]]
        group.running -= 1
        if group.leader == sid and not group.ready:
            self._opening.remove(group)
            self.close(group)
        if not group.waiting:
            insort(self.pending, group, key=_last_first)
        group.waiting.append(sid)

    def reject(self, group: Group) -> int:
        """The next member of `group` can never run; returns it."""
        group.unfinished -= 1
        sid = group.waiting.pop()
        if not group.waiting:
            self.pending.remove(group)
        return sid

    def close(self, group: Group) -> None:
        """The prefix is held no longer; whoever needs it again computes it again."""
        self.prefix_blocks -= group.prefix // self._size
        self.held.pop(group.rank, None)
        group.ready, group.leader = False, -1


def _last_first(group: Group) -> int:
    return -group.rank
