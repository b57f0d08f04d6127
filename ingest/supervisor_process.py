"""A worker's process as its supervisor has it: started, talked to, seen to its end.

    starting → loaded → recovered → serving → closed → ended
                                  any of them ─────────↗

This module must not know when a worker is to be started, or what becomes of its metrics.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.queue import Queue

from ingest import link, logs
from ingest.link import Link, LinkBroken, Message
from ingest.worker import NOT_OURS, VARIABLE

log = logs.get_logger(__name__)

#: A worker that takes no messages gets no questions and no connections beyond so many.
OUTBOX_MAX = 64
#: Messages that a dead worker has sent are all there by then.
LAST_WORDS_SECONDS = 1.0
#: A worker that says nothing for so long hangs.
SILENT_SECONDS = 5.0


class State(IntEnum):
    """How far a worker has come; only ever forward."""

    STARTING = 0
    LOADED = 1
    RECOVERED = 2
    SERVING = 3
    #: it accepts no more connections
    CLOSED = 4
    ENDED = 5


_STATES = {
    "loaded": State.LOADED,
    "recovered": State.RECOVERED,
    "serving": State.SERVING,
    "closed": State.CLOSED,
}


class Failure(NamedTuple):
    """Why a worker cannot serve, in its own words, and the exit code that goes with it."""

    message: str
    code: int


class WorkerProcess:
    """One process.

    Args:
        number: the worker's.
        hear: told of messages that concern others than this object, and of every new state.
    """

    def __init__(self, number: int, hear: Callable[[WorkerProcess, Message | None], None]) -> None:
        self.number = number
        self.state = State.STARTING
        self.pid = 0
        #: in its own words, why it cannot serve
        self.failure: Failure | None = None
        #: how it ended: the exit code, or minus the signal
        self.exit_code: int | None = None
        #: what it recovered; see `Facts`
        self.facts: dict[str, Any] = {}
        #: why it does not serve, by itself
        self.reason: str | None = "starting"
        self.serving_since = 0.0
        #: what it was told last of how all are; its supervisor's to set
        self.told: object = None
        self._hear = hear
        self._heard = monotonic()
        self._changed = Event()
        self._link: Link
        self._pidfd = -1
        self._sending = False
        self._reader: gevent.Greenlet
        self._writer: gevent.Greenlet
        self._outbox: Queue[tuple[str, list[int], dict[str, Any], bytes]] = Queue()

    def start(self) -> None:
        """Start it: a fresh interpreter with the command line of this one.

        Raises:
            OSError: no process can be started.
        """
        self._link, theirs = link.pair()
        get_hub().loop.install_sigchld()  # before there is a child that could end unseen
        try:
            os.set_inheritable(theirs.fileno(), True)
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],
                {**os.environ, VARIABLE: str(theirs.fileno())},
                # It takes them when it knows what to do about them.
                setsigmask=(signal.SIGTERM, *NOT_OURS),
                setsigdef=(signal.SIGTERM, *NOT_OURS),
            )
        except OSError:
            self._link.close()
            raise
        finally:
            theirs.close()
        self._attend()

    def take_over(self, pid: int, descriptor: int, received: bytes) -> None:
        """Have one that serves and that the supervisor before has let go.

        Args:
            descriptor: of the link to it; this object's.
            received: what came of its next message already.

        Raises:
            OSError: it has ended.
        """
        get_hub().loop.install_sigchld()
        self.pid = pid
        self._link = link.inherited(descriptor, received)
        try:
            self._attend()
        except OSError:
            self._link.close()
            raise
        self._advance(State.SERVING)

    def _attend(self) -> None:
        self._pidfd = os.pidfd_open(self.pid)
        self._reader = gevent.spawn(self._read)
        self._writer = gevent.spawn(self._write)
        gevent.spawn(self._see_the_end, get_hub().loop.child(self.pid, False))

    @property
    def quiet(self) -> bool:
        """Whether it has been told all that it is to be told."""
        return self._outbox.empty() and not self._sending

    def let_go(self) -> tuple[int, bytes]:
        """Talk to it no more, for another supervisor does.

        Returns:
            a descriptor of the link, and what was received of its next message.
        """
        self._reader.kill(block=False)
        self._writer.kill(block=False)
        return self._link.let_go()

    # -- to the worker ---------------------------------------------------------------------

    @property
    def accepts_messages(self) -> bool:
        """Whether it keeps up with what it is told."""
        return self._outbox.qsize() < OUTBOX_MAX

    @property
    def silent(self) -> bool:
        """Whether it has said nothing for so long that it must hang."""
        return self.state == State.SERVING and monotonic() - self._heard > SILENT_SECONDS

    @property
    def serves(self) -> bool:
        """Whether it takes connections, as far as is known."""
        return self.state == State.SERVING and self.reason is None and not self.silent

    def say(
        self, kind: str, *, descriptors: list[int] | None = None, blob: bytes = b"", **fields: Any
    ) -> None:
        """Tell it something; returns at once.

        Args:
            descriptors: this object's to close, from now on.
        """
        self._outbox.put((kind, descriptors or [], fields, blob))

    def _write(self) -> None:
        while True:
            kind, descriptors, fields, blob = self._outbox.get()
            self._sending = True
            try:
                self._link.send(kind, blob=blob, descriptors=descriptors, **fields)
            except LinkBroken:
                pass  # its end is seen elsewhere
            finally:
                self._sending = False
                for descriptor in descriptors:
                    os.close(descriptor)

    # -- from the worker -------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            try:
                message = self._link.receive()
            except LinkBroken as error:
                log.error("supervisor.link_broken", number=self.number, reason=str(error))
                self.kill()
                return
            if message is None:
                return
            self._heard = monotonic()
            if message.kind == "failed":
                self.failure = Failure(message.fields["message"], message.fields["code"])
            elif message.kind == "health":
                self.reason = message.fields["reason"]
            elif message.kind in _STATES:
                if message.kind == "recovered":
                    self.facts = message.fields
                self._advance(_STATES[message.kind])
            self._hear(self, message)

    def _advance(self, state: State) -> None:
        if state == State.SERVING:
            self.serving_since = monotonic()
            self.reason = None
        self.state = state
        changed, self._changed = self._changed, Event()
        changed.set()

    def wait(self, state: State) -> bool:
        """Wait until it has come so far; False when it ended instead."""
        while self.state < state:
            self._changed.wait()
        return self.state != State.ENDED or state == State.ENDED

    def wait_end(self, timeout_seconds: float) -> bool:
        """Wait for its end; False when that did not come in time."""
        deadline = monotonic() + timeout_seconds
        while self.state < State.ENDED:
            left = deadline - monotonic()
            if left <= 0:
                return False
            self._changed.wait(left)
        return True

    def kill(self) -> None:
        """End it at once."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended

    def _see_the_end(self, watcher: Any) -> None:
        with watcher:
            get_hub().wait(watcher)
            self.exit_code = os.waitstatus_to_exitcode(watcher.rstatus)
        os.close(self._pidfd)
        self._pidfd = -1
        self._reader.join(LAST_WORDS_SECONDS)
        self._reader.kill()
        self._writer.kill()
        self._drop_outbox()
        self._link.close()
        self.reason = self.how_it_ended()
        self._advance(State.ENDED)
        self._hear(self, None)

    def _drop_outbox(self) -> None:
        while not self._outbox.empty():
            for descriptor in self._outbox.get_nowait()[1]:
                os.close(descriptor)

    def how_it_ended(self) -> str:
        """In words."""
        code = self.exit_code
        if code is not None and code < 0:
            try:
                return f"it was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"it was killed by signal {-code}"
        return f"it ended with exit code {code}"
