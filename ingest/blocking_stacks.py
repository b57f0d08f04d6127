"""What a stack of a blocked event loop says: which handler, which line of it, which call.

This module must not know threads or how the stack was come by.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from ingest.handlers.loader import Handler

#: Stands for the handler where no file of one is in the stack.
NO_HANDLER = "-"
#: Stands for a line that could not be seen.
UNKNOWN = "a call in C that kept the interpreter's lock"
#: Most lines of a stack that are kept: the innermost.
LINES_MAX = 50


class Found(NamedTuple):
    """A stack, read.

    Attributes:
        handler: name of the handler's file; `-` where there is none.
        place: `file:line` to look at: the innermost line of the handlers' own files, or
            of anybody's where there is none.
        call: `file:line` that runs, in whichever package.
        lines: `file:line function`, outermost first.
    """

    handler: str
    place: str
    call: str
    lines: list[str]


class Stacks:
    """Reads stacks.

    Args:
        directory: of the handlers.
        names: of the handlers.
    """

    def __init__(self, directory: Path, names: Iterable[str]) -> None:
        # As the import system writes it, with and without symbolic links resolved.
        self._prefixes = tuple({f"{directory.absolute()}/", f"{directory.resolve()}/"})
        self.names = frozenset(names) | {NO_HANDLER}

    def read(self, frame: FrameType) -> Found:
        """Read the stack that ends in a frame."""
        lines: list[str] = []
        handler, place = NO_HANDLER, ""
        call = _line(frame)
        step: FrameType | None = frame
        while step is not None:
            file = step.f_code.co_filename
            if len(lines) < LINES_MAX:
                lines.append(f"{_line(step)} {step.f_code.co_name}")
            if file.startswith(self._prefixes):
                place = place or _line(step)
                name = Path(file).stem
                if name in self.names:
                    handler = name
            step = step.f_back
        return Found(handler, place or call, call, lines[::-1])

    def of(self, handler: Handler | None) -> Found:
        """What can be said without a stack."""
        if handler is None:
            return Found(NO_HANDLER, UNKNOWN, UNKNOWN, [])
        code = getattr(inspect.unwrap(handler.handle), "__code__", None) if handler.handle else None
        line = 0 if code is None else code.co_firstlineno
        return Found(handler.type, f"{Path(handler.file).absolute()}:{line}", UNKNOWN, [])


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
