"""Notices code that holds the event loop, and says which.

    native thread, every quarter of the limit          event loop's thread
    -----------------------------------------          -------------------
    its iteration and stack, as they stand  ◀── read ── (does nothing for this)
    same iteration, same greenlet, too long?
       └─ log once per place, count, add seconds

The event loop pays nothing: libev numbers its iterations anyway, and the interpreter lets
any thread look at the stacks of the others. Where the loop waits for events, its stack ends
in the hub's own `run`. A C call that keeps the interpreter's lock keeps this thread out as well;
it gets the lock before the next line of Python runs, so what it then sees is the line
of that call, unless a further thread is quicker: then it names the handler that was
called last. Time in which the kernel let the loop's thread wait for a core is not counted.

This module must not know requests. Everything here that waits is taken unpatched: a native
thread must not switch greenlets.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType

import gevent
from gevent.hub import get_hub
from gevent.monkey import get_original

from ingest.blocking_stacks import Found, Stacks
from ingest.handlers.loader import Handler
from ingest.logs import get_logger
from ingest.machine_waits import WaitClock
from ingest.metrics import Metrics

log = get_logger(__name__)

_allocate_lock = get_original("_thread", "allocate_lock")
_start_new_thread = get_original("_thread", "start_new_thread")
_get_ident = get_original("_thread", "get_ident")

#: How many times within the limit it looks.
LOOKS = 4
#: It does not look more often than this.
SHORTEST_INTERVAL_SECONDS = 0.005
#: Whoever got a core so often since the last look was waiting for the interpreter's lock.
ASKED_TIMES = 4
#: Most places that are remembered, so that each is logged once.
PLACES_MAX = 1000
#: How long stopping waits for the thread.
STOP_SECONDS = 1.0


class BlockingMonitor:
    """Watches the event loop of the thread that makes it.

    Args:
        limit_seconds: how long code may hold the loop; 0 watches nothing.
        stacks: tells what a stack says.
        greenlets: those that may run, to name the one that does.
        latest: the handler that was called last, and when (monotonic seconds).
        metrics: `hub_blocked`, `hub_blocked_seconds`.
    """

    def __init__(
        self,
        limit_seconds: float,
        stacks: Stacks,
        greenlets: Callable[[], Iterable[gevent.Greenlet]],
        latest: Callable[[], tuple[Handler | None, float]],
        metrics: Metrics,
    ) -> None:
        self._limit = limit_seconds
        self._interval = max(limit_seconds / LOOKS, SHORTEST_INTERVAL_SECONDS)
        self._stacks = stacks
        self._greenlets = greenlets
        self._latest = latest
        # This thread counts for itself; cells belong to the loop's.
        self._times = dict.fromkeys(stacks.names, 0)
        self._seconds = dict.fromkeys(stacks.names, 0.0)
        self._faults = 0
        for name in stacks.names:
            metrics.hub_blocked.cell(name).set_function(partial(self._times.__getitem__, name))
            metrics.hub_blocked_seconds.cell(name).set_function(
                partial(self._seconds.__getitem__, name)
            )
        metrics.unhandled_errors.cell("blocking_monitor").set_function(lambda: self._faults)
        hub = get_hub()
        self._loop = hub.loop
        self._idle_code = type(hub).run.__code__
        self._ident = _get_ident()
        self._loop_waits = WaitClock()
        self._stop = _allocate_lock()
        self._stopped = _allocate_lock()
        self._running = False
        self._places: set[str] = set()
        # What the last look saw: when, which iteration, and whose stack, since when.
        self._looked = 0.0
        self._iteration = -1
        self._root = 0
        self._since = 0.0
        self._counted_until: float | None = None

    def start(self) -> None:
        """Start watching, unless the limit is 0 or it does."""
        if self._limit and not self._running:
            self._running = True
            self._stop.acquire()
            self._stopped.acquire()
            log.isEnabledFor(0)  # the first call takes a lock that is not this thread's to take
            _start_new_thread(self._run, ())

    def stop(self) -> None:
        """Stop watching; blocks until the thread has ended."""
        if self._running:
            self._running = False
            self._stop.release()
            self._stopped.acquire(timeout=STOP_SECONDS)
            self._stopped.release()
            self._loop_waits.close()

    def _run(self) -> None:
        self._waits = WaitClock()
        self._looked = time.monotonic()
        try:
            while not self._stop.acquire(timeout=self._interval):
                try:
                    self._look()
                except Exception as error:  # logged and counted; it must go on
                    self._faults += 1
                    log.error("hub.blocking_monitor_failed", exc_info=error)
        finally:
            self._waits.close()
            self._stop.release()
            self._stopped.release()

    def _look(self) -> None:
        now = time.monotonic()
        frame = sys._current_frames().get(self._ident)
        before, self._looked = self._looked, now
        waited = self._loop_waits.since().seconds
        kept_out = self._was_kept_out(now - before - self._interval - waited)
        if frame is None or frame.f_code is self._idle_code:
            self._moved_on()
            if kept_out:
                self._missed(before, now)
            return
        iteration, root = self._loop.iteration, id(_root(frame))
        if iteration != self._iteration or root != self._root:
            same_turn = iteration == self._iteration
            self._moved_on()
            self._iteration, self._root = iteration, root
            # Others ran until now: had they not, the last look would have seen this one. Unless
            # this thread was kept out since.
            self._since = now
            if kept_out:
                turn_began = now - max(0.0, time.time() - self._loop.now())
                self._since = before if same_turn else max(before, turn_began)
        self._since = min(now, self._since + waited)
        if now - self._since >= self._limit:
            self._blocked(self._stacks.read(frame), self._name(_root(frame)), now)
        elif kept_out:
            self._missed(before, now)

    def _was_kept_out(self, late_seconds: float) -> bool:
        """Whether this thread looks late because somebody kept the interpreter's lock.

        Who waits for that lock wakes up every few milliseconds to ask for it again; who gets
        no core, or stands still with the whole machine, does not.
        """
        runs = self._waits.since().runs
        return late_seconds >= self._limit and (runs >= ASKED_TIMES or not self._waits.tells)

    def _moved_on(self) -> None:
        """Whoever held the loop gave it back."""
        self._iteration = self._root = -1
        self._counted_until = None

    def _missed(self, before: float, now: float) -> None:
        """The interpreter's lock was kept, and by now its keeper has gone on.

        Another thread got the lock first, so there is no stack to read. A handler that was
        called in that time is the one to look at.
        """
        self._since = before
        handler, called = self._latest()
        suspect = handler if called >= before - self._interval else None
        self._blocked(self._stacks.of(suspect), "", now)
        self._moved_on()

    def _blocked(self, found: Found, greenlet: str, now: float) -> None:
        if self._counted_until is None:
            self._times[found.handler] += 1
            self._counted_until = self._since
            if found.place not in self._places and len(self._places) < PLACES_MAX:
                self._places.add(found.place)
                log.warning(
                    "hub.blocked",
                    handler=found.handler,
                    place=found.place,
                    call=found.call,
                    greenlet=greenlet,
                    seconds=round(now - self._since, 3),
                    limit_seconds=self._limit,
                    stack_info="\n".join(found.lines),
                )
        self._seconds[found.handler] += now - self._counted_until
        self._counted_until = now

    def _name(self, root: FrameType) -> str:
        """The greenlet that runs: it is alive and, unlike all others, has no frame kept."""
        for greenlet in list(self._greenlets()):
            if greenlet and greenlet.gr_frame is None:
                return str(greenlet.name)
        return root.f_code.co_name


def _root(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame
