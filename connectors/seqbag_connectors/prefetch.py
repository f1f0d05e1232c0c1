"""Read ahead in a background thread, so that reading overlaps computing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PATIENCE = 10.0  # seconds a reader that does not answer is waited for when its consumer stops


def prefetch(items: Iterator[T], cancel: Callable[[], None], depth: int = 2) -> Iterator[T]:
    """Yield `items` in order, up to `depth` of them read ahead by one thread.

    What the reader raises is raised here. When the consumer stops early, `cancel` is called (it makes a blocked read
    return) until the thread has ended.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def read() -> None:
        try:
            for item in items:
                ready.put((item, None))
                if stopped.is_set():
                    return
            ready.put((None, None))
        except BaseException as error:  # handed over, whatever it is
            ready.put((None, error))

    reader = threading.Thread(target=read, name="seqbag-reader", daemon=True)
    reader.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        _finish(reader, ready, cancel)


def _finish(
    reader: threading.Thread,
    ready: queue.Queue[tuple[T | None, BaseException | None]],
    cancel: Callable[[], None],
) -> None:
    deadline = time.monotonic() + _PATIENCE
    while reader.is_alive() and time.monotonic() < deadline:
        reader.join(0.0005)
        while not ready.empty():  # make room for a reader that waits to hand over its item
            ready.get_nowait()
        if reader.is_alive():
            cancel()
            reader.join(0.02)
