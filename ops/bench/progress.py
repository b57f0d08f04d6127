"""One line that tells how far it is: rewritten on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from typing import TextIO


class Progress:
    """Counts steps and estimates what is left.

    Args:
        total: number of steps to come.
        stream: where the line goes.
    """

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._terminal = stream.isatty()
        self._begun = 0
        self._started = time.monotonic()
        self._last = ""

    def step(self, text: str) -> None:
        """A step begins."""
        if not self._begun:
            self._started = time.monotonic()  # what was installed before does not count
        done, self._begun = self._begun, self._begun + 1
        left = ""
        if done:
            seconds = (time.monotonic() - self._started) / done * (self._total - done)
            left = f", about {seconds / 60:.1f} min left"
        last = f"   (before: {self._last})" if self._terminal and self._last else ""
        self._write(f"[{self._begun}/{self._total}{left}] {text}{last}")

    def note(self, text: str) -> None:
        """What the step under way has found."""
        self._last = text
        if not self._terminal:
            self._stream.write(f"    {text}\n")
            self._stream.flush()

    def add(self, steps: int) -> None:
        """That many more steps will come."""
        self._total += steps

    def skip(self, steps: int) -> None:
        """That many steps will not come."""
        self._total -= steps

    def message(self, text: str) -> None:
        """A line that stays."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}" if self._terminal else line + "\n")
        self._stream.flush()
