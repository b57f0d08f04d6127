"""What a process does and holds right now: stacks of greenlets and threads, and its memory.

Nothing here runs, costs or is collected before somebody asks. What looks at many things lets the
event loop run in between and ends after a bound; the one step that cannot be cut up is the
interpreter's own list of its objects (10 to 15 ms for a million).

Stacks are files, lines and names of functions: no values, so no event and no key is shown.

This module must not know who asks, or HTTP.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections import Counter
from time import monotonic
from types import FrameType
from typing import Any

import gevent
import greenlet
from gevent.hub import get_hub
from gevent.monkey import get_original

_get_ident = get_original("_thread", "get_ident")

#: Most groups of greenlets that are shown: the largest.
GROUPS_MAX = 100
#: Most lines of a stack: the innermost.
LINES_MAX = 40
#: Most greenlets that are looked at.
GREENLETS_MAX = 50_000
#: Most types of objects that are shown: those with most objects.
TYPES_MAX = 40
#: The event loop is held for no longer than this at a time while things are counted.
SLICE_SECONDS = 0.002
#: And for counting no more time is taken than this, pauses included.
COUNT_SECONDS = 2.0
#: Things looked at between two looks at the clock.
CHUNK = 500

Stack = tuple[str, ...]

#: Greenlets that were there when the collector was told to leave everything so far alone; its
#: list of objects does not have them any more.
_early: weakref.WeakSet[Any] = weakref.WeakSet()


def remember_greenlets() -> None:
    """Note what greenlets there are; before `gc.freeze`."""
    # By type(): to ask some objects of their class runs their code, such as Django's settings.
    _early.update(item for item in gc.get_objects() if issubclass(type(item), greenlet.greenlet))


class _Turns:
    """Lets the event loop run every now and then.

    Attributes:
        over: the time for it has run out.
    """

    def __init__(self) -> None:
        self._end = monotonic() + COUNT_SECONDS
        self._slice = monotonic() + SLICE_SECONDS
        self.over = False

    def look(self) -> None:
        """To be called after each `CHUNK`."""
        now = monotonic()
        self.over = now > self._end
        if now > self._slice:
            gevent.sleep(SLICE_SECONDS)
            self._slice = monotonic() + SLICE_SECONDS


def stack_of(frame: FrameType | None) -> Stack:
    """`file:line function` of each frame, outermost first."""
    lines: list[str] = []
    while frame is not None and len(lines) < LINES_MAX:
        code = frame.f_code
        lines.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    if frame is not None:
        lines.append("…")
    return tuple(reversed(lines))


def greenlet_groups() -> tuple[list[tuple[int, str, Stack]], int]:
    """Every greenlet of this thread, those with equal stacks together; may switch greenlets.

    Returns:
        how many, of which class, with which stack, the most first; and how many greenlets
        were looked at.
    """
    turns = _Turns()
    found: Counter[tuple[str, Stack]] = Counter()
    looked = 0
    items = gc.get_objects()
    known: set[int] = set()
    for source in (list(_early), items):
        for index, item in enumerate(source, 1):
            if (
                issubclass(type(item), greenlet.greenlet)
                and not item.dead
                and id(item) not in known
            ):
                known.add(id(item))
                looked += 1
                found[type(item).__name__, _where(item)] += 1
            if index % CHUNK == 0:
                turns.look()
                if turns.over or looked >= GREENLETS_MAX:
                    break
    groups = [(count, kind, stack) for (kind, stack), count in found.most_common()]
    return groups, looked


def _where(item: Any) -> Stack:
    if item is greenlet.getcurrent():
        return ("(answers this request)",)
    stack = stack_of(item.gr_frame)
    if stack:
        return stack
    return ("(the event loop)",) if item is get_hub() else ("(has not begun)",)


def thread_stacks() -> list[tuple[int, bool, Stack]]:
    """The stack of every native thread: its identity, whether it is this one, its lines."""
    me = _get_ident()
    frames = sys._current_frames().items()
    return sorted((ident, ident == me, stack_of(frame)) for ident, frame in frames)


def object_counts() -> tuple[dict[str, int], int, bool]:
    """How many objects the collector knows by type; may switch greenlets.

    Those that were there when the service started are not among them: what is shown has come
    since, and that is what a leak is made of.

    Returns:
        the most frequent types, how many objects were counted, whether that were all.
    """
    turns = _Turns()
    counts: Counter[type] = Counter()
    items = gc.get_objects()
    looked = 0
    for start in range(0, len(items), CHUNK):
        counts.update(map(type, items[start : start + CHUNK]))
        looked = min(start + CHUNK, len(items))
        turns.look()
        if turns.over:
            break
    complete = looked == len(items)
    del items
    named: Counter[str] = Counter()
    for kind, count in counts.items():
        named[f"{kind.__module__}.{kind.__qualname__}"] += count
    return dict(named.most_common(TYPES_MAX)), looked, complete


def process_memory() -> dict[str, int]:
    """What the kernel says of this process: bytes of memory, threads, open descriptors."""
    found: dict[str, int] = {}
    names = {"VmRSS": "resident_bytes", "VmHWM": "resident_peak_bytes", "VmSize": "virtual_bytes"}
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            key, _, rest = line.partition(":")
            if key in names:
                found[names[key]] = int(rest.split()[0]) * 1024
            elif key == "Threads":
                found["threads"] = int(rest)
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    return found


def collector() -> dict[str, Any]:
    """How the garbage collector stands."""
    return {
        "thresholds": gc.get_threshold(),
        "young": gc.get_count(),
        "frozen_objects": gc.get_freeze_count(),
        "generations": gc.get_stats(),
    }
