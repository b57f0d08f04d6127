"""A gateway whose schemas and settings file a test writes, and its listener for operators."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

from tests.support.gateway import Answer, Client, Gateway
from tests.support.waiting import until

JSON = {"Content-Type": "application/json"}


class Deployment:
    """Files of a gateway, and the gateway.

    Args:
        directory: where they stand.
        flags: of the gateway.
        text: of the settings file.
        keywords: of `Gateway`.
    """

    def __init__(self, directory: Path, *flags: str, text: str = "", **keywords: Any) -> None:
        self.directory = directory
        self.schemas = directory / "schemas"
        self.schemas.mkdir()
        self.schema("thing", {"type": "object"})
        self.settings(text)
        self.admin_port = 0
        places = ("--schemas", str(self.schemas), "--config", str(directory / "ingest.yaml"))
        flags = (*places, "--handlers", str(directory / "handlers"), *flags)
        self.gateway = Gateway(
            directory / "data", "--admin-bind", "127.0.0.1:0", *flags, **keywords
        )

    def start(self) -> Deployment:
        self.gateway.start()
        self.read_admin_port()
        return self

    def read_admin_port(self) -> None:
        process = self.gateway._process
        assert process is not None and process.stdout is not None
        found = None
        while found is None:
            line = process.stdout.readline().decode()
            found = re.search(r"metrics  http://127\.0\.0\.1:(\d+)/metrics", line)
        self.admin_port = int(found[1])

    def schema(self, name: str, schema: Any) -> Path:
        """Write a schema; text is written as it is."""
        path = self.schemas / f"{name}.json"
        path.write_text(schema if isinstance(schema, str) else json.dumps(schema))
        return path

    def settings(self, text: str) -> None:
        (self.directory / "ingest.yaml").write_text(text)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines with that event."""
        whole = [x for x in self.gateway.log().splitlines(keepends=True) if x.endswith("\n")]
        return [line for line in map(json.loads, whole) if line["event"] == event]

    def hup(self, outcome: str) -> list[dict[str, Any]]:
        """SIGHUP, and wait for a further log line that says how it ended."""
        before = len(self.logged(outcome))
        self.gateway.send_signal(signal.SIGHUP)
        until(lambda: len(self.logged(outcome)) > before)
        return self.logged(outcome)[before:]

    def operate(self, path: str, method: str = "POST") -> Answer:
        """Ask the listener for operators."""
        with Client(socket.create_connection(("127.0.0.1", self.admin_port), 60)) as client:
            return client.request(method, path)

    def metric(self, line_start: str) -> float:
        """The value of one sample of `/metrics`."""
        for line in self.operate("/metrics", "GET").body.decode().splitlines():
            if line.startswith(line_start + " "):
                return float(line.rpartition(" ")[2])
        return 0.0


def post(client: Client, name: str, document: Any) -> Answer:
    """One event on a connection that is kept."""
    return client.request("POST", f"/v1/events/{name}", json.dumps(document).encode(), JSON)
