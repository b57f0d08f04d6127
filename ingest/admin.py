"""The listener for operators: probes, metrics, and what looks into the process.

It has connections of its own, few of them, and its requests take no slot of the pool, so it
answers while the main listener is full. With it `/metrics` is not on the main listener, and only
with it is there `/debug`. Who reaches it needs no key.

This module must not know sockets, event types or the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ingest.errors import IngestError
from ingest.http.head import Head
from ingest.peer import Peer
from ingest.routes import Plan, options_answer

Endpoints = Mapping[str, Mapping[str, Callable[[Any], None]]]

#: Paths of the main listener that are here as well, and whether they stay there.
SHARED = {"/livez": True, "/readyz": True, "/health": True, "/startupz": True, "/metrics": False}


def parted(table: Endpoints) -> tuple[Endpoints, Endpoints]:
    """What is left on the main listener, and what operators get on theirs.

    Args:
        table: path → method → endpoint, as without a listener for operators.
    """
    left = {path: methods for path, methods in table.items() if SHARED.get(path, True)}
    return left, {path: table[path] for path in (*SHARED, "*")}


class AdminRouter:
    """Routes by exact path.

    Args:
        endpoints: path → method → endpoint; `*` stands for OPTIONS.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def plan(self, head: Head, peer: Peer) -> Plan:
        """Decide what to do with a request. Never raises: a refusal is a plan, too."""
        try:
            return self._decide(head)
        except IngestError as error:
            return Plan(refusal=error)

    def _decide(self, head: Head) -> Plan:
        path, method = head.path, head.method
        methods = self._endpoints.get(path) if path != "*" else None
        if methods is None:
            raise IngestError("not_found", f"There is nothing at {path[:200]} for operators.")
        found = methods.get("GET" if method == "HEAD" else method)
        if found is not None:
            return Plan(endpoint=found)
        allowed = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        allow = ", ".join(sorted(allowed))
        if method == "OPTIONS":
            return Plan(endpoint=options_answer(allow, self._endpoints))
        raise IngestError(
            "method_not_allowed",
            f"{method} is not allowed here; allowed: {allow}.",
            headers={"Allow": allow},
        )
