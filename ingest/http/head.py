"""The head of a request: from its bytes to a `Head` that can be believed.

PURE. Two parsers stand side by side and both must agree. llhttp (through httptools)
splits the head into fields; our own regular expressions admit, before that, exactly
the grammar of RFC 9112 and nothing of what recipients tolerate for old peers' sake:
no bare LF or CR, no folded lines, no white space before a colon, no controls. What
only one of the two accepts is refused.

What a field means to the application (routes, keys, media types) is not known here;
only what frames the message or the connection is.

Heads repeat: on a keep-alive connection most are equal to the last one byte for
byte. `HeadCache` keeps what was parsed, keyed by those bytes, so that the usual cost
of all this is one dict lookup. A `Head` is therefore shared between requests and
connections: nobody may change it, but for `plan`, which is equally shared.

Source: RFC 9112 sections 2, 3, 5, 9.3; RFC 9110 sections 5, 7.2, 10.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools

from ingest.errors import IngestError
from ingest.http.framing import body_framing
from ingest.http.grammar import FIELD_LINE, STRAY, TCHAR, excerpt, field_fault, stray_fault
from ingest.http.targets import is_authority, parse_target

#: Longer method tokens are refused; the longest registered one has 17 characters.
METHOD_MAX_CHARS = 32

#: Longer heads are not cached, so that a full cache has a bound in bytes too.
CACHEABLE_MAX_BYTES = 4096

#: Fields whose values differ from request to request: caching such heads would only
#: push the useful ones out.
VOLATILE_FIELDS = frozenset(
    {
        "ce-id", "ce-time", "ce-traceparent", "b3", "date", "idempotency-key", "if-none-match",
        "range", "traceparent", "tracestate", "x-amzn-trace-id", "x-b3-spanid", "x-b3-traceid",
        "x-cloud-trace-context", "x-correlation-id", "x-datadog-parent-id", "x-datadog-trace-id",
        "x-request-id", "x-request-start", "x-hub-signature-256", "stripe-signature",
        "webhook-id", "webhook-signature", "webhook-timestamp",
    }
)  # fmt: skip

#: request-line = method SP request-target SP HTTP-version CRLF (RFC 9112 section 3).
_REQUEST_LINE = re.compile(
    rb"(%b{1,%d}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n" % (TCHAR, METHOD_MAX_CHARS)
)
_FIELD_LINES = re.compile(rb"(?:" + FIELD_LINE + rb")*\r\n")
_METHOD = re.compile(TCHAR + rb"+")

#: What llhttp is shown under its own name. For any other token it is shown GET: it
#: refuses methods that it does not know, and has special grammars for some that it does.
_PLAIN_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}
)
#: Fields that no request may have twice, even with equal values.
_NEVER_TWICE = frozenset({"host", "content-length"})


class Limits(NamedTuple):
    """Bounds on one request.

    Attributes:
        request_line_max_bytes: the request line without its CRLF; beyond: 414.
        headers_max_bytes: all that follows the request line, to the end of the blank
            line; also bounds a trailer section. Beyond: 431.
        header_count_max: field lines; beyond: 431.
        request_body_max_bytes: the body after the chunked coding; beyond: 413.
        streamed: prefixes of the paths whose bodies are not collected, but given out as they
            arrive.
        streamed_body_max_bytes: the same bound on those.
    """

    request_line_max_bytes: int = 8192
    headers_max_bytes: int = 32768
    header_count_max: int = 100
    request_body_max_bytes: int = 16 << 20
    streamed: tuple[str, ...] = ()
    streamed_body_max_bytes: int = 16 << 20

    def body_max_bytes(self, path: str) -> int:
        """The bound on the body of a request for a path."""
        for prefix in self.streamed:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return self.streamed_body_max_bytes
        return self.request_body_max_bytes


class Head:
    """A request without its body. Shared through the cache; only `plan` may be set.

    Attributes:
        method: as sent; any token of at most `METHOD_MAX_CHARS`.
        target: the request target as sent.
        path: decoded once (see `targets`); `*` or empty for what names no resource.
        query: as sent, without the `?`.
        version: (1, 0) or (1, 1).
        headers: lower-case names, latin-1 values; repeated fields joined by `, `. `host`
            is the target's authority where the target has one.
        content_length: bytes; None when not stated.
        chunked: the body is in the chunked coding.
        keep_alive: the peer can take another request on this connection.
        expect_continue: the peer waits for `100 Continue` before it sends the body.
        cacheable: worth keeping in a `HeadCache`.
        size: bytes of the head, blank line included.
        plan: the server's routing decision, None until it made one.
    """

    __slots__ = (
        "cacheable", "chunked", "content_length", "expect_continue", "headers", "keep_alive",
        "method", "path", "plan", "query", "size", "target", "version",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: bytes,
        version: tuple[int, int],
        headers: dict[str, str],
        size: int,
        limits: Limits,
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.size = size
        self.plan: Any = None
        self.path, self.query, authority = parse_target(method, target)
        _require_host(headers, version)
        if authority is not None:
            headers["host"] = authority
        self.content_length, self.chunked = body_framing(
            headers, version, limits.body_max_bytes(self.path)
        )
        # what follows a CONNECT may be tunnel data, never another request
        self.keep_alive = _keep_alive(headers, version) and method != "CONNECT"
        self.expect_continue = _expects_continue(headers, version) and (
            self.chunked or bool(self.content_length)
        )
        self.cacheable = size <= CACHEABLE_MAX_BYTES and VOLATILE_FIELDS.isdisjoint(headers)


class HeadCache:
    """From the bytes of a head to the parsed head, bounded, two generations.

    What is looked up is found in the young generation, else moved there from the old
    one. When the young generation is full it becomes the old one, whose content is
    forgotten. So what is used stays, at no bookkeeping per hit.

    Args:
        entries: most heads kept, both generations together; 0 keeps none.

    Attributes:
        guess: the young generation's own `get`, one call in C, for bytes that are only
            likely to be a head.
    """

    __slots__ = ("__weakref__", "_generation_max", "_old", "_young", "guess")

    def __init__(self, entries: int) -> None:
        self._generation_max = entries // 2
        self._young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}
        self.guess: Callable[[bytes], Head | None] = self._young.get

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, raw: bytes) -> Head | None:
        """The head of these bytes, None when it is not kept."""
        head = self._young.get(raw)
        if head is None:
            head = self._old.pop(raw, None)
            if head is not None:
                self.put(raw, head)
        return head

    def put(self, raw: bytes, head: Head) -> None:
        """Keep a head; does nothing for one that is not cacheable."""
        if not head.cacheable or not self._generation_max:
            return
        if len(self._young) >= self._generation_max:
            self._old = dict(self._young)
            self._young.clear()  # not replaced: `guess` is bound to it
        self._young[raw] = head

    def clear(self) -> None:
        """Forget all; for when what `plan` was decided from has changed."""
        self._young.clear()
        self._old.clear()


class _Fields:
    """What llhttp calls back."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))


