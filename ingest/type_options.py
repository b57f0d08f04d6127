"""What belongs to one event type beside its JSON Schema: the keyword `x-ingest`.

JSON Schema ignores keywords it does not know, so the options travel in the schema file and
adding a type stays adding one file. They are checked against `TYPE_OPTIONS_SCHEMA` when the
registry is loaded; docs/schemas.md explains each.

PURE: no files, no validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingest.settings_values import RETENTION_MAX_SECONDS, parse_duration

#: The annotation keyword, at the root of a type's schema only.
KEYWORD = "x-ingest"

#: No type may claim these: they are this service's own, whatever the method.
RESERVED_PATHS = frozenset({"/health", "/livez", "/openapi.json", "/readyz", "/startupz"})
RESERVED_PREFIX = "/v1/"

#: RFC 3986 section 3.3 without percent-encoding and dot segments: routes are compared with
#: the decoded path, so each has exactly one way to be written.
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+"

_DEDUPE_OBJECT: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "by": {"enum": ["idempotency-key", "cloudevents", "pointer"]},
        "pointer": {
            "description": "JSON Pointer (RFC 6901) to what makes an event the same one.",
            "type": "string",
            "minLength": 1,
            "maxLength": 512,
            "pattern": "^(/([^~/]|~[01])*)+$",
        },
        "required": {"description": "Refuse what has no key.", "type": "boolean"},
        "window": {
            "description": "How long a key is remembered: `90s`, `15m`, `24h`, `7d`.",
            "type": "string",
            "pattern": "^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h"
            "|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$",
        },
    },
    "if": {"not": {"required": ["by"]}},
    "then": {"required": ["pointer"]},
    "dependentSchemas": {
        "by": {
            "if": {"properties": {"by": {"const": "pointer"}}},
            "then": {"required": ["pointer"]},
            "else": {"properties": {"pointer": False}},
        }
    },
}

#: A sink by its name, or Kafka with what this type has otherwise than the settings.
_SINK_OBJECT: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["kafka"],
    "properties": {
        "kafka": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "topic": {
                    "description": "Topic; `{type}` stands for the type.",
                    "type": "string",
                    "pattern": r"^(?!\.{1,2}$)([a-zA-Z0-9._-]|\{type\}){1,249}$",
                },
                "key": {
                    "description": "Key of the message: the CloudEvents attribute `subject`, or "
                    "what stands at a JSON Pointer (RFC 6901). Events with the same key keep "
                    "their order.",
                    "type": "string",
                    "maxLength": 512,
                    "pattern": "^(subject|(/([^~/]|~[01])*)+)$",
                },
                "mode": {
                    "description": "How a message holds an event.",
                    "enum": ["binary", "structured"],
                },
            },
        }
    },
}
_SINK: Mapping[str, Any] = {
    "if": {"type": "string"},
    "then": {"enum": ["journal", "kafka"]},
    "else": _SINK_OBJECT,
}

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
            "description": "When an event is answered: after fdatasync, after write, or when "
            "Kafka has it.",
            "enum": ["fsync", "write", "remote"],
        },
        "on_reject": {
            "description": "Refused events: `keep` puts them in the rejected journal.",
            "enum": ["drop", "keep"],
        },
        "dedupe": {
            "description": "How an event sent twice is told; docs/deduplication.md.",
            "if": {"type": "string"},
            "then": {"enum": ["none", "idempotency-key", "cloudevents"]},
            "else": _DEDUPE_OBJECT,
        },
        "webhook": {
            "description": "Its events are taken if they are signed; docs/access.md.",
            "type": "object",
            "additionalProperties": False,
            "required": ["scheme"],
            "properties": {
                "scheme": {"enum": ["github", "stripe", "standard"]},
                "secret_env": {
                    "description": "Environment variable that holds the secret.",
                    "type": "string",
                    "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$",
                },
                "secret_file": {
                    "description": "File with a secret in each line; two while it is changed.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 4096,
                },
                "tolerance": {
                    "description": "How old a signature may be, and how long it is remembered.",
                    "type": "string",
                    "pattern": "^([1-9][0-9]{0,4}s|[1-9][0-9]{0,3}m|[1-9][0-9]?h)$",
                },
            },
            "oneOf": [{"required": ["secret_env"]}, {"required": ["secret_file"]}],
        },
        "retention": {
            "description": "How long events are kept: `default` (the setting), `forever`, `30d`.",
            "type": "string",
            "pattern": "^(default|forever|[1-9][0-9]{0,4}[smhd])$",
        },
        "sink": {
            "description": "Where accepted events go; docs/kafka.md.",
            "if": {"type": "array"},
            "then": {"minItems": 1, "maxItems": 2, "uniqueItems": True, "items": _SINK},
            "else": _SINK,
        },
        "max_event_bytes": {
            "description": "Largest event of this type, as sent; beyond it 413.",
            "type": "integer",
            "minimum": 1,
            "maximum": 1 << 30,
        },
    },
}


@dataclass(frozen=True)
class Dedupe:
    """How a repeated event is told.

    Attributes:
        by: `none`, `idempotency-key`, `cloudevents` or `pointer`.
        pointer: to what makes an event the same one, with `by` pointer.
        required: whether what has no key is refused.
        window_seconds: how long a key is remembered; None leaves it to the setting.
    """

    by: str = "none"
    pointer: str = ""
    required: bool = False
    window_seconds: float | None = None

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> Dedupe:
        """From what a schema says, which has been checked."""
        if isinstance(given, str):
            return cls(by=given)
        window = given.get("window")
        return cls(
            by=given.get("by", "pointer"),
            pointer=given.get("pointer", ""),
            required=given.get("required", False),
            window_seconds=None if window is None else parse_duration(window),
        )


class Webhook(NamedTuple):
    """How the events of a type are signed.

    Attributes:
        scheme: `github`, `stripe` or `standard`.
        secret_env: environment variable with the secret; empty where it is in a file.
        secret_file: file with a secret in each line.
        tolerance_seconds: how old a signature may be, and how long it is remembered.
    """

    scheme: str
    secret_env: str = ""
    secret_file: str = ""
    tolerance_seconds: float = 300.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Webhook:
        """From what a schema says, which has been checked."""
        return cls(
            given["scheme"],
            given.get("secret_env", ""),
            given.get("secret_file", ""),
            parse_duration(given.get("tolerance", "5m")),
        )


class Sink(NamedTuple):
    """Where accepted events of a type go.

    Attributes:
        journal, kafka: whether they go there.
        topic, key, mode: of messages; None leaves topic and mode to the setting, and a message
            without a key.
    """

    journal: bool = True
    kafka: bool = False
    topic: str | None = None
    key: str | None = None
    mode: str | None = None

    @classmethod
    def of(cls, given: str | Mapping[str, Any] | Sequence[Any]) -> Sink:
        """From what a schema says, which has been checked."""
        journal = kafka = False
        options: Mapping[str, Any] = {}
        for sink in [given] if isinstance(given, str | Mapping) else given:
            if sink == "journal":
                journal = True
            else:
                kafka = True
                options = sink["kafka"] if isinstance(sink, Mapping) else options
        return cls(journal, kafka, options.get("topic"), options.get("key"), options.get("mode"))


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
        ack: `fsync`, `write` or `remote`; None leaves it to the setting.
        on_reject: what becomes of a refused event.
        dedupe: how a repeated event is told.
        retention: how long events are kept; see `retention_seconds`.
        sink: where accepted events go; None leaves it to the setting.
        max_event_bytes: size limit of one event in bytes; None leaves it to the setting.
        webhook: how its events are signed; None where they are not.
    """

    routes: tuple[Route, ...] = ()
    ack: str | None = None
    on_reject: str = "drop"
    dedupe: Dedupe = Dedupe()
    retention: str = "default"
    sink: Sink | None = None
    max_event_bytes: int | None = None
    webhook: Webhook | None = None

    @property
    def retention_seconds(self) -> float | None:
        """How long events are kept: 0 for ever; None leaves it to the setting."""
        if self.retention == "default":
            return None
        if self.retention == "forever":
            return 0.0
        return parse_duration(self.retention, RETENTION_MAX_SECONDS)

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> TypeOptions:
        """The options in a schema whose `x-ingest` has been checked."""
        given = dict(schema.get(KEYWORD, {}))
        routes = tuple(Route(*route.split(" ", 1)) for route in given.pop("routes", ()))
        if "dedupe" in given:
            given["dedupe"] = Dedupe.of(given["dedupe"])
        if "sink" in given:
            given["sink"] = Sink.of(given["sink"])
        if "webhook" in given:
            given["webhook"] = Webhook.of(given["webhook"])
        return cls(routes=routes, **given)
