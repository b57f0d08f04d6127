"""Runs the product as a user does: `python -m ingest` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

#: Those that have been started and not waited for; a failing test leaves some.
RUNNING: set[Gateway] = set()


class Answer(NamedTuple):
    """One HTTP answer: status, fields with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Gateway:
    """A gateway process.

    Args:
        data: its data directory.
        flags: command-line flags beside --bind and --data.
        env: further environment variables.
        cwd: its working directory; the checkout by default.
        program: what the interpreter is told to run.
        wrapper: a command line that runs the rest of it, such as a tracer's; the process
            that is started must become the gateway.
    """

    def __init__(
        self,
        data: Path,
        *flags: str,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
        program: Sequence[str] = ("-m", "ingest"),
        wrapper: Sequence[str] = (),
    ) -> None:
        self._start = [*wrapper, sys.executable, *program]
        self.data = data
        self.flags = flags
        self.env = env or {}
        self.cwd = cwd
        #: where it listens; a restart on the same port has to say so
        self.bind = "127.0.0.1:0"
        #: descriptors that it inherits
        self.pass_fds: list[int] = []
        self.port = 0
        self.banner = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object

    def start(self) -> Gateway:
        self.spawn()
        if not self.listens():
            raise AssertionError(f"no banner but {self.banner!r}; log:\n{self.log()}")
        return self

    def spawn(self) -> None:
        """Start the process and wait for nothing."""
        RUNNING.add(self)
        self._process = subprocess.Popen(
            [*self._start, "--bind", self.bind, "--data", str(self.data), *self.flags],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.env},
            cwd=self.cwd,
            pass_fds=self.pass_fds,
        )

    def listens(self) -> bool:
        """Wait for the banner of a process that was spawned; False when it ends without."""
        assert self._process is not None and self._process.stdout is not None
        self.banner = self._process.stdout.readline().decode()
        found = re.search(r":(\d+)$", self.banner.strip())
        if found:
            self.port = int(found.group(1))
        return found is not None

    def admin_port(self) -> int:
        """Where operators are listened to, as the rest of the banner says; read it once."""
        assert self._process is not None and self._process.stdout is not None
        found = None
        while found is None:
            line = self._process.stdout.readline().decode()
            assert line, self.log()
            found = re.search(r"metrics  http://127\.0\.0\.1:(\d+)/metrics", line)
        return int(found[1])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = 60) -> int:
        """Wait for the process to end; returns its exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        RUNNING.discard(self)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM and wait; returns the exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL and wait."""
        assert self._process is not None
        self._process.kill()
        self.wait()

    def log(self) -> str:
        """Everything it has logged so far."""
        # Not by seeking: the process writes where this file's one position is.
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The log's lines, each of which must be JSON."""
        return [json.loads(line) for line in self.log().splitlines()]

    def connect(self, timeout: float = 30) -> Client:
        """A keep-alive connection."""
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=timeout))

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.request(method, path, body, headers)

    def post(self, path: str, document: Any, **headers: str) -> Answer:
        """POST a document as JSON (bytes are sent as they are)."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json", **headers})

    def journal(self, *flags: str) -> list[dict[str, Any]]:
        """Every stored event, as `journal cat` prints it."""
        done = subprocess.run(
            [sys.executable, "-m", "ingest", "journal", "cat", "--data", str(self.data), *flags],
            capture_output=True,
            check=True,
            cwd=self.cwd,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def metric(self, line_start: str) -> float:
        """The value of one sample of `/metrics`, 0.0 where there is none."""
        text = self.request("GET", "/metrics").body.decode()
        for line in text.splitlines():
            if line.startswith(line_start + " "):
                return float(line.rpartition(" ")[2])
        return 0.0


class Client:
    """A plain HTTP/1.1 client on one socket, for what an HTTP library would not send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        fields = {"Host": "test", **(headers or {})}
        if body is not None and "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(body)))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        self.send(head.encode("latin-1") + b"\r\n" + (body or b""))
        return self.answer(without_body=method == "HEAD")

    def answer(self, without_body: bool = False) -> Answer:
        """Read the next answer; raises EOFError when the server closes instead."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} stands twice"
            headers[name.lower()] = value.strip()
        if without_body or status in (100, 204, 304):
            return Answer(status, headers, b"")
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(status, headers, body)

    def closed(self) -> bool:
        """Whether the server has closed and sent nothing further; waits for either."""
        if self._buffer:
            return False
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"closed by the server with {self._buffer!r} unread")
        self._buffer += data
