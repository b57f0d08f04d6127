"""Verdicts on decoded events, and the reasons for them.

The verdict is jsonschema-rs': compiled once, about half a microsecond for a small event. The
reasons are jsonschema's, asked for only when the verdict is no: a hundred times slower, so it
works on a budget. `validation_dialects` makes the two agree.

This module must not know files, HTTP or how bytes are decoded.

Source: RFC 6901 (JSON Pointer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jsonschema_rs as native
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry as References

from ingest.validation_dialects import (
    BACKTRACKING_PATTERNS,
    EMAIL_OPTIONS,
    LINEAR_PATTERNS,
    Budget,
    BudgetSpent,
    Dialect,
    FormatChecker,
    bounded,
)
from ingest.validation_typed import typed

#: What one explanation may take: some 20 ms, about 600 metrics of the shipped type.
EXPLAIN_STEPS = 10_000
POINTER_MAX = 512

Path = tuple[str | int, ...]


class Fault(NamedTuple):
    """One thing wrong with an event.

    Attributes:
        pointer: JSON Pointer to the value at fault, `""` for the whole event; where it would
            take more than 512 characters, to the deepest container that does not.
        keyword: the schema keyword that failed, `""` for a schema that is `false`.
        message: for a person, at most 200 characters.
    """

    pointer: str
    keyword: str
    message: str


class Schemas(NamedTuple):
    """All schemas that may refer to each other, as both validators want them.

    Attributes:
        references: for jsonschema.
        native: for jsonschema-rs.
    """

    references: References[Any]
    native: native.Registry

    @classmethod
    def of(cls, documents: Iterable[tuple[str, Any, Dialect]]) -> Schemas:
        """Collect schemas by their URI; nothing else can be reached, least of all the network."""
        triples = list(documents)
        references: References[Any] = References().with_resources(
            (uri, dialect.specification.create_resource(schema)) for uri, schema, dialect in triples
        )
        return cls(references, native.Registry([(uri, schema) for uri, schema, _ in triples]))


class Validator:
    """One compiled schema.

    Args:
        schema: checked against its metaschema, its references known to resolve.
        uri: by which it stands among `schemas`.
        dialect: its draft.
        schemas: what it may refer to.

    Attributes:
        is_valid: the verdict on a decoded value. The compiled schema's own method, so that
            asking costs one call. Raises ValueError for what no decoder returns (lone
            surrogates, types that JSON does not have).
        typed: says yes to the bytes of most good events; None where the schema is no type.
        warning: what the operator should know of how it was compiled, or `""`.
    """

    __slots__ = ("_dialect", "_native", "_reference", "is_valid", "typed", "warning")

    is_valid: Callable[[Any], bool]

    def __init__(self, schema: Any, uri: str, dialect: Dialect, schemas: Schemas) -> None:
        self._dialect = dialect
        self._reference = dialect.reference(
            {"$ref": uri},
            registry=schemas.references,
            format_checker=FormatChecker(dialect.name, Budget(None)),
        )
        self._native, self.warning = _compile(schema, uri, dialect, schemas)
        if self._native is not None:
            self.is_valid = self._native.is_valid
        else:
            self.is_valid = self.reference_is_valid
        self.typed = typed(schema, dialect.name)

    def reference_is_valid(self, value: Any) -> bool:
        """jsonschema's verdict: to compare, and where the native validator has none."""
        try:
            return bool(self._reference.is_valid(value))
        except RecursionError:
            return False

    def explain(self, value: Any, limit: int) -> tuple[list[Fault], int]:
        """Why a value is not valid.

        Args:
            value: one that `is_valid` refused.
            limit: how many faults to return at most.

        Returns:
            The first faults by pointer, and how many were found. There is at least
            one, but not all are found in an event that would take too long to explain.
        """
        found: list[tuple[Path, str, str]] = []
        checker = FormatChecker(self._dialect.name, Budget(EXPLAIN_STEPS))
        try:
            for error in self._reference.evolve(format_checker=checker).iter_errors(value):
                found.append(described(error))
        except (BudgetSpent, RecursionError):
            pass  # what was found so far is told; the verdict does not hang on it
        if not found:
            found.append(self._first_fault(value))
        found.sort(key=lambda fault: _by_pointer(fault[0]))
        faults = [Fault(pointer(path), *rest) for path, *rest in found[:limit]]
        return faults, len(found)

    def _first_fault(self, value: Any) -> tuple[Path, str, str]:
        """The first fault in the native validator's words; it stops there, so it is quick."""
        if self._native is not None:
            try:
                self._native.validate(value)
            except native.ValidationError as error:
                return tuple(error.instance_path), _keyword(error), bounded(error.message)
        return (), "", "does not match the schema"


def _compile(
    schema: Any, uri: str, dialect: Dialect, schemas: Schemas
) -> tuple[native.Validator | None, str]:
    """Compile natively: with linear patterns, else with bounded ones, else not at all."""
    reason = ""
    for options in (LINEAR_PATTERNS, BACKTRACKING_PATTERNS):
        try:
            compiled = dialect.native(
                schema,
                registry=schemas.native,
                base_uri=uri,
                validate_formats=True,
                pattern_options=options,
                email_options=EMAIL_OPTIONS,
                offline=True,
                mask="the value",  # in messages; a value can be larger than all that is said of it
            )
        except (native.ValidationError, native.ReferencingError, ValueError) as error:
            reason = bounded(" ".join(str(error).split()))
            continue
        return compiled, ""
    return None, f"validated by the slower jsonschema, as jsonschema-rs cannot compile it: {reason}"


def described(error: ValidationError) -> tuple[Path, str, str]:
    """Path, keyword and bounded message of an error; of alternatives, the one that came closest."""
    if error.context:
        error = best_match([error]) or error
    keyword = error.validator if isinstance(error.validator, str) else ""
    return tuple(error.absolute_path), keyword, bounded(error.message)


def _keyword(error: native.ValidationError) -> str:
    name = error.kind.name
    return "" if name == "falseSchema" else name


def _by_pointer(path: Path) -> list[tuple[bool, int, str]]:
    return [(False, token, "") if isinstance(token, int) else (True, 0, token) for token in path]


def pointer(path: Iterable[str | int]) -> str:
    """A path as JSON Pointer (RFC 6901 section 3), cut to whole tokens within 512 characters."""
    parts: list[str] = []
    length = 0
    for token in path:
        part = "/" + str(token).replace("~", "~0").replace("/", "~1")
        length += len(part)
        if length > POINTER_MAX:
            break
        parts.append(part)
    return "".join(parts)
