"""Several workers as one service: starts them, stops them, and answers for all of them.

    supervisor ── lock of the data directory, listening sockets, signals
        ├── worker 0 ── partition 0
        ├── worker 1 ── partition 1
        …

It serves no request itself. Reading order: this file, `supervisor_slot.py` (one worker's
life), `supervisor_process.py` (one process), `worker.py` (the other end). This module must not
know schemas, handlers or the journal's files.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.event import Event

from ingest import logs, machine, systemd
from ingest.banner import Facts, banner
from ingest.errors import IngestError
from ingest.exits import ExitCode
from ingest.handover import ADMIN, ENDING, MAIN, HandOver, Inherited, StartAnew
from ingest.journal import DirectoryLock
from ingest.link import Message
from ingest.metrics import Metrics
from ingest.service_process import (
    LOG_STOP_SECONDS,
    Refused,
    fail,
    heed_no_signals_yet,
    listen_for_operators,
    locked,
    prepare,
    raise_descriptor_limit,
    sockets_of_systemd,
    split_address,
    unable_to_listen,
    warn_of_exposure,
)
from ingest.settings import Reread, Settings
from ingest.supervisor_ending import give_up, refusal, stop_all
from ingest.supervisor_handover import Predecessor, leave, settled, silenced
from ingest.supervisor_listeners import Listener, open_listeners
from ingest.supervisor_metrics import Gathering
from ingest.supervisor_process import State, WorkerProcess
from ingest.supervisor_rolling import Rolling
from ingest.supervisor_slot import Slot

log = logs.get_logger(__name__)

#: How often it is looked whether a worker has fallen silent.
LOOK_SECONDS = 0.5


def run(settings: Settings, reread: Reread) -> int:
    """Serve with several workers until SIGTERM or SIGINT.

    Args:
        reread: reads the settings anew, for a reload.

    Returns:
        the process's exit code, the worst of all workers'.

    Raises:
        LogConfigError: the logging configuration cannot be used.
    """
    metrics = Metrics()
    heed_no_signals_yet()
    handed = Inherited()
    writer = prepare(settings, metrics, None)
    try:
        missing = machine.cores_missing(settings.cpu_affinity)
        if missing:
            raise Refused(
                f"cpu_affinity names cores that this process may not use: "
                f"{', '.join(map(str, missing))}; it may use "
                f"{', '.join(map(str, machine.usable_cores()))}",
                ExitCode.USAGE,
            )
        raise_descriptor_limit(settings)
        with locked(settings, handed.lock) as lock:
            return Supervisor(settings, metrics, reread, lock, handed).run()
    except Refused as refused:
        return fail(str(refused), refused.code)
    finally:
        writer.stop(LOG_STOP_SECONDS)


class Supervisor:
    """The supervisor of this process.

    Args:
        settings: resolved settings, with two workers or more.
        metrics: its own.
        reread: as for `run`.
        lock: held, on the data directory.
        handed: what the process had before.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        reread: Reread,
        lock: DirectoryLock,
        handed: Inherited,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = lock
        self._handed = handed
        self._predecessor = Predecessor(handed.descriptor)
        self._handing_over = HandOver(settings, reread, metrics)
        self._slots = [
            Slot(
                settings,
                number,
                metrics,
                lambda: os.dup(lock.descriptor),
                self._heard,
                self._worker_ended,
            )
            for number in range(settings.workers)
        ]
        self._gathering = Gathering(metrics, settings.workers, self._current)
        #: for operators; all workers accept from it, so none is missed when one is gone
        self._admin: socket.socket | None = None
        self._next = 0
        self._stopping = False
        #: the end was asked for, or a hand-over
        self._stop_asked = Event()
        self._end_asked = False
        self._paused = False
        self._notifier = systemd.Notifier()
        self._rolling = Rolling(
            settings, reread, self._slots, metrics, self._notifier.reloads_or_serves
        )

    def run(self) -> int:
        """Start the workers, see to them, stop them.

        Returns:
            the exit code.

        Raises:
            Refused: a worker cannot serve, or the address cannot be listened on.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._ask_to_stop)
        gevent.signal_handler(signal.SIGHUP, self._rolling.ask)
        gevent.signal_handler(signal.SIGUSR1, lambda: self._switch(not self._paused))
        gevent.signal_handler(signal.SIGUSR2, self._handing_over.ask)
        if self._handed.end_asked:
            self._ask_to_stop()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            if not (self._take_over() if self._predecessor.there else self._start()):
                return self._stop()
            helpers = [
                gevent.spawn(step) for step in (self._rolling.heed, self._rolling.roll, self._look)
            ]
            notifier = self._notifier
            notifier.ready(f"serves with {len(self._slots)} workers", lambda: bool(self._takers()))
            self._handing_over.start(self._stop_asked.set)
            self._stop_asked.wait()
            while self._handing_over.wanted:
                self._stop_asked.clear()
                self._become_new()
                self._stop_asked.wait()
            notifier.stopping()
            gevent.killall(helpers)
            return self._stop()
        except StartAnew:
            raise
        except BaseException:
            self._give_up()
            raise

    # -- start -----------------------------------------------------------------------------

    def _start(self) -> bool:
        """Bring all workers up; False: a shutdown was asked for meanwhile.

        Raises:
            Refused: one of them cannot.
        """
        try:
            processes = [slot.begin() for slot in self._slots]
        except OSError as error:
            reason = f"no worker can be started: {error.strerror}"
            raise Refused(reason, ExitCode.WORKER_FAILED) from error
        if not self._all_reach(processes, State.LOADED):
            return False
        for process in processes:
            process.say("recover")
        if not self._all_reach(processes, State.RECOVERED):
            return False
        address = self._listen()
        for slot, process in zip(self._slots, processes, strict=True):
            slot.serve(process)
        if not self._all_reach(processes, State.SERVING):
            return False
        for slot in self._slots:
            slot.live()
        self._announce(processes, address)
        return True

    def _take_over(self) -> bool:
        """Have the workers of the supervisor before, which are then replaced; always True."""
        address = self._listen()
        self._switch(self._predecessor.paused)
        processes = self._predecessor.workers(self._heard)
        for process in processes:
            self._slots[process.number].process = process
        for slot in self._slots:
            slot.live()
        if processes:
            self._announce(processes, address)
        self._rolling.begin()
        return True

    def _become_new(self) -> None:
        """Raise `StartAnew`; return where the end was asked for, or it cannot be done now."""
        self._rolling.hold()
        self._notifier.reload_begins()
        if not settled(self._slots, self._settings.drain_timeout_seconds):
            self._handing_over.refuse("a worker is on its way in or out for too long")
            self._notifier.reloads_or_serves(False)
            self._rolling.go_on()
        elif self._handing_over.wanted and silenced(self._slots) and self._handing_over.wanted:
            log.info("supervisor.becomes_new")
            raise leave(
                self._slots,
                self._admin,
                self._lock.descriptor,
                self._paused,
                lambda: self._end_asked,
            )

    def _all_reach(self, processes: list[WorkerProcess], state: State) -> bool:
        """Wait until all have come so far; False: a shutdown was asked for."""
        for process in processes:
            if not process.wait(state) and not self._stop_asked.is_set():
                raise refusal(process)
        return not self._stop_asked.is_set()

    def _listen(self) -> Any:
        """Open the listening sockets; returns their address."""
        settings = self._settings
        host, port = split_address(settings.bind)
        given = sockets_of_systemd(settings)
        try:
            handed = self._handed.sockets(MAIN)
            if handed:
                sockets = handed
            elif systemd.MAIN in given:  # all workers accept from the one that there is
                sockets = [given[systemd.MAIN].dup() for _ in self._slots]
            else:
                sockets = open_listeners(host, port, settings.backlog, settings.workers)
        except OSError as error:
            raise unable_to_listen(settings.bind, error) from error
        admin = next(iter(self._handed.sockets(ADMIN)), None) or given.get(systemd.ADMIN)
        self._admin = admin or listen_for_operators(settings)
        for slot, sock in zip(self._slots, sockets, strict=True):
            slot.listener = Listener(sock, self._hand_over, lambda: bool(self._takers()))
            slot.admin = self._admin
        return sockets[0].getsockname()

    def _announce(self, processes: list[WorkerProcess], address: Any) -> None:
        records = sum(process.facts["records"] for process in processes)
        facts = Facts(**{**processes[0].facts, "records": records})
        operators = self._admin.getsockname() if self._admin is not None else None
        print(banner(self._settings, facts, address, operators), flush=True)  # noqa: T201
        warn_of_exposure(self._settings, address)
        log.info(
            "supervisor.started",
            address=f"{address[0]}:{address[1]}",
            workers=self._settings.workers,
            types=facts.types,
            pids=[process.pid for process in processes],
        )

    # -- what workers say ------------------------------------------------------------------

    def _heard(self, process: WorkerProcess, message: Message | None) -> None:
        slot = self._slots[process.number]
        slot.heard(process)
        if message is not None:
            if message.kind == "gather":
                gevent.spawn(self._gather, process, message)
            elif message.kind == "readings":
                self._gathering.heard(process, message)
            elif message.kind == "ended":
                self._gathering.last_words(process, message)
            elif message.kind == "asked" and not self._stopping:
                slot.replace()
            elif message.kind == "reload":
                gevent.spawn(self._reload, process, message)
            elif message.kind == "switch":
                self._switch(message.fields["pause"])
                process.say("answer", id=message.fields["id"])
        self._tell_others()

    def _worker_ended(self, process: WorkerProcess) -> None:
        self._gathering.ended(process)

    def _gather(self, process: WorkerProcess, message: Message) -> None:
        body, content_type = self._gathering.expose(message.fields["accept"])
        process.say("gathered", id=message.fields["id"], content_type=content_type, blob=body)

    def _tell_others(self) -> None:
        """Tell the workers how the others are, if that has changed."""
        reasons = [slot.reason() for slot in self._slots]
        now = (*reasons, self._stopping)
        for process in self._current():
            # One that does not take messages is told when it does again.
            if process.told != now and process.accepts_messages:
                process.told = now
                process.say("others", reasons=reasons, stopping=self._stopping)

    def _look(self) -> None:
        """Stand in for workers that have fallen silent, until they are heard again."""
        silent: set[Slot] = set()
        while True:
            gevent.sleep(LOOK_SECONDS)
            for slot in self._slots:
                process = slot.process
                if process is None or process.state != State.SERVING:
                    silent.discard(slot)
                elif process.silent and slot not in silent:
                    silent.add(slot)
                    log.error("supervisor.worker_silent", number=slot.number, pid=process.pid)
                    slot.stand_in(True)
                elif not process.silent and slot in silent:
                    silent.discard(slot)
                    log.info("supervisor.worker_heard_again", number=slot.number)
                    slot.stand_in(False)
            self._tell_others()

    # -- connections -----------------------------------------------------------------------

    def _current(self) -> list[WorkerProcess]:
        """The processes that have a partition."""
        return [
            slot.process
            for slot in self._slots
            if slot.process is not None and State.RECOVERED <= slot.process.state < State.ENDED
        ]

    def _takers(self) -> list[WorkerProcess]:
        """Workers that can be given connections, ready ones if there are."""
        serving = [
            process
            for process in self._current()
            if process.state == State.SERVING and not process.silent and process.accepts_messages
        ]
        return [process for process in serving if process.serves] or serving

    def _hand_over(self, descriptors: list[int]) -> bool:
        """Give connections to a worker, in turn."""
        takers = self._takers()
        if not takers:
            return False
        self._next += 1
        takers[self._next % len(takers)].say("adopt", descriptors=descriptors)
        self._metrics.worker_adopted.value += len(descriptors)
        return True

    # -- what operators ask for ------------------------------------------------------------

    def _reload(self, process: WorkerProcess, message: Message) -> None:
        """A worker was asked for a reload of all."""
        answer: dict[str, Any] = {"conflict": True}
        try:
            outcome = self._rolling.reload(message.fields["by"])
            answer = {"conflict": False, "outcome": outcome.document()}
        except IngestError:
            pass  # one is under way
        process.say("answer", id=message.fields["id"], **answer)

    def _switch(self, pause: bool) -> None:
        """Have all consumers pause, or go on, and those of workers that are started later."""
        self._paused = pause
        for slot in self._slots:
            slot.paused = pause
        self._tell_all("pause" if pause else "resume")

    # -- stop ------------------------------------------------------------------------------

    def _ask_to_stop(self) -> None:
        self._handing_over.cancel()
        if self._end_asked:
            self._tell_all("hurry")
        self._end_asked = True
        self._stop_asked.set()

    def _tell_all(self, kind: str) -> None:
        for process in self._processes():
            process.say(kind)

    def _processes(self) -> Iterator[WorkerProcess]:
        for slot in self._slots:
            yield from slot.processes()

    def _stop(self) -> int:
        """Shut all workers down; returns the exit code."""
        self._stopping = True
        processes = list(self._processes())
        log.info("supervisor.stopping", workers=len(processes))
        for slot in self._slots:
            slot.stop()
        self._tell_others()
        # From here on only the workers' own copies are there, which they empty and close.
        for slot in self._slots:
            if slot.listener is not None:
                slot.listener.close()
        if self._admin is not None:
            self._admin.close()
        code = stop_all(processes, self._settings)
        log.info("supervisor.stopped", exit_code=int(code))
        return code

    def _give_up(self) -> None:
        """End every process, because starting them has failed."""
        for slot in self._slots:
            slot.stop()
        give_up(list(self._processes()))
