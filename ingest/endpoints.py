"""What is answered from memory: probes, metrics, the schema registry.

Each endpoint is a function of an exchange. This module must not know sockets or the
journal.

Source: RFC 9110 sections 12.5.3 and 12.5.5 (Accept-Encoding, Vary), 13 (ETag, If-None-Match).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ingest.codec import dumps
from ingest.connection import Exchange
from ingest.encodings import compress, negotiate
from ingest.endpoints_paced import Paced
from ingest.errors import IngestError
from ingest.health import Health
from ingest.health_workers import WorkersHealth
from ingest.metrics import Metrics
from ingest.openapi import openapi_document
from ingest.registry import EventType, Registry
from ingest.representations import Document, is_current
from ingest.responder import Responder

Endpoint = Callable[[Exchange], None]

#: Expositions kept for those who asked together; Accept is the client's to choose.
EXPOSITIONS_MAX = 8


class Endpoints:
    """The endpoints and their paths.

    Args:
        responder: sends the answers.
        health: the checks behind the probes.
        metrics: what `/metrics` shows.
        registry: what `/v1/schemas` and `/openapi.json` show; it does not change.
        compress_min_bytes: smaller answers are not compressed.
        journal: whether the journal is read over HTTP, for `/openapi.json`.
        schemas_base: what stands before `/v1/schemas` in `dataschema`.
    """

    def __init__(
        self,
        responder: Responder,
        health: Health | WorkersHealth,
        metrics: Metrics,
        registry: Registry,
        compress_min_bytes: int,
        journal: bool = True,
        schemas_base: str = "",
    ) -> None:
        self._responder = responder
        self._health = health
        self._metrics = metrics
        self._registry = registry
        self._compress_min_bytes = compress_min_bytes
        self._schemas_base = schemas_base
        self._openapi = Document(
            dumps(openapi_document(registry, journal)) + b"\n", "application/json"
        )
        self._types = Document(dumps({"types": self._list_types()}) + b"\n", "application/json")
        self._scrapes = Paced(self._expose, responder, metrics)
        #: by file; made when they are asked for
        self._schemas: dict[str, Document] = {}

    def table(self) -> Mapping[str, Mapping[str, Endpoint]]:
        """Path to method to endpoint; `*` stands for OPTIONS, `/v1/schemas/*` for a prefix."""
        return {
            "/livez": {"GET": self._probe("live")},
            "/readyz": {"GET": self._probe("ready")},
            "/health": {"GET": self._probe("ready")},
            "/startupz": {"GET": self._probe("startup")},
            "/metrics": {"GET": self.metrics},
            "/openapi.json": {"GET": self.openapi},
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
        self._scrapes(exchange)

    def _expose(self, exchange: Exchange, made: dict[Any, tuple[bytes, str]]) -> None:
        """Answer with the metrics.

        Args:
            made: expositions of this moment, by Accept.
        """
        accept = exchange.head.headers.get("accept")
        exposition = made.get(accept)
        if exposition is None:
            exposition = self._metrics.render(accept)
            if len(made) < EXPOSITIONS_MAX:
                made[accept] = exposition
        body, content_type = exposition
        headers = {"Vary": "Accept, Accept-Encoding"}
        coding = self._coding(exchange, body)
        if coding:
            body = compress(body, coding)
            headers["Content-Encoding"] = coding
            self._metrics.answers_compressed.cell(coding).value += 1
        self._responder.send(exchange, 200, body, content_type=content_type, headers=headers)

    def options(self, exchange: Exchange) -> None:
        """`OPTIONS`: 204 with Allow, which the router left in the context."""
        self._responder.send(exchange, 204, b"", headers={"Allow": exchange.context})

    def schemas(self, exchange: Exchange) -> None:
        """`GET /v1/schemas`: every type with its versions, routes and where its schema is."""
        self._tagged(exchange, self._types)

    def _list_types(self) -> list[dict[str, object]]:
        return [
            {
                "type": event_type.name,
                "version": event_type.version,
                "versions": [version.version for version in self._registry.versions(name)],
                "dataschema": self._schemas_base + event_type.dataschema,
                "routes": [f"{r.method} {r.path}" for r in event_type.options.routes],
            }
            for name, event_type in sorted(self._registry.types.items())
        ]

    def openapi(self, exchange: Exchange) -> None:
        """`GET /openapi.json`: the OpenAPI description of the service with its types."""
        self._tagged(exchange, self._openapi)

    def schema(self, exchange: Exchange) -> None:
        """`GET /v1/schemas/{type}?version=`: one schema as it was loaded."""
        head = exchange.head
        name = head.path.removeprefix("/v1/schemas/")
        event_type = self._find(name, _version(head.query))
        file = event_type.path.as_posix()
        if file not in self._schemas:
            self._schemas[file] = Document(
                dumps(event_type.schema) + b"\n", "application/schema+json"
            )
        self._tagged(exchange, self._schemas[file])

    def _find(self, name: str, version: str) -> EventType:
        if name in self._registry.types:
            if not version:
                return self._registry.types[name]
            for event_type in self._registry.versions(name):
                if event_type.version == version:
                    return event_type
        raise IngestError("unknown_type", f"No schema is loaded for {name[:128]!r} {version[:64]}.")

    def _coding(self, exchange: Exchange, body: bytes) -> str:
        """The coding that is wanted for a body, `""` for none."""
        if len(body) < self._compress_min_bytes:
            return ""
        return negotiate(exchange.head.headers.get("accept-encoding", ""))

    def _tagged(self, exchange: Exchange, document: Document) -> None:
        body, coding, tag = document.select(self._coding(exchange, document.body))
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if is_current(exchange.head.headers.get("if-none-match", ""), tag):
            self._responder.send(exchange, 304, b"", headers=headers)
            return
        if coding:
            headers["Content-Encoding"] = coding
            self._metrics.answers_compressed.cell(coding).value += 1
        self._responder.send(
            exchange, 200, body, content_type=document.content_type, headers=headers
        )


def _version(query: str) -> str:
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "version":
            return value
    return ""
