"""The supervisor becomes what the code is now, while its workers go on serving.

    old supervisor                          new supervisor, the same process
    links quiet, nothing half sent ─ exec ─▶ takes links, sockets and lock over, then
                                             replaces the workers one by one

Workers notice nothing of it until they are told to leave. Links stay at a place between two
messages in the one direction, and what was received of a message in the other goes along. This
module must not know schemas, handlers or the journal's files.
"""

from __future__ import annotations

import os
import signal
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import gevent
import orjson

from ingest import logs
from ingest.handover import ADMIN, LOCK, MAIN, StartAnew, kept_sockets
from ingest.supervisor_process import State, WorkerProcess
from ingest.supervisor_slot import Slot

log = logs.get_logger(__name__)

#: Holds what is known of the workers across the exec.
VARIABLE = "_INGEST_WORKERS"
#: A worker that takes no messages for so long does not get what it has not taken.
QUIET_SECONDS = 5.0
LOOK_SECONDS = 0.01


def settled(slots: Sequence[Slot], seconds: float) -> bool:
    """Wait until no worker is on its way in or out, and look after them no more.

    Returns:
        whether it came to that in time; otherwise all goes on as before.
    """
    deadline = monotonic() + seconds
    while not all(slot.settled for slot in slots):
        if monotonic() >= deadline:
            return False
        gevent.sleep(LOOK_SECONDS)
    for slot in slots:
        slot.rest()
    return True


def silenced(slots: Sequence[Slot]) -> bool:
    """Wait until all have been told what they were to be told; always True."""
    deadline = monotonic() + QUIET_SECONDS
    processes = [slot.process for slot in slots if slot.process is not None]
    while not all(process.quiet for process in processes) and monotonic() < deadline:
        gevent.sleep(LOOK_SECONDS)
    return True


def leave(
    slots: Sequence[Slot],
    admin: socket.socket | None,
    lock: int,
    paused: bool,
    ended: Callable[[], bool],
) -> StartAnew:
    """Let go of everything so that the process can become a new one; to be raised at once.

    Args:
        slots: settled, and silenced.
        admin: the socket for operators.
        lock: descriptor of the data directory's lock.
        paused: whether the consumers are.
        ended: whether the end was asked for meanwhile.
    """
    processes = [slot.process for slot in slots if slot.process is not None]
    serving = [process for process in processes if process.state == State.SERVING]
    kept = kept_sockets((MAIN, slot.listener.socket) for slot in slots if slot.listener is not None)
    kept += [*kept_sockets([(ADMIN, admin)]), (LOCK, os.dup(lock))]
    workers: list[dict[str, Any]] = []
    for process in serving:
        descriptor, received = process.let_go()
        kept.append((_name(process.number), descriptor))
        workers.append({
            "number": process.number, "pid": process.pid, "facts": process.facts,
            "received": b64encode(received).decode(),
        })  # fmt: skip
    state = orjson.dumps({"workers": workers, "paused": paused}).decode()
    return StartAnew(kept, {VARIABLE: state}, ended)


def _name(number: int) -> str:
    return f"worker{number}"


class Predecessor:
    """What the supervisor before has left; there may have been none."""

    def __init__(self, descriptor: Callable[[str], int | None]) -> None:
        """Take it out of the environment.

        Args:
            descriptor: gives those that were kept, by name.
        """
        state = orjson.loads(os.environ.pop(VARIABLE, "null"))
        self.there = state is not None
        self.paused: bool = self.there and state["paused"]
        self._workers: list[dict[str, Any]] = state["workers"] if self.there else []
        self._descriptor = descriptor

    def workers(self, hear: Callable[[WorkerProcess, Any], None]) -> list[WorkerProcess]:
        """Its workers, which serve.

        Args:
            hear: as for `WorkerProcess`.
        """
        found = []
        for told in self._workers:
            descriptor = self._descriptor(_name(told["number"]))
            if descriptor is None:
                continue  # it shuts down by itself when nobody has its link
            process = WorkerProcess(told["number"], hear)
            process.facts = told["facts"]
            try:
                process.take_over(told["pid"], descriptor, b64decode(told["received"]))
            except OSError as error:
                log.error("supervisor.worker_lost", number=process.number, reason=str(error))
            else:
                found.append(process)
        gevent.sleep(0)  # so that all are watched before what has happened is looked at
        os.kill(os.getpid(), signal.SIGCHLD)
        return found
