"""What kernels ask of the process they run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

_CACHE = "{module}.{name}-{line}.*.nbi"  # of a kernel, as numba names it
_KEPT = 24 << 20  # bytes; glibc learns from blocks under 32 MiB


@contextmanager
def for_kernels() -> Iterator[None]:
    """One thread a matrix product, and freed memory at hand for the next arrays, which are much like the last.

    Products are small, and threads of theirs that wait for one another cost more than they bring: on two cores, a
    training of two threads took twice as long. Freed memory goes back to the system once 128 KiB of it are free, until
    a larger block that was mapped for itself has been freed (M_MMAP_THRESHOLD in mallopt(3)): a training on 17,000 rows
    had its pages zeroed anew, 270 a step, in an eighth of its time.
    """
    np.empty(_KEPT, np.uint8)  # freed without having been touched
    with threadpool_limits(1):
        yield


def compiled(kernel: Any) -> bool:
    """Whether a kernel that numba caches was compiled in an earlier process."""
    function, module = kernel.py_func, kernel.py_func.__module__.rpartition(".")[2]
    name = _CACHE.format(module=module, name=function.__qualname__, line=function.__code__.co_firstlineno)
    return any(Path(kernel.stats.cache_path).glob(name))
