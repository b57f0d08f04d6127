"""The processes of offloaded calls, seen from the worker.

Each is started with a fresh interpreter, not by fork: it shares no threads, locks, sockets or
event loop with the worker. It has one end of a socketpair and runs one call at a time; see
`offload_child.py` for its side. When it dies the call fails and another takes its place.

This module must not know handlers or requests.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from gevent import subprocess

from ingest.handlers.offload import OffloadDied
from ingest.handlers.offload_frames import decoded_reply, encoded_call, receive, send
from ingest.handlers.offload_slots import Slots
from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)

#: A process that has lost its socket ends by itself; after that time it is killed.
END_SECONDS = 2.0

_BOOT = (
    "import sys; sys.path[:] = {path!r}; "
    "from ingest.handlers.offload_child import serve; serve({fd})"
)


class Child:
    """One process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=sys.path, fd=theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._socket = ours

    def call(self, request: bytes) -> bytes:
        """Run one call.

        Raises:
            OffloadDied: the process ended first.
        """
        try:
            send(self._socket, request)
            return receive(self._socket)
        except (EOFError, OSError) as error:
            raise OffloadDied(f"the process of an offloaded call ended: {self.end()}") from error

    def end(self) -> str:
        """End it, unless it has; returns how it ended."""
        self._socket.close()
        try:
            code = self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()
        return _told(code)

    def kill(self) -> str:
        """End it at once, whatever it does; returns how it ended."""
        self._process.kill()
        self._socket.close()
        return _told(self._process.wait())


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


class Processes:
    """Processes for calls.

    Args:
        size: how many at most.
        slots: bounds them.
        metrics: counts those that died.
    """

    def __init__(self, size: int, slots: Slots, metrics: Metrics) -> None:
        self._size = size
        self._slots = slots
        self._metrics = metrics
        self._idle: list[Child] = []
        self._stopped = False

    def start(self) -> None:
        """Start all of them, so that they are there when the first call comes."""
        self._idle += [Child() for _ in range(self._size)]

    def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a function in a process.

        Raises:
            OffloadDied: the process ended first.
            Exception: what the function raised; or its arguments cannot be pickled.
        """
        request = encoded_call(function, args, kwargs)
        self._slots.take()
        started = monotonic()
        try:
            child = self._idle.pop() if self._idle else Child()
            reply = self._run(child, request)
        finally:
            self._slots.give_back(monotonic() - started)
        return decoded_reply(reply)

    def _run(self, child: Child, request: bytes) -> bytes:
        try:
            reply = child.call(request)
        except OffloadDied as error:
            self._metrics.offload_deaths.value += 1
            log.error("offload.process_died", reason=str(error))
            self._replace()
            raise
        except BaseException:
            # Nobody waits any more, and it would give its answer to the next call.
            child.kill()
            self._replace()
            raise
        if self._stopped:
            child.end()
        else:
            self._idle.append(child)
        return reply

    def _replace(self) -> None:
        if not self._stopped:
            self._idle.append(Child())

    def stop(self) -> None:
        """End the idle ones; one that runs a call ends after it."""
        self._stopped = True
        while self._idle:
            self._idle.pop().end()
