"""Progress bars with the time that is left, on standard error; nothing at all when nobody is watching."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBars:
    """Bars for a group of simulations, one per `task`. Silent if `quiet` or if standard error is no terminal.

    Examples
    --------
    >>> with ProgressBars(quiet=True) as bars:
    ...     report = bars.task("sarathi, seed 0")
    ...     report(10, 200)
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._bars: Progress | None = None
        if not quiet and (console is not None or sys.stderr.isatty()):
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console or Console(stderr=True),
                transient=True,
            )

    def task(self, label: str) -> Callable[[int, int], None]:
        """A new bar; call the result with (done, total), as `simulate` does with its `progress`."""
        bars = self._bars
        if bars is None:
            return lambda done, total: None
        task = bars.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        return report

    def __enter__(self) -> ProgressBars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
