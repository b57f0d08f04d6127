"""What can be wrong with a set of schema files, found before the first event is.

Each document is checked against its metaschema; then every subschema is visited: its
references must resolve within the set, its patterns must compile, its identifiers must be
unique. What has no effect although it looks as if it had (an unknown format, a keyword of
another draft) is a warning.

This module must not know where the documents came from or what a type is.

Source: JSON Schema Core (2020-12) sections 7 to 9, Validation section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urljoin

from jsonschema_specifications import (  # type: ignore[import-untyped]
    REGISTRY as METASCHEMAS,
)
from referencing import Registry as References
from referencing.exceptions import Unresolvable

from ingest.type_options import KEYWORD, TYPE_OPTIONS_SCHEMA
from ingest.validation import Schemas, described, pointer
from ingest.validation_dialects import (
    DEFAULT,
    DIALECTS,
    Budget,
    Dialect,
    FormatChecker,
    dialect_of,
    format_check,
    matcher,
)

Path = tuple[str | int, ...]


class SchemaProblem(NamedTuple):
    """One thing wrong with a schema file.

    Attributes:
        file: with the schemas directory, as that was named.
        pointer: JSON Pointer (RFC 6901) into it; `""` for the file as a whole.
        message: what is wrong, for a person.
    """

    file: str
    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}{'#' if self.pointer else ''}{self.pointer}: {self.message}"


class Document(NamedTuple):
    """A schema file whose JSON has been read.

    Attributes:
        file: relative to the schemas directory, with `/`.
        schema: what it holds; an object.
        is_type: whether it is a type's schema, or a part that others refer to.
    """

    file: str
    schema: dict[str, Any]
    is_type: bool

    @property
    def uri(self) -> str:
        """Under which it can be referred to; the directory is the root, nothing is above it."""
        return f"file:///{self.file}"

    @property
    def dialect(self) -> Dialect:
        """The draft it is written in; only for documents whose draft is known."""
        return dialect_of(self.schema) or DEFAULT


Report = Callable[[str, Path, str], None]


def check_documents(
    documents: Iterable[Document], problem: Report, warning: Report
) -> list[Document]:
    """Check documents, each for itself and then together.

    Args:
        documents: all that may refer to each other.
        problem: told file, path and message of what keeps a document from being used.
        warning: likewise of what should be known.

    Returns:
        The documents that match their metaschema; they are usable if there was no problem.
    """
    sound = [document for document in documents if _check_alone(document, problem)]
    references: References[Any] = METASCHEMAS.with_resources(
        (document.uri, document.dialect.specification.create_resource(document.schema))
        for document in sound
    )
    identifiers: dict[str, tuple[str, Path]] = {
        document.uri: (document.file, ()) for document in sound
    }
    seen: set[int] = set()
    visits = [
        _Visit(document, references, identifiers, seen, problem, warning) for document in sound
    ]
    for visit in visits:
        visit.whole()
    for visit in visits:
        visit.targets()
    return sound


def schemas_of(documents: Iterable[Document]) -> Schemas:
    """The documents as the validators want them."""
    return Schemas.of((document.uri, document.schema, document.dialect) for document in documents)


def _check_alone(document: Document, problem: Report) -> bool:
    dialect = dialect_of(document.schema)
    if dialect is None:
        known = ", ".join(DIALECTS)
        problem(document.file, ("$schema",), f"is none of the drafts that are known: {known}")
        return False
    faults = list(_faults(dialect, dialect.metaschema.META_SCHEMA, document.schema))
    for path, message in faults:
        problem(document.file, path, message)
    if KEYWORD in document.schema and document.is_type:
        for path, message in _faults(DEFAULT, TYPE_OPTIONS_SCHEMA, document.schema[KEYWORD]):
            problem(document.file, (KEYWORD, *path), message)
    return not faults


def _faults(dialect: Dialect, schema: Any, value: Any) -> Iterator[tuple[Path, str]]:
    checker = FormatChecker(dialect.name, Budget(None))
    validator = dialect.reference(schema, registry=METASCHEMAS, format_checker=checker)
    told = set()
    for error in validator.iter_errors(value):
        path, _, message = described(error)
        fault = path, message
        if fault not in told:  # metaschemas refer to the same definition by several ways
            told.add(fault)
            yield fault


# -- where subschemas stand -------------------------------------------------------------------

_ONE = frozenset(
    {
        "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if",
        "items", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
_LIST = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED = frozenset(
    {
        "$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties",
        "properties",
    }
)  # fmt: skip

#: Keywords that some draft gives a meaning; each draft ignores those of the others.
_ALL_KEYWORDS = frozenset().union(*(d.metaschema.VALIDATORS for d in DIALECTS.values()))


def _children(schema: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key, value in schema.items():
        if key in _ONE and isinstance(value, dict):
            yield (key,), value
        elif key in _LIST and isinstance(value, list):
            for index, child in enumerate(value):
                yield (key, index), child
        elif key in _NAMED and isinstance(value, dict):
            for name, child in value.items():
                yield (key, name), child


class _Visit:
    """Goes through one document's subschemas, and through what its references lead to.

    The target of a reference need not stand where a subschema would; what is wrong there is
    reported at the reference, as that is the way it was reached.
    """

    def __init__(
        self,
        document: Document,
        references: References[Any],
        identifiers: dict[str, tuple[str, Path]],
        seen: set[int],
        problem: Report,
        warning: Report,
    ) -> None:
        self._document = document
        self._references = references
        self._identifiers = identifiers
        self._problem = problem
        self._warning = warning
        self._seen = seen
        self._targets: list[tuple[Path, Any, Any]] = []

    def whole(self) -> None:
        """Visit every subschema that stands where one belongs."""
        document = self._document
        resolver = self._references.resolver(document.uri)
        self._visit((), document.schema, resolver, document.uri)

    def targets(self) -> None:
        """Visit what references led to and no visit has seen."""
        while self._targets:
            path, schema, resolver = self._targets.pop()
            if id(schema) not in self._seen:
                self._follow(path, schema, resolver)

    def _visit(self, path: Path, schema: Any, resolver: Any, base: str) -> None:
        if not isinstance(schema, dict) or id(schema) in self._seen:
            return
        self._seen.add(id(schema))
        resource = self._document.dialect.specification.create_resource(schema)
        identifier = resource.id()
        if identifier is not None:
            base = urljoin(base, identifier).rstrip("#")
            self._identify(base, path)
        resolver = resolver.in_subresource(resource)
        self._check_references(path, schema, resolver)
        self._check_patterns(path, schema)
        self._check_effect(path, schema)
        for step, child in _children(schema):
            self._visit(path + step, child, resolver, base)

    def _follow(self, path: Path, schema: Any, resolver: Any) -> None:
        """Visit the target of a reference, reporting at the reference."""
        if not isinstance(schema, dict | bool):
            self._problem(self._document.file, path, "refers to something that is not a schema")
        elif isinstance(schema, dict):
            self._seen.add(id(schema))
            self._check_references(path, schema, resolver, target=True)
            for _, child in _children(schema):
                self._targets.append((path, child, resolver))

    def _identify(self, identifier: str, path: Path) -> None:
        here = (self._document.file, path)
        there = self._identifiers.setdefault(identifier, here)
        if there != here and (identifier != self._document.uri or path):
            place = f"{there[0]}#{pointer(there[1])}" if there[1] else there[0]
            key = "id" if self._document.dialect.name == "4" else "$id"
            self._problem(
                self._document.file, (*path, key), f"{identifier} already identifies {place}"
            )

    def _check_references(
        self, path: Path, schema: dict[str, Any], resolver: Any, *, target: bool = False
    ) -> None:
        for key in ("$ref", "$dynamicRef"):
            reference = schema.get(key)
            if not isinstance(reference, str):
                continue
            place = path if target else (*path, key)
            try:
                found = resolver.lookup(reference)
            except (Unresolvable, ValueError):
                self._problem(
                    self._document.file,
                    place,
                    f"{reference} leads nowhere: no file under the schemas directory has this"
                    " path or $id (relative references start from this schema's own), or the"
                    " file has no such part; the network is never asked",
                )
            else:
                self._targets.append((place, found.contents, found.resolver))

    def _check_patterns(self, path: Path, schema: dict[str, Any]) -> None:
        patterns: list[tuple[Path, Any]] = [((*path, "pattern"), schema.get("pattern"))]
        named = schema.get("patternProperties")
        if isinstance(named, dict):
            patterns += [((*path, "patternProperties", name), name) for name in named]
        for place, pattern in patterns:
            if not isinstance(pattern, str):
                continue
            found = matcher(pattern)
            if found is None:
                self._problem(self._document.file, place, f"{pattern!r} does not compile")
            elif found.engine == "bounded":
                self._warning(
                    self._document.file,
                    place,
                    f"{pattern!r} needs backtracking; a string that takes too much of it is"
                    " taken not to match",
                )
            elif found.engine == "python":
                self._warning(
                    self._document.file,
                    place,
                    f"{pattern!r} is too large for the safe engines; a hostile string can take"
                    " very long to match",
                )

    def _check_effect(self, path: Path, schema: dict[str, Any]) -> None:
        """Warn of what looks as if it did something."""
        document = self._document
        dialect = document.dialect
        name = schema.get("format")
        if isinstance(name, str) and format_check(dialect.name, name) is None:
            self._warning(
                document.file,
                (*path, "format"),
                f"draft {dialect.name} knows no format {name!r}; it is not checked",
            )
        for key in schema.keys() & _ALL_KEYWORDS - dialect.metaschema.VALIDATORS.keys():
            self._warning(
                document.file, (*path, key), f"draft {dialect.name} has no {key}; it is ignored"
            )
        if KEYWORD in schema and (path or not document.is_type):
            self._warning(
                document.file,
                (*path, KEYWORD),
                "has an effect at the root of a type's schema only",
            )
