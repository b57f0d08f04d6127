"""A file that is written to, whose failures are told from those of what is read.

This module must not know what is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_HELD_BYTES = 1 << 20


class OutputFailed(Exception):
    """The output cannot be written; the message says which and why."""


class Output:
    """A file whose errors are told from those of what is read.

    Args:
        descriptor: to write to.
        name: for messages.
        own: whether `done` closes the descriptor.
    """

    def __init__(self, descriptor: int, name: str, own: bool = False) -> None:
        self._descriptor = descriptor
        self._name = name
        self._own = own
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._position = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = bytes(data)
        self._held.append(view)
        self._held_bytes += len(view)
        self._position += len(view)
        if self._held_bytes >= _HELD_BYTES:
            self.flush()
        return len(view)

    def flush(self) -> None:
        data = memoryview(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0
        while data:
            data = data[self.call(os.write, data) :]

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Stay open: it is closed when it has its name."""

    def done(self) -> None:
        """Close it; what it still holds is given up."""
        if self._own:
            os.close(self._descriptor)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the descriptor.

        Raises:
            OutputFailed: it failed.
            BrokenPipeError: whoever read has seen enough.
        """
        try:
            return function(self._descriptor, *arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(f"{self._name}: {error.strerror}") from None
