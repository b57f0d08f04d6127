"""What the state machine sends: raw requests, and what must come of each.

A maker takes a `Source`, which numbers events and turns the one drawn number into choices,
and returns a `Sent`. Every event carries a marker of its own somewhere in its data, so that
it can be told in the journal whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

#: What the shipped page_view type allows; see schemas/page_view.json.
PAGE_VIEW_MAX_BYTES = 16384


class Sent(NamedTuple):
    """One request.

    Attributes:
        raw: its bytes.
        status: of its answer.
        closes: whether the connection ends after the answer; None: as the answer says (the
            body of a refused request may be read and dropped, or not be worth waiting for).
        events: the marker of each event it carries, in order; None for one that is refused.
        head: the answer has no body.
        request_id: which the answer must repeat; empty: none was sent.
    """

    raw: bytes
    status: int
    closes: bool | None = False
    events: tuple[str | None, ...] = ()
    head: bool = False
    request_id: str = ""


class Source:
    """Markers and choices.

    Args:
        prefix: of all markers.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self.random = Random(0)

    def make(self, kind: str, seed: int) -> Sent:
        """One request of a kind; the same for the same seed, but for its markers."""
        self.random = Random(seed)
        return KINDS[kind](self)

    def marker(self) -> str:
        self._count += 1
        return f"{self._prefix}-{self._count}"


def metrics_event(marker: str) -> dict[str, Any]:
    return {"metrics": [{"name": marker, "value": 1, "type": "gauge"}]}


def page_view(marker: str) -> dict[str, Any]:
    return {"url": f"https://example.com/{marker}", "at": "2026-11-23T10:15:00Z", "marker": marker}


def order(marker: str, total: str = "3.00") -> dict[str, Any]:
    price = {"amount": "1.50", "currency": "EUR"}
    return {
        "order_id": "AB-123456",
        "placed_at": "2026-11-23T10:15:00Z",
        "lines": [{"sku": marker, "quantity": 2, "price": price}],
        "total": {"amount": total, "currency": "EUR"},
        "payment": {"card_last4": "0000"},
    }


def marker_of(record: dict[str, Any]) -> str:
    """The marker of a stored event."""
    data = record["data"]
    if record["type"] == "metrics":
        return str(data["metrics"][0]["name"])
    if record["type"] == "order":
        return str(data["lines"][0]["sku"])
    return str(data["marker"])


def text_of(source: Source, document: Any) -> bytes:
    """A document as JSON: in one line, or in many with any line end."""
    if source.random.random() < 0.7:
        return json.dumps(document).encode()
    text = json.dumps(document, indent=1)
    return text.replace("\n", source.random.choice(("\n", "\r\n", "\r"))).encode()


# -- bytes ------------------------------------------------------------------------------------


def request(
    source: Source,
    path: str,
    body: bytes | None,
    *fields: str,
    status: int = 202,
    closes: bool | None = False,
    events: tuple[str | None, ...] = (),
    media: str = "application/json",
    method: str = "POST",
    chunked: bool | None = None,
    version: str = "HTTP/1.1",
) -> Sent:
    """A well-formed request, its body framed in either way."""
    random = source.random
    if chunked is None:
        chunked = random.random() < 0.3 and version == "HTTP/1.1"
    lines = [f"{method} {path} {version}", "Host: fuzz", *fields]
    request_id = ""
    if random.random() < 0.3:
        request_id = f"r-{random.getrandbits(40):x}"
        lines.append(f"X-Request-Id: {request_id}")
    wire = b""
    if body is not None:
        lines.append(f"Content-Type: {media}")
        wire = in_chunks(random, body) if chunked else body
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
    raw = "\r\n".join([*lines, "", ""]).encode() + wire
    if random.random() < 0.05:
        raw = b"\r\n" + raw
    return Sent(raw, status, closes, events, method == "HEAD", request_id)


def in_chunks(random: Random, body: bytes) -> bytes:
    parts = []
    position = 0
    while position < len(body):
        size = random.choice((1, 2, 7, 100, len(body)))
        piece = body[position : position + size]
        extension = random.choice((b"", b"", b";a=b", b';a="\\""'))
        parts.append(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece))
        position += len(piece)
    return b"".join(parts) + b"0\r\n" + random.choice((b"", b"X-Trailer: a\r\n")) + b"\r\n"


# -- good ones --------------------------------------------------------------------------------


def event(source: Source) -> Sent:
    marker = source.marker()
    path, document = source.random.choice(
        (
            ("/v1/events/metrics", metrics_event(marker)),
            ("/metrics", metrics_event(marker)),
            ("/v1/events/page_view", page_view(marker)),
            ("/v1/events/order", order(marker)),
        )
    )
    return request(source, path, text_of(source, document), events=(marker,))


def expecting(source: Source) -> Sent:
    marker = source.marker()
    body = text_of(source, metrics_event(marker))
    return request(source, "/metrics", body, "Expect: 100-continue", events=(marker,))


def last(source: Source) -> Sent:
    """Answered, then the connection is closed."""
    marker = source.marker()
    fields = source.random.choice((("Connection: close",), ("Connection: x, Close",), ()))
    version = "HTTP/1.1" if fields else "HTTP/1.0"
    body = text_of(source, metrics_event(marker))
    return request(
        source, "/metrics", body, *fields, version=version, closes=True, events=(marker,)
    )


def old_kept_alive(source: Source) -> Sent:
    marker = source.marker()
    body = text_of(source, metrics_event(marker))
    return request(
        source, "/metrics", body, "Connection: keep-alive", version="HTTP/1.0", events=(marker,)
    )


def array(source: Source) -> Sent:
    events = tuple(source.marker() for _ in range(source.random.randint(1, 5)))
    body = text_of(source, [metrics_event(marker) for marker in events])
    return request(source, "/v1/batch/metrics", body, events=events)


