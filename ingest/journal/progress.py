"""A progress bar on a terminal, and nothing anywhere else.

tqdm draws it: one package without dependencies, where rich would bring three.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts events towards a total on standard error, if that is a terminal.

    Args:
        total: events.
        what: is done with them; stands before the bar.
    """

    def __init__(self, total: int, what: str) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # no thread of its own
            self._bar = tqdm(
                total=total, desc=what, unit=" events", unit_scale=True, leave=False, delay=0.2
            )

    def add(self, count: int) -> None:
        """So many more are done."""
        if self._bar is not None:
            self._bar.update(count)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
