"""WSGI applications for tests: `app` does what the path says, `validated` is checked besides."""

# ruff: noqa: SIM115 - files that are handed to the server are the server's to close

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
from collections import Counter
from threading import Barrier, Event
from wsgiref.validate import validator

import gevent

#: What happened, for the tests to ask: `/seen`.
SEEN: Counter[str] = Counter()
EVENTS: dict[str, Event] = {}
BLOCK = bytes(range(256)) * 256  # 64 KiB


def event(name):
    return EVENTS.setdefault(name, Event())


class Closing:
    """An iterable that says that it was closed."""

    def __init__(self, blocks, name):
        self._blocks = iter(blocks)
        self._name = name

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._blocks)

    def close(self):
        SEEN[f"closed:{self._name}"] += 1


def plain(start_response, *headers):
    start_response("200 OK", [("Content-Type", "text/plain"), *headers])


def environ(environ, start_response):
    shown = {name: value for name, value in environ.items() if isinstance(value, (str, bool))}
    shown["wsgi.version"] = environ["wsgi.version"]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]


def echo(environ, start_response):
    plain(start_response)
    return [environ["wsgi.input"].read()]


def echo_pieces(environ, start_response):
    """Answers while it reads."""
    plain(start_response)
    while piece := environ["wsgi.input"].read1(65536):
        yield piece


def answers_first(environ, start_response):
    """Reads its body when the answer is on its way."""
    plain(start_response)
    yield b"first,"
    yield environ["wsgi.input"].read()


def impatient(environ, start_response):
    """Gives up a block that is not taken, and goes on with others."""
    send = start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        with gevent.Timeout(0.2):
            send(BLOCK * 1024)
    except gevent.Timeout:
        SEEN["impatient"] += 1
    return [b"0\r\n\r\nmore"]


def lines(environ, start_response):
    plain(start_response)
    source = environ["wsgi.input"]
    first = source.readline()
    return [json.dumps([first.decode(), [line.decode() for line in source]]).encode()]


def sha(environ, start_response):
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(65536):
        SEEN["read"] += len(piece)
        digest.update(piece)
    plain(start_response)
    return [digest.hexdigest().encode()]


def held(environ, start_response):
    """Reads a little, and the rest when `/set` is asked for."""
    piece = environ["wsgi.input"].read(10)
    SEEN["held"] += 1
    event("held").wait()
    plain(start_response)
    rest = 0
    while more := environ["wsgi.input"].read(65536):
        rest += len(more)
    return [b"%d" % (len(piece) + rest)]


def ignore(environ, start_response):
    plain(start_response)
    return [b"unread"]


def blocks(environ, start_response):
    count = int(environ["QUERY_STRING"])
    plain(start_response)

    def produce():
        for _ in range(count):
            SEEN["produced"] += 1
            yield BLOCK

    return Closing(produce(), "blocks")


def write(environ, start_response):
    send = start_response("200 OK", [("Content-Type", "text/plain")])
    send(b"one,")
    send(b"")
    send(b"two,")
    return [b"three"]


def two(environ, start_response):
    plain(start_response)
    return Closing([b"a", b"", b"bc"], "two")


def late(environ, start_response):
    """A generator: nothing happens before its first block is asked for."""
    plain(start_response, ("Content-Length", "4"))
    yield b"la"
    yield b"te"


def status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("X-Kind", "status")])
    return [b"body"]


def length(environ, start_response):
    plain(start_response, ("Content-Length", environ["QUERY_STRING"]))
    return Closing([b"12345"], "length")


