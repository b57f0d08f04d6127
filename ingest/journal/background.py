"""fdatasync beside the thread that writes, for records nobody waits for.

What was only written is made durable about once a second. On a busy disk that takes long, and
`ack: write` is there so that producers do not wait for it. So it happens in a thread of its
own, at most one at a time, while the writer goes on writing to the same file.

The kernel reports a failed write-back to one fdatasync of a descriptor, whoever calls it. So
before the writer trusts a success of its own, and before it closes the descriptor, it calls
`settle` and learns what was found here.

This module must not know commits, waiters or the hub.
"""

from __future__ import annotations

from collections.abc import Callable

from gevent.monkey import get_original

from ingest.journal.segment import Segment

_new_lock = get_original("_thread", "allocate_lock")


def at_once(job: Callable[[], None]) -> None:
    """Do a job here and now; for callers that have no other thread."""
    job()


class BackgroundSync:
    """At most one fdatasync under way.

    Args:
        start: runs a job in another thread.
        done: told the seconds each took; called in that thread.
        clock: monotonic seconds.

    Attributes:
        error: what the last one met, until `settle` has raised it.
    """

    def __init__(
        self,
        start: Callable[[Callable[[], None]], None],
        done: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._start = start
        self._done = done
        self._clock = clock
        self._busy = _new_lock()
        self.error: OSError | None = None

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._busy.locked()

    def sync(self, segment: Segment) -> None:
        """Make durable what a segment holds now; does nothing while another is under way."""
        if not self._busy.acquire(False):
            return
        segment.unsynced_since = None  # the next write sets it again
        self._start(lambda: self._work(segment))

    def _work(self, segment: Segment) -> None:
        started = self._clock()
        try:
            segment.flush()
        except OSError as error:
            self.error = error
        else:
            self._done(self._clock() - started)
        finally:
            self._busy.release()

    def settle(self) -> None:
        """Wait until none is under way.

        Raises:
            OSError: the last one failed; told once.
        """
        with self._busy:
            error, self.error = self.error, None
        if error is not None:
            raise error
