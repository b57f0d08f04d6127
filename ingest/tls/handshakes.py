"""How many handshakes there are at a time, and how much of the event loop they get.

A handshake takes a signature, which holds the loop up for longer than some requests. So in each
turn of the loop handshakes get half a millisecond; those beyond wait in line for the next turn.
Requests of connections that are there already are served in between, however many more come.

Bounded is how many are under way. Beyond the bound the one goes that has let us wait for the
longest; a newcomer is turned away only where all the others wait for us.

This module must not know TLS or sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent.hub import get_hub

from ingest.connection_limits import Broken

if TYPE_CHECKING:
    from ingest.metrics import Metrics
    from ingest.tls.connection import TlsConnection

#: What handshakes get of a turn of the event loop; one more step may begin just before.
TURN_SECONDS = 0.0005


class Crowded(Broken):
    """There are too many handshakes."""

    def __init__(self) -> None:
        super().__init__("limit")


class Handshakes:
    """Those that are under way.

    Args:
        most: at a time.
        metrics: counts how they ended.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most
        self._results = metrics.tls_handshakes
        self._under_way: set[TlsConnection] = set()
        #: those whose peer has to say something, who waits longest first
        self._waiting: dict[TlsConnection, None] = {}
        #: those that wait for their turn
        self._line: dict[TlsConnection, None] = {}
        self._spent = 0.0
        self._timer: Any = get_hub().loop.timer(0.0)
        metrics.tls_handshakes_now.set_function(lambda: len(self._under_way))

    def begin(self, connection: TlsConnection) -> None:
        """One more.

        Raises:
            Crowded: there are too many.
        """
        if len(self._under_way) >= self._most:
            slowest = next(iter(self._waiting), None)
            if slowest is None:
                raise Crowded
            self._forget(slowest)
            slowest.interrupt(Crowded())
        self._under_way.add(connection)

    def end(self, connection: TlsConnection, result: str) -> None:
        """One less; `result` is a value of the metric's label."""
        self._forget(connection)
        self._results.cell(result).value += 1

    def _forget(self, connection: TlsConnection) -> None:
        self._under_way.discard(connection)
        self._waiting.pop(connection, None)

    def listens(self, connection: TlsConnection) -> None:
        """It waits for its peer."""
        self._waiting[connection] = None

    def heard(self, connection: TlsConnection) -> None:
        """Its peer has said something; it waits until it may go on."""
        self._waiting.pop(connection, None)
        if not self._line and self._spent < TURN_SECONDS:
            return
        self._line[connection] = None
        self._arm()
        try:
            connection.wait_for_turn()
        finally:
            self._line.pop(connection, None)

    def took(self, seconds: float) -> None:
        """A step has held the event loop up for so long."""
        self._spent += seconds
        self._arm()

    def _arm(self) -> None:
        if not self._timer.active:
            self._timer.start(self._next_turn)

    def _next_turn(self) -> None:
        self._spent = 0.0
        line = self._line
        while line and self._spent < TURN_SECONDS:
            connection = next(iter(line))
            del line[connection]
            connection.greenlet.switch()
        self._timer.stop()
        if line or self._spent:
            self._arm()
