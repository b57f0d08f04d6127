"""Chooses the few smallest inputs that together do all that many inputs do.

What an input does is which lines of the product follow which, and about how often. The
smallest input that does something no smaller one does is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import ingest

PRODUCT = str(Path(ingest.__file__).parent)

#: An arc between two lines of a file, and the order of magnitude of how often it was taken.
Feature = tuple[str, int, int, int]


def features(check: Callable[[bytes], None], data: bytes) -> set[Feature]:
    """What the product does under one input."""
    counts: dict[tuple[str, int, int], int] = {}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(PRODUCT):
            return None
        last = frame.f_lineno

        def trace_line(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                arc = (file, last, frame.f_lineno)
                counts[arc] = counts.get(arc, 0) + 1
                last = frame.f_lineno
            return trace_line

        return trace_line

    sys.settrace(trace)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return {(*arc, min(count.bit_length(), 7)) for arc, count in counts.items()}


def minimise(check: Callable[[bytes], None], inputs: list[bytes]) -> list[bytes]:
    """The inputs worth keeping, smallest first."""
    known: set[Feature] = set()
    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        found = features(check, data)
        if found - known:
            known |= found
            kept.append(data)
    return kept