def hops(environ, start_response):
    plain(
        start_response,
        ("Connection", "close"),
        ("Transfer-Encoding", "gzip"),
        ("Keep-Alive", "timeout=5"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    )
    return [b"x"]


def changed(environ, start_response):
    """Changes its mind before anything has left."""
    plain(start_response, ("X-Old", "1"))
    try:
        raise ValueError("changed my mind")
    except ValueError as error:
        start_response("503 No", [("X-New", "1")], (type(error), error, error.__traceback__))
    return [b"sorry"]


def too_late(environ, start_response):
    """Changes its mind when the head has left: what it gives comes back."""
    plain(start_response)
    yield b"begun"
    try:
        raise ValueError("too late")
    except ValueError as error:
        try:
            start_response("500 No", [], (type(error), error, error.__traceback__))
        except ValueError:
            SEEN["too_late"] += 1
            raise


def fails(environ, start_response):
    raise LookupError("a secret of the application")


def fails_later(environ, start_response):
    plain(start_response)

    def produce():
        yield b"some"
        raise LookupError("half way")

    return Closing(produce(), "fails_later")


def fails_first(environ, start_response):
    """Raises when the first block is asked for: nothing has left yet."""
    plain(start_response)

    def produce():
        yield b""
        raise LookupError("at once")

    return Closing(produce(), "fails_first")


def fails_closing(environ, start_response):
    class Bad(list):
        def close(self):
            raise LookupError("in close")

    plain(start_response)
    return Bad([b"whole"])


def exits(environ, start_response):
    raise SystemExit(3)


MISUSES = {
    "silent": lambda start: [b"x"],
    "empty": lambda start: [],
    "twice": lambda start: [start("200 OK", []) and start("200 OK", [])],
    "text": lambda start: start("200 OK", []) and ["text"],
    "number": lambda start: start(200, []) and [],
    "words": lambda start: start("OK 200", []) and [],
    "switch": lambda start: start("101 Switching Protocols", []) and [],
    "split": lambda start: start("200 OK", [("X-A", "1\r\nX-B: 2")]) and [],
    "reason": lambda start: start("200 OK\r\nX-B: 2", []) and [],
    "name": lambda start: start("200 OK", [("X A", "1")]) and [],
    "bytes": lambda start: start("200 OK", [(b"X-A", b"1")]) and [],
    "tuple": lambda start: start("200 OK", (("X-A", "1"),)) and [],
    "lengths": lambda start: (
        start("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]) and [b"1"]
    ),
    "negative": lambda start: start("200 OK", [("Content-Length", "-1")]) and [b"1"],
    "none": lambda start: start("200 OK", []) and None,
}


def misuse(environ, start_response):
    return MISUSES[environ["QUERY_STRING"]](start_response)


class NeverRead(io.FileIO):
    """A file that only the kernel may read."""

    def read(self, *_):
        raise AssertionError("read in the process")

    def close(self):
        SEEN["closed:file"] += not self.closed
        super().close()


def file(environ, start_response):
    query = dict(part.split("=") for part in environ["QUERY_STRING"].split("&") if part)
    path = os.environ["TEST_FILE"]
    kind = query.get("kind", "never")
    source = {
        "never": lambda: NeverRead(path),
        "open": lambda: open(path, "rb"),
        "temporary": lambda: _temporary(path),
        "gzip": lambda: gzip.open(path, "rb"),
        "memory": lambda: io.BytesIO(open(path, "rb").read()),
    }[kind]()
    if "start" in query:
        source.seek(int(query["start"]))
    headers = [("Content-Length", query["length"])] if "length" in query else []
    start_response("200 OK", [("Content-Type", "application/x"), *headers])
    return environ["wsgi.file_wrapper"](source)


def _temporary(path):
    copy = tempfile.NamedTemporaryFile()
    with open(path, "rb") as source:
        copy.write(source.read())
    copy.seek(0)
    return copy


def complain(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("first line\nsecond ")
    errors.writelines(["line\n", "third line"])
    errors.flush()
    plain(start_response)
    return [b"told"]


def patient(environ, start_response):
    """Reads its whole body, and tells what became of it."""
    SEEN["patient:in"] += 1
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        SEEN[f"patient:{type(error).__name__}"] += 1
        raise
    plain(start_response)
    return [b"whole"]


def answers_anyway(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        start_response("422 No", [("Content-Type", "text/plain")])
        return [type(error).__name__.encode()]
    raise AssertionError("the body was whole")


BARRIER = Barrier(20)


def together(environ, start_response):
    """Returns when twenty requests are in it."""
    BARRIER.wait(60)
    plain(start_response)
    return [b"met"]


def wait(environ, start_response):
    name = environ["QUERY_STRING"]
    SEEN[f"waits:{name}"] += 1
    event(name).wait()
    plain(start_response)
    return [b"waited"]


def stream_wait(environ, start_response):
    name = environ["QUERY_STRING"]
    plain(start_response)

    def produce():
        yield b"begun,"
        SEEN[f"waits:{name}"] += 1
        event(name).wait()
        yield b"ended"

    return Closing(produce(), name)


def set_event(environ, start_response):
    event(environ["QUERY_STRING"]).set()
    plain(start_response)
    return [b"set"]


def seen(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(SEEN).encode()]


APPS = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__
}


def app(environ, start_response):
    """Calls the function that the first segment of the path names."""
    name = environ["PATH_INFO"].split("/")[1] if environ["PATH_INFO"] else "environ"
    return APPS.get(name, APPS["environ"])(environ, start_response)


@validator
def validated(environ, start_response):
    """A well-behaved application: what the validator finds is the server's fault."""
    query = environ["QUERY_STRING"]
    source = environ["wsgi.input"]
    how = {
        "read": lambda: source.read(65536),
        "line": lambda: source.readline(),
        "lines": lambda: b"".join(source.readlines()),
        "iter": lambda: b"".join(source),
        "none": lambda: b"",
    }[query.partition("-")[0] or "none"]
    body = how()
    environ["wsgi.errors"].write("checked\n")
    environ["wsgi.errors"].flush()
    answer = {
        "": [b"%d" % len(body)],
        "list": [b"a", b"b" * len(body)],
        "empty": [],
        "file": environ["wsgi.file_wrapper"](io.BytesIO(body)),
        "write": [],
    }
    kind = query.partition("-")[2]
    if kind == "nothing":
        start_response("204 No Content", [])
        return []
    send = start_response("200 OK", [("Content-Type", "text/plain")])
    if kind == "write":
        send(b"written")
    return answer[kind]
