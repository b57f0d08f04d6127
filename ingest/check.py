"""`python -m ingest check`: all that is wrong with a deployment, at once.

It looks at what serving would look at (settings, logging configuration, schemas, handlers)
with the same code, and reports instead of stopping at the first fault. Nothing is served
or stored. This module must not know the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ingest import logs
from ingest.codec import dumps
from ingest.handlers.loader import HandlerProblem, HandlersError, load
from ingest.pipeline_dedupe import workers_conflict
from ingest.registry import Registry, RegistryError, SchemaProblem
from ingest.settings import Settings
from ingest.settings_sources import Problem

#: Areas in the order in which they are looked at and listed.
AREAS = ("settings", "logging", "schemas", "handlers")
LOG_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        area: one of `AREAS`.
        file: the file at fault; for a setting also the flag or variable.
        line: line in it, None where none is at fault.
        pointer: JSON Pointer (RFC 6901) into a schema file, None elsewhere.
        message: what is wrong.
    """

    area: str
    file: str
    line: int | None
    pointer: str | None
    message: str

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
        if self.pointer:
            place += f"#{self.pointer}"
        return f"{place}: {self.message}"


@dataclass
class Report:
    """What a check found.

    Attributes:
        problems: why it could not serve; empty when it could.
        warnings: what an operator should know; no reason to fail.
        types: names of the loaded event types, sorted.
        handlers: names of those with a handler, sorted.
        settings: the settings that are not at their default, by where each was named.
    """

    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
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
            lines.append(
                f"ok: {_counted(self.types, 'event type')}, {_counted(self.handlers, 'handler')}"
            )
        return "\n".join(lines) + "\n"


def check(settings: Settings, problems: Sequence[Problem] = ()) -> Report:
    """Look at everything a deployment consists of.

    Args:
        settings: the settings, with stand-ins for those that are wrong.
        problems: what is wrong with them.
    """
    report = Report(settings=dict(settings.origins))
    for problem in problems:
        file, line = _split_line(problem.source)
        report.problems.append(Finding("settings", file, line, None, problem.message))
    _check_logging(Path(settings.log_config), report)
    names = _check_schemas(Path(settings.schemas), settings, report)
    _check_handlers(Path(settings.handlers), names, report)
    return report


def _check_logging(path: Path, report: Report) -> None:
    if not path.is_file():
        return  # a missing one that was named is among the settings' problems already
    try:
        logs.configure(path).stop(LOG_STOP_SECONDS)
    except logs.LogConfigError as error:
        # What YAML says about a syntax error takes several lines.
        message = " ".join(str(error).removeprefix(f"{path}: ").split())
        report.problems.append(Finding("logging", str(path), None, None, message))


def _check_schemas(directory: Path, settings: Settings, report: Report) -> set[str]:
    """Load the registry; returns the names of the types, as far as they can be told."""
    try:
        registry = Registry.load(directory)
    except RegistryError as error:
        report.problems += schema_findings(error.problems)
        # A handler is not wrong because its schema is: names go by the files that are there.
        return {path.stem for path in directory.glob("*.json")} | {
            path.parent.name for path in directory.glob("*/*.json")
        }
    conflict = workers_conflict(settings.workers, registry.types.values())
    if conflict is not None:
        place, line = _split_line(settings.origins.get("workers", "workers"))
        report.problems.append(Finding("settings", place, line, None, conflict))
    report.types = sorted(registry.types)
    report.warnings += schema_findings(registry.warnings)
    return set(registry.types)


def _check_handlers(directory: Path, names: set[str], report: Report) -> None:
    try:
        report.handlers = sorted(load(directory, names))
    except HandlersError as error:
        report.problems += handler_findings(error.problems)


def schema_findings(problems: Sequence[SchemaProblem]) -> list[Finding]:
    """What the registry says."""
    return [
        Finding("schemas", problem.file, None, problem.pointer, problem.message)
        for problem in problems
    ]


def handler_findings(problems: Sequence[HandlerProblem]) -> list[Finding]:
    """What the loader of handlers says."""
    return [
        Finding("handlers", problem.file, problem.line or None, None, problem.message)
        for problem in problems
    ]


def _split_line(source: str) -> tuple[str, int | None]:
    file, _, line = source.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (source, None)


def _counted(names: Sequence[str], noun: str) -> str:
    listed = f" ({', '.join(names)})" if names else ""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}{listed}"
