"""Threads for kernels that release the lock. Results come in the order of the work, so that no timing shows in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A pool of `threads` threads, the caller's own among them. A context manager; ends with the block."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def map(self, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """What work makes of each item, in their order; each thread takes the next item when it is free."""
        return self.start(items, work)()

    def start(self, items: Sequence[Item], work: Callable[[Item], Result]) -> Callable[[], list[Result]]:
        """Let threads that are free, and have nothing started before, begin with the items.

        The function returned gives the results in order; it does itself what no thread has begun with.
        """
        if self._pool is None:
            return lambda: [work(item) for item in items]
        futures = [self._pool.submit(work, item) for item in items]

        def finish() -> list[Result]:
            own = {at: work(items[at]) for at, future in enumerate(futures) if future.cancel()}
            return [own[at] if at in own else future.result() for at, future in enumerate(futures)]

        return finish

    def each(self, items: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
        """As `map`, one by one: other threads go on with later items while the caller uses a result."""
        if self._pool is None:
            yield from map(work, items)
            return
        futures, own, free = [self._pool.submit(work, item) for item in items], {}, 0
        for at, future in enumerate(futures):
            while at not in own and not future.done() and free < len(futures):
                if free >= at and futures[free].cancel():
                    own[free] = work(items[free])
                free += 1
            yield own.pop(at) if at in own else future.result()

    def ahead(self, items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
        """Each item with what work makes of it, in order; as many as there are threads are worked on ahead.

        work must not change anything that the caller reads.
        """
        if self._pool is None:
            for item in items:
                yield item, work(item)
            return
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, self._pool.submit(work, item)))
            if len(waiting) > self.threads:
                first, done = waiting.popleft()
                yield first, done.result()
        while waiting:
            first, done = waiting.popleft()
            yield first, done.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
