"""Tests of handlers against a real server, in the test's own process.

In `conftest.py`, before anything else:

    pytest_plugins = ["ingest.testing"]

and then a test takes three lines:

    def test_an_order_whose_total_is_wrong_is_refused(ingest_gateway):
        answer = ingest_gateway.post("order", {**ORDER, "total": "1.00"})
        assert answer.status == 422

The server is the one that is deployed: sockets, validation, handlers, journal. Because it runs
in the test's process, a test can replace what a handler uses, look at its state, and stop in it
with a debugger. Importing this module patches the standard library as `python -m ingest` does.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gc
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest.codec import dumps
from ingest.handlers import loader
from ingest.journal.frame import Commit
from ingest.journal.reader import PartitionReader
from ingest.journal.storage import Storage
from ingest.metrics import Metrics
from ingest.registry import Registry
from ingest.server import listen
from ingest.service import Service
from ingest.settings import Settings

__all__ = ["Answer", "Gateway", "ingest_gateway", "new_ingest_gateway", "serving"]

#: No answer takes longer than that.
ANSWER_SECONDS = 60.0


class Answer(NamedTuple):
    """What the server answered.

    Attributes:
        status: HTTP status code.
        headers: with lower-case names.
        body: as sent.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Gateway:
    """A server in this process.

    Attributes:
        service: for those who want to look inside.
        port: where it listens, on 127.0.0.1.
        url: the same as a URL without a path.
    """

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def post(self, type: str, event: Any, **headers: str) -> Answer:
        """Post one event.

        Args:
            type: its event type.
            event: encoded as JSON; bytes are sent as they are.
            headers: further header fields; `_` in names stands for `-`.
        """
        body = event if isinstance(event, bytes) else dumps(event)
        fields = {"Content-Type": "application/json"}
        fields.update((name.replace("_", "-"), value) for name, value in headers.items())
        return self.request("POST", f"/v1/events/{type}", body, fields)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, {"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def stored(self) -> list[dict[str, Any]]:
        """Every event that was stored, as CloudEvents, oldest first."""
        directory = Path(self.service.settings.data) / "journal" / "0"
        reader = PartitionReader(Storage(), directory)
        try:
            found = [entry.item for entry in reader.poll()]
        finally:
            reader.close()
        commits = [item for item in found if isinstance(item, Commit)]
        return [json.loads(line) for commit in commits for line in commit.lines]


@contextmanager
def serving(data: Path, **settings: Any) -> Iterator[Gateway]:
    """Serve until the block ends.

    Args:
        data: where the journal is to be.
        settings: by name; directories are relative to the working directory.

    Raises:
        RegistryError, HandlersError: the schemas or handlers cannot be used.
    """
    resolved = replace(Settings(), data=str(data), **settings)
    registry = Registry.load(Path(resolved.schemas))
    handlers = loader.load(Path(resolved.handlers), set(registry.types))
    service = Service(resolved, registry, handlers, Metrics(), None)
    service.setup()
    service.recover()
    listener = listen("127.0.0.1", 0, resolved.backlog)
    threshold = gc.get_threshold()
    service.start(listener)
    try:
        yield Gateway(service, listener.getsockname()[1])
    finally:
        service.hurry()
        service.stop()
        gc.unfreeze()
        gc.set_threshold(*threshold)


@pytest.fixture
def new_ingest_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes a server with settings of the test's own: `new_ingest_gateway(handlers="legacy")`."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(tmp_path / "data", **settings))


@pytest.fixture
def ingest_gateway(new_ingest_gateway: Callable[..., Gateway]) -> Gateway:
    """A server of the `schemas/` and `handlers/` in the working directory."""
    return new_ingest_gateway()
