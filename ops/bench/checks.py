"""The body that everybody parses, and the proof that a server really judges it."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from ops.bench.process import ServerFailed, ServerProcess

PATH = "/metrics"
START_SECONDS = 30.0

#: Three metrics in 276 bytes.
EVENT: dict[str, Any] = {
    "metrics": [
        {
            "name": "http.server.requests",
            "value": 1027.5,
            "type": "counter",
            "tags": {"host": "web-1"},
        },
        {
            "name": "process.memory.rss",
            "value": 73400320,
            "type": "gauge",
            "tags": {"host": "web-1"},
        },
        {
            "name": "http.server.duration",
            "value": 0.0375,
            "type": "histogram",
            "tags": {"route": "/v1"},
        },
    ]
}
BODY = json.dumps(EVENT, separators=(",", ":")).encode()


def bad_bodies() -> dict[str, bytes]:
    """What every server that claims to validate has to refuse, by the fault's name."""

    def document(**changes: Any) -> bytes:
        metric = {"name": "m", "value": 1, "type": "gauge"} | changes
        return json.dumps({"metrics": [metric]}).encode()

    one = {"name": "m", "value": 1, "type": "gauge"}
    return {
        "cut off": BODY[:-1],
        "no metrics": b"{}",
        "empty list": b'{"metrics":[]}',
        "1001 items": json.dumps({"metrics": [one] * 1001}).encode(),
        "empty name": document(name=""),
        "long name": document(name="n" * 256),
        "value as text": document(value="1"),
        "unknown type": document(type="summit"),
        "tags as list": document(tags=[]),
        "tag value as number": document(tags={"host": 1}),
        "65 tags": document(tags={f"t{n}": "" for n in range(65)}),
        "unknown member": document(unit="ms"),
        "value true": document(value=True),
    }


def post(
    port: int,
    body: bytes,
    path: str = PATH,
    headers: Mapping[str, str] = MappingProxyType({}),
    tls: ssl.SSLContext | None = None,
) -> int:
    """POST a body on a connection of its own; returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if tls is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def wait_until_serving(
    process: ServerProcess,
    port: int,
    body: bytes = BODY,
    path: str = PATH,
    headers: Mapping[str, str] = MappingProxyType({}),
    tls: ssl.SSLContext | None = None,
) -> None:
    """Wait until the good body is answered 202.

    Raises:
        ServerFailed: it ended, it answers something else, or it takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    last = "nothing"
    while time.monotonic() < deadline:
        process.check_alive()
        try:
            status = post(port, body, path, headers, tls)
        except OSError as error:
            last = str(error)
        else:
            if status == 202:
                return
            last = f"status {status}"
            if status != 503:  # 503: it is still starting
                break
        time.sleep(0.05)
    raise ServerFailed(f"not 202 but {last}:\n{process.output_tail()}")


def require_judgement(port: int) -> None:
    """Check that every bad body is refused by a 4xx.

    Raises:
        ServerFailed: naming what was let through.
    """
    for fault, body in bad_bodies().items():
        status = post(port, body)
        if not 400 <= status <= 499:
            raise ServerFailed(f"a body with the fault {fault!r} was answered {status}")


def require_stored(process: ServerProcess, data: Path, answered: int) -> None:
    """Stop a server and check that what it acknowledged is in its journal.

    Raises:
        ServerFailed: it did not end as it should, or events are missing.
    """
    code = process.terminate()
    if code != 0:
        raise ServerFailed(f"ended with {code} on SIGTERM:\n{process.output_tail()}")
    stored = stored_events(data)
    if stored < answered:
        raise ServerFailed(f"answered {answered} events, but stored {stored}")


def stored_events(data: Path) -> int:
    """Number of lines in the journal under a data directory (one event a line).

    Counted here and not by `journal cat`, which would take longer than the measurement.
    """
    lines = 0
    for segment in data.glob("journal/*/*.ndjson*"):
        if segment.suffix in (".ndjson", ".zst"):
            with segment.open("rb") if segment.suffix == ".ndjson" else zstd.open(segment) as file:
                while chunk := file.read(1 << 20):
                    lines += chunk.count(b"\n")
    return lines
