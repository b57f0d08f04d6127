"""The bounded pool: every request holds one slot of it from decode to answer.

Two ways through it, one bound:

* Types without a handler are *work*: they are queued and a few **resident**
  greenlets drain the queue in runs. All that became readable in one turn of the
  event loop is decoded and validated in one switch; nothing is spawned per request.
* Types with a handler may block (that is what they are for), so each runs in a
  greenlet of its own, spawned into the same pool.

When all slots are taken a connection is not read any further: it waits in line,
first come first served. A line longer than `queue_max` means that waiting would not
help, and the request is refused instead.

Who wants a slot takes it himself, `if pool.in_use < pool.limit: pool.in_use += 1`, because a call
a request costs what this pool is there to save; otherwise he calls `wait_in_line`. The limit is
the size, or 0 while there is too much to do: then `short` is asked about each request first.

Invariants:
    in_use <= size, and a slot given back goes to the first in line before anyone else;
    len(line) <= queue_max.

This module must not know HTTP, JSON or the journal: work is opaque.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent.hub import get_hub
from gevent.pool import Group
from gevent.pool import Pool as GreenletPool

from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)


class Waiter(Protocol):
    """Who stands in line for a slot; `resume` is called once, when it holds one."""

    def resume(self) -> None: ...


class Judge(Protocol):
    """Who decides which requests are let in while there is too much to do."""

    @property
    def quick(self) -> bool:
        """Whether `take` may be asked; otherwise `admits` and `refuse`."""

    def take(self, connection: Any, head: Any, plan: Any) -> bytes | None:
        """The answer to a request that is not let in; None for one that is."""

    def admits(self, connection: Any, head: Any, plan: Any) -> bool | None:
        """Whether a request is let in; None: it may stand in line for a slot."""

    def refuse(self, exchange: Any) -> None:
        """Answer a request that is not."""


class WorkPool:
    """A bounded pool of greenlets with a bounded line in front of it.

    Args:
        size: slots, that is requests between decode and answer at one time.
        residents: greenlets that drain the work queue. More than one so that a
            huge batch, which yields between its parts, does not hold up the rest.
        queue_max: how many may stand in line for a slot before refusal.
        process: does one piece of work; runs in a resident greenlet. It must not
            raise: it owns its own failures. What it raises nonetheless is logged,
            counted, and handed to `on_failure`.
        together: is shown the queue when there is more than one piece in it, and may take
            some off and do them at once, without a switch. Returns how many of the next are
            to be done one by one. What it raises is logged and counted; then it must have
            taken nothing.
        on_failure: called with the work whose processing raised.
        metrics: where depth, size, waits and refusals are counted.
        about: what the log says of work whose processing raised.
    """

    def __init__(
        self,
        size: int,
        residents: int,
        queue_max: int,
        process: Callable[[Any], None],
        together: Callable[[deque[Any]], int],
        on_failure: Callable[[Any, BaseException], None],
        metrics: Metrics,
        about: Callable[[Any], dict[str, str]] = lambda _: {},
    ) -> None:
        self.size = size
        self.limit = size
        #: who decides about requests while there is too much to do; None otherwise
        self.short: Judge | None = None
        #: pieces of work that are done
        self.done = 0
        self._about = about
        self.in_use = 0
        self.queue_max = queue_max
        self._process = process
        self._together = together
        self._on_failure = on_failure
        self._metrics = metrics
        self._hub = get_hub()
        self._work: deque[Any] = deque()
        self._line: deque[tuple[Waiter, float]] = deque()
        self._idle: deque[Any] = deque()
        self._waking = 0
        self._resident_count = residents
        self._residents = GreenletPool(residents)
        self._handlers = Group()
        self._stopping = False
        metrics.pool_size.set_function(lambda: self.size)
        metrics.pool_in_use.set_function(lambda: self.in_use)
        metrics.pool_waiting.set_function(lambda: len(self._line))

    # -- life cycle ---------------------------------------------------------------

    def start(self) -> None:
        """Spawn the resident greenlets."""
        for _ in range(self._resident_count):
            self._residents.spawn(self._reside)

    def stop(self, timeout_seconds: float) -> None:
        """Wait for the handlers that still run, then end the residents.

        Args:
            timeout_seconds: after it, handlers that still run are killed.
        """
        self._stopping = True
        self._handlers.join(timeout=timeout_seconds)
        self._handlers.kill(timeout=1)
        self._residents.kill(timeout=1)

    # -- slots ----------------------------------------------------------------------

    def wait_in_line(self, waiter: Waiter) -> bool:
        """Stand in line for a slot.

        Args:
            waiter: its `resume` is called from the hub's next turn once it holds a slot.

        Returns:
            False when the line is full: refuse the request (503).
        """
        if len(self._line) >= self.queue_max:
            self._metrics.pool_refused.value += 1
            return False
        self._line.append((waiter, monotonic()))
        return True

    def leave_line(self, waiter: Waiter) -> bool:
        """Forget a waiter whose connection ended. False: it was not in line (any more)."""
        before = len(self._line)
        self._line = deque(entry for entry in self._line if entry[0] is not waiter)
        return len(self._line) < before

    def release(self, count: int = 1) -> None:
        """Give slots back; each goes to the first in line, if there is a line."""
        self.done += count
        line = self._line
        if line:
            now = monotonic()
            while line and count:
                waiter, since = line.popleft()
                self._metrics.pool_wait_seconds.observe(now - since)
                count -= 1  # the slot changes hands: in_use stays as it is
                waiter.resume()
        self.in_use -= count

    # -- work -----------------------------------------------------------------------

    def submit(self, work: Any) -> None:
        """Queue work, whose slot the caller holds, for the resident greenlets."""
        self._work.append(work)
        if not self._waking and self._idle:
            self._wake_one()

    def spawn(self, function: Callable[..., None], work: Any) -> None:
        """Run `function(work)`, whose slot the caller holds, in a greenlet of its own."""
        self._handlers.start(_Guarded(function, work, self))

    def spawned(self) -> Iterable[gevent.Greenlet]:
        """The greenlets of `spawn` that have not ended; any thread may ask."""
        return list(self._handlers.greenlets)

    @property
    def spawned_count(self) -> int:
        """How many of the slots are with greenlets of their own."""
        return len(self._handlers)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def oldest(self) -> Any:
        """The work that is next; None where none waits."""
        return self._work[0] if self._work else None

    def line_age(self, now: float) -> float | None:
        """Seconds that the first in line stands there; None where nobody does."""
        return now - self._line[0][1] if self._line else None

    def _wake_one(self) -> None:
        self._waking += 1
        self._hub.loop.run_callback(self._idle.popleft().switch)

    def yield_turn(self) -> None:
        """Called from within long work: let the event loop and the other residents run."""
        if self._work and self._idle and not self._waking:
            self._wake_one()
        gevent.sleep(0)

    def _reside(self) -> None:
        me = gevent.getcurrent()
        work = self._work
        switch_to_hub = self._hub.switch
        runs = self._metrics.pool_runs
        process = self._process
        while True:
            if not work:
                self._idle.append(me)
                switch_to_hub()
                self._waking -= 1
                continue
            runs.value += 1
            singly = 0
            while work:
                if singly:
                    singly -= 1
                elif len(work) > 1:
                    singly = self._next(work)
                    continue
                item = work.popleft()
                try:
                    process(item)
                except Exception as error:  # noqa: BLE001 - counted, logged and answered
                    self.failed(item, error)

    def _next(self, work: deque[Any]) -> int:
        """Do what can be done together; returns how many of the next are to be done singly."""
        try:
            return self._together(work)
        except Exception as error:  # each is tried alone then
            self._metrics.unhandled_errors.cell("pool").value += 1
            log.error("pool.unhandled_error", exc_info=error)
            return len(work)

    def failed(self, work: Any, error: BaseException) -> None:
        """Account for an error that nobody caught: count, log, and answer the client."""
        self._metrics.unhandled_errors.cell("pool").value += 1
        log.error("pool.unhandled_error", exc_info=error, **self._about(work))
        self._on_failure(work, error)


class _Guarded(gevent.Greenlet):
    """A handler's greenlet: its owner, the pool, sees whatever it raises."""

    def __init__(self, function: Callable[..., None], work: Any, pool: WorkPool) -> None:
        super().__init__()
        self._function = function
        self._work = work
        self._pool = pool

    def _run(self) -> None:
        try:
            self._function(self._work)
        except gevent.GreenletExit as stopped:
            # Only the pool kills its handlers, at the end of the drain time: the
            # client still gets an answer, and the slot is given back.
            self._pool.failed(self._work, stopped)
            raise
        except Exception as error:  # noqa: BLE001 - counted, logged and answered
            self._pool.failed(self._work, error)
