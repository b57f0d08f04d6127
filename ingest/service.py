"""The composition root: the only module that constructs, and the order of start and stop.

Everything else is given what it needs. Reading order for a newcomer: this file, then
`pipeline.py`, then `connection.py`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from gevent.event import Event

from ingest import endpoints_journal, logs, wsgi_mounts
from ingest.access import keys_file
from ingest.access.gate import Gate
from ingest.admin import AdminRouter, parted
from ingest.admission.overload import Overload
from ingest.admission.quotas import Quotas
from ingest.admission.refusals import Refusals
from ingest.blocking import BlockingMonitor
from ingest.blocking_stacks import Stacks
from ingest.consuming import Consumers
from ingest.debug import remember_greenlets
from ingest.debug_endpoints import DebugEndpoints
from ingest.dedupe_keeper import Keeper
from ingest.dedupe_store import KeyStore
from ingest.endpoints import Endpoint, Endpoints
from ingest.endpoints_journal import JournalEndpoints
from ingest.endpoints_workers import Gather, GatheredScrapes
from ingest.errors import IngestError
from ingest.handlers import loader
from ingest.handlers.lifecycle import Lifecycle
from ingest.handlers.offload_pools import Offload
from ingest.handlers.runner import Latest
from ingest.health import Health, HubMonitor
from ingest.health_workers import WorkersHealth
from ingest.journal import Journal, RecoveryReport
from ingest.journal.janitor import Janitor, journals_of
from ingest.journal.pages import Pages
from ingest.journal.storage import Storage
from ingest.journal.survey import JournalDirectory
from ingest.metrics import Metrics
from ingest.operations import Operations
from ingest.pipeline import Pipeline
from ingest.pool import WorkPool
from ingest.registry import Registry
from ingest.rejected import RejectedEvents
from ingest.responder import Responder
from ingest.server import Server
from ingest.serving import Lasting, Serving
from ingest.settings import Settings
from ingest.sinks.wiring import Sinks
from ingest.slow import SlowResponder, Stages
from ingest.tls.listener import Tls
from ingest.version import __version__
from ingest.wsgi import Mounts

log = logs.get_logger(__name__)

#: Net new objects between two collections of the youngest.
COLLECT_AFTER_OBJECTS = 10_000

#: A step of the janitor's, such as one fdatasync, must have ended by then.
JANITOR_STOP_SECONDS = 5.0

#: How long an idle keep-alive connection is kept at shutdown: a request may be on its way.
IDLE_GRACE_SECONDS = 0.5
#: The same where only this worker is replaced: nobody waits for its end, and most clients
#: send their next request in this time and learn from its answer that they are to reconnect.
RESTART_GRACE_SECONDS = 5.0


#: With one of these changed, what everybody has used up of a quota is forgotten.
QUOTA_SETTINGS = frozenset(
    {"address_events_per_second", "address_bytes_per_second", "quota_burst_seconds"}
)


class Part(NamedTuple):
    """Which part of the whole a service is.

    Attributes:
        number: the worker's, and that of its partition.
        workers: how many there are.
        gather: gives the metrics of all of them; None where there is only this one.
    """

    number: int = 0
    workers: int = 1
    gather: Gather | None = None


#: The one worker that there is.
ALONE = Part()


class Service:
    """One worker: everything from the listening socket to the journal.

    Args:
        settings: resolved settings.
        registry: the loaded event types.
        handlers: the loaded handlers by type.
        metrics: the worker's metrics.
        access: the access log, None when off.
        part: which of several workers this is.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        handlers: dict[str, loader.Handler],
        metrics: Metrics,
        access: logs.AccessLog | None,
        part: Part = ALONE,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.health = Health(metrics)
        self.draining = False
        self.started = False
        self._stop_requested = Event()
        self._hurried = Event()
        self.shared_health: WorkersHealth | None = None
        if part.gather is not None:
            self.shared_health = WorkersHealth(self.health, part.number, part.workers)
        self.journal = Journal(
            Path(settings.data) / "journal",
            part.number,
            settings=settings,
            metrics=metrics,
            on_commit=self._on_commit,
        )
        #: looks after the partitions of all workers
        self.janitor: Janitor | None = None
        if part.number == 0:
            self.janitor = Janitor(
                self._journals(registry),
                settings,
                metrics,
                {"journal": self.journal.segments_removed},
            )
        self.sinks = Sinks(settings, registry, self.journal, metrics)
        stages = Stages() if settings.slow_request_seconds else None
        responder = Responder if stages is None else SlowResponder
        self.responder = responder(settings, metrics, self.journal.id_source, access)
        self.rejected: RejectedEvents | None = None
        if any(t.options.on_reject == "keep" for t in registry.types.values()):
            directory = Path(settings.data) / "rejected"
            new_store = self.sinks.new_rejected
            self.rejected = RejectedEvents(directory, part.number, settings, metrics, new_store)
        self.pipeline = Pipeline(settings, self.journal, self.responder, metrics, self.rejected)
        self.pool = WorkPool(
            settings.pool_size,
            settings.pool_residents,
            settings.pool_queue_max,
            self.pipeline.process if stages is None else stages.process(self.pipeline.process),
            self.pipeline.runs.take if stages is None else stages.together(self.pipeline.runs.take),
            self.pipeline.failed,
            metrics,
            self.responder.about,
        )
        self.pipeline.attach(self.pool)
        submit: Callable[[Any], None] = self.pool.submit
        spawn: Callable[..., None] = self.pool.spawn
        if stages is not None:
            submit, spawn = stages.submit(submit), stages.spawn(spawn)
        self.reading = JournalEndpoints(
            settings,
            self.responder,
            Pages(Path(settings.data) / "journal", Storage()),
            {part.number: lambda: self.journal.next_offset},
            metrics,
        )
        self._followers = self.reading.followers(part.number)
        self.consumers = Consumers(
            handlers,
            part.number,
            part.workers,
            settings,
            metrics,
            lambda: self.journal.next_offset,
            self._followers,
        )
        self.sinks.forward(
            settings,
            part.number,
            part.workers,
            lambda: self.journal.next_offset,
            self._followers,
            self.consumers,
        )
        refusals = Refusals(self.responder, metrics)
        self.overload = Overload(
            settings, metrics, self.pool, refusals, lambda: self.journal.pending_bytes
        )
        self.responder.backlog_seconds = self.overload.retry_after_seconds
        self.gate: Gate | None = None
        keys_path = keys_file.path_of(settings.keys_file)
        if keys_path is not None:
            self.gate = Gate(keys_path, metrics, self._decide_anew)
        #: for the admin listener only
        self.debug = DebugEndpoints(self.responder, part.number, self._figures())
        self.operations = Operations(self.responder)
        self._refusals = refusals
        self._part = part
        self._gather = part.gather
        paths = [r.path for t in registry.types.values() for r in t.options.routes]
        where = settings.origins.get("mounts", "mounts")
        mounts = wsgi_mounts.load(settings.mounts, where, handlers, paths)
        self._lasting = Lasting(
            settings,
            metrics,
            self.pipeline,
            self.journal,
            lambda targets: self.sinks.serve(targets, self, self.pool.yield_turn),
            submit,
            spawn,
            loader.before_answers(handlers),
            Mounts(mounts, settings, metrics, self.responder, self.pool).table(),
            self.gate,
        )
        self.keeper: Keeper | None = None
        self._quotas = self._new_quotas()
        self.serving = self.build(registry, None)
        self._keep_keys()
        self.tls = Tls.of(settings, metrics)
        self.server = Server(
            settings,
            metrics,
            self.pool,
            self.responder,
            self.serving.router,
            self._operators(),
            self.tls,
        )
        self.hub_monitor = HubMonitor(metrics)
        self.blocking_monitor = BlockingMonitor(
            settings.max_blocking_seconds,
            Stacks(Path(settings.handlers), handlers),
            self.pool.spawned,
            Latest.read,
            metrics,
        )
        self.offload = Offload(settings, metrics)
        self.lifecycle = Lifecycle(
            handlers.values(), settings.handler_setup_timeout_seconds, metrics
        )
        self._add_checks()

    def _figures(self) -> dict[str, Callable[[], float]]:
        """What takes memory, as far as it is counted anyway."""
        metrics = self.metrics
        return {
            "connections": lambda: len(self.server.connections),
            "connection_buffered_bytes": metrics.buffered_bytes.read,
            "head_cache_entries": metrics.head_cache_entries.read,
            "pool_in_use": lambda: self.pool.in_use,
            "pool_waiting": metrics.pool_waiting.read,
            "journal_pending_bytes": lambda: self.journal.pending_bytes,
            "dedupe_entries": lambda: sum(c.read() for _, c in metrics.dedupe_entries.items()),
        }

    def _journals(self, registry: Registry) -> list[JournalDirectory]:
        """What the janitor looks after, and for how long it is to keep what."""
        retentions = {name: t.options.retention_seconds for name, t in registry.types.items()}
        return journals_of(Path(self.settings.data), self.settings, retentions)

    def _new_quotas(self) -> Quotas:
        return Quotas(self.settings, self.metrics, self._refusals, self.pool.release)

    def _keep_keys(self) -> None:
        """Types with `x-ingest.dedupe`: look after the files of what is remembered."""
        deduping = self.pipeline.deduping
        if deduping.keys:
            data = Path(self.settings.data)
            windows = {name: keys.window for name, keys in deduping.keys.items()}
            store = KeyStore(data / "dedupe" / "0", data / "journal" / "0", windows)
            self.keeper = Keeper(store, self.metrics)

    # -- what a reload builds anew -----------------------------------------------------------

    def build(self, registry: Registry, before: Serving | None) -> Serving:
        """What serves these event types, once it is swapped in.

        Raises:
            KeysError: the secret of a webhook cannot be used.
        """
        endpoints = Endpoints(
            self.responder,
            self.shared_health or self.health,
            self.metrics,
            registry,
            self.settings.compress_min_bytes,
            journal=endpoints_journal.offered(self.settings),
            schemas_base=self.settings.schemas_base,
        )
        return Serving(self._lasting, registry, endpoints, self._table, self._quotas, before)

    def become(self, settings: Settings) -> None:
        """Go by these settings from now on, which have been `merged` with those before."""
        changed = {setting.name for setting in self.settings.differences(settings)}
        self.settings.become(settings)
        self.server.settings_changed()
        self.pipeline.settings_changed()
        self.pool.queue_max = settings.pool_queue_max
        self.journal.keep_free(settings.disk_reserve_bytes)
        if changed & QUOTA_SETTINGS:
            self._quotas = self._new_quotas()

    def swap(self, serving: Serving) -> None:
        """Serve these event types from the next request on."""
        self.serving = serving
        self.sinks.follow(serving.registry, self.settings)
        if self.janitor is not None:
            self.janitor.keep_for(self._journals(serving.registry))
        self.server.route(serving.router)

    def _decide_anew(self) -> None:
        """What was decided about heads may be wrong now: keys have changed."""
        self.serving.forget()
        self.server.forget_plans()

    def _table(self, endpoints: Endpoints) -> Mapping[str, Mapping[str, Endpoint]]:
        """Path → method → endpoint of the listener for events."""
        offered = endpoints_journal.offered(self.settings)
        reading = self.reading.table() if offered else endpoints_journal.not_offered()
        served = {**endpoints.table(), **self._gathered(self._gather)}
        if self.settings.admin_bind != "off":
            served = dict(parted(served)[0])
        return {**served, **self.overload.after_writes(reading)}

    def _operators(self) -> AdminRouter | None:
        """What answers on the listener for operators, where there is one."""
        if self.settings.admin_bind == "off":
            return None
        table = {**self.serving.endpoints.table(), **self._gathered(self._gather)}
        return AdminRouter({**parted(table)[1], **self.debug.table(), **self.operations.table()})

    def _gathered(self, gather: Gather | None) -> Mapping[str, Mapping[str, Endpoint]]:
        """What takes the place of this worker's own where there are several."""
        if gather is None:
            return {}
        scrapes = GatheredScrapes(
            gather, self.responder, self.metrics, self.settings.compress_min_bytes
        )
        return {"/metrics": {"GET": scrapes}}

    def _on_commit(self, exchanges: list[Any], error: IngestError | None) -> None:
        if self.sinks.mixed:
            exchanges = self.sinks.committed(exchanges, error)
        if exchanges:
            self.committed(exchanges, error)
        self._followers.commit()

    def committed(self, exchanges: list[Any], error: IngestError | None) -> None:
        """What these brought is durable, or is not."""
        self.overload.committed(exchanges)
        self.pipeline.committed(exchanges, error)

    def partly(self, exchange: Any, failures: Mapping[int, IngestError]) -> None:
        """What an exchange brought is durable in part."""
        self.overload.committed([exchange])
        self.pipeline.partly(exchange, failures)

    def _add_checks(self) -> None:
        def drain() -> str | None:
            return "draining" if self.draining else None

        def started() -> str | None:
            return None if self.started else "starting"

        def types() -> str | None:
            return None if self.serving.registry.types else "no event type is loaded"

        self.health.add("hub", {"live", "ready"}, self.hub_monitor.check)
        self.health.add("started", {"ready", "startup"}, started)
        self.health.add("registry", {"ready", "startup"}, types)
        if self.sinks.journaled:
            self.health.add("journal", {"ready"}, self.journal.healthy)
        self.sinks.add_checks(self.health)
        self.health.add("draining", {"ready"}, drain)
        self.metrics.ready.set_function(
            lambda: 1 if self.health.probe("ready", False, None)[0] == 200 else 0
        )
        self.metrics.info.cell(__version__).value = 1

    # -- start and stop --------------------------------------------------------------------

    def start(self, listener: Any, admin: Any = None) -> None:
        """Recover the journal, then serve; the sockets are accepted from only at the end.

        Args:
            admin: the listener for operators, None where there is none.
        """
        self.journal.start()
        self.sinks.start()
        if self.keeper is not None:
            self.keeper.start()
        if self.rejected is not None:
            self.rejected.start()
        if self.janitor is not None:
            self.janitor.start()
        self.pool.start()
        self.overload.start()
        self.hub_monitor.start()
        if self.gate is not None:
            self.gate.start()
        if self.tls is not None:
            self.tls.start()
        # What lives as long as the process need not be looked at by every collection.
        gc.collect()
        remember_greenlets()
        gc.freeze()
        # A turn of the loop may hold hundreds of requests at once: they are no garbage, and
        # looking at them each time 700 more have come is in vain. Cycles are rare here.
        gc.set_threshold(COLLECT_AFTER_OBJECTS)
        self.started = True
        self.blocking_monitor.start()
        self.consumers.start()
        if self.sinks.forwarder is not None:
            self.sinks.forwarder.start()
        self.server.start(listener, admin)

    def setup(self) -> None:
        """Set the handlers up; blocks. Before `recover`, and it touches no journal.

        Raises:
            HandlersError: one cannot be set up.
        """
        self.offload.start()
        self.lifecycle.setup()

    def abandon(self) -> None:
        """Undo `setup` where nothing was started."""
        self.lifecycle.teardown(self.settings.handler_setup_timeout_seconds)
        self.offload.stop()

    def recover(self) -> RecoveryReport:
        """Recover the journal; blocks. Before `start`, when nobody else has the partition.

        Raises:
            OSError: the journal cannot be read or written; `filename` says where.
        """
        try:
            report = self.journal.open()
            if self.keeper is not None:
                self.keeper.load()
            if self.rejected is not None:
                self.rejected.open()
            self.consumers.open()
            self.sinks.open()
        except OSError:
            self.abandon()
            raise
        return report

    def request_stop(self) -> None:
        """Ask for a shutdown; returns at once (called from a signal handler)."""
        self._stop_requested.set()

    def wait(self) -> None:
        """Block until a shutdown is asked for."""
        self._stop_requested.wait()

    def hurry(self) -> None:
        """Cut short what `stop` waits for."""
        self._hurried.set()
        self.consumers.hurry()
        self.server.hurry()

    def leave(self, seconds: float) -> None:
        """Have clients leave: each answer closes its connection, while new ones are taken.

        Before `stop`, where the process becomes a new one and nobody accepts for it meanwhile.
        """
        self.responder.draining = True
        self._hurried.wait(seconds)

    def stop(self, *, restart: bool = False, closed: Callable[[], None] = lambda: None) -> int:
        """Shut down without losing a request.

        The order: readiness off → (drain delay: still accepting, so that load
        balancers learn it) → take the backlog and stop accepting → answer what is in
        flight, with `Connection: close`, while consumers end their last calls → stop the
        forwarder, the consumers, the pool and the janitor → final commit → close.

        Args:
            restart: only this worker goes, and another process takes over the listening
                socket with its backlog: readiness stays, there is no delay, and clients
                get longer to send their next request.
            closed: called when this process accepts no more.

        Returns:
            how many connections were cut with a request in flight.
        """
        settings = self.settings
        log.info("service.draining", connections=len(self.server.connections))
        if not restart:
            self.draining = True
            self._hurried.wait(settings.drain_delay_seconds)
        self.responder.draining = True
        deadline = monotonic() + settings.drain_timeout_seconds
        self.consumers.request_stop()
        self.reading.release()
        self.server.stop_accepting(take_backlog=not restart)
        closed()
        cut = self.server.drain(
            settings.drain_timeout_seconds,
            RESTART_GRACE_SECONDS if restart and self._part.workers > 1 else IDLE_GRACE_SECONDS,
        )
        self.sinks.stop_forwarding(
            0.0 if self._hurried.is_set() else max(1.0, deadline - monotonic())
        )
        self.consumers.stop(0.0 if self._hurried.is_set() else max(1.0, deadline - monotonic()))
        self.overload.stop()
        self.pool.stop(1.0)
        if self.janitor is not None:
            self.janitor.stop(JANITOR_STOP_SECONDS)
        if self.keeper is not None:
            self.keeper.stop()
        self.journal.close(settings.drain_timeout_seconds)
        self.sinks.close(settings.drain_timeout_seconds)
        if self.rejected is not None:
            self.rejected.close(settings.drain_timeout_seconds)
        self.reading.close()
        self.server.stop()
        if self.gate is not None:
            self.gate.stop()
        if self.tls is not None:
            self.tls.stop()
        self.hub_monitor.stop()
        self.blocking_monitor.stop()
        # Last of all: whatever these do or leave undone, no event is lost by it.
        self.lifecycle.teardown(settings.handler_setup_timeout_seconds)
        self.offload.stop()
        return cut
