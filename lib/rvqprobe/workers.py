"""Work side by side: a function over many arguments, a few results ahead, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import joblib
from joblib.externals.loky import get_reusable_executor

T = TypeVar("T")


def choose(workers: int, jobs: int, jobs_a_worker: int) -> int:
    """Return ``workers``, or for 0 one a core, but no more than have ``jobs_a_worker`` jobs each: starting one takes seconds."""
    return workers or min(joblib.cpu_count(), 1 + jobs // jobs_a_worker)


def each(function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """Yield ``function(*a)`` for each of ``arguments``, in their order, computed by ``workers`` processes.

    A single worker is a thread of this process. Four results a worker are computed ahead; the workers end with the
    iteration, however it ends.
    """
    pool = ThreadPoolExecutor(1) if workers == 1 else get_reusable_executor(workers)
    ahead: deque[Future[T]] = deque()
    try:
        for a in arguments:
            ahead.append(pool.submit(function, *a))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()
        pool.shutdown(wait=True)
