"""What the operations of the OpenAPI description share: schemas, errors, fields, parameters.

What is said of errors comes from their catalogue. This module must not know event types
or paths.

Source: OpenAPI 3.1.0 section 4.8.7 (Components Object); RFC 9457 (problem details).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ingest.errors import CATALOGUE
from ingest.openapi_schemas import PREFIX

Json = dict[str, Any]

#: Errors that only a request with events can meet.
EVENT_ERRORS = frozenset(
    {
        "batch_too_large", "disk_full", "empty_body", "event_too_large", "first_not_stored",
        "handler_error", "handler_timeout", "idempotency_in_flight", "idempotency_key_malformed",
        "idempotency_key_required", "idempotency_mismatch", "inflated_too_large",
        "invalid_cloudevent",
        "journal_failed", "length_required", "malformed_encoding", "malformed_json", "not_a_batch",
        "message_too_large", "rejected", "schema_violation", "sink_refused", "sink_unauthorized",
        "sink_unavailable", "unknown_topic", "unknown_type", "unsupported_encoding",
        "unsupported_media_type",
    }
)  # fmt: skip
#: Errors that only operators can meet, at their own listener.
OPERATORS_ERRORS = frozenset({"reload_in_progress", "reload_refused"})
#: Errors that only a request that reads the journal can meet.
JOURNAL_ERRORS = frozenset(
    {"offset_ahead", "offset_gone", "precondition_failed", "range_not_satisfiable"}
)

TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}

SCHEMAS: Json = {
    "Accepted": {
        "description": "One event is stored.",
        "type": "object",
        "required": ["accepted", "id"],
        "properties": {"accepted": {"const": 1}, "id": {"type": "string", "format": "uuid"}},
    },
    "BatchResult": {
        "description": "What became of many events.",
        "type": "object",
        "required": ["accepted", "rejected"],
        "properties": {
            "accepted": _COUNT,
            "rejected": _COUNT,
            "ids": {
                "description": "By position, null where refused; left out with ids=false.",
                "type": "array",
                "items": {"type": ["string", "null"], "format": "uuid"},
            },
            "errors": {"type": "array", "items": {"$ref": f"{PREFIX}Fault"}},
            "errors_total": {**_COUNT, "description": "How many there are; the list may be cut."},
        },
    },
    "Fault": {
        "description": "One thing wrong with one event.",
        "type": "object",
        "required": ["pointer", "keyword", "message"],
        "properties": {
            "index": {**_COUNT, "description": "Position of the event, in a request of many."},
            "pointer": {"type": "string", "format": "json-pointer"},
            "keyword": {**TEXT, "description": "Of the schema; or json, handler, …"},
            "message": TEXT,
        },
    },
    "Problem": {
        "description": "RFC 9457 problem details.",
        "type": "object",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"enum": sorted(CATALOGUE)},
            "detail": TEXT,
            "request_id": TEXT,
            "line": _COUNT,
            "column": _COUNT,
            "excerpt": TEXT,
            "index": _COUNT,
            "first_offset": _COUNT,
            "next_offset": _COUNT,
            "accepted": _COUNT,
            "rejected": _COUNT,
            "errors": {"type": "array", "items": {"$ref": f"{PREFIX}Fault"}},
            "errors_total": _COUNT,
        },
    },
    "Journal": {
        "type": "object",
        "required": ["partitions"],
        "properties": {
            "partitions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["partition", "first_offset", "next_offset", "segments"],
                    "properties": {
                        "partition": _COUNT,
                        "first_offset": _COUNT,
                        "next_offset": _COUNT,
                        "segments": {
                            "description": "Oldest first.",
                            "type": "array",
                            "items": {"$ref": f"{PREFIX}Segment"},
                        },
                    },
                },
            }
        },
    },
    "Segment": {
        "type": "object",
        "required": ["segment", "first_offset", "next_offset", "bytes", "first_time", "open"],
        "properties": {
            "segment": {**TEXT, "description": "The file's name."},
            "first_offset": _COUNT,
            "next_offset": _COUNT,
            "bytes": {**_COUNT, "description": "Of the file, as far as it can be read."},
            "first_time": {
                "description": "Of its first record.",
                "type": ["string", "null"],
                "format": "date-time",
            },
            "open": {"type": "boolean", "description": "Whether it may still grow."},
        },
    },
    "Health": {
        "type": "object",
        "required": ["status", "checks"],
        "properties": {
            "status": {"enum": ["ok", "unavailable"]},
            "checks": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["status"],
                    "properties": {"status": {"enum": ["ok", "failed"]}, "reason": TEXT},
                },
            },
        },
    },
    "Types": {
        "type": "object",
        "required": ["types"],
        "properties": {
            "types": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type", "version", "versions", "dataschema", "routes"],
                    "properties": {
                        "type": TEXT,
                        "version": TEXT,
                        "versions": {"type": "array", "items": TEXT},
                        "dataschema": {"type": "string", "format": "uri-reference"},
                        "routes": {"type": "array", "items": TEXT},
                    },
                },
            }
        },
    },
}


# -- errors ---------------------------------------------------------------------------------------

HEADERS: Json = {
    "X-Request-Id": {"description": "Also stands in the logs.", "schema": TEXT},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    "Allow": {"description": "The methods of the path.", "schema": TEXT},
    "Accept-Post": {"description": "The media types that are taken.", "schema": TEXT},
    "Accept-Encoding": {"description": "The content codings that are taken.", "schema": TEXT},
    "Accept-Ranges": {"description": "`bytes`.", "schema": TEXT},
    "Content-Range": {"description": "Which bytes, of how many.", "schema": TEXT},
    "Last-Modified": {"description": "When the file was written to.", "schema": TEXT},
    "Ingest-Offset": {"description": "Of the first record.", "schema": _COUNT},
    "Ingest-Next-Offset": {"description": "To go on at.", "schema": _COUNT},
    "Ingest-End-Offset": {"description": "Of the record that comes next.", "schema": _COUNT},
    "ETag": {"description": "Strong; differs by content coding.", "schema": TEXT},
    "Vary": {"description": "What the answer was chosen by.", "schema": TEXT},
}
#: Fields that some errors carry.
_ERROR_HEADERS = {
    405: ("Allow",),
    412: ("ETag",),
    416: ("Content-Range", "ETag"),
    415: ("Accept-Post", "Accept-Encoding"),
    429: ("Retry-After",),
    503: ("Retry-After",),
    507: ("Retry-After",),
}


def header_fields(*names: str) -> Json:
    """The fields of an answer: these, and what every answer has."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _statuses(without: Iterable[str] = ()) -> dict[int, list[str]]:
    """Status → the codes of its errors."""
    statuses: dict[int, list[str]] = {}
    for code in sorted(CATALOGUE.keys() - set(without)):
        statuses.setdefault(CATALOGUE[code].status, []).append(code)
    return dict(sorted(statuses.items()))


