"""Real database servers of one run only, on free ports."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import until

#: PostgreSQL refuses to run as root.
ORDINARY_USER = "nobody"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def program(name: str) -> str:
    """Where a server's program is; Debian keeps those of PostgreSQL by version."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[::-1]),
        None,
    )
    assert found, f"{name} is missing: apt-get install postgresql redis-server"
    return found


@contextmanager
def postgres() -> Iterator[str]:
    """Connection string of an empty PostgreSQL server with the durability of production."""
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    user = ORDINARY_USER if os.geteuid() == 0 else None
    if user:
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    port = free_port()
    data = str(directory / "data")
    subprocess.run(
        [program("initdb"), "-D", data, "-U", "tests", "--auth=trust", "--encoding=UTF8"],
        user=user, cwd=directory, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    server = subprocess.Popen(
        [program("postgres"), "-D", data, "-p", str(port), "-k", str(directory),
         "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100"],
        user=user, cwd=directory, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    ready = [program("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
    try:
        until(lambda: subprocess.run(ready, check=False).returncode == 0)
        yield f"host=127.0.0.1 port={port} user=tests dbname=postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(directory)


@contextmanager
def redis() -> Iterator[int]:
    """Port of an empty Redis server."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
             "--dir", directory],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

        def answers() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
                    sock.sendall(b"PING\r\n")
                    return sock.recv(7) == b"+PONG\r\n"
            except OSError:
                return False

        try:
            until(answers)
            yield port
        finally:
            server.terminate()
            server.wait(30)
