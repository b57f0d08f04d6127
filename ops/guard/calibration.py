"""A fixed piece of plain Python that does what the gateway's Python does, and nothing else.

Its count tells one interpreter from another: the same version may be compiled in several ways,
and versions differ. Each line on stdin runs it once; a line on stdout says that it is done.

Changing it makes every baseline worthless.
"""

from __future__ import annotations

import sys
from collections import deque

ROUNDS = 300
HEAD = (
    b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 276\r\nAccept: */*\r\nUser-Agent: calibration\r\n\r\n"
)


class Item:
    """Stands for an exchange."""

    __slots__ = ("answer", "fields", "number")

    def __init__(self, number: int, fields: dict[bytes, bytes]) -> None:
        self.number = number
        self.fields = fields
        self.answer = b""


def parse(head: bytes) -> dict[bytes, bytes]:
    fields = {}
    for line in head[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return fields


def valid(value: object, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return all(type(k) is str and valid(v, depth + 1) for k, v in value.items())
    if isinstance(value, list):
        return all(valid(v, depth + 1) for v in value)
    return depth < 9 and (type(value) is str or type(value) is float)


def run() -> int:
    """Parse, look, queue, answer; returns the bytes answered."""
    document = {"metrics": [{"name": f"n{n}", "value": n / 4, "type": "gauge"} for n in range(3)]}
    waiting: deque[Item] = deque()
    total = 0
    for number in range(ROUNDS):
        item = Item(number, parse(HEAD))
        if int(item.fields[b"content-length"]) == 276 and valid(document):
            waiting.append(item)
        if len(waiting) == 60:
            while waiting:
                item = waiting.popleft()
                body = b'{"accepted":1,"id":"%012d"}' % item.number
                item.answer = b"".join((b"HTTP/1.1 202 Accepted\r\n\r\n", body))
                total += len(item.answer)
    return total


if __name__ == "__main__":
    for _ in sys.stdin:
        sys.stdout.write(f"{run()}\n")
        sys.stdout.flush()
