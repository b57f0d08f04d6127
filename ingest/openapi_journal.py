"""What the OpenAPI description says of reading the journal.

This module must not know event types.

Source: OpenAPI 3.1.0; RFC 9110 sections 13 and 14.
"""

from __future__ import annotations

from ingest.openapi_parts import (
    EVENT_ERRORS,
    TEXT,
    Json,
    header_fields,
    parameter_refs,
    problems,
)
from ingest.openapi_schemas import PREFIX

_PARTITION: Json = {
    "name": "partition",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
_SEGMENT: Json = {
    "name": "segment",
    "in": "path",
    "required": True,
    "description": "The file's name, out of the list.",
    "schema": {"type": "string", "pattern": r"^[0-9]{20}\.ndjson(\.zst)?$"},
}
_PAGE_PARAMETERS: list[Json] = [
    {
        "name": "offset",
        "in": "query",
        "description": "Of the first record that is wanted.",
        "schema": {
            "anyOf": [{"type": "integer", "minimum": 0}, {"enum": ["earliest", "latest"]}],
            "default": "earliest",
        },
    },
    {
        "name": "limit",
        "in": "query",
        "description": "Most records; bounded by `journal_page_records_max`.",
        "schema": {"type": "integer", "minimum": 1, "default": 1000},
    },
    {
        "name": "wait",
        "in": "query",
        "description": "Seconds to wait for a record if there is none; bounded by "
        "`journal_wait_max_seconds`.",
        "schema": {"type": "number", "minimum": 0, "default": 0},
    },
]
_PAGE_FIELDS = ("Ingest-Offset", "Ingest-Next-Offset", "Ingest-End-Offset", "Vary")
_FILE_FIELDS = ("ETag", "Last-Modified", "Accept-Ranges")

#: Lines of it are described as an array of them, as for what is sent.
_LINES: Json = {
    "schema": {
        "description": "One CloudEvents 1.0 object a line.",
        "type": "array",
        "items": {"type": "object"},
    }
}


def _fields(*names: str) -> list[Json]:
    return [{"name": name, "in": "header", "schema": TEXT} for name in names]


def _operation(
    identifier: str, summary: str, parameters: list[Json], answers: Json, without: frozenset[str]
) -> Json:
    operation: Json = {
        "tags": ["journal"],
        "operationId": identifier,
        "summary": summary,
        "responses": {**answers, **problems(without)},
    }
    if parameters:
        operation["parameters"] = parameters
    return {"get": operation}


def journal_paths() -> Json:
    """The paths that read the journal."""
    ranges = frozenset({"precondition_failed", "range_not_satisfiable"})
    offsets = frozenset({"offset_gone", "offset_ahead"})
    listed = {
        "description": "Partitions and their segments.",
        "headers": header_fields("Vary"),
        "content": {"application/json": {"schema": {"$ref": f"{PREFIX}Journal"}}},
    }
    page = {
        "description": "Records in a row, in the order of their offsets; maybe none.",
        "headers": header_fields(*_PAGE_FIELDS),
        "content": {"application/x-ndjson": _LINES},
    }
    content = {"application/x-ndjson": _LINES, "application/zstd": {"schema": {}}}
    whole = {
        "description": "The segment.",
        "headers": header_fields(*_FILE_FIELDS),
        "content": content,
    }
    part = {
        "description": "The part that Range asked for.",
        "headers": header_fields(*_FILE_FIELDS, "Content-Range"),
        "content": content,
    }
    unchanged = {"description": "Not modified.", "headers": header_fields(*_FILE_FIELDS)}
    conditions = ("Range", "If-Range", "If-Match", "If-Modified-Since", "If-Unmodified-Since")
    return {
        "/v1/journal": _operation(
            "journal", "The segments", [], {"200": listed}, EVENT_ERRORS | ranges | offsets
        ),
        "/v1/journal/{partition}": _operation(
            "records",
            "Records from an offset on",
            [_PARTITION, *_PAGE_PARAMETERS],
            {"200": page},
            EVENT_ERRORS | ranges,
        ),
        "/v1/journal/{partition}/{segment}": _operation(
            "segment",
            "A segment as it is stored",
            [_PARTITION, _SEGMENT, *_fields(*conditions), *parameter_refs("ifNoneMatch")],
            {"200": whole, "206": part, "304": unchanged},
            EVENT_ERRORS | offsets,
        ),
    }
