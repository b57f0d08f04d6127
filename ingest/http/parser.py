"""From the bytes of one connection to its requests, in order. No I/O.

PURE. The caller feeds what arrives and asks, as often as it likes, for the next head
and then for its body; None means: not all there yet. Nothing is copied to get at
what is pipelined behind: a position moves through the bytes that were fed.

    parser.feed(data)
    while (head := parser.head()) is not None and (body := parser.body()) is not None:
        ...

Invariants:
    * Held in memory: at most one head within its limits, one body within its limit,
      and what one feed brought beyond that.
    * The cost of a feed is in proportion to what was fed, however it is split; only a head
      that arrives in pieces is joined anew for each of them, and a head is small.
    * After an `IngestError` every further call raises the same: bytes behind a request that
      could not be trusted are never a request.

Source: RFC 9112 sections 2.2, 6.3, 9.3.2.
"""

from __future__ import annotations

from typing import Protocol

from ingest.errors import IngestError
from ingest.http.chunked import ChunkedDecoder
from ingest.http.grammar import STRAY, stray_fault
from ingest.http.head import (
    Head,
    HeadCache,
    Limits,
    headers_too_large,
    parse_head,
    parse_request_line,
    target_too_long,
)
from ingest.http.streams import ChunkedStream, SizedStream

__all__ = ["Head", "HeadCache", "Limits", "RequestParser"]


class _Body(Protocol):
    """What takes the bytes fed while a body is incomplete."""

    def feed(self, data: bytes) -> None: ...

    def complete(self) -> bool:
        """Whether the body is all there; raises IngestError."""
        ...

    def take(self) -> tuple[bytes, bytes]:
        """The complete body, and the bytes behind it."""
        ...

    @property
    def held(self) -> int: ...


class _SizedBody:
    """A body of known length that arrives in pieces. Grows as it arrives, not as announced."""

    __slots__ = ("_data", "_length")

    def __init__(self, length: int, first: bytes) -> None:
        self._length = length
        self._data = bytearray(first)

    def feed(self, data: bytes) -> None:
        self._data += data

    def complete(self) -> bool:
        return len(self._data) >= self._length

    def take(self) -> tuple[bytes, bytes]:
        with memoryview(self._data) as view:
            return bytes(view[: self._length]), bytes(view[self._length :])

    @property
    def held(self) -> int:
        return len(self._data)


class _ChunkedBody:
    """A chunked body that arrives in pieces."""

    __slots__ = ("_decoder", "_input")

    def __init__(self, decoder: ChunkedDecoder) -> None:
        self._decoder = decoder
        self._input = b""

    def feed(self, data: bytes) -> None:
        self._input += data

    def complete(self) -> bool:
        decoder = self._decoder
        if not decoder.done:
            self._input = self._input[decoder.decode(self._input, 0) :]
        return decoder.done

    def take(self) -> tuple[bytes, bytes]:
        return bytes(self._decoder.body), self._input

    @property
    def held(self) -> int:
        return self._decoder.held + len(self._input)


class _Refused:
    """In the place of a body once the stream was refused: drops all, raises for ever."""

    __slots__ = ("_error",)

    def __init__(self, error: IngestError) -> None:
        self._error = error

    def feed(self, data: bytes) -> None:
        pass

    def complete(self) -> bool:
        raise self._error

    def take(self) -> tuple[bytes, bytes]:
        raise AssertionError("never complete, so never taken")

    @property
    def held(self) -> int:
        return 0