def responses() -> Json:
    """An answer for each status that an error can have."""
    return {f"Problem{status}": _problem(status, codes) for status, codes in _statuses().items()}


def _problem(status: int, codes: list[str]) -> Json:
    described = ". ".join(f"`{code}`: {CATALOGUE[code].title}" for code in codes)
    return {
        "description": f"{described}.",
        "headers": header_fields(*_ERROR_HEADERS.get(status, ())),
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [{"$ref": f"{PREFIX}Problem"}],
                    "properties": {"status": {"const": status}, "code": {"enum": codes}},
                }
            }
        },
    }


def problems(without: Iterable[str] = ()) -> Json:
    """The answers to an operation that can fail in every way but these."""
    return {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in _statuses(without)
    }


# -- parameters ------------------------------------------------------------------------------------


def _flag(name: str, default: bool, description: str) -> Json:
    schema = {"type": "boolean", "default": default}
    return {"name": name, "in": "query", "description": description, "schema": schema}


PARAMETERS: Json = {
    "atomic": _flag("atomic", False, "Of many events, store all or none."),
    "ids": _flag("ids", True, "Of many events, list the ids in the answer."),
    "requestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Taken over if it is 1 to 128 visible ASCII characters.",
        "schema": TEXT,
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; stored with the event if valid.",
        "schema": TEXT,
    },
    "verbose": {
        "name": "verbose",
        "in": "query",
        "description": "List every check.",
        "allowEmptyValue": True,
        "schema": {"const": ""},
    },
    "ifNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "Tags of what the client holds; then 304.",
        "schema": TEXT,
    },
}


def parameter_refs(*names: str) -> list[Json]:
    """References to some of `PARAMETERS`."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]
