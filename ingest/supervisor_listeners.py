"""The listening sockets: one for each worker, all on one address, kept open by the supervisor.

The kernel spreads connections over them (SO_REUSEPORT, socket(7)). The supervisor keeps a copy
of each, so that none is reset when a worker ends, however it ends: as long as a worker does not
accept, the supervisor accepts what comes to its socket and gives it to workers that serve.

This module must not know how workers are started, or what they serve.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import gevent
from gevent.hub import get_hub

from ingest.link import DESCRIPTORS_MAX
from ingest.logs import get_logger
from ingest.server import listen

log = get_logger(__name__)

#: Pause when nobody takes connections; they wait in the kernel's backlog meanwhile.
NOBODY_SECONDS = 0.05
_READABLE = 1


def open_listeners(host: str, port: int, backlog: int, count: int) -> list[socket.socket]:
    """Listen `count` times on one address.

    Raises:
        OSError: the address is not ours, in use, or not permitted.
    """
    if port:
        _require_free(host, port)
    first = listen(host, port, backlog, shared=True)
    sockets = [first]
    try:
        for _ in range(count - 1):
            sockets.append(listen(host, first.getsockname()[1], backlog, shared=True))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _require_free(host: str, port: int) -> None:
    """Refuse a port that another gateway of the same user has, which SO_REUSEPORT would allow."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)


class Listener:
    """The listening socket of one worker.

    Args:
        sock: it listens; this object owns it.
        hand_over: takes descriptors of connections and gives them to a worker, or returns
            False and leaves them to the caller because there is none.
        someone: whether there is a worker that takes connections.
    """

    def __init__(
        self,
        sock: socket.socket,
        hand_over: Callable[[list[int]], bool],
        someone: Callable[[], bool],
    ) -> None:
        #: kept open, whoever accepts
        self.socket = sock
        self._hand_over = hand_over
        self._someone = someone
        self._standing_in: gevent.Greenlet | None = None

    def copy(self) -> int:
        """A descriptor for the worker; the caller's to close."""
        return self.socket.dup().detach()

    def stand_in(self) -> None:
        """Accept for the worker from now on."""
        if self._standing_in is None and self.socket.fileno() >= 0:
            self._standing_in = gevent.spawn(self._accept)

    def step_back(self) -> None:
        """Leave accepting to the worker."""
        if self._standing_in is not None:
            self._standing_in.kill()
            self._standing_in = None

    def close(self) -> None:
        """Give over what has come to a worker that does not accept, and close."""
        if self._standing_in is not None:
            self.step_back()
            while self._someone() and self._pass_on():
                pass
        self.socket.close()

    def _accept(self) -> None:
        hub = get_hub()
        watcher = hub.loop.io(self.socket.fileno(), _READABLE)
        try:
            while True:
                hub.wait(watcher)
                if not self._someone() or not self._pass_on():
                    gevent.sleep(NOBODY_SECONDS)
        finally:
            watcher.close()

    def _pass_on(self) -> bool:
        """Accept some connections and give them to a worker; whether there were any."""
        accepted: list[int] = []
        try:
            while len(accepted) < DESCRIPTORS_MAX:
                accepted.append(self.socket.accept()[0].detach())
        except BlockingIOError:
            pass
        except OSError as error:
            log.warning("supervisor.accept_failed", error=str(error))
        if accepted and not self._hand_over(accepted):
            for descriptor in accepted:
                socket.socket(fileno=descriptor).close()
            log.warning("supervisor.connections_lost", connections=len(accepted))
        return bool(accepted)
