"""Many connections from a process of its own, each of which sends the same bytes and no more.

    python -m tests.support.crowd --port 8080 --connections 10000 [--bytes FILE]

When all are open and have sent what the kernel took, `open <n>` stands on stdout. They
stay, unread, until stdin is closed.
"""

from __future__ import annotations

import argparse
import resource
import selectors
import socket
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--bytes", type=Path, help="file with what each sends; nothing if left out")
    options = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    message = options.bytes.read_bytes() if options.bytes else b""
    socks = []
    for _ in range(options.connections):
        socks.append(socket.create_connection(("127.0.0.1", options.port), timeout=30))
    if message:
        send_to_all(socks, message)
    sys.stdout.write(f"open {len(socks)}\n")
    sys.stdout.flush()
    sys.stdin.read()
    return 0


def send_to_all(socks: list[socket.socket], message: bytes) -> None:
    """Send to every one at a time, until each has sent all or is not read for a second."""
    sent = dict.fromkeys(socks, 0)
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE)
        while selector.get_map() and (ready := selector.select(1.0)):
            for key, _ in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                at = sent[sock]
                try:
                    sent[sock] += sock.send(message[at : at + 262144])
                except BlockingIOError:
                    continue
                except OSError:
                    sent[sock] = len(message)  # it was closed, which is what some wait for
                if sent[sock] >= len(message):
                    selector.unregister(sock)


if __name__ == "__main__":
    sys.exit(main())