def lines(source: Source) -> Sent:
    events = tuple(source.marker() for _ in range(source.random.randint(1, 5)))
    end = source.random.choice((b"\n", b"\r\n", b"\n\n", b"\n \t\r\n"))
    body = b"".join(json.dumps(metrics_event(marker)).encode() + end for marker in events)
    return request(source, "/v1/events/metrics", body, events=events, media="application/x-ndjson")


def mixed(source: Source) -> Sent:
    """Some of its events are refused; with atomic=true that refuses all."""
    good = [source.marker() for _ in range(source.random.randint(1, 3))]
    places: list[str | None] = [*good, *[None] * source.random.randint(1, 3)]
    source.random.shuffle(places)
    bad = source.random.choice((b'{"metrics":[]}', b'{"metrics":', b"null", b"[", b'"\xff"'))
    body = b"\n".join(
        bad if marker is None else json.dumps(metrics_event(marker)).encode() for marker in places
    )
    atomic = source.random.random() < 0.3
    return request(
        source,
        "/v1/events/metrics" + "?atomic=true" * atomic,
        body,
        status=422 if atomic else 207,
        events=() if atomic else tuple(places),
        media="application/x-ndjson",
    )


def probe(source: Source) -> Sent:
    path = source.random.choice(
        (
            *("/livez", "/readyz?verbose", "/startupz", "/health", "/metrics", "/v1/schemas"),
            *("/v1/schemas/order", "http://fuzz/livez", "/./a/../livez"),
        )
    )
    method = source.random.choice(("GET", "GET", "HEAD"))
    return request(source, path, None, status=200, method=method)


def options(source: Source) -> Sent:
    path = source.random.choice(("*", "/livez", "/metrics", "/v1/events/metrics"))
    return request(source, path, None, status=204, method="OPTIONS")


# -- refused, and the connection goes on -------------------------------------------------------


def malformed(source: Source) -> Sent:
    good = json.dumps(metrics_event("never")).encode()
    body = source.random.choice(
        (
            *(b"{", good[:-1], good + b"}", b"NaN", b"\xef\xbb\xbf" + good, b"[" * 300),
            *(b'"\\ud800"', b"\xff", b"1e999", b"\x00"),
        )
    )
    return request(source, "/metrics", body, status=400)


def violating(source: Source) -> Sent:
    path, document = source.random.choice(
        (
            ("/v1/events/metrics", {"metrics": []}),
            ("/metrics", None),
            ("/metrics", {"metrics": [{"name": 1}] * 300}),
            ("/v1/events/page_view", {"url": "\u2028"}),
            ("/v1/events/order", order("never", total="3.01")),
            ("/v1/events/order", {**order("never"), "a/b~": 1}),
        )
    )
    return request(source, path, text_of(source, document), status=422)


def misdirected(source: Source) -> Sent:
    """Refused by its head; what becomes of the connection depends on how its body comes."""
    method, path, media, status = source.random.choice(
        (
            ("POST", "/v1/events/nothing", "application/json", 404),
            ("POST", "/nothing", "application/json", 404),
            ("PUT", "/v1/events/metrics", "application/json", 405),
            ("POST", "/livez", "application/json", 405),
            ("POST", "/metrics", "text/plain", 415),
            ("POST", "/v1/events/metrics?atomic=1", "application/json", 400),
        )
    )
    fields = source.random.choice(((), (), ("Expect: 100-continue",)))
    body = b" " * source.random.choice((1, 100, 3000))
    return request(
        source, path, body, *fields, status=status, closes=None, media=media, method=method
    )


def too_large(source: Source) -> Sent:
    body = json.dumps(page_view("x" * PAGE_VIEW_MAX_BYTES)).encode()
    return request(source, "/v1/events/page_view", body, status=413)


def empty(source: Source) -> Sent:
    return request(source, "/metrics", b"", status=400)


def missing(source: Source) -> Sent:
    method = source.random.choice(("GET", "HEAD", "DELETE"))
    return request(source, "/nothing/at/all", None, status=404, method=method)


# -- refused, and nothing behind it is a request ------------------------------------------------

#: Heads that are refused whatever follows.
BROKEN: tuple[tuple[int, bytes], ...] = (
    (400, b"GET /livez HTTP/1.1\r\n\r\n"),
    (400, b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, b"GET /livez HTTP/1.1\r\nHost : a\r\n\r\n"),
    (400, b"GET /livez HTTP/1.1\r\nHost: a\r\n folded: a\r\n\r\n"),
    (400, b"GET /livez HTTP/1.1\nHost: a\n\n"),
    (400, b"GET /livez HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"),
    (400, b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET  /livez HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /livez\r\n\r\n"),
    (400, b"GET _ttp://a/livez HTTP/1.0\r\n\r\n"),
    (400, b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"),
    (400, b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    (400, b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"),
    (
        400,
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (400, b"POST /metrics HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (
        400,
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nnull\r\n0\r\n\r\n",
    ),
    (411, b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
    (413, b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"),
    (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    (417, b"POST /metrics HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 2\r\n\r\n{}"),
    (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
    (501, b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    (505, b"GET /livez HTTP/2.0\r\nHost: a\r\n\r\n"),
)


def broken(source: Source) -> Sent:
    status, raw = source.random.choice(BROKEN)
    return Sent(raw, status, closes=True)


KINDS: dict[str, Callable[[Source], Sent]] = {
    maker.__name__: maker
    for maker in (
        event, expecting, last, old_kept_alive, array, lines, mixed, probe, options, malformed,
        violating, misdirected, too_large, empty, missing, broken,
    )
}  # fmt: skip
