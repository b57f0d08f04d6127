"""The composition root: the only module that constructs, and the order of start and stop.

Everything else is given what it needs. Reading order for a newcomer: this file, then
`pipeline.py`, then `connection.py`.
"""

from __future__ import annotations

import gc
import shlex
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.event import Event
from gevent.hub import get_hub

from ingest import logs
from ingest.codec import dumps
from ingest.endpoints import Endpoints
from ingest.errors import IngestError
from ingest.exits import ExitCode
from ingest.handlers import loader
from ingest.health import Health, HubMonitor
from ingest.journal import DataDirectoryLocked, DirectoryLock, Journal
from ingest.metrics import Metrics
from ingest.pipeline import Pipeline
from ingest.pool import WorkPool
from ingest.registry import Registry
from ingest.responder import Responder
from ingest.routes import Router, Target, Ways
from ingest.server import BIND_HINTS, Server, listen
from ingest.settings import Settings
from ingest.version import __version__

log = logs.get_logger(__name__)

#: Net new objects between two collections of the youngest.
COLLECT_AFTER_OBJECTS = 10_000

#: How long an idle keep-alive connection is kept at shutdown: a request may be on its way.
IDLE_GRACE_SECONDS = 0.5


class Service:
    """One worker: everything from the listening socket to the journal.

    Args:
        settings: resolved settings.
        registry: the loaded event types.
        handlers: the loaded handlers by type.
        metrics: the worker's metrics.
        access: the access log, None when off.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        handlers: dict[str, loader.Handler],
        metrics: Metrics,
        access: logs.AccessLog | None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.health = Health(metrics)
        self.draining = False
        self.started = False
        self._stop_requested = Event()
        self.journal = Journal(
            Path(settings.data) / "journal",
            0,
            settings=settings,
            metrics=metrics,
            on_commit=self._on_commit,
        )
        self.responder = Responder(settings, metrics, self.journal.id_source, access)
        self.pipeline = Pipeline(settings, self.journal, self.responder, metrics)
        self.pool = WorkPool(
            settings.pool_size,
            settings.pool_residents,
            settings.pool_queue_max,
            self.pipeline.process,
            self.pipeline.failed,
            metrics,
        )
        self.pipeline.attach(self.pool)
        targets = {
            name: Target(
                event_type, handlers.get(name), settings.ack, settings.event_max_bytes, metrics
            )
            for name, event_type in registry.types.items()
        }
        endpoints = Endpoints(
            self.responder, self.health, metrics, registry, settings.compress_min_bytes
        )
        router = Router(
            registry,
            targets,
            Ways(
                self.pipeline.event,
                self.pipeline.batches.lines,
                self.pipeline.batches.array,
                self.pipeline.coded,
            ),
            self.pool.submit,
            self.pool.spawn,
            endpoints.table(),
            metrics,
        )
        self.server = Server(settings, metrics, self.pool, self.responder, router)
        self.hub_monitor = HubMonitor(metrics)
        self._add_checks(registry)

    def _on_commit(self, exchanges: list[Any], error: IngestError | None) -> None:
        self.pipeline.committed(exchanges, error)

    def _add_checks(self, registry: Registry) -> None:
        def drain() -> str | None:
            return "draining" if self.draining else None

        def started() -> str | None:
            return None if self.started else "starting"

        def types() -> str | None:
            return None if registry.types else "no event type is loaded"

        self.health.add("hub", {"live", "ready"}, self.hub_monitor.check)
        self.health.add("started", {"ready", "startup"}, started)
        self.health.add("registry", {"ready", "startup"}, types)
        self.health.add("journal", {"ready"}, self.journal.healthy)
        self.health.add("draining", {"ready"}, drain)
        self.metrics.ready.set_function(
            lambda: 1 if self.health.probe("ready", False, None)[0] == 200 else 0
        )
        self.metrics.info.cell(__version__).value = 1

    # -- start and stop --------------------------------------------------------------------

    def start(self, listener: Any) -> None:
        """Recover the journal, then serve; the socket is accepted from only at the end."""
        self.journal.start()
        self.pool.start()
        self.hub_monitor.start()
        # What lives as long as the process need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        # A turn of the loop may hold hundreds of requests at once: they are no garbage, and
        # looking at them each time 700 more have come is in vain. Cycles are rare here.
        gc.set_threshold(COLLECT_AFTER_OBJECTS)
        self.started = True
        self.server.start(listener)

    def request_stop(self) -> None:
        """Ask for a shutdown; returns at once (called from a signal handler)."""
        self._stop_requested.set()

    def wait(self) -> None:
        """Block until a shutdown is asked for."""
        self._stop_requested.wait()

    def stop(self) -> int:
        """Shut down without losing a request.

        The order: readiness off → (drain delay: still accepting, so that load
        balancers learn it) → take the backlog and stop accepting → answer what is in
        flight, with `Connection: close` → stop the pool → final commit → close.

        Returns:
            how many connections were cut with a request in flight.
        """
        settings = self.settings
        log.info("service.draining", connections=len(self.server.connections))
        self.draining = True
        gevent.sleep(settings.drain_delay_seconds)
        self.responder.draining = True
        self.server.stop_accepting()
        cut = self.server.drain(settings.drain_timeout_seconds, IDLE_GRACE_SECONDS)
        self.pool.stop(1.0)
        self.journal.close(settings.drain_timeout_seconds)
        self.server.stop()
        self.hub_monitor.stop()
        return cut


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit code."""
    backend = get_hub().loop.backend
    if backend != "epoll":
        raise SystemExit(f"ingest needs libev's epoll backend, this is {backend!r}")
    metrics = Metrics()
    log_config = Path(settings.log_config)
    writer = logs.configure(
        log_config if log_config.exists() else None,
        worker=0,
        queue_max=settings.log_queue_max,
        metrics=metrics,
    )
    logs.install_hub_error_handler(get_hub(), metrics)
    logs.install_thread_error_handlers(metrics)
    try:
        return _run(settings, metrics, writer)
    finally:
        writer.stop(5.0)


