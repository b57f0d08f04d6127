"""The endpoints under /debug, for the admin listener: what the process does and holds right now.

They concern the process that answers; with several workers that is one of them, and each answer
says which. They never answer on the listener for events.

This module must not know sockets, or how the admin listener routes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import ujson

from ingest import debug
from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.logs_levels import DURATION_MAX_SECONDS, LEVELS, Levels, UnknownLogger
from ingest.responder import Responder
from ingest.routes import alone

TEXT = "text/plain; charset=utf-8"
#: The answers are of this moment.
HEADERS = {"Cache-Control": "no-store"}
#: A request to change a level is no longer than this.
BODY_MAX_BYTES = 4096

Endpoint = Callable[[Exchange], None]


class DebugEndpoints:
    """What answers.

    Args:
        responder: sends the answers.
        worker: number of this worker.
        figures: name → number that belongs to memory: connections, buffers, queues.
    """

    def __init__(
        self, responder: Responder, worker: int, figures: Mapping[str, Callable[[], float]]
    ) -> None:
        self._responder = responder
        self._worker = worker
        self._figures = figures
        self._levels = Levels()

    def table(self) -> dict[str, dict[str, Endpoint]]:
        """Path → method → endpoint."""
        return {
            "/debug/greenlets": {"GET": self.greenlets},
            "/debug/stacks": {"GET": self.stacks},
            "/debug/memory": {"GET": self.memory},
            "/debug/log-level": {"GET": self.levels, "PUT": self.change_level},
        }

    @alone
    def greenlets(self, exchange: Exchange) -> None:
        """`GET /debug/greenlets`: their stacks, equal ones together."""
        groups, looked = debug.greenlet_groups()
        lines = [f"{self._who()}: {looked} greenlets, {len(groups)} different stacks"]
        for count, kind, stack in groups[: debug.GROUPS_MAX]:
            lines += ["", f"{count} {kind}", *(f"  {line}" for line in stack)]
        if len(groups) > debug.GROUPS_MAX:
            lines += ["", f"… and {len(groups) - debug.GROUPS_MAX} more"]
        self._text(exchange, lines)

    def stacks(self, exchange: Exchange) -> None:
        """`GET /debug/stacks`: of the native threads."""
        threads = debug.thread_stacks()
        lines = [f"{self._who()}: {len(threads)} threads"]
        for ident, here, stack in threads:
            named = " (the event loop's, answering this)" if here else ""
            lines += ["", f"thread {ident:#x}{named}", *(f"  {line}" for line in stack)]
        self._text(exchange, lines)

    @alone
    def memory(self, exchange: Exchange) -> None:
        """`GET /debug/memory`: of the process, of the service, and objects by type."""
        types, looked, complete = debug.object_counts()
        document = {
            "pid": os.getpid(),
            "worker": self._worker,
            "process": debug.process_memory(),
            "service": {name: read() for name, read in self._figures.items()},
            "collector": debug.collector(),
            "objects": {"counted": looked, "complete": complete, "by_type": types},
        }
        self._json(exchange, document)

    def levels(self, exchange: Exchange) -> None:
        """`GET /debug/log-level`: the levels that are set."""
        document = {"pid": os.getpid(), "worker": self._worker, **self._levels.state()}
        self._json(exchange, document)

    def change_level(self, exchange: Exchange) -> None:
        """`PUT /debug/log-level`: `{"logger": …, "level": …[, "seconds": …]}`.

        Raises:
            IngestError: bad_parameter, or not_found.
        """
        name, level, seconds = _wanted(exchange.body)
        try:
            self._levels.change(name, level, seconds)
        except UnknownLogger as unknown:
            raise IngestError("not_found", str(unknown)) from unknown
        self.levels(exchange)

    def _who(self) -> str:
        return f"worker {self._worker}, pid {os.getpid()}"

    def _text(self, exchange: Exchange, lines: list[str]) -> None:
        body = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        self._responder.send(exchange, 200, body, content_type=TEXT, headers=HEADERS)

    def _json(self, exchange: Exchange, document: dict[str, Any]) -> None:
        text = ujson.dumps(document, ensure_ascii=False, escape_forward_slashes=False, indent=2)
        self._responder.send(exchange, 200, text.encode() + b"\n", headers=HEADERS)


def _wanted(body: bytes) -> tuple[str, str, float | None]:
    """Logger, level and seconds of a request to change a level.

    Raises:
        IngestError: bad_parameter.
    """
    try:
        document = orjson.loads(body) if len(body) <= BODY_MAX_BYTES else None
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or document.keys() - {"logger", "level", "seconds"}:
        raise IngestError("bad_parameter", 'Send {"logger": …, "level": …[, "seconds": …]}.')
    name, level, seconds = (document.get(key) for key in ("logger", "level", "seconds"))
    if not isinstance(name, str) or not name:
        raise IngestError("bad_parameter", "logger must be a logger's name, or root.")
    if not isinstance(level, str) or level.upper() not in LEVELS:
        raise IngestError("bad_parameter", f"level must be one of {', '.join(LEVELS)}.")
    if seconds is not None:
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 < seconds <= DURATION_MAX_SECONDS:
            limit = f"{DURATION_MAX_SECONDS:g}"
            raise IngestError("bad_parameter", f"seconds must be above 0 and at most {limit}.")
    return name, level.upper(), seconds
