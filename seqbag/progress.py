"""How the trainer tells what it is doing. The command line draws bars; the library's default is silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One task at a time: `begin`, then `advance` as often as there is news, then `end`."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """A task of `total` units (None: not known) starts."""

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` is the newest figure, e.g. `loss 0.31, accuracy 0.953`."""

    def end(self) -> None:
        """The task is done."""

    def note(self, text: str) -> None:
        """One line that stays: a choice made, a figure reached, a warning."""


class Silent:
    """No progress."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, amount: int, note: str = "") -> None:
        pass

    def end(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass
