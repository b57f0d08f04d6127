"""What is wrong with a deployment, one problem at a time: for `check` and for reloads.

This module must not know how anything is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.handlers.loader import HandlerProblem
from ingest.registry import SchemaProblem

#: Areas in the order in which `check` looks at and lists them.
AREAS = ("settings", "logging", "keys", "tls", "schemas", "handlers")


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        area: one of `AREAS`, or `trial` or `workers` for what only a running service meets.
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


def schema_findings(problems: Sequence[SchemaProblem]) -> list[Finding]:
    """What the registry says."""
    return [
        Finding("schemas", problem.file, None, problem.pointer, problem.message)
        for problem in problems
    ]


def tls_findings(problems: Sequence[str]) -> list[Finding]:
    """What there is to say of certificates: each begins with the file, or the setting."""
    parted = (problem.partition(": ") for problem in problems)
    return [Finding("tls", file, None, None, message) for file, _, message in parted]


def handler_findings(problems: Sequence[HandlerProblem]) -> list[Finding]:
    """What the loader of handlers says."""
    return [
        Finding("handlers", problem.file, problem.line or None, None, problem.message)
        for problem in problems
    ]
