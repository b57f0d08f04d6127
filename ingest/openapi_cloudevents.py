"""What the OpenAPI description says of `POST /v1/events`: CloudEvents in their three modes.

This module must not know where the schemas of event types come from.

Source: CloudEvents 1.0.2: JSON event format, HTTP protocol binding.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingest.cloudevents import (
    BATCHED_TYPE,
    EXTENSION_MAX_CHARS,
    EXTENSIONS_MAX,
    ID_MAX_CHARS,
    NAME_MAX_CHARS,
    STRUCTURED_TYPE,
    SUBJECT_MAX_CHARS,
    TIME_MAX_CHARS,
    URI_MAX_CHARS,
)
from ingest.openapi_parts import (
    JOURNAL_ERRORS,
    SCHEMAS,
    Json,
    header_fields,
    parameter_refs,
    problems,
)
from ingest.openapi_schemas import PREFIX

_DESCRIPTION = f"""\
CloudEvents 1.0 by the HTTP protocol binding; the event's `type` names the schema of its data.
Binary mode: `ce-` header fields and the data as the body. Structured and batched mode:
`{STRUCTURED_TYPE}` and `{BATCHED_TYPE}`. Faults are named by pointers into the event in the
JSON format, whatever the mode.
"""


def _text(most: int, **rest: str) -> Json:
    return {"type": "string", "minLength": 1, "maxLength": most, **rest}


_ATTRIBUTES: Json = {
    "specversion": {"const": "1.0"},
    "id": _text(ID_MAX_CHARS),
    "source": _text(URI_MAX_CHARS, format="uri-reference"),
    "type": _text(ID_MAX_CHARS),
    "time": _text(TIME_MAX_CHARS, format="date-time"),
    "subject": _text(SUBJECT_MAX_CHARS),
    "dataschema": _text(URI_MAX_CHARS, format="uri"),
}
_REQUIRED = ["specversion", "id", "source", "type"]

#: Schemas of their own, by name.
CLOUDEVENTS_SCHEMAS: Json = {
    "CloudEvent": {
        "description": "An event in the JSON format, whatever its type.",
        "type": "object",
        "required": _REQUIRED,
        "properties": {
            **{
                name: schema if name in _REQUIRED else {"anyOf": [schema, {"type": "null"}]}
                for name, schema in _ATTRIBUTES.items()
            },
            "datacontenttype": {
                "description": "JSON of some kind; `application/json` if it is not said.",
                "type": ["string", "null"],
            },
            "data": {"description": "As the schema of the type has it."},
            "data_base64": {
                "description": "The same as Base64; one of the two.",
                "type": ["string", "null"],
            },
        },
        "maxProperties": EXTENSIONS_MAX + len(_ATTRIBUTES) + 3,
        "additionalProperties": {
            "description": "Extension attributes.",
            "type": ["string", "boolean", "integer", "null"],
            "maxLength": EXTENSION_MAX_CHARS,
        },
        "propertyNames": {
            "anyOf": [
                {"pattern": f"^(?!ingest|rejected)[a-z0-9]{{1,{NAME_MAX_CHARS}}}$"},
                {"const": "data_base64"},
            ]
        },
    },
    "CloudEventAccepted": {
        "description": "One event is stored.",
        "type": "object",
        "required": ["accepted", "id"],
        "properties": {
            "accepted": {"const": 1},
            "id": {"description": "The producer's.", "type": "string"},
        },
    },
    "CloudEventBatchResult": {
        **SCHEMAS["BatchResult"],
        "properties": {
            **SCHEMAS["BatchResult"]["properties"],
            "ids": {
                "description": "The producers', by position; null where refused.",
                "type": "array",
                "items": {"type": ["string", "null"]},
            },
        },
    },
}


def cloudevents_paths(types: Mapping[str, Json]) -> Json:
    """The path that takes CloudEvents.

    Args:
        types: the schema of the data of each event type.
    """
    event: Json = {"$ref": f"{PREFIX}CloudEvent"}
    if types:
        event = {
            "allOf": [event],
            "anyOf": [
                {"properties": {"type": {"const": name}, "data": data}}
                for name, data in types.items()
            ],
        }
    data: Json = {"anyOf": list(types.values())} if types else {}
    content: Json = {
        STRUCTURED_TYPE: {"schema": event},
        BATCHED_TYPE: {"schema": {"type": "array", "items": event}},
        "application/json": {"schema": data},
    }
    many: Json = {"$ref": f"{PREFIX}CloudEventBatchResult"}
    either: Json = {"anyOf": [{"$ref": f"{PREFIX}CloudEventAccepted"}, many]}
    operation: Json = {
        "tags": ["events"],
        "operationId": "cloudevents",
        "summary": "CloudEvents of any type",
        "description": _DESCRIPTION,
        "parameters": [*_fields(), *parameter_refs("atomic", "ids", "requestId")],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "202": _answer("All is stored as durably as the types ask for.", either),
            "207": _answer("Of a batch, some are stored and some are refused.", many),
            **problems(JOURNAL_ERRORS),
        },
    }
    return {"/v1/events": {"post": operation}}


def _fields() -> list[Json]:
    """The header fields of binary mode.

    In the other two nobody looks at them, so the document may not say that any value is wrong.
    """
    return [
        {
            "name": f"ce-{name}",
            "in": "header",
            "description": "Binary mode, where it is bound as the attribute is; percent-encoded "
            "UTF-8. In the other modes nobody looks at it.",
            "schema": {"type": "string"},
        }
        for name in _ATTRIBUTES
    ]


def _answer(description: str, schema: Json) -> Json:
    return {
        "description": description,
        "headers": header_fields(),
        "content": {"application/json": {"schema": schema}},
    }
