"""The event types' schemas as components of one OpenAPI document.

Every reference becomes one into `#/components/schemas/`: what it leads to is made a
component of its own, wherever it stood, so the result needs no file and no `$id`. OpenAPI 3.1
speaks JSON Schema 2020-12; schemas of older drafts are written anew in it. Dynamic and
recursive references are bound once, as they are seen from where they are first reached.

This module must not know HTTP, routes or OpenAPI beyond its components.

Source: OpenAPI 3.1 section 4.8.24 (Schema Object); JSON Schema Core 2020-12 sections 8 and 10,
and the release notes of drafts 6 to 2020-12 for what was renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema_specifications import (  # type: ignore[import-untyped]
    REGISTRY as METASCHEMAS,
)
from referencing import Registry as References
from referencing.exceptions import Unresolvable
from referencing.jsonschema import lookup_recursive_ref

from ingest.type_options import KEYWORD
from ingest.validation_dialects import DEFAULT, DIALECTS, Dialect, dialect_of

PREFIX = "#/components/schemas/"

_ONE = frozenset(
    {
        "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
        "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"dependentSchemas", "patternProperties", "properties"})
#: They refer, identify, or hold what is a component of its own here.
_DROPPED = frozenset(
    {
        "$anchor", "$defs", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor",
        "$recursiveRef", "$ref", "$schema", "$vocabulary", "definitions", KEYWORD,
    }
)  # fmt: skip
#: Annotations of later drafts; an older one may have anything under these names.
_TYPES = {
    "$comment": str, "contentEncoding": str, "contentMediaType": str, "deprecated": bool,
    "description": str, "examples": list, "format": str, "readOnly": bool, "title": str,
    "writeOnly": bool,
}  # fmt: skip
_COUNTED = frozenset({"maxContains", "minContains"})
_BOUNDS = frozenset({"exclusiveMaximum", "exclusiveMinimum"})
#: Keywords that some draft gives a meaning; each draft ignores those of the others.
_ALL_KEYWORDS = _COUNTED.union(*(d.metaschema.VALIDATORS for d in DIALECTS.values()))
#: What a draft knows beyond what jsonschema's validator lists: because another keyword reads
#: it, or because the native validator, whose verdict counts, asserts it in every draft.
_UNLISTED = {
    "4": _BOUNDS,
    "6": frozenset(),
    "7": frozenset(),
    "2019-09": _COUNTED | {"dependencies"},
    "2020-12": _COUNTED | {"dependencies"},
}
#: Drafts in which `$ref` hides what stands beside it.
_REF_ALONE = frozenset({"4", "6", "7"})


class Bundle:
    """Collects schemas, with all they refer to, under names that fit a component.

    Args:
        references: every schema file by its URI.
        names: by URI, what the components of some of them are called.

    Attributes:
        schemas: component name → schema.
    """

    def __init__(self, references: References[Any], names: Mapping[str, str]) -> None:
        self.schemas: dict[str, Any] = {}
        self._references: References[Any] = METASCHEMAS.combine(references)
        #: id of a schema → its component's name
        self._names: dict[int, str] = {}
        #: id of what may be a schema → its draft, and what it can be called
        self._known: dict[int, tuple[Dialect, str]] = {}
        #: subschemas still to be written: source, its resolver, and where to put it
        self._todo: list[tuple[Any, Any, Any, Any]] = []
        for uri in references:
            file = uri.removeprefix("file:///").removesuffix(".json").replace("/", ".")
            self._index(references.contents(uri), names.get(uri) or f"shared.{_slug(file)}")

    def add(self, uri: str) -> dict[str, str]:
        """Make a schema file a component; returns the reference to it."""
        reference = self._component(self._references.contents(uri), self._references.resolver(uri))
        while self._todo:
            source, resolver, container, place = self._todo.pop()
            container[place] = self._write(source, resolver)
        return reference

    def _index(self, root: Any, name: str) -> None:
        """Note the draft of all that a file holds, and what each part can be called."""
        left: list[tuple[Any, Dialect, str]] = [(root, dialect_of(root) or DEFAULT, name)]
        while left:
            value, dialect, called = left.pop()
            if isinstance(value, list):
                left += [(item, dialect, f"{called}.{n}") for n, item in enumerate(value)]
            elif isinstance(value, dict):
                dialect = (dialect_of(value) or dialect) if "$schema" in value else dialect
                self._known[id(value)] = (dialect, called)
                left += [(item, dialect, f"{name}.{_slug(key)}") for key, item in value.items()]

    def _component(self, schema: Any, resolver: Any) -> dict[str, str]:
        """The reference to a schema, which is put on the list if it was not yet."""
        name = self._names.get(id(schema))
        if name is None:
            _, called = self._known.get(id(schema), (DEFAULT, "shared.schema"))
            name = called
            count = 1
            while name in self.schemas:
                count += 1
                name = f"{called}-{count}"
            self._names[id(schema)] = name
            self.schemas[name] = {}
            self._todo.append((schema, resolver, self.schemas, name))
        return {"$ref": PREFIX + name}

    # -- one schema ---------------------------------------------------------------------------

    def _write(self, schema: Any, outer: Any) -> Any:
        """One schema in 2020-12; what it contains is put on the list."""
        if not isinstance(schema, dict):
            return schema
        dialect, _ = self._known.get(id(schema), (DEFAULT, ""))
        resolver = outer.in_subresource(dialect.specification.create_resource(schema))
        targets = list(self._targets(schema, dialect, (resolver, outer)))
        if targets and dialect.name in _REF_ALONE:
            return targets[0]
        written = _modern(schema, dialect)
        for key, value in written.items():
            copy: Any = value
            if key in _ONE and isinstance(value, dict):
                self._todo.append((value, resolver, written, key))
            elif key in _LIST and isinstance(value, list):
                copy = list(value)
                self._todo += [(child, resolver, copy, n) for n, child in enumerate(value)]
            elif key in _NAMED and isinstance(value, dict):
                copy = dict(value)
                self._todo += [(child, resolver, copy, name) for name, child in value.items()]
            written[key] = copy
        if targets:
            written.update(targets[0])
        if targets[1:]:
            written.setdefault("allOf", []).extend(targets[1:])
        return written

    def _targets(
        self, schema: dict[str, Any], dialect: Dialect, resolvers: Sequence[Any]
    ) -> Iterator[dict[str, str]]:
        """References to what a schema refers to.

        Of the resolvers the first one that leads anywhere counts: a schema that was reached
        by its own identifier must not have it applied again.
        """
        for key in ("$ref", "$dynamicRef"):
            reference = schema.get(key)
            if not isinstance(reference, str) or key not in dialect.metaschema.VALIDATORS:
                continue
            for resolver in resolvers:
                try:
                    found = resolver.lookup(reference)
                except (Unresolvable, ValueError):
                    continue
                yield self._component(found.contents, found.resolver)
                break
            else:
                yield {"$comment": f"{reference[:200]} is not described here."}
        if "$recursiveRef" in schema and "$recursiveRef" in dialect.metaschema.VALIDATORS:
            found = lookup_recursive_ref(resolvers[0])
            yield self._component(found.contents, found.resolver)


def _modern(schema: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """A schema without references, in the words of 2020-12."""
    ignored = _ALL_KEYWORDS - dialect.metaschema.VALIDATORS.keys() - _UNLISTED[dialect.name]
    written: dict[str, Any] = {
        key: value
        for key, value in schema.items()
        if key not in _DROPPED and key not in ignored and isinstance(value, _TYPES.get(key, object))
    }
    if dialect.name == "4":
        written.pop("id", None)
        for bound in ("minimum", "maximum"):
            exclusive = f"exclusive{bound.capitalize()}"
            if written.pop(exclusive, False) is True and bound in written:
                written[exclusive] = written.pop(bound)
    if dialect.name != "2020-12":
        additional = written.pop("additionalItems", None)
        if isinstance(written.get("items"), list):
            first = written.pop("items")
            if first:
                written["prefixItems"] = first
            if additional is not None:
                written["items"] = additional
    for name, needed in written.pop("dependencies", {}).items():
        key = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
        both = dict(written.get(key, {}))
        if name in both:
            others = both[name]
            needed = (
                list(dict.fromkeys([*others, *needed]))
                if isinstance(needed, list)
                else {"allOf": [others, needed]}
            )
        written[key] = {**both, name: needed}
    return written


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:100] or "_"
