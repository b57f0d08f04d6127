"""What operators can have done, for the admin listener: a reload, consumers paused.

With several workers it is the supervisor who does it, for all of them. These endpoints never
answer on the listener for events. This module must not know sockets, or how anything is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

import ujson

from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.reload_outcome import Outcome
from ingest.responder import Responder
from ingest.routes import alone

HEADERS = {"Cache-Control": "no-store"}

Endpoint = Callable[[Exchange], None]


class Reloading(Protocol):
    """Who reloads."""

    @property
    def busy(self) -> bool:
        """Whether a reload is under way."""

    def reload(self, by: str) -> Outcome:
        """Reload; blocks."""


class Switching(Protocol):
    """Who pauses consumers."""

    def switch(self, pause_them: bool) -> list[str]:
        """Pause or resume all consumers; returns the types where that changed something."""


class Operations:
    """What answers.

    Args:
        responder: sends the answers.

    Attributes:
        reloads, consumers: who does it; set before anything is served.
    """

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self.reloads: Reloading
        self.consumers: Switching

    def table(self) -> dict[str, dict[str, Endpoint]]:
        """Path → method → endpoint."""
        return {
            "/admin/reload": {"POST": self.reload},
            "/admin/consumers/pause": {"POST": self.pause},
            "/admin/consumers/resume": {"POST": self.resume},
        }

    @alone
    def reload(self, exchange: Exchange) -> None:
        """`POST /admin/reload`: as SIGHUP, and says what became of it.

        Raises:
            IngestError: reload_in_progress, reload_refused with all problems.
        """
        if self.reloads.busy:
            raise IngestError("reload_in_progress")
        outcome = self.reloads.reload("admin")
        if outcome.problems:
            raise IngestError(
                "reload_refused",
                "Nothing was changed.",
                extensions={"problems": [asdict(found) for found in outcome.problems]},
            )
        document = outcome.document()
        del document["problems"]
        self._json(exchange, document)

    @alone
    def pause(self, exchange: Exchange) -> None:
        """`POST /admin/consumers/pause`: no further batch is given out, by any worker."""
        self._json(exchange, {"paused": self.consumers.switch(True)})

    @alone
    def resume(self, exchange: Exchange) -> None:
        """`POST /admin/consumers/resume`: they go on."""
        self._json(exchange, {"resumed": self.consumers.switch(False)})

    def _json(self, exchange: Exchange, document: dict[str, Any]) -> None:
        text = ujson.dumps(document, ensure_ascii=False, escape_forward_slashes=False, indent=2)
        self._responder.send(exchange, 200, text.encode() + b"\n", headers=HEADERS)
