"""A service that is the only one of its process: started, told by signals, ended or handed over.

    SIGTERM, SIGINT   stop; once more: cut short what is waited for
    SIGHUP            reload in place
    SIGUSR1           pause the consumers, or let them go on
    SIGUSR2           become what the code is now

This module must not know how requests are served.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import gevent

from ingest import consumers, handover, logs, systemd
from ingest.banner import banner, summary
from ingest.exits import ExitCode
from ingest.handlers.reload import Reloader
from ingest.handover import ADMIN, LOCK, MAIN, HandOver, Inherited, StartAnew, kept_sockets
from ingest.journal import DirectoryLock
from ingest.metrics import Metrics
from ingest.reloading import Reloads
from ingest.service import ALONE, Service
from ingest.service_process import (
    LOG_STOP_SECONDS,
    Refused,
    assemble,
    fail,
    heed_no_signals_yet,
    listen_for_clients,
    listen_for_operators,
    locked,
    prepare,
    raise_descriptor_limit,
    sockets_of_systemd,
    warn_of_exposure,
    watched,
)
from ingest.settings import Reread, Settings

log = logs.get_logger(__name__)

#: How long clients are told to leave, while they are still accepted, before a hand-over.
LEAVE_SECONDS = 1.0


def run(settings: Settings, reread: Reread) -> int:
    """Serve until SIGTERM or SIGINT, all in this process.

    Args:
        reread: reads the settings anew, for a reload.

    Returns:
        the process's exit code.

    Raises:
        RegistryError, HandlersError, LogConfigError: what is to be loaded cannot be used.
        StartAnew: the process is to become a new one.
    """
    metrics = Metrics()
    heed_no_signals_yet()
    handed = Inherited()
    if handed.end_asked or signal.sigpending() & set(handover.ENDING):
        return ExitCode.OK
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handover.ENDING)
    writer = prepare(settings, metrics, 0)
    try:
        raise_descriptor_limit(settings)
        with locked(settings, handed.lock) as lock:
            return _Single(settings, metrics, reread, lock, handed).run(writer)
    except Refused as refused:
        return fail(str(refused), refused.code)
    finally:
        writer.stop(LOG_STOP_SECONDS)


class _Single:
    """The service of this process.

    Args:
        settings: resolved settings.
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
        self._reread = reread
        self._lock = lock
        self._handed = handed
        #: made before anything is loaded: what changes meanwhile is seen
        self._reloader = Reloader(watched(settings))
        self._hand_over = HandOver(Settings(**vars(settings)), reread, metrics)
        self._notifier = systemd.Notifier()
        #: the end was asked for
        self._stopping = False
        self._service: Service
        self._listener: socket.socket
        self._admin: socket.socket | None

    def run(self, writer: logs.LogWriter) -> int:
        """Start, serve, stop.

        Returns:
            the exit code.

        Raises:
            as for the function `run`.
        """
        settings = self._settings
        assembled = assemble(settings, self._metrics, writer, ALONE)
        service, facts = assembled.service, assembled.recover()
        self._service = service
        reloads = Reloads(service, assembled.handlers, self._reread)
        service.operations.reloads = reloads
        service.operations.consumers = consumers.Here()
        self._listen()
        self._heed_signals(reloads)
        address = self._listener.getsockname()
        operators = self._admin.getsockname() if self._admin is not None else None
        service.start(self._listener, self._admin)
        self._keep_paused()
        print(banner(settings, facts, address, operators), flush=True)  # noqa: T201
        warn_of_exposure(settings, address)
        log.info("service.started", address=f"{address[0]}:{address[1]}", types=facts.types)
        if settings.reload == "on":
            self._reloader.start(service.request_stop)
        self._hand_over.start(service.request_stop)
        self._notifier.ready(
            f"serves {address[0]}:{address[1]}",
            lambda: service.health.probe("live", False, None)[0] == 200,
        )
        reloading = gevent.spawn(reloads.run, self._notifier.reloading)
        service.wait()
        reloading.kill()
        return self._end()

    def _listen(self) -> None:
        """Have the sockets: those of the process before, systemd's, or new ones.

        Raises:
            Refused: there can be none.
        """
        given = {name: [sock] for name, sock in sockets_of_systemd(self._settings).items()}
        main, admin = (self._handed.sockets(name) or given.get(name) for name in (MAIN, ADMIN))
        self._listener = main[0] if main else listen_for_clients(self._settings)
        self._admin = admin[0] if admin else listen_for_operators(self._settings)

    def _heed_signals(self, reloads: Reloads) -> None:
        heeded: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: reloads.ask,
            signal.SIGUSR1: lambda: consumers.toggle(by="signal"),
            signal.SIGUSR2: self._hand_over.ask,
        }
        for number, function in heeded.items():
            gevent.signal_handler(number, function)

    def _stop(self) -> None:
        self._reloader.cancel()
        self._hand_over.cancel()
        if self._stopping:
            self._service.hurry()
        self._stopping = True
        self._service.request_stop()

    def _keep_paused(self) -> None:
        """Consumers that were paused before a hand-over stay so; none has begun yet."""
        for name in self._handed.paused:
            try:
                consumers.pause(name, by="hand-over")
            except LookupError:
                log.info("consumer.gone", type=name)

    def _wanted(self) -> bool:
        """Whether the process is to become a new one."""
        return self._reloader.wanted or self._hand_over.wanted

    def _end(self) -> int:
        """Stop the service; raises `StartAnew` where that is not the process's end."""
        service, anew = self._service, self._wanted()
        kept: list[tuple[str, int]] = []
        if anew:
            self._notifier.reload_begins()
            kept = kept_sockets([(MAIN, self._listener), (ADMIN, self._admin)])
            paused = ",".join(consumers.paused())
        else:
            self._notifier.stopping()
        if self._hand_over.wanted:
            service.leave(LEAVE_SECONDS)
        cut = service.stop(restart=self._wanted())
        counted = summary(self._metrics.read_counted()["requests"])
        log.info("service.stopped", **counted, connections_cut=cut, lost=service.pool.in_use)
        if self._wanted():
            kept.append((LOCK, os.dup(self._lock.descriptor)))
            raise StartAnew(kept, {handover.PAUSED_VARIABLE: paused}, lambda: not self._wanted())
        return ExitCode.DRAIN_INCOMPLETE if cut else ExitCode.OK
