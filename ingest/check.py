"""`python -m ingest check`: all that is wrong with a deployment, at once.

It looks at what serving would look at (settings, logging configuration, schemas, handlers)
with the same code, and reports instead of stopping at the first fault. Nothing is served
or stored. This module must not know the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ingest import blocking_packages, logs, wsgi_mounts
from ingest.access import keys_file
from ingest.access.keys import KeysError
from ingest.access.webhooks import problems_of
from ingest.codec import dumps
from ingest.findings import Finding, handler_findings, schema_findings, tls_findings
from ingest.handlers.lifecycle import Lifecycle
from ingest.handlers.loader import (
    Handler,
    HandlersError,
    before_answers,
    load,
)
from ingest.metrics import Metrics
from ingest.pipeline_dedupe import workers_conflict
from ingest.registry import EventType, Registry, RegistryError
from ingest.settings import Settings
from ingest.settings_sources import Problem
from ingest.sinks import routing
from ingest.sinks.kafka_settings import KafkaSettings, KafkaUnusable
from ingest.tls.context import OFF, TlsError, make

LOG_STOP_SECONDS = 1.0


@dataclass
class Report:
    """What a check found.

    Attributes:
        problems: why it could not serve; empty when it could.
        warnings: what an operator should know; no reason to fail.
        types: names of the loaded event types, sorted.
        handlers: names of those with a handler, sorted.
        consumers: names of those with a consumer, sorted.
        mounts: prefixes of WSGI applications, sorted.
        settings: the settings that are not at their default, by where each was named.
    """

    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """One JSON document with a newline at its end."""
        return dumps({"ok": not self.problems, **asdict(self)}).decode() + "\n"

    def as_text(self) -> str:
        """For a person on a terminal."""
        lines = [str(finding) for finding in self.problems]
        lines += [f"warning: {finding}" for finding in self.warnings]
        if self.problems:
            count = len(self.problems)
            lines.append(f"{count} problem{'s' if count > 1 else ''}")
        else:
            parts = [_counted(self.types, "event type"), _counted(self.handlers, "handler")]
            parts += [_counted(self.consumers, "consumer")] if self.consumers else []
            parts += [_counted(self.mounts, "mount")] if self.mounts else []
            lines.append(f"ok: {', '.join(parts)}")
        return "\n".join(lines) + "\n"


def check(settings: Settings, problems: Sequence[Problem] = (), *, set_up: bool = False) -> Report:
    """Look at everything a deployment consists of.

    Args:
        settings: the settings, with stand-ins for those that are wrong.
        problems: what is wrong with them.
        set_up: where nothing is wrong, set the handlers up and tear them down again.
    """
    report = Report(settings=dict(settings.origins))
    for problem in problems:
        file, line = _split_line(problem.source)
        report.problems.append(Finding("settings", file, line, None, problem.message))
    _check_logging(Path(settings.log_config), report)
    _check_keys(settings.keys_file, report)
    _check_tls(settings, report)
    names, paths, types = _check_schemas(Path(settings.schemas), settings, report)
    handlers = _check_handlers(settings, names, paths, report)
    _check_sinks(settings, types, handlers, report)
    if set_up and not report.problems:
        _try_setup(handlers, settings, report)
    return report


def only_handlers(report: Report) -> Report:
    """What a report says of handlers."""
    return replace(
        report,
        problems=[found for found in report.problems if found.area == "handlers"],
        warnings=[found for found in report.warnings if found.area == "handlers"],
    )


def _check_logging(path: Path, report: Report) -> None:
    if not path.is_file():
        return  # a missing one that was named is among the settings' problems already
    try:
        logs.configure(path).stop(LOG_STOP_SECONDS)
    except logs.LogConfigError as error:
        # What YAML says about a syntax error takes several lines.
        message = " ".join(str(error).removeprefix(f"{path}: ").split())
        report.problems.append(Finding("logging", str(path), None, None, message))


def _check_keys(setting: str, report: Report) -> None:
    path = keys_file.path_of(setting)
    if path is not None:
        try:
            keys_file.load(path)
        except KeysError as error:
            problems = (problem.removeprefix(f"{path}: ") for problem in error.problems)
            report.problems += [Finding("keys", setting, None, None, text) for text in problems]


def _check_tls(settings: Settings, report: Report) -> None:
    try:
        warnings = make(settings).warnings if settings.tls_cert != OFF != settings.tls_key else []
    except TlsError as error:
        report.problems += tls_findings(error.problems)
    else:
        report.warnings += tls_findings(warnings)


def _check_schemas(
    directory: Path, settings: Settings, report: Report
) -> tuple[set[str], list[str], list[EventType]]:
    """Load the registry; returns the types' names and own paths, as far as they can be told, and
    the types, if they can be used."""
    try:
        registry = Registry.load(directory)
    except RegistryError as error:
        report.problems += schema_findings(error.problems)
        # A handler is not wrong because its schema is: names go by the files that are there.
        names = {path.stem for path in directory.glob("*.json")} | {
            path.parent.name for path in directory.glob("*/*.json")
        }
        return names, [], []
    conflict = workers_conflict(settings.workers, registry.types.values())
    if conflict is not None:
        place, line = _split_line(settings.origins.get("workers", "workers"))
        report.problems.append(Finding("settings", place, line, None, conflict))
    hooks = [(n, t.options.webhook) for n, t in registry.types.items() if t.options.webhook]
    report.problems += [Finding("keys", "x-ingest", None, None, p) for p in problems_of(hooks)]
    report.types = sorted(registry.types)
    report.warnings += schema_findings(registry.warnings)
    types = list(registry.types.values())
    routes = (route for kind in types for route in kind.options.routes)
    return set(registry.types), [route.path for route in routes], types


def _check_sinks(
    settings: Settings, types: Sequence[EventType], handlers: Sequence[Handler], report: Report
) -> None:
    consumers = {handler.type for handler in handlers if handler.consume is not None}
    report.problems += schema_findings(routing.conflicts(types, settings, consumers))
    if settings.kafka_brokers != "none":
        try:
            KafkaSettings.of(settings).check()
        except (KafkaUnusable, ValueError) as error:
            place, line = _split_line(settings.origins.get("kafka", "kafka"))
            report.problems.append(Finding("settings", place, line, None, str(error)))


def _check_handlers(
    settings: Settings, names: set[str], paths: Sequence[str], report: Report
) -> list[Handler]:
    """Load handlers and mounts; returns the handlers, none where something is wrong."""
    directory = Path(settings.handlers)
    before = set(sys.modules)
    try:
        handlers = load(directory, names)
        mounts = wsgi_mounts.load(
            settings.mounts, settings.origins.get("mounts", "mounts"), handlers, paths
        )
    except HandlersError as error:
        report.problems += handler_findings(error.problems)
        return []
    report.handlers = sorted(before_answers(handlers))
    report.consumers = sorted(name for name, found in handlers.items() if found.consume is not None)
    report.mounts = sorted(mount.prefix for mount in mounts)
    report.warnings += handler_findings(blocking_packages.warnings(directory, before))
    return list(handlers.values())


def _try_setup(handlers: Sequence[Handler], settings: Settings, report: Report) -> None:
    limit = settings.handler_setup_timeout_seconds
    lifecycle = Lifecycle(handlers, limit, Metrics())
    try:
        lifecycle.setup()
    except HandlersError as error:
        report.problems += handler_findings(error.problems)
    else:
        lifecycle.teardown(limit)


def _split_line(source: str) -> tuple[str, int | None]:
    file, _, line = source.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (source, None)


def _counted(names: Sequence[str], noun: str) -> str:
    listed = f" ({', '.join(names)})" if names else ""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}{listed}"
