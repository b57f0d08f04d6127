"""What systemd and its service have to say to each other.

The service is told of its sockets by variables, and says how it is by datagrams. Without systemd
there are neither, and all of this does nothing. This module must not know how anything is served.

Source: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import TypeVar

import gevent

from ingest.logs import get_logger

T = TypeVar("T")

log = get_logger(__name__)

#: The first descriptor that is handed over.
FIRST = 3
#: What systemd calls a socket whose unit gives it no name is the unit's; so is one of ours.
MAIN, ADMIN = "main", "admin"


class SocketsUnusable(Exception):
    """What systemd has handed over cannot be used; the message says why."""


def sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """Listening sockets that systemd has opened for this process, `main` and `admin`, by name.

    The variables are taken out of the environment, so that children do not take them for theirs.

    Raises:
        SocketsUnusable: they are not what the gateway has use for.
    """
    said = {name: environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES")}
    if not said["PID"].isdecimal() or int(said["PID"]) != os.getpid():
        return {}
    count = int(said["FDS"]) if said["FDS"].isdecimal() else 0
    names = said["FDNAMES"].split(":") if said["FDNAMES"] else []
    found: dict[str, socket.socket] = {}
    for number in range(count):
        os.set_inheritable(FIRST + number, False)
        sock = socket.socket(fileno=FIRST + number)
        name = names[number] if number < len(names) else ""
        name = ADMIN if name == ADMIN else MAIN
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise SocketsUnusable(f"systemd's socket {number + 1} is not one of TCP")
        if name in found:
            raise SocketsUnusable(
                f"systemd hands over two sockets for one purpose: FileDescriptorName={MAIN} "
                f"and FileDescriptorName={ADMIN} are for one each"
            )
        sock.setblocking(False)
        found[name] = sock
    return found


class Notifier:
    """Tells systemd how the service is.

    Args:
        environ: the process's environment.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        pid = environ.get("WATCHDOG_PID", "")
        mine = not pid or pid == str(os.getpid())
        self._watchdog_seconds = int(usec) / 1e6 if usec.isdecimal() and mine else 0.0
        self._watchdog: gevent.Greenlet | None = None

    def say(self, **states: str) -> None:
        """Send variables such as READY="1"; never raises."""
        if not self._path:
            return
        # A leading @ stands for the zero byte of an abstract address (unix(7)).
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        message = "\n".join(f"{name}={value}" for name, value in states.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(message.encode(), address)
        except OSError as error:
            log.warning("systemd.not_told", error=str(error), states=states)

    def ready(self, status: str, healthy: Callable[[], bool]) -> None:
        """Say that the service serves, and from now on that it lives, while it does.

        Args:
            status: in a line.
            healthy: whether the event loop keeps up; asked at half of the watchdog's time.
        """
        self.say(READY="1", STATUS=status)
        if self._watchdog_seconds:
            self._watchdog = gevent.spawn(self._pat, healthy)

    def reloading(self, reload: Callable[[], T]) -> T:
        """Say that the service reloads, while it does."""
        self.reloads_or_serves(True)
        try:
            return reload()
        finally:
            self.reloads_or_serves(False)

    def reload_begins(self) -> None:
        """Say that the service reloads; it ends when this process, or what it becomes, is ready."""
        # As systemd's Type=notify-reload wants it, on the clock of CLOCK_MONOTONIC.
        self.say(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def reloads_or_serves(self, reloads: bool) -> None:
        """Say that a reload begins, or that it has ended."""
        if reloads:
            self.reload_begins()
        else:
            self.say(READY="1")

    def stopping(self) -> None:
        """Say that the service shuts down, which may take its time."""
        self.say(STOPPING="1", STATUS="shutting down")

    def _pat(self, healthy: Callable[[], bool]) -> None:
        while True:
            if healthy():
                self.say(WATCHDOG="1")
            gevent.sleep(self._watchdog_seconds / 2)
