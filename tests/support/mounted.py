"""A gateway with the applications of `wsgi_apps` mounted, and answers read in any framing."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.gateway import Answer, Gateway

APP = "/legacy=tests.support.wsgi_apps:app"
VALIDATED = "/checked=tests.support.wsgi_apps:validated"


def gateway_with(data: Path, *flags: str, mounts: str = APP, **keywords: Any) -> Gateway:
    """Start it; the caller stops it."""
    return Gateway(data, "--mounts", mounts, *flags, **keywords).start()


def seen(gateway: Gateway) -> Counter[str]:
    """What the applications have counted."""
    return Counter(gateway.request("GET", "/legacy/seen").json())


def resident_bytes(gateway: Gateway) -> int:
    """The most memory that the process has had."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def ask(
    gateway: Gateway, path: str, method: str = "GET", body: Any = None, **headers: str
) -> Answer:
    """One request by http.client, which knows every framing."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, fields, encode_chunked=True)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def raw(gateway: Gateway, data: bytes) -> bytes:
    """Send bytes, close our side, and read to the end."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def chunked(*parts: bytes) -> bytes:
    """Parts in the chunked coding."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def bodies(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Status and body of each answer in a stream of them, in either framing."""
    while stream:
        head, found, stream = stream.partition(b"\r\n\r\n")
        assert found, f"an answer ends within its head: {head!r}"
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = b""
        if length:
            body, stream = stream[: int(length[1])], stream[int(length[1]) :]
            assert len(body) == int(length[1])
        elif b"chunked" in head.lower():
            size = None
            while size != 0:
                line, _, stream = stream.partition(b"\r\n")
                size = int(line, 16)
                assert stream[size : size + 2] == b"\r\n"
                body, stream = body + stream[:size], stream[size + 2 :]
        yield int(head.split(b" ")[1]), body


def log_of(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    """The log's lines of an event."""
    lines = (json.loads(line) for line in gateway.log().splitlines())
    return [line for line in lines if line["event"] == event]