def parse_head(raw: bytes, limits: Limits) -> Head:
    """Parse the bytes of one head, blank line included.

    Raises:
        IngestError: bad_request, target_too_long, headers_too_large, body_too_large,
            expectation_failed, transfer_coding_unknown, version_not_supported.
    """
    method, target, version, line_end = parse_request_line(raw, limits)
    if len(raw) - line_end > limits.headers_max_bytes:
        raise headers_too_large(limits)
    if raw.count(b"\r\n", line_end) - 1 > limits.header_count_max:
        raise IngestError(
            "headers_too_large",
            f"a request may have {limits.header_count_max} header fields",
            extensions={"limit_count": limits.header_count_max},
        )
    if not _FIELD_LINES.fullmatch(raw, line_end):
        raise IngestError("bad_request", _fields_fault(raw[line_end:]))
    lines, refusal = _ask_llhttp(raw, method)
    if refusal:
        # llhttp minds HTAB around some values, which RFC 9112 section 5 allows: ask once more
        # without. What our own rules refuse, they have better words for.
        lines = _split(raw[line_end:])
        plain = b"".join(b"%b: %b\r\n" % line for line in lines)
        _, refusal = _ask_llhttp(raw[:line_end] + plain + b"\r\n", method)
    head = Head(method.decode(), target, version, _join(lines), len(raw), limits)
    if refusal or len(lines) != raw.count(b"\r\n", line_end) - 1:
        raise IngestError("bad_request", refusal or "the parsers disagree on the header fields")
    return head


