"""What is answered from memory: probes, metrics, the schema registry.

Each endpoint is a function of an exchange. This module must not know sockets or the
journal.

Source: RFC 9110 section 13 (ETag, If-None-Match).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from ingest.codec import dumps
from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.health import Health
from ingest.metrics import Metrics
from ingest.registry import EventType, Registry
from ingest.responder import Responder

Endpoint = Callable[[Exchange], None]


class Endpoints:
    """The endpoints and their paths.

    Args:
        responder: sends the answers.
        health: the checks behind the probes.
        metrics: what `/metrics` shows.
        registry: what `/v1/schemas` shows.
    """

    def __init__(
        self, responder: Responder, health: Health, metrics: Metrics, registry: Registry
    ) -> None:
        self._responder = responder
        self._health = health
        self._metrics = metrics
        self._registry = registry

    def table(self) -> Mapping[str, Mapping[str, Endpoint]]:
        """Path to method to endpoint; `*` stands for OPTIONS, `/v1/schemas/*` for a prefix."""
        return {
            "/livez": {"GET": self._probe("live")},
            "/readyz": {"GET": self._probe("ready")},
            "/health": {"GET": self._probe("ready")},
            "/startupz": {"GET": self._probe("startup")},
            "/metrics": {"GET": self.metrics},
            "/v1/schemas": {"GET": self.schemas},
            "/v1/schemas/*": {"GET": self.schema},
            "*": {"OPTIONS": self.options},
        }

    def _probe(self, kind: str) -> Endpoint:
        def probe(exchange: Exchange) -> None:
            head = exchange.head
            verbose = "verbose" in head.query.split("&")
            status, body, content_type = self._health.probe(
                kind, verbose, head.headers.get("accept")
            )
            self._responder.send(
                exchange,
                status,
                body,
                content_type=content_type,
                headers={"Cache-Control": "no-store"},
            )

        return probe

    def metrics(self, exchange: Exchange) -> None:
        """`GET /metrics`: Prometheus text or OpenMetrics, by Accept."""
        body, content_type = self._metrics.render(exchange.head.headers.get("accept"))
        self._responder.send(exchange, 200, body, content_type=content_type)

    def options(self, exchange: Exchange) -> None:
        """`OPTIONS`: 204 with Allow, which the router left in the context."""
        self._responder.send(exchange, 204, b"", headers={"Allow": exchange.context})

    def schemas(self, exchange: Exchange) -> None:
        """`GET /v1/schemas`: every type with its versions, routes and where its schema is."""
        types = [
            {
                "type": event_type.name,
                "version": event_type.version,
                "versions": [version.version for version in self._registry.versions(name)],
                "dataschema": event_type.dataschema,
                "routes": [f"{r.method} {r.path}" for r in event_type.options.routes],
            }
            for name, event_type in sorted(self._registry.types.items())
        ]
        self._tagged(exchange, dumps({"types": types}) + b"\n", "application/json")

    def schema(self, exchange: Exchange) -> None:
        """`GET /v1/schemas/{type}?version=`: one schema as it was loaded."""
        head = exchange.head
        name = head.path.removeprefix("/v1/schemas/")
        event_type = self._find(name, _version(head.query))
        self._tagged(exchange, dumps(event_type.schema) + b"\n", "application/schema+json")

    def _find(self, name: str, version: str) -> EventType:
        if name in self._registry.types:
            if not version:
                return self._registry.types[name]
            for event_type in self._registry.versions(name):
                if event_type.version == version:
                    return event_type
        raise IngestError("unknown_type", f"No schema is loaded for {name[:128]!r} {version[:64]}.")

    def _tagged(self, exchange: Exchange, body: bytes, content_type: str) -> None:
        tag = '"' + hashlib.sha256(body).hexdigest()[:32] + '"'
        headers: dict[str, Any] = {"ETag": tag, "Cache-Control": "no-cache"}
        wanted = exchange.head.headers.get("if-none-match", "")
        matches = wanted.strip() == "*" or tag in (
            part.strip().removeprefix("W/") for part in wanted.split(",")
        )
        if matches:
            self._responder.send(exchange, 304, b"", headers=headers)
        else:
            self._responder.send(exchange, 200, body, content_type=content_type, headers=headers)


def _version(query: str) -> str:
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "version":
            return value
    return ""
