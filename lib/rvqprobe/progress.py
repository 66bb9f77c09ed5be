"""Progress bars with rate and time left, in a terminal, in JupyterLab and, through ``study``, as lines of a log."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

warnings.filterwarnings("ignore", "IProgress not found")  # bars are text here

T = TypeVar("T")
FORMAT = "{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f} of {total:.0f}{unit} [{elapsed}<{remaining}, {rate_fmt}]"


class Bar(tqdm):
    """A bar whose total grows with what exceeds it, be it by a hair: seconds added up in another order."""

    total: float

    def update(self, n: float | None = 1) -> bool | None:
        """Advance by ``n``."""
        self.total = max(self.total, self.n + (n or 0))
        return super().update(n)


def bar(total: float, label: str, unit: str) -> Bar:
    """Return a bar to be advanced by hand; ``unit`` is what ``total`` counts, such as "utterance"."""
    return Bar(total=total, desc=label, unit=f" {unit}", bar_format=FORMAT, file=sys.stdout, ncols=120, mininterval=0.5)


def track(items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
    """Yield ``items`` under a bar."""
    with bar(total, label, unit) as progress:
        for item in items:
            yield item
            progress.update()