def parse_request_line(raw: bytes, limits: Limits) -> tuple[bytes, bytes, tuple[int, int], int]:
    """Parse the request line at the beginning of `raw`, which holds it whole.

    Returns:
        method, target, version, and where the first field line begins.

    Raises:
        IngestError: bad_request, target_too_long, version_not_supported.
    """
    if raw.find(b"\r\n", 0, limits.request_line_max_bytes + 2) < 0:
        raise target_too_long(limits)
    match = _REQUEST_LINE.match(raw)
    if match is None:
        raise IngestError("bad_request", _request_line_fault(raw.split(b"\r\n", 1)[0]))
    method, target, major, minor = match.groups()
    if major == b"0":
        raise IngestError("bad_request", "HTTP/0.x has no version in its request line")
    if major != b"1" or minor > b"1":
        raise IngestError("version_not_supported", "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return method, target, (1, int(minor)), match.end()


def target_too_long(limits: Limits) -> IngestError:
    """The refusal of a request line beyond its limit."""
    return IngestError(
        "target_too_long",
        f"a request line may have {limits.request_line_max_bytes} bytes",
        extensions={"limit_bytes": limits.request_line_max_bytes},
    )


def headers_too_large(limits: Limits) -> IngestError:
    """The refusal of a header or trailer section beyond its limit in bytes."""
    return IngestError(
        "headers_too_large",
        f"the header fields may have {limits.headers_max_bytes} bytes",
        extensions={"limit_bytes": limits.headers_max_bytes},
    )


def _ask_llhttp(raw: bytes, method: bytes) -> tuple[list[tuple[bytes, bytes]], str]:
    """The field lines as llhttp sees them, and why it refuses the head (empty: it does not)."""
    fields = _Fields()
    if method not in _PLAIN_METHODS:
        raw = b"GET" + raw[len(method) :]
    try:
        httptools.HttpRequestParser(fields).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # raised after the last field; no upgrade is ever taken up
    except httptools.HttpParserError as error:
        return [], f"{error}"
    return fields.lines, ""


def _split(block: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines, already known to be well-formed, without llhttp's help."""
    pairs = (line.split(b":", 1) for line in block[:-4].split(b"\r\n") if line)
    return [(name, value.strip(b"\t ")) for name, value in pairs]


def _join(lines: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """One value a name (RFC 9110 section 5.3), without the white space around it."""
    headers: dict[str, str] = {}
    for name, value in lines:
        key = name.decode("latin-1").lower()
        text = value.strip(b"\t ").decode("latin-1")
        if key in headers:
            if key in _NEVER_TWICE:
                raise IngestError("bad_request", f"more than one {key} field")
            text = f"{headers[key]}, {text}"
        headers[key] = text
    return headers


def _require_host(headers: dict[str, str], version: tuple[int, int]) -> None:
    """RFC 9112 section 3.2: one valid Host field in HTTP/1.1, at most one in HTTP/1.0."""
    host = headers.get("host")
    if host is None:
        if version >= (1, 1):
            raise IngestError("bad_request", "no Host field")
    elif not is_authority(host.encode("latin-1")):
        raise IngestError("bad_request", "invalid Host field")


def _keep_alive(headers: dict[str, str], version: tuple[int, int]) -> bool:
    """RFC 9112 section 9.3."""
    connection = headers.get("connection")
    if connection is None:
        return version >= (1, 1)
    options = [option.strip("\t ") for option in connection.lower().split(",")]
    if "close" in options:
        return False
    return version >= (1, 1) or "keep-alive" in options


def _expects_continue(headers: dict[str, str], version: tuple[int, int]) -> bool:
    """RFC 9110 section 10.1.1; the field means nothing in HTTP/1.0."""
    expect = headers.get("expect")
    if not expect or version < (1, 1):
        return False
    if expect.lower() != "100-continue":
        raise IngestError("expectation_failed", "only Expect: 100-continue is understood")
    return True


def _request_line_fault(line: bytes) -> str:
    """What is wrong with a request line that does not match its grammar."""
    stray = STRAY.search(line + b"\r\n")
    if stray:
        return stray_fault(stray[0])
    if not line:
        return "empty line instead of a request line"
    parts = line.split(b" ")
    if not _METHOD.fullmatch(parts[0]):
        return f"method {excerpt(parts[0])} is not a token"
    if len(parts[0]) > METHOD_MAX_CHARS:
        return f"the method has more than {METHOD_MAX_CHARS} characters"
    if len(parts) == 2:
        return "no HTTP version; HTTP/0.9 is not spoken here"
    if len(parts) != 3 or not parts[1]:
        return "the request line is not method SP target SP version"
    if not re.fullmatch(rb"[\x21-\x7e]+", parts[1]):
        return f"character that must be percent-encoded in the target {excerpt(parts[1])}"
    return f"malformed HTTP version {excerpt(parts[2])}"


def _fields_fault(block: bytes) -> str:
    """What is wrong with the first bad line of a header section."""
    for number, line in enumerate(block.split(b"\r\n"), 1):
        if not re.fullmatch(FIELD_LINE, line + b"\r\n"):
            return f"header line {number}: {field_fault(line)}"
    raise AssertionError("every line of the block is well-formed")
