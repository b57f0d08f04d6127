"""One worker for good: started, started again when it dies, replaced when that is asked for.

    a number, a partition, a listening socket ── process, and after it the next one

One process at a time has the partition: a successor loads schemas and handlers while the old
one still serves, and recovers the journal when that has ended. This module must not know the
other workers.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.event import AsyncResult, Event

from ingest import logs
from ingest.link import Message
from ingest.machine import core_of
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.supervisor_listeners import Listener
from ingest.supervisor_process import State, WorkerProcess
from ingest.worker import Begin, begin_fields

log = logs.get_logger(__name__)

#: A worker that is to leave has, beside its time limits, so much for the rest: the last commit.
END_SECONDS = 30.0


def pause_seconds(failures: int, shortest: float, longest: float) -> float:
    """How long to wait before a worker is started again.

    Args:
        failures: how often in a row it has failed, at least 1.
        shortest: pause after the first.
        longest: the most it grows to.

    Returns:
        between half and all of it, so that workers do not all start at once.
    """
    # 2 to the 40th times the shortest pause there can be is beyond any longest.
    whole = min(longest, shortest * 2.0 ** min(failures - 1, 40))
    return whole * random.uniform(0.5, 1.0)


class Slot:
    """One worker.

    Args:
        settings: resolved settings.
        number: its number.
        metrics: the supervisor's.
        lock: gives a descriptor of the data directory's lock, the receiver's to close.
        hear: told what the process says, and of every change.
        ended: told of a process that has ended and counts no more.
    """

    def __init__(
        self,
        settings: Settings,
        number: int,
        metrics: Metrics,
        lock: Callable[[], int],
        hear: Callable[[WorkerProcess, Message | None], None],
        ended: Callable[[WorkerProcess], None],
    ) -> None:
        self.number = number
        #: the process that has the partition, or is about to
        self.process: WorkerProcess | None = None
        #: the one that is to take its place
        self.successor: WorkerProcess | None = None
        #: its socket, from the moment on at which all workers can serve
        self.listener: Listener | None = None
        #: the socket for operators, which all workers share
        self.admin: socket.socket | None = None
        #: its consumers are to be paused from their start
        self.paused = False
        self._settings = settings
        #: those of the replacement that was asked for
        self._wanted: Settings | None = None
        self._metrics = metrics
        for cause in ("died", "asked"):
            metrics.worker_restarts.cell(str(number), cause)  # there before the first one
        self._lock = lock
        self._hear = hear
        self._ended = ended
        self._failures = 0
        self._stopping = False
        self._woken = Event()
        self._replacing: AsyncResult | None = None
        self._life: gevent.Greenlet | None = None

    # -- what it is ------------------------------------------------------------------------

    def reason(self) -> str | None:
        """Why this worker does not serve; None when it does."""
        process = self.process
        if process is None:
            return "it is to be started again"
        if process.silent:
            return "it does not answer"
        return process.reason

    def processes(self) -> list[WorkerProcess]:
        """Those that have not ended."""
        both = (self.process, self.successor)
        return [p for p in both if p is not None and p.state != State.ENDED]

    # -- first start -----------------------------------------------------------------------

    def spawn(self, settings: Settings) -> WorkerProcess:
        """Start a process; it loads what it serves and waits.

        Args:
            settings: its own.

        Raises:
            OSError: no process can be started.
        """
        process = WorkerProcess(self.number, self._hear)
        process.start()
        core = core_of(self.number, settings.cpu_affinity)
        begin = begin_fields(Begin(settings, self.number, core))
        process.say("begin", descriptors=[self._lock()], **begin)
        log.info("supervisor.worker_started", number=self.number, pid=process.pid, core=core)
        return process

    def begin(self) -> WorkerProcess:
        """Start the first process of all."""
        self.process = self.spawn(self._settings)
        return self.process

    def live(self) -> None:
        """See to it from now on, its process serves or is about to."""
        self._life = gevent.spawn(self._live)

    @property
    def settled(self) -> bool:
        """Whether its process serves, or it has none."""
        process = self.process
        return self.successor is None and (process is None or process.state == State.SERVING)

    def rest(self) -> None:
        """See to it no more; its process goes on."""
        self._stopping = True
        if self._life is not None:
            self._life.kill(block=False)
        if self.listener is not None:
            self.listener.step_back()

    def serve(self, process: WorkerProcess) -> None:
        """Let a process that has recovered its journal serve."""
        assert self.listener is not None
        descriptors = [self.listener.copy()]
        if self.admin is not None:
            descriptors.append(os.dup(self.admin.fileno()))
        process.say("serve", descriptors=descriptors, paused=self.paused)

    def stand_in(self, accept: bool) -> None:
        """Have the supervisor accept for this worker, or leave that to it again."""
        if self.listener is not None and not self._stopping:
            if accept:
                self.listener.stand_in()
            else:
                self.listener.step_back()

    # -- its life --------------------------------------------------------------------------

    def stop(self) -> None:
        """Start no more processes; returns at once."""
        self._stopping = True
        self._woken.set()

    def replace(self, settings: Settings | None = None) -> AsyncResult:
        """Ask for a new process in place of the one there is.

        Args:
            settings: its own, and of those after it once it serves; None: as they are.

        Returns:
            what tells when that is done: None, or why it was not.
        """
        if self._replacing is None:
            self._replacing = AsyncResult()
        if settings is not None:
            self._wanted = settings
        self._woken.set()
        return self._replacing

    def heard(self, process: WorkerProcess) -> None:
        """Something about a process of this worker has changed."""
        if process is self.process and process.state >= State.CLOSED:
            self.stand_in(True)
            self._woken.set()

    def _live(self) -> None:
        while not self._stopping:
            self._woken.clear()
            if self.process is None:
                self._start_again()
            elif self.process.state == State.ENDED:
                self._see_off(self.process)
            elif self._replacing is not None:
                self._replace(self.process)
            else:
                self._woken.wait()

    def _see_off(self, process: WorkerProcess) -> None:
        """The process of this worker has ended, and nobody asked it to."""
        self._ended(process)
        self.process = None
        served = _log_death(process)
        if served >= self._settings.worker_restart_max_seconds:
            self._failures = 0
        self._pause()

    def _pause(self) -> None:
        """Wait before the next start, longer each time; a replacement asked for cuts it."""
        self._failures += 1
        settings = self._settings
        seconds = pause_seconds(
            self._failures, settings.worker_restart_min_seconds, settings.worker_restart_max_seconds
        )
        if self._replacing is None and not self._stopping:
            log.info("supervisor.worker_pauses", number=self.number, seconds=round(seconds, 3))
            self._woken.clear()
            self._woken.wait(seconds)

    def _start_again(self) -> None:
        why = self._bring_up(None)
        self._answer(why)
        if self.process is None and not self._stopping:
            log.error("supervisor.worker_not_started", number=self.number, reason=why)
            self._pause()

    def _replace(self, old: WorkerProcess) -> None:
        why = self._bring_up(old)
        if why is not None:
            log.error("supervisor.restart_refused", number=self.number, reason=why)
        self._answer(why)

    def _answer(self, why: str | None) -> None:
        waiting, self._replacing = self._replacing, None
        if waiting is not None:
            waiting.set(why)

    def _bring_up(self, old: WorkerProcess | None) -> str | None:
        """Start a process, in place of an old one if there is one.

        Returns:
            None when it serves; otherwise why not. As long as it has not loaded what it is
            to serve, the old one goes on.
        """
        settings, self._wanted = self._wanted or self._settings, None
        try:
            new = self.successor = self.spawn(settings)
        except OSError as error:
            return f"no process can be started: {error.strerror}"
        try:
            if not new.wait(State.LOADED):
                return _why(new)
            if self._stopping:
                return "all workers stop"
            if old is not None:
                self._let_go(old)
            else:
                self._count_restart("died")
            self.process = new
        finally:
            self.successor = None
        if self._stopping:
            return "all workers stop"
        new.say("recover")
        if new.wait(State.RECOVERED) and not self._stopping:
            self.serve(new)
            if new.wait(State.SERVING):
                self.stand_in(False)
                self._settings = settings
                return None
        return "all workers stop" if self._stopping else _why(new)

    def _let_go(self, old: WorkerProcess) -> None:
        """Have a process leave, and wait for its end."""
        asked = old.state != State.ENDED
        old.say("leave")
        settings = self._settings
        if not asked:
            _log_death(old)
        elif not old.wait_end(
            settings.drain_timeout_seconds + settings.handler_setup_timeout_seconds + END_SECONDS
        ):
            log.error("supervisor.worker_killed", number=self.number, pid=old.pid)
            old.kill()
            old.wait(State.ENDED)
        self._ended(old)
        self._count_restart("asked" if asked else "died")

    def _count_restart(self, cause: str) -> None:
        self._metrics.worker_restarts.cell(str(self.number), cause).value += 1


def _log_death(process: WorkerProcess) -> float:
    """Say that a process has died; returns for how many seconds it had served."""
    served = round(monotonic() - process.serving_since, 3) if process.serving_since else 0.0
    log.error(
        "supervisor.worker_died",
        number=process.number,
        pid=process.pid,
        reason=_why(process),
        served_seconds=served,
    )
    return served


def _why(process: WorkerProcess) -> str:
    return process.failure.message if process.failure else process.how_it_ended()
