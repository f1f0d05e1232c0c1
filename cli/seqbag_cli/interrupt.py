"""SIGINT and SIGTERM: what runs is stopped by a KeyboardInterrupt, again if the first one is lost.

Python raises it wherever the main thread happens to be, and one that is raised inside a finaliser or a callback from C,
as while a kernel is compiled, is printed and forgotten.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

from seqbag.progress import Progress

_signals: list[int] = []  # that came


def catch() -> None:
    """From now on, stop what runs when a signal asks for it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _signals.append(number)
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise KeyboardInterrupt


class Stoppable:
    """A progress whose next advance raises KeyboardInterrupt if a signal came and what ran went on."""

    def __init__(self, progress: Progress) -> None:
        self.begin, self.end, self.note = progress.begin, progress.end, progress.note
        self._advance = progress.advance

    def advance(self, amount: int, note: str = "") -> None:
        if _signals:
            raise KeyboardInterrupt
        self._advance(amount, note)
