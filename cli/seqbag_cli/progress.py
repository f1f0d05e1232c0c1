"""Progress on stderr: live bars on a terminal, a plain line every few seconds elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from seqbag.progress import Progress, Silent
from seqbag_cli.interrupt import Stoppable
from seqbag_cli.options import tell

if TYPE_CHECKING:
    import rich.progress

_EVERY = 5.0  # seconds between plain lines


@contextmanager
def show_progress(quiet: bool) -> Iterator[Progress]:
    """The progress to hand to the library; a bar that is left half-way is cleared away."""
    if quiet:
        yield Stoppable(Silent())
    elif sys.stderr.isatty():
        from rich.console import Console

        with _rich_bars(Console(stderr=True)) as bars:
            yield Stoppable(Bars(bars))
    else:
        yield Stoppable(Lines(sys.stderr))


class Lines:
    """A line for the end of each task and, while it runs, every few seconds."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self._task, self._total, self._unit = task, total, unit
        self._done, self._note = 0, ""
        self._started = self._told = self._clock()

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        self._note = note or self._note
        now = self._clock()
        if now - self._told >= _EVERY:
            self._told = now
            left = ""
            if self._total and self._done:
                seconds = (now - self._started) * max(self._total - self._done, 0) / self._done
                left = f", {seconds:.0f} s left"
            self._tell(left)

    def end(self) -> None:
        self._tell(f", {self._clock() - self._started:.1f} s")

    def note(self, text: str) -> None:
        tell(self._out, text)

    def _tell(self, time_text: str) -> None:
        seconds = max(self._clock() - self._started, 1e-9)
        total = f" of {self._total:,}" if self._total and self._total != self._done else ""
        rate = f", {self._done / seconds:,.0f} rows/s" if self._unit == "rows" else ""
        note = f", {self._note}" if self._note else ""
        self.note(f"{self._task}: {self._done:,}{total} {self._unit}{rate}{time_text}{note}")


class Bars:
    """A live bar a task; finished ones stay."""

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars
        self._task: rich.progress.TaskID | None = None

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self._unit = unit
        self._task = self._bars.add_task(task, total=total, unit=unit, rate="", note="")

    def advance(self, amount: int, note: str = "") -> None:
        if self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        seconds = max(task.elapsed or 0, 1e-9)
        rate = f"{(task.completed + amount) / seconds:,.0f} rows/s" if self._unit == "rows" else ""
        self._bars.update(self._task, advance=amount, rate=rate, note=note or task.fields["note"])

    def end(self) -> None:
        if self._task is not None:
            done = self._bars.tasks[self._bars.task_ids.index(self._task)].completed
            self._bars.update(self._task, total=done, completed=done)
            self._task = None

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


def _rich_bars(console: rich.console.Console) -> rich.progress.Progress:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        progress.TextColumn("{task.fields[note]}", markup=False),
        console=console,
        refresh_per_second=8,
    )
