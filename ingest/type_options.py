"""What belongs to one event type beside its JSON Schema: the keyword `x-ingest`.

JSON Schema ignores keywords it does not know, so the options travel in the schema file and
adding a type stays adding one file. They are checked against `TYPE_OPTIONS_SCHEMA` when the
registry is loaded; docs/schemas.md explains each.

PURE: no files, no validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

#: The annotation keyword, at the root of a type's schema only.
KEYWORD = "x-ingest"

#: No type may claim these: they are this service's own, whatever the method.
RESERVED_PATHS = frozenset({"/health", "/livez", "/openapi.json", "/readyz", "/startupz"})
RESERVED_PREFIX = "/v1/"

#: RFC 3986 section 3.3 without percent-encoding and dot segments: routes are compared with
#: the decoded path, so each has exactly one way to be written.
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+"

#: For the options that name a feature: only what is served can be asked for, so that an
#: option that would do nothing is refused instead of accepted in silence.
TYPE_OPTIONS_SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "x-ingest: the options of one event type",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "routes": {
            "description": "Further calls that post one event of this type.",
            "type": "array",
            "uniqueItems": True,
            "maxItems": 100,
            "items": {
                "description": "Method and path, for example `POST /metrics`.",
                "type": "string",
                "maxLength": 512,
                "pattern": rf"^(POST|PUT|PATCH) (/|(/{_SEGMENT})+/?)$",
            },
        },
        "ack": {
            "description": "When an event is answered: after fdatasync or after write.",
            "enum": ["fsync", "write"],
        },
        "on_reject": {
            "description": "What becomes of an event that is refused: it is answered, not kept.",
            "enum": ["drop"],
        },
        "dedupe": {
            "description": "How an event sent twice is told: it is not.",
            "enum": ["none"],
        },
        "retention": {
            "description": "How long events are kept.",
            "enum": ["forever"],
        },
        "sink": {
            "description": "Where accepted events go.",
            "enum": ["journal"],
        },
        "max_event_bytes": {
            "description": "Largest event of this type, as sent; beyond it 413.",
            "type": "integer",
            "minimum": 1,
            "maximum": 1 << 30,
        },
    },
}


class Route(NamedTuple):
    """A call that posts one event of a type.

    Attributes:
        method: POST, PUT or PATCH.
        path: absolute, decoded.
    """

    method: str
    path: str

    @property
    def reserved(self) -> bool:
        """Whether the path is one of this service's own."""
        return self.path in RESERVED_PATHS or self.path.startswith(RESERVED_PREFIX)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class TypeOptions:
    """The options of one event type; see `TYPE_OPTIONS_SCHEMA`.

    Attributes:
        routes: further calls that post one event.
        ack: `fsync` or `write`; None leaves it to the setting.
        on_reject: what becomes of a refused event.
        dedupe: how a repeated event is told.
        retention: how long events are kept.
        sink: where accepted events go.
        max_event_bytes: size limit of one event in bytes; None leaves it to the setting.
    """

    routes: tuple[Route, ...] = ()
    ack: str | None = None
    on_reject: str = "drop"
    dedupe: str = "none"
    retention: str = "forever"
    sink: str = "journal"
    max_event_bytes: int | None = None

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> TypeOptions:
        """The options in a schema whose `x-ingest` has been checked."""
        given = dict(schema.get(KEYWORD, {}))
        routes = tuple(Route(*route.split(" ", 1)) for route in given.pop("routes", ()))
        return cls(routes=routes, **given)
