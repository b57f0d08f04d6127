"""How long a thread was ready to run and the kernel gave it no core.

This module must not know what it is used for.

Source: https://docs.kernel.org/scheduler/sched-stats.html (/proc/<pid>/schedstat)
"""

from __future__ import annotations

import os
from threading import get_native_id
from typing import NamedTuple


class Waits(NamedTuple):
    """What a thread waited for a core.

    Attributes:
        seconds: how long.
        runs: how often it got one.
    """

    seconds: float
    runs: int


class WaitClock:
    """Reads that of the thread that makes it; any thread may ask.

    Attributes:
        tells: whether the kernel does; otherwise it is always zero.
    """

    def __init__(self) -> None:
        self._fd = -1
        try:
            self._fd = os.open(f"/proc/self/task/{get_native_id()}/schedstat", os.O_RDONLY)
        except OSError:
            pass  # not compiled in, or no /proc
        self.tells = self._fd >= 0
        self._last = self._read()

    def since(self) -> Waits:
        """What came to it since this was asked last."""
        before, self._last = self._last, self._read()
        return Waits(self._last.seconds - before.seconds, self._last.runs - before.runs)

    def _read(self) -> Waits:
        if self._fd < 0:
            return Waits(0.0, 0)
        _, nanoseconds, runs = os.pread(self._fd, 100, 0).split()
        return Waits(int(nanoseconds) / 1e9, int(runs))

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