def _run(settings: Settings, metrics: Metrics, writer: logs.LogWriter) -> int:
    try:
        lock = DirectoryLock(Path(settings.data))
        lock.acquire()
    except DataDirectoryLocked as locked:
        return _fail(str(locked), ExitCode.DATA_LOCKED)
    except OSError as error:
        return _fail(f"data directory {settings.data}: {error.strerror}", ExitCode.DATA_UNUSABLE)
    try:
        return _serve(settings, metrics, writer)
    finally:
        lock.release()


def _serve(settings: Settings, metrics: Metrics, writer: logs.LogWriter) -> int:
    registry = Registry.load(Path(settings.schemas))
    for warning in registry.warnings:
        log.warning("registry.warning", **warning._asdict())
    handlers = loader.load(Path(settings.handlers), set(registry.types))
    access = (
        logs.AccessLog(settings.access_log, settings.access_log_sample, writer)
        if settings.access_log != "off"
        else None
    )
    service = Service(settings, registry, handlers, metrics, access)
    try:
        recovery = service.journal.open()
    except OSError as error:
        where = error.filename or settings.data
        return _fail(f"journal: {where}: {error.strerror}", ExitCode.DATA_UNUSABLE)
    host, port = split_address(settings.bind)
    try:
        listener = listen(host, port, settings.backlog)
    except OSError as error:
        hint = BIND_HINTS.get(error.errno or 0, "")
        reason = f"{error.strerror}; {hint}" if hint else error.strerror
        return _fail(f"cannot listen on {settings.bind}: {reason}", ExitCode.BIND_FAILED)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, service.request_stop)
    service.start(listener)
    address = listener.getsockname()
    print(banner(settings, registry, handlers, address, recovery), flush=True)  # noqa: T201
    log.info("service.started", address=f"{address[0]}:{address[1]}", types=sorted(registry.types))
    service.wait()
    cut = service.stop()
    log.info("service.stopped", **_summary(metrics), connections_cut=cut, lost=service.pool.in_use)
    return ExitCode.DRAIN_INCOMPLETE if cut else ExitCode.OK


def _summary(metrics: Metrics) -> dict[str, int]:
    answered = refused = 0
    for (_, status), cell in metrics.requests.items():
        if status.startswith("2"):
            answered += cell.value
        else:
            refused += cell.value
    return {"answered": answered, "refused": refused}


def _fail(message: str, code: ExitCode) -> int:
    print(f"ingest: {message}", file=sys.stderr, flush=True)  # noqa: T201
    return code


def split_address(bind: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; settings have checked the form already."""
    parts = urlsplit(f"//{bind}")
    return parts.hostname or "", parts.port or 0


def banner(
    settings: Settings,
    registry: Registry,
    handlers: dict[str, loader.Handler],
    address: Any,
    recovery: Any,
) -> str:
    """What a person sees at start: where it listens, what it knows, a line to paste."""
    host, port = address[0], address[1]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    types = ", ".join(
        f"{name} (handler)" if name in handlers else name for name in sorted(registry.types)
    )
    lines = [
        f"ingest {__version__} listens on {url}",
        f"  types    {types or 'none: add schemas/<type>.json'}",
        f"  journal  {Path(settings.data) / 'journal'} "
        f"(ack {settings.ack}, {recovery.next_offset} records)",
        f"  health   {url}/readyz   metrics  {url}/metrics",
    ]
    example = _example(registry)
    if example is not None:
        name, document = example
        lines += [
            "  try",
            f"    curl -i {url}/v1/events/{name} -H 'Content-Type: application/json' "
            f"-d {shlex.quote(document)}",
        ]
    return "\n".join(lines)


def _example(registry: Registry) -> tuple[str, str] | None:
    for name in sorted(registry.types, key=lambda name: (name != "page_view", name)):
        schema = registry.types[name].schema
        examples = schema.get("examples") if isinstance(schema, dict) else None
        if examples:
            return name, dumps(examples[0]).decode()
    return None
