"""Measures what waiting side by side gains: the figures of docs/legacy.md.

    python -m ops.waiting_handlers

A handler that waits 20 ms for a database, one request at a time and then 500 at a time; and one
that calls `requests.get` on a server that takes 200 ms, 1000 at a time on one worker with a pool
of 1000. The server runs in a process of its own, as do the clients.
"""

from gevent import monkey

monkey.patch_all()

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gevent

from tests.support.gateway import Gateway

SLOW = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from gevent.server import StreamServer
def answer(sock, address):
    sock.recv(65536)
    gevent.sleep(float(sys.argv[1]))
    sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\ndone")
    sock.close()
server = StreamServer(("127.0.0.1", 0), answer, backlog=4096)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""
WAITS = "import time\n\ndef handle(event):\n    time.sleep(0.02)\n"
ASKS = "import requests\n\ndef handle(event):\n    requests.get('http://127.0.0.1:{port}/')\n"


def seconds(handler: str, clients: int, events: int) -> float:
    """How long it takes until so many events are answered 202."""
    directory = Path(tempfile.mkdtemp())
    for name in ("schemas", "handlers"):
        (directory / name).mkdir()
    (directory / "schemas" / "thing.json").write_text('{"type": "object"}')
    (directory / "handlers" / "thing.py").write_text(handler)
    flags = ("--schemas", f"{directory}/schemas", "--handlers", f"{directory}/handlers")
    gateway = Gateway(directory / "data", *flags, "--pool-size", "1000").start()
    connections = [gateway.connect() for _ in range(clients)]
    fields = {"Content-Type": "application/json"}

    def post(client: object) -> None:
        for _ in range(events // clients):
            answer = client.request("POST", "/v1/events/thing", b"{}", fields)  # type: ignore
            assert answer.status == 202, answer

    started = time.monotonic()
    gevent.joinall([gevent.spawn(post, client) for client in connections], raise_error=True)
    took = time.monotonic() - started
    gateway.stop()
    return took


def main() -> None:
    """Print the figures."""
    alone = 200 / seconds(WAITS, 1, 200)
    together = 10_000 / seconds(WAITS, 500, 10_000)
    print(f"20 ms each: one at a time {alone:.0f}/s, 500 at a time {together:.0f}/s", end=", ")
    print(f"{together / alone:.0f} times as many")
    slow = subprocess.Popen([sys.executable, "-c", SLOW, "0.2"], stdout=subprocess.PIPE, text=True)
    assert slow.stdout is not None
    port = slow.stdout.readline().strip()
    took = seconds(ASKS.format(port=port), 1000, 1000)
    slow.kill()
    print(f"requests.get on a server that takes 200 ms, 1000 at a time: {took:.2f} s")


if __name__ == "__main__":
    main()
