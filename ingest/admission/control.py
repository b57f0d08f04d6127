"""Decides when there is too much to do, and how much is let in then. PURE: looked at ten times
a second by somebody with a clock.

The signal is how long what was answered in the last while had waited: of each commit the one
that waited longest, and of these the mean. A closed loop of 10,000 clients that wait 200 ms each
is busy, and refusing would only bring its requests back sooner; work that waits longer than
`queue_delay_max_seconds` in three whiles in a row, so that it is a standing queue and no burst
(RFC 8289 section 3), is more than can be done.

    calm ── waited > max, 3 whiles ──▶ short ── hardly a refusal for 5 whiles ──▶ calm

While short, as many requests are in flight as are done in a twentieth of that time: then who
is let in is answered about as fast as without the overload, and who is not is told at once.
That number follows what is measured: waits shorter than that let it grow, longer ones shrink.
"""

from __future__ import annotations

import enum

#: How often it is looked.
WHILE_SECONDS = 0.1
#: Whiles in a row with too long a wait before anybody is refused.
BEFORE_SHORT = 3
#: Whiles in a row in which hardly anybody was refused, before everybody is let in again.
BEFORE_CALM = 5
HARDLY = 0.02
#: While short, the wait that is aimed at, of `queue_delay_max_seconds`.
AIM = 1 / 20
#: With fewer, or a shorter wait, an fdatasync would not be shared.
LEAST_IN_FLIGHT = 4
LEAST_AIM_SECONDS = 0.01
GROW, SHRINK = 1.25, 0.8


class State(enum.Enum):
    """CALM: everybody is let in. SHORT: some are refused so that the others need not wait."""

    CALM = 0
    SHORT = 1


class Control:
    """The state, and how many may be in flight.

    Args:
        delay_max_seconds: the wait that is too long; 0 for none ever is.
        most: in flight at any time.

    Attributes:
        state: as of the last look.
        limit: how many may be in flight while short.
    """

    def __init__(self, delay_max_seconds: float, most: int) -> None:
        self._max = delay_max_seconds
        self._aim = max(LEAST_AIM_SECONDS, delay_max_seconds * AIM)
        self._most = most
        self.state = State.CALM
        self.limit = most
        self._row = 0

    def look(self, waited: float | None, rate: float, asked: int, refused: int) -> State:
        """Judge the while that ends now.

        Args:
            waited: seconds that the work done in it had waited; None when none was done.
            rate: what was done in it, a second.
            asked, refused: how many requests came and how many of them were refused; only
                counted while short.
        """
        if self.state is State.CALM:
            late = waited is not None and 0 < self._max < waited
            self._row = self._row + 1 if late else 0
            if self._row >= BEFORE_SHORT:
                self.state, self._row = State.SHORT, 0
                self._set(rate * self._aim)
            return self.state
        if waited is not None and waited > 1.5 * self._aim:
            self._set(self.limit * SHRINK)
        elif waited is None or waited < self._aim:
            self._set(self.limit * GROW + 1)
        late = waited is not None and waited > self._max
        self._row = self._row + 1 if refused <= asked * HARDLY and not late else 0
        if self._row >= BEFORE_CALM:
            self.state, self._row = State.CALM, 0
            self.limit = self._most
        return self.state

    @property
    def late(self) -> bool:
        """Whether it is calm and the last while was not."""
        return self.state is State.CALM and self._row > 0

    def _set(self, limit: float) -> None:
        self.limit = int(max(min(LEAST_IN_FLIGHT, self._most), min(self._most, limit)))
