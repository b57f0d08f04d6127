"""HAProxy and nginx with the shipped configuration, on free ports, in front of gateways."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.deployment import OPS
from tests.support.waiting import until

HAPROXY = OPS / "haproxy" / "haproxy.cfg"
NGINX = OPS / "nginx" / "nginx.conf"
PASSTHROUGH = OPS / "nginx" / "passthrough.conf"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def adapted(shipped: Path, directory: Path, changes: Mapping[str, str]) -> Path:
    """A copy of a configuration with ports and paths of the test's own.

    Args:
        changes: text → what stands for it; each must be there.
    """
    text = shipped.read_text()
    for old, new in changes.items():
        assert old in text, f"{shipped.name} has no {old!r}"
        text = text.replace(old, new)
    path = directory / shipped.name
    path.write_text(text)
    return path


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A proxy in the foreground, until the block ends."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            until(lambda: listens(port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(30)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def haproxy(directory: Path, first: int, second: int) -> Iterator[int]:
    """HAProxy in front of two ports; gives its own."""
    port, statistics = free_ports(2)
    config = adapted(
        HAPROXY,
        directory,
        {
            # As many descriptors as this machine has.
            "maxconn 20000": "maxconn 2000",
            "bind :8080\n": f"bind 127.0.0.1:{port}\n",
            "bind 127.0.0.1:8404": f"bind 127.0.0.1:{statistics}",
            "gateway1 127.0.0.1:8081\n": f"gateway1 127.0.0.1:{first}\n",
            "gateway2 127.0.0.1:8082\n": f"gateway2 127.0.0.1:{second}\n",
        },
    )
    with running(["haproxy", "-db", "-f", str(config)], port, directory / "haproxy.log"):
        yield port


@contextmanager
def nginx(directory: Path, first: int, second: int, shipped: Path = NGINX) -> Iterator[int]:
    """nginx in front of two ports; gives its own."""
    (port,) = free_ports(1)
    text = shipped.read_text()
    (listen,) = set(re.findall(r"listen (\d+)", re.sub(r"#.*", "", text)))
    config = adapted(
        shipped,
        directory,
        {
            f"listen {listen} ": f"listen 127.0.0.1:{port} ",
            "127.0.0.1:8081": f"127.0.0.1:{first}",
            "127.0.0.1:8082": f"127.0.0.1:{second}",
            "pid /run/nginx.pid": f"daemon off;\nuser root;\npid {directory}/nginx.pid",
        },
    )
    command = ["nginx", "-p", str(directory), "-c", str(config)]
    with running(command, port, directory / "nginx.log"):
        yield port


class Recorder:
    """A server that answers 200 to everything and keeps the heads it is sent."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            with client:
                head = b""
                while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                    head += data
                self.heads.append(head)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Client(http.client.HTTPConnection):
    """One keep-alive connection through a proxy."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **fields: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and fields with lower-case names."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        try:
            self.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before all of the body was sent
        answer = self.getresponse()
        content = answer.read()
        return answer.status, content, {k.lower(): v for k, v in answer.getheaders()}
