"""The process around a service: logs, lock, start, and what is said at start and end.

`run` is all of it for one process. Workers and their supervisor use the same steps. This
module must not know how requests are served.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import gevent
from gevent.hub import get_hub

from ingest import logs, machine
from ingest.banner import Facts, banner, facts_of, summary
from ingest.exits import ExitCode
from ingest.handlers import loader
from ingest.journal import DataDirectoryLocked, DirectoryLock
from ingest.journal.committer import log_recovery
from ingest.journal.leftover import settle
from ingest.journal.storage import Storage
from ingest.metrics import Metrics
from ingest.pipeline_dedupe import workers_conflict
from ingest.registry import Registry
from ingest.server import BIND_HINTS, listen
from ingest.service import ALONE, Part, Service
from ingest.settings import Settings

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


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, all in this process.

    Returns:
        the process's exit code.

    Raises:
        RegistryError, HandlersError, LogConfigError: what is to be loaded cannot be used.
    """
    metrics = Metrics()
    writer = prepare(settings, metrics, 0)
    try:
        raise_descriptor_limit(settings)
        with locked(settings):
            return _serve(settings, metrics, writer)
    except Refused as refused:
        return fail(str(refused), refused.code)
    finally:
        writer.stop(LOG_STOP_SECONDS)


def prepare(settings: Settings, metrics: Metrics, worker: int | None) -> logs.LogWriter:
    """Set logging up, and what reports errors that nobody expected.

    Args:
        worker: number of the worker in log lines; None for the supervisor.

    Returns:
        the way out for log lines; stop it last of all.
    """
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
def locked(settings: Settings) -> Iterator[DirectoryLock]:
    """Hold the data directory, and put those of its partitions in order that nobody writes.

    Raises:
        Refused: another process holds it, or it cannot be used.
    """
    data = Path(settings.data)
    lock = DirectoryLock(data)
    try:
        lock.acquire()
    except DataDirectoryLocked as error:
        raise Refused(str(error), ExitCode.DATA_LOCKED) from None
    except OSError as error:
        message = f"data directory {settings.data}: {error.strerror}"
        raise Refused(message, ExitCode.DATA_UNUSABLE) from error
    try:
        _settle_leftovers(settings)
        yield lock
    finally:
        lock.release()


def _settle_leftovers(settings: Settings) -> None:
    for name in ("journal", "rejected"):
        try:
            found = settle(Storage(), Path(settings.data) / name, settings.workers)
        except OSError as error:
            raise _unusable(settings, error) from error
        for number, report in found:
            log_recovery(number, report)


def _unusable(settings: Settings, error: OSError) -> Refused:
    where = error.filename or settings.data
    return Refused(f"journal: {where}: {error.strerror}", ExitCode.DATA_UNUSABLE)


def assemble(
    settings: Settings, metrics: Metrics, writer: logs.LogWriter, part: Part
) -> tuple[Service, Facts]:
    """Load schemas and handlers, construct the service and recover its journal; blocks.

    Raises:
        RegistryError, HandlersError: they cannot be used.
        Refused: the journal cannot be, or the settings do not go with the types.
    """
    registry = Registry.load(Path(settings.schemas))
    if part.number == 0:
        for warning in registry.warnings:
            log.warning("registry.warning", **warning._asdict())
    conflict = workers_conflict(settings.workers, registry.types.values())
    if conflict is not None:
        raise Refused(conflict, ExitCode.USAGE)
    handlers = loader.load(Path(settings.handlers), set(registry.types))
    access = (
        logs.AccessLog(settings.access_log, settings.access_log_sample, writer)
        if settings.access_log != "off"
        else None
    )
    service = Service(settings, registry, handlers, metrics, access, part)
    try:
        recovery = service.open()
    except OSError as error:
        raise _unusable(settings, error) from error
    return service, facts_of(registry, handlers, recovery.next_offset)


def unable_to_listen(settings: Settings, error: OSError) -> Refused:
    """What is said when the address cannot be listened on."""
    hint = BIND_HINTS.get(error.errno or 0, "")
    reason = f"{error.strerror}; {hint}" if hint else error.strerror
    return Refused(f"cannot listen on {settings.bind}: {reason}", ExitCode.BIND_FAILED)


def _serve(settings: Settings, metrics: Metrics, writer: logs.LogWriter) -> int:
    service, facts = assemble(settings, metrics, writer, ALONE)
    try:
        listener = listen(*split_address(settings.bind), settings.backlog)
    except OSError as error:
        raise unable_to_listen(settings, error) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, service.request_stop)
    service.start(listener)
    address = listener.getsockname()
    print(banner(settings, facts, address), flush=True)  # noqa: T201
    log.info("service.started", address=f"{address[0]}:{address[1]}", types=facts.types)
    service.wait()
    cut = service.stop()
    counted = summary(metrics.read()["requests"])
    log.info("service.stopped", **counted, connections_cut=cut, lost=service.pool.in_use)
    return ExitCode.DRAIN_INCOMPLETE if cut else ExitCode.OK


def fail(message: str, code: ExitCode) -> int:
    """Tell the operator why the process ends; returns the code."""
    print(f"ingest: {message}", file=sys.stderr, flush=True)  # noqa: T201
    return code


def split_address(bind: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; settings have checked the form already."""
    parts = urlsplit(f"//{bind}")
    return parts.hostname or "", parts.port or 0
