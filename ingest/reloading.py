"""A reload in place: everything is read and checked first, then all of it is swapped, or nothing.

    settings ─┐
    schemas ──┤ (native thread)                 ┌─ nothing wrong ─▶ one turn of the event loop:
    keys ─────┼─▶ read ─▶ checked against what ─┤                   settings, types, keys, secrets
    secrets ──┤           stays (handlers …)    └─ problems: all logged, the old state goes on
    TLS ──────┘

Requests in flight keep the plan they have, and with it the event type as it was. For a service
that is the only one of its process; with several workers the supervisor replaces them instead.
This module must not know sockets or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gevent.event import Event
from gevent.hub import get_hub
from gevent.lock import BoundedSemaphore

from ingest import logs, wsgi_mounts
from ingest.access.gate import Read
from ingest.access.keys import KeysError
from ingest.access.webhooks import problems_of
from ingest.findings import Finding, schema_findings, tls_findings
from ingest.handlers.reload import look_at
from ingest.registry import Registry, RegistryError, SchemaProblem
from ingest.rejected import RejectedEvents
from ingest.reload_outcome import Outcome, changed_types, changed_values, setting_findings
from ingest.settings import Reread, Settings, SettingsError
from ingest.sinks import routing

if TYPE_CHECKING:
    from ingest.handlers.loader import Handler
    from ingest.service import Service

log = logs.get_logger(__name__)


class _Read(NamedTuple):
    """What a reload has read and found good."""

    settings: Settings
    registry: Registry
    keys: Read | None
    rejected: RejectedEvents | None


class Reloads:
    """Reloads a service.

    Args:
        service: it serves.
        handlers: the handlers it was made of.
        reread: reads the settings.
    """

    def __init__(self, service: Service, handlers: Mapping[str, Handler], reread: Reread) -> None:
        self._service = service
        self._handlers = handlers
        self._reread = reread
        self._code = look_at([Path(service.settings.handlers)])
        self._one_by_one = BoundedSemaphore(1)
        self._asked = Event()

    @property
    def busy(self) -> bool:
        """Whether a reload is under way."""
        return self._one_by_one.locked()

    def ask(self) -> None:
        """Reload soon; however often this is called meanwhile, once more is enough."""
        self._asked.set()

    def run(self, told: Callable[[Callable[[], Outcome]], Outcome]) -> None:
        """Reload whenever that is asked for.

        Args:
            told: calls what it is given, and tells who wants to know before and after.
        """
        while True:
            self._asked.wait()
            self._asked.clear()
            told(lambda: self.reload("signal"))

    def reload(self, by: str) -> Outcome:
        """Read everything anew; blocks.

        Args:
            by: who asked, for the log.
        """
        with self._one_by_one:
            try:
                outcome = self._reload()
            except Exception as error:  # whatever it is, the old state goes on
                self._service.metrics.unhandled_errors.cell("reload").value += 1
                log.exception("reload.failed")
                message = f"{type(error).__name__}: {error}"
                outcome = Outcome([Finding("settings", "-", None, None, message)])
            outcome.note(self._service.metrics, by)
        return outcome

    def _reload(self) -> Outcome:
        outcome = Outcome()
        read = self._read(outcome)
        if read is None:
            return outcome
        before, registry = self._service.settings, self._service.serving.registry
        changed = before.differences(read.settings)
        outcome.settings = changed_values(before, read.settings, changed)
        outcome.types = dict(changed_types(registry, read.registry))
        try:
            self._apply(read, outcome)
        finally:
            if outcome.problems and read.rejected is not None:
                read.rejected.close(0)
        return outcome

    # -- reading -----------------------------------------------------------------------------

    def _read(self, outcome: Outcome) -> _Read | None:
        """All that there is to read; None where anything is wrong with it."""
        service, problems = self._service, outcome.problems
        wanted, wrong = self._reread()
        problems += setting_findings(wrong)
        settings = wanted
        if not wrong:
            try:
                settings = service.settings.merged(wanted)
            except SettingsError as error:
                problems += setting_findings(error.problems)
        outcome.restart = [s.name for s in service.settings.differences(wanted) if not s.reloads]
        if look_at([Path(service.settings.handlers)]) != self._code:
            outcome.restart.append(f"files in {service.settings.handlers}")
        registry = self._schemas(settings, problems)
        keys = self._keys(problems)
        if service.tls is not None:
            problems += tls_findings(service.tls.problems())
        if problems or registry is None:
            return None
        try:
            return _Read(settings, registry, keys, self._rejected(registry))
        except OSError as error:
            message = f"refused events cannot be kept: {error.strerror}"
            problems.append(Finding("settings", str(error.filename), None, None, message))
            return None

    def _schemas(self, settings: Settings, problems: list[Finding]) -> Registry | None:
        """The event types; with problems where they do not go with what stays as it is."""
        directory = Path(settings.schemas)
        registry, wrong = get_hub().threadpool.apply(_load, (directory,))
        problems += schema_findings(wrong)
        if registry is None:
            return None
        for warning in registry.warnings:
            log.warning("registry.warning", **warning._asdict())
        problems += schema_findings(self._elsewhere(registry, settings))
        hooks = [(n, t.options.webhook) for n, t in registry.types.items() if t.options.webhook]
        problems += [Finding("keys", "x-ingest", None, None, p) for p in problems_of(hooks)]
        for handler in self._handlers.values():
            if handler.type not in registry.types and (handler.handle or handler.consume):
                message = f"no event type {handler.type!r}: there is no such schema"
                problems.append(Finding("handlers", handler.file, None, None, message))
        paths = [route.path for t in registry.types.values() for route in t.options.routes]
        for path in wsgi_mounts.overlapped(self._service.serving.router.prefixes, paths):
            message = f"a mounted application has the route {path}"
            problems.append(Finding("schemas", path, None, None, message))
        known = self._service.pipeline.deduping.keys
        for name, event_type in registry.types.items():
            options = event_type.options.dedupe
            if options.by != "none" and (name not in known or known[name].options != options):
                file = (directory / event_type.path).as_posix()
                message = "x-ingest.dedupe changes with a restart or a hand-over (SIGUSR2) only"
                problems.append(Finding("schemas", file, None, "/x-ingest/dedupe", message))
        return registry

    def _elsewhere(self, registry: Registry, settings: Settings) -> list[SchemaProblem]:
        """What is wrong with the ways to Kafka."""
        consumers = [h.type for h in self._handlers.values() if h.consume is not None]
        found = routing.conflicts(registry.types.values(), settings, consumers)
        if not found:
            for name in self._service.sinks.changes(registry, settings):
                file = Path(settings.schemas) / registry.types[name].path
                message = "where events go changes with a restart or a hand-over (SIGUSR2) only"
                found.append(SchemaProblem(file.as_posix(), "/x-ingest/sink", message))
        return found

    def _keys(self, problems: list[Finding]) -> Read | None:
        gate = self._service.gate
        if gate is None:
            return None
        try:
            return gate.read()
        except KeysError as error:
            file = self._service.settings.keys_file
            problems += [Finding("keys", file, None, None, p) for p in error.problems]
            return None

    def _rejected(self, registry: Registry) -> RejectedEvents | None:
        """The rejected journal, where only the new types want one.

        Raises:
            OSError: it cannot be used.
        """
        service = self._service
        wanted = any(t.options.on_reject == "keep" for t in registry.types.values())
        if service.rejected is not None or not wanted:
            return None
        directory = Path(service.settings.data) / "rejected"
        rejected = RejectedEvents(directory, 0, service.settings, service.metrics)
        error = get_hub().threadpool.apply(_open, (rejected,))
        if error is not None:
            raise error
        return rejected

    # -- the swap ----------------------------------------------------------------------------

    def _apply(self, read: _Read, outcome: Outcome) -> None:
        """Nothing in here waits but the reading of certificates, which comes first."""
        service = self._service
        if service.tls is not None:
            wrong = service.tls.reload()
            outcome.problems += tls_findings(wrong)
            if wrong:
                return
        old = Settings(**vars(service.settings))
        service.become(read.settings)
        try:
            serving = service.build(read.registry, service.serving)
        except Exception as error:
            service.become(old)
            if not isinstance(error, KeysError):
                raise
            outcome.problems += [
                Finding("keys", "x-ingest", None, None, problem) for problem in error.problems
            ]
            return
        if read.rejected is not None:
            read.rejected.start()
            service.rejected = read.rejected
            service.pipeline.keep_rejected(read.rejected)
        if read.keys is not None and service.gate is not None:
            service.gate.adopt(read.keys)
        service.swap(serving)


def _load(directory: Path) -> tuple[Registry | None, list[Any]]:
    """Load schemas; what is wrong is no exception here, as a thread's would be logged."""
    try:
        return Registry.load(directory), []
    except RegistryError as error:
        return None, error.problems


def _open(rejected: RejectedEvents) -> OSError | None:
    """Open a rejected journal; the same about its exception."""
    try:
        rejected.open()
    except OSError as error:
        return error
    return None
