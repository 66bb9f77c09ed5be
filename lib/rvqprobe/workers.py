"""Work side by side: a function over many arguments, in processes, results in order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import joblib
from joblib.externals.loky import get_reusable_executor

T = TypeVar("T")


def each(function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """Yield ``function(*a)`` for each of ``arguments``, in their order, computed by ``workers`` processes.

    One worker is this process. A few results at a time are computed ahead; the processes end with the iteration.
    """
    pool = joblib.Parallel(n_jobs=workers, return_as="generator", pre_dispatch="4*n_jobs", batch_size=1)
    try:
        yield from pool(joblib.delayed(function)(*a) for a in arguments)
    finally:
        if workers > 1:
            get_reusable_executor().shutdown(wait=True)
