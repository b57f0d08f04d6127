"""The event types: which there are, their versions, how each is validated.

    schemas/<type>.json             a type with one version, called 1
    schemas/<type>/<version>.json   a type with versions; the newest is the default
    schemas/_…/….json, _….json      shared parts, reached by $ref only

This module reads the schemas directory and nothing else; it must not know HTTP, settings or
where events go. All problems are found in one go and reported by file and JSON Pointer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from referencing import Registry as References

from ingest.codec import DecodeError, make_decoder
from ingest.registry_checks import (
    Document,
    SchemaProblem,
    check_documents,
    schemas_of,
)
from ingest.type_options import KEYWORD, Route, TypeOptions
from ingest.validation import Schemas, Validator, pointer

__all__ = ["EventType", "Registry", "RegistryError", "SchemaProblem"]

#: A type's name and a version's; both stand in URLs and metric labels as they are.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ONLY_VERSION = "1"
FILE_MAX_BYTES = 4 << 20
#: Schemas nest by hand; each level costs jsonschema several Python frames.
SCHEMA_DEPTH_MAX = 64


class RegistryError(Exception):
    """The schemas cannot be used.

    Args:
        problems: all that is wrong, in the order of the files.
    """

    def __init__(self, problems: list[SchemaProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class EventType:
    """One version of one event type.

    Attributes:
        name: the type's name.
        version: of the schema.
        path: its file, relative to the schemas directory.
        schema: the file's contents.
        validator: decides and explains.
        options: what `x-ingest` says.
        dataschema: URI reference of this version, for CloudEvents' attribute of that name.
    """

    __slots__ = ("dataschema", "name", "options", "path", "schema", "validator", "version")

    def __init__(
        self, name: str, version: str, path: Path, schema: dict[str, Any], validator: Validator
    ) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.schema = schema
        self.validator = validator
        self.options = TypeOptions.of(schema)
        self.dataschema = f"/v1/schemas/{quote(name)}?version={quote(version)}"

    def __repr__(self) -> str:
        return f"<EventType {self.name} version {self.version}>"


class Registry:
    """All event types.

    Attributes:
        types: the newest version of each type, by name in sorted order.
        warnings: what the operator should know.
        references: every schema file by its URI, `file:///` and its path.
    """

    def __init__(
        self,
        versions: dict[str, list[EventType]],
        warnings: list[SchemaProblem],
        references: References[Any],
    ) -> None:
        self.references = references
        self._versions = versions
        self.types: dict[str, EventType] = {name: versions[name][-1] for name in sorted(versions)}
        self.warnings = warnings

    @classmethod
    def load(cls, directory: Path) -> Registry:
        """Read, check and compile every schema below a directory.

        Raises:
            RegistryError: there is no type, or something is wrong with any file.
        """
        return _Loader(directory).load()

    def get(self, name: str, version: str | None = None) -> EventType | None:
        """A type's newest version, or the one named; None if there is none such."""
        if version is None:
            return self.types.get(name)
        return next((found for found in self.versions(name) if found.version == version), None)

    def versions(self, name: str) -> list[EventType]:
        """All versions of a type, oldest first; empty for an unknown one."""
        return list(self._versions.get(name, ()))

    def __iter__(self) -> Iterator[EventType]:
        return iter(self.types.values())

    def __len__(self) -> int:
        return len(self.types)


