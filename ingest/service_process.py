"""The process around a service: logs, lock, start, and what is said at start and end.

The steps, which a single process (`service_single`), workers and their supervisor have in common.
This module must not know how requests are served.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent
from gevent.hub import get_hub

from ingest import handover, logs, machine, patching, systemd
from ingest.access.exposure import exposed
from ingest.banner import Facts, facts_of
from ingest.exits import ExitCode
from ingest.handlers import loader
from ingest.journal import DataDirectoryLocked, DirectoryLock
from ingest.journal.committer import log_recovery
from ingest.journal.leftover import settle
from ingest.journal.storage import Storage
from ingest.metrics import Metrics
from ingest.pipeline_dedupe import workers_conflict
from ingest.registry import Registry, RegistryError
from ingest.server import BIND_HINTS, listen
from ingest.service import Part, Service
from ingest.settings import Settings
from ingest.sinks import routing
from ingest.sinks.kafka_settings import KafkaUnusable

log = logs.get_logger(__name__)

#: Log lines that have not been written by then are lost.
LOG_STOP_SECONDS = 5.0


class Refused(Exception):
    """Serving cannot begin.

    Args:
        message: why, for the operator.
        code: what the process ends with.
    """

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def heed_no_signals_yet() -> None:
    """Do not be killed by what is meant for a service that serves; a start may take long."""
    for number in handover.TELLING:
        gevent.signal_handler(number, lambda: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handover.TELLING)


def prepare(settings: Settings, metrics: Metrics, worker: int | None) -> logs.LogWriter:
    """Set logging up, and what reports errors that nobody expected.

    Args:
        worker: number of the worker in log lines; None for the supervisor.

    Returns:
        the way out for log lines; stop it last of all.
    """
    try:
        patching.require()
    except patching.NotPatched as error:
        raise SystemExit(f"ingest: {error}") from None
    backend = get_hub().loop.backend
    if backend != "epoll":
        raise SystemExit(f"ingest needs libev's epoll backend, this is {backend!r}")
    log_config = Path(settings.log_config)
    writer = logs.configure(
        log_config if log_config.exists() else None,
        worker=worker,
        queue_max=settings.log_queue_max,
        metrics=metrics,
    )
    for module, names in patching.too_late().items():
        log.warning("patching.too_late", module=module, names=names)
    logs.install_hub_error_handler(get_hub(), metrics)
    logs.install_thread_error_handlers(metrics)
    return writer


def raise_descriptor_limit(settings: Settings) -> None:
    """Raise the limit on descriptors as far as it goes, and say if that is not enough."""
    limit = machine.raise_descriptor_limit()
    log.info("service.descriptors", limit=limit.now, before=limit.before)
    shortage = limit.shortage(settings.connections_max)
    if shortage is not None:
        log.warning("service.descriptors_few", reason=shortage)


@contextmanager
def locked(settings: Settings, inherited: int | None = None) -> Iterator[DirectoryLock]:
    """Hold the data directory, and put those of its partitions in order that nobody writes.

    Args:
        inherited: its lock, of the process that became this one.

    Raises:
        Refused: another process holds it, or it cannot be used.
    """
    data = Path(settings.data)
    lock = DirectoryLock(data)
    try:
        lock.acquire(inherited)
    except DataDirectoryLocked as error:
        raise Refused(str(error), ExitCode.DATA_LOCKED) from None
    except OSError as error:
        message = f"data directory {settings.data}: {error.strerror}"
        raise Refused(message, ExitCode.DATA_UNUSABLE) from error
    try:
        if lock.readable_by_all():
            log.warning("service.data_readable_by_all", path=settings.data, remedy="chmod o-rwx")
        _settle_leftovers(settings)
        yield lock
    finally:
        lock.release()


def _settle_leftovers(settings: Settings) -> None:
    for name in ("journal", "rejected", "dead"):
        try:
            found = settle(Storage(), Path(settings.data) / name, settings.workers)
        except OSError as error:
            raise _unusable(settings, error) from error
        for number, report in found:
            log_recovery(number, report)


def _unusable(settings: Settings, error: OSError) -> Refused:
    where = error.filename or settings.data
    return Refused(f"journal: {where}: {error.strerror}", ExitCode.DATA_UNUSABLE)


class Assembled(NamedTuple):
    """A service that can be started once its journal is recovered.

    Attributes:
        service: its handlers are set up.
        registry: the types it was made of.
        handlers: the handlers it was made of.
    """

    service: Service
    registry: Registry
    handlers: Mapping[str, loader.Handler]

    def recover(self) -> Facts:
        """Recover the journal; blocks.

        Raises:
            Refused: it cannot be used.
        """
        try:
            found = self.service.recover()
        except OSError as error:
            raise _unusable(self.service.settings, error) from error
        return facts_of(self.registry, self.handlers, found.next_offset)


def assemble(settings: Settings, metrics: Metrics, writer: logs.LogWriter, part: Part) -> Assembled:
    """Load schemas and handlers, construct the service and set the handlers up; blocks.

    Nothing of it touches the journal, which another process may still write.

    Raises:
        RegistryError, HandlersError: they cannot be used.
        Refused: the settings do not go with the types.
    """
    registry = Registry.load(Path(settings.schemas))
    if part.number == 0:
        for warning in registry.warnings:
            log.warning("registry.warning", **warning._asdict())
    conflict = workers_conflict(settings.workers, registry.types.values())
    if conflict is not None:
        raise Refused(conflict, ExitCode.USAGE)
    handlers = loader.load(Path(settings.handlers), set(registry.types))
    consumed = {name for name, handler in handlers.items() if handler.consume is not None}
    conflicts = routing.conflicts(registry.types.values(), settings, consumed)
    if conflicts:
        raise RegistryError(conflicts)
    access = (
        logs.AccessLog(
            settings.access_log, settings.access_log_sample, writer, settings.access_log_format
        )
        if settings.access_log != "off"
        else None
    )
    try:
        service = Service(settings, registry, handlers, metrics, access, part)
    except KafkaUnusable as error:
        raise Refused(str(error), ExitCode.USAGE) from None
    service.setup()
    return Assembled(service, registry, handlers)


def sockets_of_systemd(settings: Settings) -> dict[str, socket.socket]:
    """Listening sockets that systemd has opened, by name.

    Raises:
        Refused: they cannot be used.
    """
    try:
        given = systemd.sockets()
    except systemd.SocketsUnusable as error:
        raise Refused(str(error), ExitCode.BIND_FAILED) from None
    if systemd.ADMIN in given and settings.admin_bind == "off":
        reason = "systemd hands over a socket for operators, but admin_bind is off"
        raise Refused(reason, ExitCode.USAGE)
    return given


def listen_for_clients(settings: Settings) -> socket.socket:
    """Open the listener that `bind` names.

    Raises:
        Refused: it cannot be listened on.
    """
    try:
        return listen(*split_address(settings.bind), settings.backlog)
    except OSError as error:
        raise unable_to_listen(settings.bind, error) from error


def listen_for_operators(settings: Settings) -> socket.socket | None:
    """Open the listener that `admin_bind` names, if it does.

    Raises:
        Refused: it cannot be listened on.
    """
    if settings.admin_bind == "off":
        return None
    try:
        return listen(*split_address(settings.admin_bind), settings.admin_connections_max)
    except OSError as error:
        raise unable_to_listen(settings.admin_bind, error) from error


def unable_to_listen(bind: str, error: OSError) -> Refused:
    """What is said when an address cannot be listened on."""
    hint = BIND_HINTS.get(error.errno or 0, "")
    reason = f"{error.strerror}; {hint}" if hint else error.strerror
    return Refused(f"cannot listen on {bind}: {reason}", ExitCode.BIND_FAILED)


def warn_of_exposure(settings: Settings, address: Any) -> None:
    """Log what the banner says, for those who see only the log."""
    warning = exposed(address[0], settings)
    if warning is not None:
        log.warning("access.exposed", reason=warning)


def watched(settings: Settings) -> list[Path]:
    """What this process was made of, beside its own code."""
    names = (settings.handlers, settings.schemas, settings.config, settings.log_config)
    return [Path(name) for name in names]


def fail(message: str, code: ExitCode) -> int:
    """Tell the operator why the process ends; returns the code."""
    print(f"ingest: {message}", file=sys.stderr, flush=True)  # noqa: T201
    return code


def split_address(bind: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; settings have checked the form already."""
    parts = urlsplit(f"//{bind}")
    return parts.hostname or "", parts.port or 0
