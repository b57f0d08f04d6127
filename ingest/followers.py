"""Those who wait for the next commit, and those who wait for the same page.

Waiting costs an entry in a list. While nobody waits, a commit costs one comparison. When
one wakes a thousand followers that all stand at the same offset, the journal is read once.

This module must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

#: Native threads that read; more would only compete for the disk and the interpreter.
THREADS = 4
#: From so many on that wait for one page, they are answered in turns of the loop.
CROWD = 8


class Followers:
    """Waits for commits of one partition.

    Attributes:
        waiting: how many do.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._next = Event()

    @property
    def next_commit(self) -> Event:
        """Set when something was added after this was asked for.

        Whoever looks first what there is, and then waits, asks for it before he looks.
        """
        return self._next

    def commit(self) -> None:
        """Something may have been added; free of charge while nobody waits."""
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        """Wake whoever waits or is about to."""
        event, self._next = self._next, Event()
        event.set()

    def wait(self, commit: Event, timeout: float) -> None:
        """Wait for a commit, at most that many seconds."""
        self.waiting += 1
        try:
            commit.wait(timeout)
        finally:
            self.waiting -= 1


class SharedReads:
    """Reads in native threads; who asks for what is being read already gets the same."""

    def __init__(self) -> None:
        self._pool = ThreadPool(THREADS)
        self._reading: dict[Hashable, gevent.Greenlet] = {}
        self._joined: dict[Hashable, int] = {}

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a native thread and wait for it."""
        # An error is a result to the pool, which would report it as nobody's.
        result, error = self._pool.apply(_attempt, (function, arguments))
        if error is not None:
            raise error
        return result

    def share(self, key: Hashable, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `run`, once for all who ask with the same key meanwhile."""
        reading = self._reading.get(key)
        if reading is None:
            # A greenlet of its own: whoever asked first may be gone before it is done.
            reading = self._reading[key] = gevent.spawn(self._share, key, function, arguments)
            self._joined[key] = 0
        self._joined[key] += 1
        crowd = self._joined[key] > CROWD
        result, error = reading.get()
        if crowd:
            gevent.sleep(0)  # the loop looks after others between them
        if error is not None:
            raise error
        return result

    def _share(
        self, key: Hashable, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[Any, Exception | None]:
        try:
            return self._pool.apply(_attempt, (function, arguments))
        finally:
            del self._reading[key], self._joined[key]

    def close(self) -> None:
        """End the threads."""
        self._pool.kill()


def _attempt(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, Exception | None]:
    try:
        return function(*arguments), None
    except Exception as error:  # noqa: BLE001 - raised where the result is wanted
        return None, error