class RequestParser:
    """Parses the requests of one connection.

    Args:
        limits: bounds on each request.
        cache: heads seen before, shared by the connections of a worker.
    """

    __slots__ = (
        "_body", "_cache", "_guess", "_head", "_position", "_scanned",
        "_size", "buffer", "limits",
    )  # fmt: skip

    def __init__(self, limits: Limits, cache: HeadCache) -> None:
        #: may be replaced: the next request has the new ones
        self.limits = limits
        self._cache = cache
        self._guess = cache.guess
        #: bytes of the last head that was searched for
        self._size = 0
        #: what was fed and not taken, from `_position` on; empty when all of it was
        self.buffer = b""
        #: where in `buffer` the next head or body begins
        self._position = 0
        #: `buffer` up to here holds no end of a head; not 0 only while `_position` is 0
        self._scanned = 0
        #: the head whose body was not taken yet
        self._head: Head | None = None
        #: the body that did not come in one piece; takes what is fed until it is taken
        self._body: _Body | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. Raises nothing."""
        if self._body is not None:
            self._body.feed(data)
        elif self.buffer:
            self.buffer = self.buffer[self._position :] + data
            self._position = 0
        else:
            self.buffer = data

    def whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body, if these next bytes of the stream are just one request.

        The short way of a client that sends the next request after the last one's answer,
        with a head that was seen before. It says the same as `feed`, `head` and `body`.

        Returns:
            None when it is not that simple. Then nothing was taken: call `feed`.
        """
        size = self._size
        head = self._guess(data[:size])
        if (
            head is None
            or head.content_length != len(data) - size
            or self.buffer
            or self._head is not None
            or self._body is not None
        ):
            return None
        return head, data[size:]

    def head(self) -> Head | None:
        """The head of the next request; the same one until `body` returned its body.

        Returns:
            None when it is not all there yet.

        Raises:
            IngestError: see `parse_head`; as early as the bytes at hand allow.
        """
        if self._head is not None:
            return self._head
        position = self._position
        end = position + self._size
        # Where the last head ended, the next one most often ends too. If these bytes are a
        # head that was parsed before, then they hold its blank line and no earlier one,
        # so they are what the search for a blank line would have found.
        head = self._guess(self.buffer[position:end])
        if head is None:
            return self._find_head()
        self._position = end
        self._scanned = 0
        self._head = head
        return head

    def body(self) -> bytes | None:
        """The whole body of the request whose head was returned last, `b""` for none.

        Returns:
            None when it is not all there yet.

        Raises:
            IngestError: bad_request, body_too_large or headers_too_large (trailers).
        """
        head = self._head
        if head is not None and self._body is None:
            length = head.content_length
            if length is None:
                if not head.chunked:
                    self._head = None
                    return b""
            else:
                position = self._position
                end = position + length
                buffer = self.buffer
                if end < len(buffer):
                    self._position = end
                    self._head = None
                    return buffer[position:end]
                if end == len(buffer):
                    self.buffer = b""
                    self._position = 0
                    self._head = None
                    return buffer[position:]
        return self._collect_body()

    def stream(self) -> SizedStream | ChunkedStream:
        """Begin to give the body of the request whose head was returned last piece by piece.

        Until `end_stream` all that is fed goes to what is returned, and `head` and `body`
        must not be called.
        """
        head = self._head
        assert head is not None and self._body is None, "stream() follows head()"
        rest = self.buffer[self._position :]
        self.buffer = b""
        self._position = 0
        body: SizedStream | ChunkedStream
        if head.chunked:
            limits = self.limits
            limits = limits._replace(request_body_max_bytes=limits.streamed_body_max_bytes)
            body = ChunkedStream(limits, rest)
        else:
            body = SizedStream(head.content_length or 0, rest)
        self._body = body
        return body

    def end_stream(self) -> None:
        """The body was given out whole: go on with what is behind it."""
        assert self._body is not None and self._body.complete()
        _, self.buffer = self._body.take()
        self._body = None
        self._head = None

    @property
    def begun(self) -> bool:
        """A request is unfinished: bytes of its head are here, or its body is awaited.

        An empty line in front of a head is nobody's request yet.
        """
        if self._head is not None or self._body is not None:
            return True
        return self.buffer[self._position : self._position + 3] not in (b"", b"\r", b"\r\n")

    @property
    def buffered(self) -> int:
        """Bytes held in memory."""
        return len(self.buffer) - self._position + (self._body.held if self._body else 0)

    def _find_head(self) -> Head | None:
        """The next head by its blank line."""
        buffer, position = self.buffer, self._position
        if position == len(buffer):
            self.buffer = b""
            self._position = 0
            if self._body is not None:  # refused before
                self._body.complete()
            return None
        end = buffer.find(b"\r\n\r\n", self._scanned or position) + 4
        try:
            if end < 4:
                self._check_unfinished()
                return None
            head = self._parse(buffer[position:end])
        except IngestError as error:
            raise self._refuse(error) from None
        self._position = end
        self._scanned = 0
        self._head = head
        self._size = head.size
        return head

    def _parse(self, raw: bytes) -> Head:
        """The head of these bytes, from the cache or anew."""
        head = self._cache.get(raw)
        if head is None:
            if raw.startswith(b"\r\n"):
                # RFC 9112 section 2.2: one empty line in front of a request is ignored
                raw = raw[2:]
            head = parse_head(raw, self.limits)
            self._cache.put(raw, head)
        return head

    def _check_unfinished(self) -> None:
        """Keep no more than the begin of a head; refuse at once what cannot become one."""
        buffer = self.buffer = self.buffer[self._position :]
        self._position = 0
        unseen = max(self._scanned - 1, 0)
        # the end of a head may begin in the last three bytes
        self._scanned = max(len(buffer) - 3, 0)
        stray = STRAY.search(buffer, unseen)
        if stray is not None:
            raise IngestError("bad_request", stray_fault(stray[0]))
        limits = self.limits
        begin = buffer[2:] if buffer.startswith(b"\r\n") else buffer
        line_end = begin.find(b"\r\n", 0, limits.request_line_max_bytes + 2)
        if line_end >= 0:
            parse_request_line(begin, limits)
            if len(begin) - line_end - 2 > limits.headers_max_bytes:
                raise headers_too_large(limits)
        elif len(begin) > limits.request_line_max_bytes + 1:
            raise target_too_long(limits)

    def _collect_body(self) -> bytes | None:
        """The way of a body that is chunked, or that was not all there at once."""
        try:
            if self._body is None:
                self._body = self._begin_body()
            if not self._body.complete():
                return None
        except IngestError as error:
            raise self._refuse(error) from None
        body, rest = self._body.take()
        self._body = None
        self._head = None
        if rest:
            self.buffer = rest
            self._position = 0
        return body

    def _begin_body(self) -> _Body:
        """Hand over what there is of a body; all bytes that are fed go there until it is taken."""
        head = self._head
        assert head is not None, "body() follows head()"
        buffer, position = self.buffer, self._position
        self.buffer = b""
        self._position = 0
        if not head.chunked:
            return _SizedBody(head.content_length or 0, buffer[position:])
        decoder = ChunkedDecoder(self.limits)
        position = decoder.decode(buffer, position)
        if decoder.done:  # it is taken next; what is pipelined behind stays where it is
            self.buffer = buffer
            self._position = position
        return _ChunkedBody(decoder)

    def _refuse(self, error: IngestError) -> IngestError:
        """Drop everything and stay refused."""
        self.buffer = b""
        self._position = self._scanned = 0
        self._head = None
        self._body = _Refused(error)
        return error
