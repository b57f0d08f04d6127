"""Measures the move of docs/legacy.md: `before.py`, the same mounted as it is, and `after/`.

    pip install -e '.[services]' && python -m ops.legacy

Each order asks another server for a rate, which takes 20 ms, and is inserted into a real
PostgreSQL, where the statement takes 20 ms. All clients wait for their answer before they send
the next order, and every order that was answered 202 is looked for in the database.
"""

from gevent import monkey

monkey.patch_all()

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import psycopg

from tests.support.databases import free_port, postgres
from tests.support.gateway import Client, Gateway
from tests.support.waiting import until

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CLIENTS, ORDERS = 500, 10_000
THREADS = 32
RATES = """
from gevent import monkey
monkey.patch_all()
import gevent
from gevent.server import StreamServer
BODY = b'{"rate": 2}'
def answer(sock, address):
    sock.recv(65536)
    gevent.sleep(0.02)
    sock.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%b"
                 % (len(BODY), BODY))
    sock.close()
server = StreamServer(("127.0.0.1", 0), answer, backlog=4096)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def rates() -> Iterator[str]:
    """A server that tells a rate after 20 ms; its URL."""
    process = subprocess.Popen([sys.executable, "-c", RATES], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
    finally:
        process.kill()
        process.wait()


@contextmanager
def threaded(environment: dict[str, str]) -> Iterator[int]:
    """`before.py` as it is deployed: gunicorn with threads; its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", str(THREADS),
         "--backlog", "4096", "-b", f"127.0.0.1:{port}", "ops.legacy.before:app"],
        env={**os.environ, **environment}, cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: listens(port))
        yield port
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    try:
        Client(gevent.socket.create_connection(("127.0.0.1", port), 30)).__exit__()
    except OSError:
        return False
    return True


@contextmanager
def gateway(environment: dict[str, str], *flags: str) -> Iterator[int]:
    """This gateway; its port."""
    with tempfile.TemporaryDirectory() as data:
        started = Gateway(Path(data), *flags, env=environment).start()
        yield started.port
        started.stop()


def rate_of(port: int, path: str, clients: int, orders: int, database: str) -> float:
    """Orders answered 202 a second; each is in the database exactly once."""
    fields = {"Content-Type": "application/json"}
    taken: list[str] = []

    def post(number: int) -> None:
        with Client(gevent.socket.create_connection(("127.0.0.1", port), 120)) as client:
            for n in range(orders // clients):
                name = f"{path} {clients} {number} {n}"
                answer = client.request("POST", path, b'{"id": "%b"}' % name.encode(), fields)
                assert answer.status == 202, answer
                taken.append(name)

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table orders (id text, rate integer)")
        started = time.monotonic()
        gevent.joinall([gevent.spawn(post, n) for n in range(clients)], raise_error=True)
        took = time.monotonic() - started
        stored = connection.execute("select id from orders").fetchall()
        connection.execute("drop table orders")
    assert sorted(taken) == sorted(name for (name,) in stored)
    return len(taken) / took


def main() -> None:
    """Print the figures."""
    after = ("--schemas", f"{HERE}/after/schemas", "--handlers", f"{HERE}/after/handlers")
    with tempfile.TemporaryDirectory() as empty, postgres() as database, rates() as url:
        (Path(empty) / "handlers").mkdir()
        environment = {"DATABASE": database, "RATES": url}
        mounted = ("--handlers", f"{empty}/handlers", "--mounts", "/shop=ops.legacy.before:app")
        with threaded(environment) as port:
            figure = rate_of(port, "/orders", THREADS, 1600, database)
            print(f"before, gunicorn with {THREADS} threads, {THREADS} clients: {figure:.0f}/s")
        with gateway(environment, *mounted) as port:
            figure = rate_of(port, "/shop/orders", CLIENTS, ORDERS, database)
            print(f"mounted as it is, {CLIENTS} clients: {figure:.0f}/s")
        with gateway(environment, *after) as port:
            alone = rate_of(port, "/orders", 1, 200, database)
            figure = rate_of(port, "/orders", CLIENTS, ORDERS, database)
            print(f"after, one at a time: {alone:.0f}/s")
            print(f"after, {CLIENTS} clients: {figure:.0f}/s, {figure / alone:.0f} times as many")


if __name__ == "__main__":
    main()
