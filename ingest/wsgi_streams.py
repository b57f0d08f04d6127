"""The file-like objects of a WSGI environ: input, errors, file_wrapper.

Source: PEP 3333 sections "Input and Error Streams" and "Optional Platform-Specific File
Handling".
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: The longest line of `wsgi.errors`; a longer one becomes several.
ERROR_LINE_MAX_CHARS = 8192
#: How deep a file may be wrapped and still be sent by the kernel.
WRAPPERS_MAX = 3
#: Kept of the input at a time, beside what the application asked for.
INPUT_BUFFER_BYTES = 8192


class _Pieces(io.RawIOBase):
    """Reads pieces as they come, for `io.BufferedReader` to be built on."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._read())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def input_stream(read: Callable[[], bytes]) -> io.BufferedReader:
    """`wsgi.input` over a function that gives the next piece, and `b""` at the end."""
    return io.BufferedReader(_Pieces(read), INPUT_BUFFER_BYTES)


class ErrorStream:
    """`wsgi.errors`: text, given on line by line.

    Args:
        log: called with each line, without its end.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = ""

    def write(self, text: str) -> int:
        """Take text; whole lines are logged."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._give(line)
        while len(self._rest) > ERROR_LINE_MAX_CHARS:
            self._give(self._rest[:ERROR_LINE_MAX_CHARS])
            self._rest = self._rest[ERROR_LINE_MAX_CHARS:]
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Take several texts."""
        for text in lines:
            self.write(text)

    def flush(self) -> None:
        """Log the begin of a line, too."""
        rest, self._rest = self._rest, ""
        if rest:
            self._give(rest)

    def _give(self, line: str) -> None:
        for start in range(0, len(line), ERROR_LINE_MAX_CHARS):
            part = line[start : start + ERROR_LINE_MAX_CHARS]
            if part.strip():
                self._log(part)


class FileWrapper:
    """`wsgi.file_wrapper`: blocks of a file-like object; a real file goes by sendfile.

    Args:
        file: anything with `read(size)`; its `close`, if it has one, is ours.
        block_bytes: read at a time.
    """

    def __init__(self, file: Any, block_bytes: int = 65536) -> None:
        self.file = file
        self.block_bytes = block_bytes
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.file.read(self.block_bytes)
        if not block:
            raise StopIteration
        return block

    def on_disk(self) -> tuple[int, int, int] | None:
        """Descriptor, position and bytes from there on; None for what is no regular file."""
        file = self.file
        for _ in range(WRAPPERS_MAX):
            if hasattr(file, "fileno") and hasattr(file, "file"):
                file = file.file  # as those of `tempfile` and of frameworks have it
        # Others may have a descriptor, too, and give what they make of its bytes: GzipFile.
        if not isinstance(getattr(file, "raw", file), io.FileIO):
            return None
        try:
            status = os.fstat(file.fileno())
            start = file.tell()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return file.fileno(), start, max(0, status.st_size - start)
