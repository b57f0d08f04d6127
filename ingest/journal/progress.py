"""A progress bar on a terminal, and nothing anywhere else.

tqdm draws it: one package without dependencies, where rich would bring three.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any

_COLUMNS, _ROWS = 80, 24


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
            # A terminal that does not know its size would get no bar.
            known = os.get_terminal_size(sys.stderr.fileno()).columns
            self._bar = tqdm(
                total=total,
                desc=what,
                unit=" events",
                unit_scale=True,
                leave=False,
                ncols=None if known else _COLUMNS,
                nrows=None if known else _ROWS,
            )

    def add(self, count: int) -> None:
        """So many more are done."""
        if self._bar is not None:
            self._bar.update(count)

    def say(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        sys.stderr.write(line + "\n")
        if self._bar is not None:
            self._bar.refresh()

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
