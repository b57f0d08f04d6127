"""The OpenAPI description of the service: its own routes, and those of the loaded types.

`openapi_document` makes it once, when the schemas are loaded; `/openapi.json` serves it. What
it says of errors comes from their catalogue, of events from the registry. That no route is
left out is the tests' to see.

This module must not know sockets, or how requests are routed.

Source: OpenAPI 3.1.0; RFC 9457 (problem details).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ingest.encodings import ACCEPT_ENCODING
from ingest.openapi_cloudevents import CLOUDEVENTS_SCHEMAS, cloudevents_paths
from ingest.openapi_journal import journal_paths
from ingest.openapi_parts import (
    EVENT_ERRORS,
    HEADERS,
    JOURNAL_ERRORS,
    OPERATORS_ERRORS,
    PARAMETERS,
    SCHEMAS,
    TEXT,
    Json,
    header_fields,
    parameter_refs,
    problems,
    responses,
)
from ingest.openapi_schemas import PREFIX, Bundle
from ingest.registry import EventType, Registry
from ingest.routes import NDJSON_TYPES
from ingest.version import __version__

_DESCRIPTION = f"""\
JSON events in, validated against their type's schema, durable, then answered.

`HEAD` works wherever `GET` does, and `OPTIONS` names the methods of a path. Bodies may come
with a `Content-Encoding` out of {ACCEPT_ENCODING}. `format` is asserted.
"""


def openapi_document(registry: Registry, journal: bool = True) -> Json:
    """The description of the service with these types, as an OpenAPI 3.1 document.

    Args:
        journal: whether the journal is read over HTTP.
    """
    bundle = Bundle(
        registry.references, {_uri(event_type): _name(event_type) for event_type in registry}
    )
    paths: Json = _own_paths(registry)
    if journal:
        paths.update(journal_paths())
    events = {event_type.name: bundle.add(_uri(event_type)) for event_type in registry}
    paths.update(cloudevents_paths(events))
    for event_type in registry:
        event = events[event_type.name]
        for method, path, operation in _event_operations(event_type, event):
            paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "ingest", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "events", "description": "Sending events."},
            {"name": "schemas", "description": "What can be sent."},
            {"name": "journal", "description": "Reading events back."},
            {"name": "operation", "description": "Health and metrics."},
        ],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **CLOUDEVENTS_SCHEMAS, **bundle.schemas},
            "responses": responses(),
            "parameters": PARAMETERS,
            "headers": HEADERS,
        },
    }


def _uri(event_type: EventType) -> str:
    return f"file:///{event_type.path.as_posix()}"


def _name(event_type: EventType) -> str:
    return f"event.{event_type.name}"


# -- sending events -------------------------------------------------------------------------------


def _event_operations(event_type: EventType, event: Json) -> Iterator[tuple[str, str, Json]]:
    """Method, path and operation of each call that takes events of a type."""
    name, schema = event_type.name, event_type.schema
    title = _text(schema.get("title"), name)
    description = _text(schema.get("description"), "")
    single, batch = _content(schema, event)
    many: Json = {"$ref": f"{PREFIX}BatchResult"}
    either: Json = {"anyOf": [{"$ref": f"{PREFIX}Accepted"}, many]}
    path = f"/v1/events/{name}"
    calls: list[tuple[str, str, str, str, Json, Json]] = [
        ("POST", path, "events", f"{title}: one event, or many as NDJSON", single, either),
        ("POST", f"/v1/batch/{name}", "batch", f"{title}: many events as an array", batch, many),
    ]
    for number, route in enumerate(event_type.options.routes, 1):
        summary = f"{title}: as POST {path}"
        calls.append((route.method, route.path, f"alias{number}", summary, single, either))
    for method, path, kind, summary, content, result in calls:
        operation = _operation(f"{kind}.{name}", summary, description, content, result)
        yield method.lower(), path, operation


def _content(schema: Mapping[str, Any], event: Json) -> tuple[Json, Json]:
    """The bodies of single events and lines, and of arrays, by media type."""
    one: Json = {"schema": event}
    many: Json = {"schema": {"type": "array", "items": event}}
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        one["examples"] = {f"example{n}": {"value": e} for n, e in enumerate(examples, 1)}
        many["examples"] = {"all": {"value": examples}}
    lines = {
        "schema": {
            "description": "One event a line: the items, each followed by LF.",
            "type": "array",
            "items": event,
        }
    }
    single = {"application/json": one, **dict.fromkeys(sorted(NDJSON_TYPES), lines)}
    return single, {"application/json": many}


def _text(value: Any, default: str) -> str:
    return value if isinstance(value, str) else default


def _operation(
    identifier: str, summary: str, description: str, content: Json, result: Json
) -> Json:
    return {
        "tags": ["events"],
        "operationId": identifier,
        "summary": summary,
        "description": description,
        "parameters": parameter_refs("atomic", "ids", "requestId", "traceparent"),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "202": {
                "description": "All is stored as durably as the type asks for.",
                "headers": header_fields(),
                "content": {"application/json": {"schema": result}},
            },
            "207": {
                "description": "Of many events, some are stored and some are refused.",
                "headers": header_fields(),
                "content": {"application/json": {"schema": {"$ref": f"{PREFIX}BatchResult"}}},
            },
            **problems(JOURNAL_ERRORS),
        },
    }


# -- reading --------------------------------------------------------------------------------------


def _read(
    identifier: str,
    tag: str,
    summary: str,
    content: Json,
    *,
    parameters: Iterable[Json] = (),
    headers: Iterable[str] = (),
    more: Mapping[str, Json] | None = None,
    missing: bool = False,
) -> Json:
    """A path that is read with GET.

    Args:
        content: of the 200, by media type.
        more: further answers by status.
        missing: whether it can be that there is nothing of the name asked for.
    """
    without = EVENT_ERRORS - {"unknown_type"} if missing else EVENT_ERRORS
    without |= JOURNAL_ERRORS | OPERATORS_ERRORS
    answer = {
        "description": "As asked for.",
        "headers": header_fields(*headers),
        "content": content,
    }
    operation: Json = {
        "tags": [tag],
        "operationId": identifier,
        "summary": summary,
        "responses": {"200": answer, **problems(without), **(more or {})},
    }
    if parameters:
        operation["parameters"] = list(parameters)
    return {"get": operation}


def _tagged(
    identifier: str, summary: str, content: Json, parameters: Iterable[Json] = (), **rest: Any
) -> Json:
    """A path whose answer has an entity tag."""
    return _read(
        identifier,
        "schemas",
        summary,
        content,
        parameters=[*parameters, *parameter_refs("ifNoneMatch")],
        headers=("ETag", "Vary"),
        more={"304": {"description": "Not modified.", "headers": header_fields("ETag", "Vary")}},
        **rest,
    )


def _own_paths(registry: Registry) -> Json:
    text = {"text/plain": {"schema": TEXT}}
    health = {**text, "application/json": {"schema": {"$ref": f"{PREFIX}Health"}}}
    problem = {"application/problem+json": {"schema": {"$ref": f"{PREFIX}Problem"}}}
    failing = {
        "503": {
            "description": "No.",
            "headers": header_fields(),
            "content": {**health, **problem},
        }
    }
    paths = {
        path: _read(
            path[1:],
            "operation",
            summary,
            health,
            parameters=parameter_refs("verbose"),
            more=failing,
        )
        for path, summary in (
            ("/livez", "Whether the event loop turns"),
            ("/readyz", "Whether events can be taken"),
            ("/health", "As /readyz"),
            ("/startupz", "Whether it has started"),
        )
    }
    metrics = {**text, "application/openmetrics-text": {"schema": TEXT}}
    paths["/metrics"] = _read(
        "metrics", "operation", "Prometheus metrics", metrics, headers=("Vary",)
    )
    types = {"application/json": {"schema": {"$ref": f"{PREFIX}Types"}}}
    paths["/v1/schemas"] = _tagged("schemas", "The event types", types)
    of_type: list[Json] = [
        {"name": "type", "in": "path", "required": True, "schema": {"enum": list(registry.types)}},
        {
            "name": "version",
            "in": "query",
            "description": "The newest by default.",
            "schema": TEXT,
        },
    ]
    schema = {"application/schema+json": {"schema": {"type": "object"}}}
    paths["/v1/schemas/{type}"] = _tagged("schema", "One schema", schema, of_type, missing=True)
    document = {"application/json": {"schema": {"type": "object"}}}
    paths["/openapi.json"] = _tagged("openapi", "This document", document)
    return paths
