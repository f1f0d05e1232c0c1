"""Threads for kernels that release the lock. Results come in the order of the work, so that no timing shows in them.

Unlike those of `concurrent.futures`, a thread that waits for a result works on what else there is to do meanwhile, and
handing over a task takes two microseconds instead of twenty: a step of training hands over nine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from seqbag.process import for_kernels

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Task(Generic[Result]):
    """Work that is done once, by whichever thread comes first."""

    __slots__ = ("_begun", "_error", "_running", "_value", "_work", "done")

    _value: Result

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work, self.done = work, False
        self._error: BaseException | None = None
        self._begun, self._running = Lock(), Lock()
        self._running.acquire()

    def run(self) -> None:
        """Do the work, unless another thread has begun with it. What it raises, `result` does."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):  # an interrupt is for the thread that it came to, too
                raise
        finally:
            self.done = True
            self._running.release()

    def result(self) -> Result:
        """What came of it, as soon as that is known."""
        if not self.done:
            with self._running:
                pass
        if self._error is not None:
            raise self._error
        return self._value


class Workers:
    """A pool of `threads` threads, the caller's own among them.

    A context manager: inside the block the process is as kernels want it, and the threads end with it; after an error
    nobody waits for them, as one may be compiling for many seconds.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._tasks: deque[_Task[Any] | None] = deque()
        self._count: SimpleQueue[None] = SimpleQueue()  # one for each task, to wait for
        self._process = ExitStack()
        self._others = [Thread(target=self._serve, daemon=True) for _ in range(threads - 1)]
        for other in self._others:
            other.start()

    def map(self, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """What work makes of each item, in their order; each thread takes the next item when it is free."""
        return self.start(items, work)()

    def start(
        self, items: Sequence[Item], work: Callable[[Item], Result], first: bool = False
    ) -> Callable[[], list[Result]]:
        """Let threads that are free, and have nothing started before, begin with the items.

        first: before they do what else was started; the work that others wait for soonest goes first.
        The function returned gives the results in order; it does itself what no thread has begun with.
        """
        if not self._others:
            return lambda: [work(item) for item in items]
        tasks = [_Task(partial(work, item)) for item in items]
        self._put(tasks, first)

        def finish() -> list[Result]:
            for task in tasks:
                task.run()
            return [self._result(task) for task in tasks]

        return finish

    def each(self, items: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
        """As `map`, one by one: other threads go on with later items while the caller uses a result."""
        if not self._others:
            yield from map(work, items)
            return
        tasks = deque([self._hand_over(work, item) for item in items])
        while tasks:
            yield self._result(tasks.popleft())

    def ahead(self, items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
        """Each item with what work makes of it, in order; as many as there are threads are worked on ahead.

        work must not change anything that the caller reads.
        """
        if not self._others:
            for item in items:
                yield item, work(item)
            return
        waiting: deque[tuple[Item, _Task[Result]]] = deque()
        for item in items:
            waiting.append((item, self._hand_over(work, item)))
            if len(waiting) > self.threads:
                first, task = waiting.popleft()
                yield first, self._result(task)
        while waiting:
            first, task = waiting.popleft()
            yield first, self._result(task)

    def _hand_over(self, work: Callable[[Item], Result], item: Item) -> _Task[Result]:
        task = _Task(partial(work, item))
        self._put([task], False)
        return task

    def _put(self, tasks: Sequence[_Task[Any] | None], first: bool) -> None:
        if first:
            self._tasks.extendleft(reversed(tasks))
        else:
            self._tasks.extend(tasks)
        for _ in tasks:
            self._count.put(None)

    def _result(self, task: _Task[Result]) -> Result:
        """What came of a task. Until that is known, others are done that no thread has begun with."""
        while not task.done:
            try:
                self._count.get_nowait()
            except Empty:
                break
            other = self._tasks.popleft()
            assert other is not None  # threads are told to end once nobody waits
            other.run()
        return task.result()

    def _serve(self) -> None:
        while self._count.get() is None and (task := self._tasks.popleft()) is not None:
            task.run()

    def __enter__(self) -> Self:
        self._process.enter_context(for_kernels())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while True:
                self._count.get_nowait()  # what nobody waits for any more
                self._tasks.popleft()
        except Empty:
            pass
        self._put([None] * len(self._others), False)
        if error is None:
            for other in self._others:
                other.join()
        self._process.close()
