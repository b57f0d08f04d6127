"""One of several workers: a whole gateway that does what its supervisor says.

    supervisor says            worker says
    begin (settings, lock)   → loaded (or failed)     schemas and handlers are loaded
    recover                  → recovered (or failed)  the journal's partition is its own
    serve (listening sockets) → serving
    others                                            how the others are, for /readyz
    read                     → readings               its metrics
    adopt (connections)                               of a worker that does not accept
    leave                    → closed, ended          make room for a successor
    stop                     → ended                  a shutdown of all
    hurry                                             cut what is being waited for
    answer                   ← reload, switch          what operators ask for
    pause, resume                                     its consumers
                               health, asked (SIGTERM), gather → gathered

When the link ends, the supervisor is gone, and the worker shuts down by itself. This module
must not know how workers are started, or when.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, NamedTuple

import gevent
from gevent.event import AsyncResult
from gevent.queue import SimpleQueue

from ingest import consumers, link, logs, machine
from ingest.banner import Facts, summary
from ingest.exits import ExitCode
from ingest.link import LinkBroken, Message
from ingest.metrics import Metrics
from ingest.metrics_wire import pack
from ingest.service import Part, Service
from ingest.service_process import LOG_STOP_SECONDS, Assembled, Refused, assemble, prepare
from ingest.settings import Settings
from ingest.worker_operations import BySupervisor

log = logs.get_logger(__name__)

#: Where a worker finds the descriptor of its link; whoever has it in its environment is one.
VARIABLE = "_INGEST_WORKER_LINK"
#: The supervisor has answered by then, or it is as good as gone.
GATHER_SECONDS = 5.0
#: How often a worker looks whether its health has changed, and says that it is alive.
HEALTH_SECONDS = 0.25
#: Signals that only the supervisor heeds; a terminal sends some to all of its processes.
NOT_OURS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

#: Tells in words, with an exit code, why what is loaded cannot be used; None: another error.
Explain = Callable[[Exception], "tuple[str, int] | None"]


class Begin(NamedTuple):
    """What a worker is told first."""

    settings: Settings
    number: int
    core: int | None


def begin_fields(begin: Begin) -> dict[str, Any]:
    """The fields of the message."""
    values = {name: getattr(begin.settings, name) for name in Settings.__dataclass_fields__}
    values["origins"] = dict(begin.settings.origins)
    return {"settings": values, "number": begin.number, "core": begin.core}


def run(descriptor: int, explain: Explain) -> int:
    """Be a worker until told to end.

    Args:
        descriptor: of the link, inherited.
        explain: puts into words what cannot be loaded.

    Returns:
        the process's exit code.
    """
    supervisor = link.inherited(descriptor)
    for number in NOT_OURS:
        gevent.signal_handler(number, lambda: None)
    message = supervisor.receive()
    if message is None:
        return ExitCode.WORKER_FAILED
    begin = Begin(
        Settings(**message.fields["settings"]), message.fields["number"], message.fields["core"]
    )
    # Copies of the lock are kept open and never used: the data directory is locked until the
    # last worker has ended, even when the supervisor was killed.
    return Worker(supervisor, begin, explain).run()


class Worker:
    """The worker of this process.

    Args:
        supervisor: the link to it.
        begin: what it said first.
        explain: as for `run`.
    """

    def __init__(self, supervisor: link.Link, begin: Begin, explain: Explain) -> None:
        self._link = supervisor
        self._begin = begin
        self._explain = explain
        self._metrics = Metrics()
        #: what is to be done next, in order; None: the supervisor is gone
        self._steps: SimpleQueue[Message | None] = SimpleQueue()
        self._questions = count()
        self._asked: dict[int, AsyncResult] = {}
        self._service: Service | None = None
        self._stopping = False

    def run(self) -> int:
        """As the function `run`."""
        gevent.signal_handler(signal.SIGTERM, self._ask_to_leave)
        gevent.signal_handler(signal.SIGUSR1, lambda: consumers.toggle(by="signal"))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, *NOT_OURS))
        if self._begin.core is not None:
            machine.keep_on(self._begin.core)
        writer: logs.LogWriter | None = None
        try:
            writer = prepare(self._begin.settings, self._metrics, self._begin.number)
            part = Part(self._begin.number, self._begin.settings.workers, self._gather)
            assembled = assemble(self._begin.settings, self._metrics, writer, part)
            return self._obey(assembled)
        except Exception as error:
            refusal = self._refusal(error)
            if refusal is None:
                raise
            message, code = refusal
            self._say("failed", message=message, code=code)
            return code
        finally:
            if writer is not None:
                writer.stop(LOG_STOP_SECONDS)

    def _refusal(self, error: Exception) -> tuple[str, int] | None:
        if isinstance(error, Refused):
            return str(error), error.code
        return self._explain(error)

    def _obey(self, assembled: Assembled) -> int:
        service = self._service = assembled.service
        service.operations.reloads = service.operations.consumers = BySupervisor(self._ask)
        gevent.spawn(self._listen)
        self._say("loaded")
        if not self._told("recover"):
            service.abandon()
            return ExitCode.OK
        facts = assembled.recover()
        self._say("recovered", **_as_fields(facts))
        step = self._steps.get()
        if step is None or step.kind != "serve":
            service.abandon()
            return ExitCode.OK
        service.start(*(socket.socket(fileno=descriptor) for descriptor in step.descriptors))
        if step.fields["paused"]:
            self._pause()  # none has begun yet
        log.info("worker.started", pid=os.getpid(), records=facts.records)
        self._say("serving")
        gevent.spawn(self._tell_health)
        step = self._steps.get()
        return self._end(service, restart=step is not None and step.kind == "leave")

    def _told(self, kind: str) -> bool:
        step = self._steps.get()
        return step is not None and step.kind == kind

    def _end(self, service: Service, restart: bool) -> int:
        self._stopping = True
        if restart and service.shared_health is not None:
            service.shared_health.leaving = True
        cut = service.stop(restart=restart, closed=lambda: self._say("closed"))
        readings = self._metrics.read_counted()
        counted = summary(readings["requests"])
        log.info("worker.stopped", **counted, connections_cut=cut, lost=service.pool.in_use)
        self._say("ended", blob=pack(readings))
        return ExitCode.DRAIN_INCOMPLETE if cut else ExitCode.OK

    # -- the link --------------------------------------------------------------------------

    def _say(self, kind: str, *, blob: bytes = b"", **fields: Any) -> None:
        try:
            self._link.send(kind, blob=blob, **fields)
        except LinkBroken:
            pass  # the supervisor is gone, which `_listen` notices

    def _listen(self) -> None:
        """Take messages until the supervisor is gone."""
        heeded: Mapping[str, Callable[[Message], None]] = {
            "others": self._others,
            "read": self._read,
            "gathered": self._answered,
            "answer": self._answered,
            "adopt": self._adopt,
            "hurry": lambda message: self._hurry(),
            "pause": lambda message: self._pause(),
            "resume": lambda message: self._resume(),
        }
        while True:
            try:
                message = self._link.receive()
            except LinkBroken as error:
                log.error("worker.link_broken", reason=str(error))
                message = None
            if message is None:
                break
            heeded.get(message.kind, self._steps.put)(message)
        if not self._stopping:
            log.error("worker.supervisor_gone")
        for waiting in self._asked.values():
            waiting.set(None)
        self._steps.put(None)

    def _ask_to_leave(self) -> None:
        self._say("asked")

    def _others(self, message: Message) -> None:
        assert self._service is not None
        if self._service.shared_health is not None:
            self._service.shared_health.learn(message.fields["reasons"], message.fields["stopping"])

    def _read(self, message: Message) -> None:
        # Not from here: the supervisor may be waiting for this greenlet to take a message.
        gevent.spawn(
            self._say, "readings", blob=pack(self._metrics.read()), id=message.fields["id"]
        )

    def _adopt(self, message: Message) -> None:
        assert self._service is not None
        for descriptor in message.descriptors:
            self._service.server.adopt(descriptor)

    def _hurry(self) -> None:
        assert self._service is not None
        self._service.hurry()

    def _pause(self) -> None:
        consumers.pause(by="signal")

    def _resume(self) -> None:
        consumers.resume(by="signal")

    def _tell_health(self) -> None:
        assert self._service is not None and self._service.shared_health is not None
        while True:
            self._say("health", reason=self._service.shared_health.why_not())
            gevent.sleep(HEALTH_SECONDS)

    # -- what is asked of the supervisor ---------------------------------------------------

    def _ask(self, kind: str, seconds: float, **fields: Any) -> Message | None:
        """Ask something and wait for the answer; None when there is none in time."""
        number = next(self._questions)
        answer = self._asked[number] = AsyncResult()
        try:
            self._link.send(kind, id=number, **fields)
            found: Message | None = answer.get(timeout=seconds)
        except (LinkBroken, gevent.Timeout):
            return None
        finally:
            del self._asked[number]
        return found

    def _gather(self, accept: str | None) -> tuple[bytes, str] | None:
        """The exposition of all workers; None when the supervisor does not answer."""
        answer = self._ask("gather", GATHER_SECONDS, accept=accept)
        return None if answer is None else (answer.blob, answer.fields["content_type"])

    def _answered(self, message: Message) -> None:
        waiting = self._asked.get(message.fields["id"])
        if waiting is not None:
            waiting.set(message)


def _as_fields(facts: Facts) -> dict[str, Any]:
    return facts._asdict()