def version_key(version: str) -> tuple[Any, ...]:
    """Order of versions: Semantic Versioning 2.0.0 section 11 as far as it applies, else by runs.

    Numbers compare as numbers, a pre-release (`2.0.0-rc.1`) precedes its release, and a
    leading `v` and trailing `.0` make no difference. Other names precede numbered ones.
    """
    core, dash, pre = version.partition("-")
    numbers = re.fullmatch(r"v?(\d+(?:\.\d+)*)", core)
    if numbers is None:
        return (0, _runs(version))
    parts = [int(part) for part in numbers.group(1).split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return (1, parts, not dash, [_runs(part) for part in pre.split(".")])


def _runs(text: str) -> list[tuple[int, int, str]]:
    """Runs of digits as numbers, which precede those of letters."""
    return [
        (0, int(run), "") if run.isdigit() else (1, 0, run)
        for run in re.findall(r"[0-9]+|[^0-9]+", text)
    ]


def _ordered(places: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(places, key=lambda place: version_key(place[0]))


class _Loader:
    """Collects problems and warnings while the directory becomes a registry."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._decode = make_decoder("orjson", SCHEMA_DEPTH_MAX, "reject")
        self._problems: list[SchemaProblem] = []
        self._warnings: list[SchemaProblem] = []
        #: version and file of each version of each type
        self._places: dict[str, list[tuple[str, str]]] = {}

    def load(self) -> Registry:
        documents = self._read()
        sound = check_documents(documents, self._problem, self._warning)
        self._check_versions()
        self._check_routes(sound)
        if not self._places and not self._problems:
            self._problem(".", (), "there is no event type: add <type>.json")
        if self._problems:
            raise RegistryError(sorted(self._problems))
        registry = self._compile({document.file: document for document in sound})
        self._check_examples(registry)
        self._warnings.sort()
        return registry

    def _problem(self, file: str, path: tuple[str | int, ...], message: str) -> None:
        self._problems.append(SchemaProblem(self._named(file), pointer(path), message))

    def _warning(self, file: str, path: tuple[str | int, ...], message: str) -> None:
        self._warnings.append(SchemaProblem(self._named(file), pointer(path), message))

    def _named(self, file: str) -> str:
        """A file as someone can open it from where the schemas directory was named."""
        return (self._directory / file).as_posix()

    # -- reading ----------------------------------------------------------------------------

    def _read(self) -> list[Document]:
        if not self._directory.is_dir():
            self._problem(".", (), f"the schemas directory {self._directory} does not exist")
            return []
        documents = []
        for path in sorted(self._directory.rglob("*.json")):
            relative = path.relative_to(self._directory)
            # Hidden parts: editors' files, and the real files behind a mounted volume's links.
            if any(part.startswith(".") for part in relative.parts) or path.is_dir():
                continue
            shared = any(part.startswith("_") for part in relative.parts)
            if not shared and not self._place(relative):
                continue
            schema = self._parse(path, relative.as_posix())
            if schema is not None:
                documents.append(Document(relative.as_posix(), schema, not shared))
        return documents

    def _place(self, relative: Path) -> bool:
        """Tell type and version from the path; False if it can be neither."""
        file = relative.as_posix()
        if len(relative.parts) > 2:
            self._problem(
                file, (), "is neither <type>.json, <type>/<version>.json nor in a folder _…"
            )
            return False
        name = relative.parts[0] if len(relative.parts) == 2 else relative.stem
        version = relative.stem if len(relative.parts) == 2 else ONLY_VERSION
        for what, text in (("type", name), ("version", version)):
            if not NAME.fullmatch(text):
                self._problem(
                    file,
                    (),
                    f"{text!r} cannot name a {what}: letters, digits, '.', '_' and '-', at most"
                    " 128, the first a letter or digit",
                )
                return False
        self._places.setdefault(name, []).append((version, file))
        return True

    def _parse(self, path: Path, file: str) -> dict[str, Any] | None:
        try:
            raw = path.read_bytes()
        except OSError as error:
            self._problem(file, (), f"cannot be read: {error.strerror}")
            return None
        if len(raw) > FILE_MAX_BYTES:
            self._problem(file, (), f"is larger than {FILE_MAX_BYTES} bytes")
            return None
        try:
            schema = self._decode(raw)
        except DecodeError as error:
            self._problem(file, (), f"is not JSON: {error} near {error.excerpt}")
            return None
        if not isinstance(schema, dict):
            self._problem(file, (), "is not a JSON object")
            return None
        return schema

    # -- checks across files ----------------------------------------------------------------

    def _check_versions(self) -> None:
        for name, places in self._places.items():
            single = f"{name}.json"
            if len(places) > 1 and any(file == single for _, file in places):
                self._problem(single, (), f"{name} has a folder, too: move it in as a version")
                continue
            known: dict[str, str] = {}
            for version, file in places:
                other = known.setdefault(repr(version_key(version)), file)
                if other != file:
                    self._problem(file, (), f"is the same version as {other}")

    def _check_routes(self, documents: list[Document]) -> None:
        newest = {_ordered(places)[-1][1] for places in self._places.values()}
        owners: dict[Route, str] = {}
        for document in documents:
            options = document.schema.get(KEYWORD)
            if document.file not in newest or not isinstance(options, dict):
                continue
            routes = options.get("routes")
            for index, text in enumerate(routes if isinstance(routes, list) else ()):
                if not isinstance(text, str) or " " not in text:
                    continue  # reported by the check against the options' schema
                route = Route(*text.split(" ", 1))
                place = (KEYWORD, "routes", index)
                owner = owners.setdefault(route, document.file)
                if route.reserved:
                    self._problem(document.file, place, f"{text} is this service's own")
                elif owner != document.file:
                    self._problem(document.file, place, f"{text} is a route of {owner} already")

    # -- building ---------------------------------------------------------------------------

    def _compile(self, documents: dict[str, Document]) -> Registry:
        schemas = schemas_of(documents.values())
        versions: dict[str, list[EventType]] = {}
        for name, places in self._places.items():
            versions[name] = [
                self._event_type(name, version, documents[file], schemas)
                for version, file in _ordered(places)
            ]
        return Registry(versions, self._warnings, schemas.references)

    def _event_type(
        self, name: str, version: str, document: Document, schemas: Schemas
    ) -> EventType:
        validator = Validator(document.schema, document.uri, document.dialect, schemas)
        if validator.warning:
            self._warning(document.file, (), validator.warning)
        return EventType(name, version, Path(document.file), document.schema, validator)

    def _check_examples(self, registry: Registry) -> None:
        for event_type in registry:
            examples = event_type.schema.get("examples")
            for index, example in enumerate(examples if isinstance(examples, list) else ()):
                if not event_type.validator.is_valid(example):
                    (fault, *_), _ = event_type.validator.explain(example, 1)
                    self._warning(
                        event_type.path.as_posix(),
                        ("examples", index),
                        f"does not match the schema: {fault.message} at {fault.pointer!r}",
                    )
