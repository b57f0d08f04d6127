"""How fast the service gets on with its backlog: what a refused client is told to wait.

PURE: the caller says what time it is, and calls often.
"""

from __future__ import annotations

from collections import deque

#: The rate is that of so long; time in which there was nothing to do does not count.
WINDOW_SECONDS = 5.0
#: Before so long nothing is known.
LEAST_SECONDS = 0.5
#: Nobody is told to wait longer; a service that stands still does not know how long.
WAIT_MAX_SECONDS = 60.0


class Drain:
    """The rate of the last busy seconds, from a count that only rises.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._at = now
        self._busy_seconds = 0.0
        self._idle_done = 0
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def look(self, now: float, done: int, busy: bool) -> None:
        """Note how much is done by now.

        Args:
            now: monotonic seconds.
            busy: whether there has been something to do since the last look.
        """
        if not busy:
            self._idle_done += done - self._idle_done - self._seen[-1][1]
            self._at = now
            return
        self._busy_seconds += now - self._at
        self._at = now
        seen = self._seen
        seen.append((self._busy_seconds, done - self._idle_done))
        while self._busy_seconds - seen[1][0] >= WINDOW_SECONDS:
            seen.popleft()

    @property
    def rate(self) -> float:
        """Pieces of work a second; 0.0 while that is not known."""
        (began, before), (ended, after) = self._seen[0], self._seen[-1]
        return (after - before) / (ended - began) if ended > began else 0.0

    def seconds(self, backlog: int) -> float:
        """How long a backlog takes at that rate; 0.0 while the rate is not known."""
        if not backlog or self._seen[-1][0] < LEAST_SECONDS:
            return 0.0
        rate = self.rate
        return min(backlog / rate, WAIT_MAX_SECONDS) if rate else WAIT_MAX_SECONDS
