"""The answer of a WSGI application: `start_response`, `write()`, and how the body ends.

The head leaves with the first byte of the body, so that until then the application may
change its mind, and a failure becomes a proper answer. Where the application does not say
how long its body is, one block alone tells; several are chunked for HTTP/1.1, and end with
the connection for HTTP/1.0.

Fields about the connection and the framing (RFC 9110 section 7.6.1) are ours: those of the
application are dropped, but for its wish to close.

This module must not know sockets or environs.

Source: PEP 3333 sections "The start_response() Callable", "Handling the Content-Length Header";
RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ingest.http.grammar import TCHAR

if TYPE_CHECKING:
    from ingest.connection import Exchange
    from ingest.responder import Responder
    from ingest.wsgi_channel import Channel, OwnFile

#: An unread rest of a request's body up to this size is read, to keep the connection.
DISCARD_MAX_BYTES = 65536
#: Blocks up to this size are copied, so that they leave in one piece with what frames them.
JOINED_MAX_BYTES = 65536
#: Fields that are about this connection only.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_STATUS = re.compile(r"([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_NAME = re.compile(TCHAR.decode() + "+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_DIGITS = re.compile(r"[0-9]{1,18}")


class Misuse(AssertionError):
    """The application does what PEP 3333 does not allow."""


class Answer:
    """One answer.

    Args:
        exchange: that is answered.
        channel: where it goes.
        responder: knows the date, the request id and whether the connection closes.

    Attributes:
        status: its code; 0 until `start_response`.
        begun: its head has left.
        complete: all of it has left.
        single: the body is one block, which the application gives whole.
    """

    def __init__(self, exchange: Exchange, channel: Channel, responder: Responder) -> None:
        self._exchange = exchange
        self._channel = channel
        self._responder = responder
        self._status_line = b""
        self._fields: list[tuple[str, str]] = []
        self._length: int | None = None
        self._wants_close = False
        self._body = 0
        self._chunked = False
        self._bodyless = False
        self.status = 0
        self.begun = False
        self.complete = False
        self.single = False

    # -- what the application calls ----------------------------------------------------

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's `start_response`; returns `write`.

        Raises:
            Misuse: it was called before, without `exc_info`, or is given what is no status
                or header.
            BaseException: what is in `exc_info`, where the head has left already.
        """
        try:
            if exc_info and self.begun:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            was_given, exc_info = bool(exc_info), None  # or its traceback would hold this frame
        if self.status and not was_given:
            raise Misuse("start_response was called a second time without exc_info")
        match = _STATUS.fullmatch(status) if isinstance(status, str) else None
        if match is None:
            raise Misuse(f"a status is three digits and a reason, not {status!r:.80}")
        if type(headers) is not list:
            raise Misuse(f"headers are a list, not {type(headers).__name__}")
        length, wants_close, fields = None, False, []
        for item in headers:
            name, value = _field(item)
            lowered = name.lower()
            if lowered == "content-length":
                length = _length(value, length)
            elif lowered == "connection":
                wants_close = wants_close or "close" in value.lower()
            elif lowered not in _HOP_BY_HOP:
                fields.append((name, value))
        self._status_line = f"HTTP/1.1 {status}\r\n".encode("latin-1")
        self.status = int(match[1])
        self._length, self._wants_close, self._fields = length, wants_close, fields
        return self.write

    def write(self, data: bytes) -> None:
        """Send one block of the body; waits until the kernel has it.

        Raises:
            Misuse: there is no status yet, or the block is more than Content-Length says.
            TypeError: it is no bytes.
            OSError: nobody reads it any more.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"a block of the body is bytes, not {type(data).__name__}")
        if not self.status:
            raise Misuse("a block of the body came before start_response")
        if not data:
            return
        surplus = 0
        if self._length is not None:
            surplus = max(0, self._body + len(data) - self._length)
            if surplus:
                data = data[: len(data) - surplus]
        head = b"" if self.begun else self._head(len(data) if self.single else None)
        self._body += len(data)
        self._send(head, data)
        if surplus and not self._bodyless:
            self.complete = True  # for the client it is; the rest is not sent
            raise Misuse(f"the body is longer than its Content-Length, {self._length}")

    # -- what the runner calls ---------------------------------------------------------

    def finish(self) -> None:
        """The application has nothing more to send.

        Raises:
            Misuse: there was no status, or too little of a body.
            OSError: nobody reads it any more.
        """
        if not self.status:
            raise Misuse("the application ended without start_response")
        if not self.begun:
            empty = 0 if self._length is None and self._exchange.head.method != "HEAD" else None
            self._channel.send(self._head(empty))
        if self._chunked:
            self._channel.send(b"0\r\n\r\n")
        elif not self._bodyless and self._length is not None and self._body < self._length:
            raise Misuse(f"the body has {self._body} of the {self._length} bytes it announced")
        self.complete = True

    def finish_with_file(self, file: OwnFile, start: int, there: int) -> None:
        """Send a part of a file as the whole body.

        Args:
            start: where in it the part begins.
            there: bytes of the file from there on.

        Raises:
            Misuse: there was no status, or too little of a file.
            OSError, EOFError: nobody reads it any more, or it cannot be read.
        """
        if not self.status:
            raise Misuse("the application ended without start_response")
        length = there if self._length is None else min(there, self._length)
        head = self._head(length)
        self._body = length
        self._channel.send_file(head, file, start, 0 if self._bodyless else length)
        self.finish()

    @property
    def enough(self) -> bool:
        """Whether all has left that ever will, however much of a body there is."""
        return self.begun and self._bodyless

    def _head(self, length: int | None) -> bytes:
        """The head's bytes, which are to be sent.

        Args:
            length: of the body, where it is known though the application did not say.
        """
        exchange, channel, responder = self._exchange, self._channel, self._responder
        head = exchange.head
        silent = self.status in (204, 304)
        self._bodyless = silent or head.method == "HEAD"
        if self._length is None:
            self._length = length
        if self._length is None and not self._bodyless:
            self._chunked = head.version >= (1, 1)
            if not self._chunked:
                exchange.close = True
        if self._wants_close or self._leaves_too_much():
            exchange.close = True
        names = {name.lower() for name, _ in self._fields}
        lines = [self._status_line]
        date, request_id, closes = responder.head_parts(exchange)
        if "date" not in names:
            lines.append(b"Date: %b\r\n" % date)
        if "x-request-id" not in names:
            lines.append(f"X-Request-Id: {request_id}\r\n".encode("latin-1"))
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in self._fields]
        if self._chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        elif self._length is not None and not silent:
            lines.append(b"Content-Length: %d\r\n" % self._length)
        if closes:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        self.begun = channel.answering = True
        return b"".join(lines)

    def _leaves_too_much(self) -> bool:
        """Whether it is clear now that too much of the request's body is left unread."""
        channel = self._channel
        if channel.failed is not None or channel.continue_due:
            return True
        return self.single and (channel.left or 0) > DISCARD_MAX_BYTES

    def _send(self, head: bytes, data: bytes) -> None:
        """Send a block, with the head before it if it is the first one."""
        start, end = head, b""
        if self._bodyless:
            data = b""
        elif self._chunked:
            start, end = b"%b%x\r\n" % (head, len(data)), b"\r\n"
        if len(data) <= JOINED_MAX_BYTES:
            self._channel.send(b"".join((start, data, end)))
            return
        for part in (start, data, end):
            self._channel.send(part)


def _field(item: Any) -> tuple[str, str]:
    """A header field as the application gave it.

    Raises:
        Misuse: it is none, or would be more than one on the wire.
    """
    if type(item) is not tuple or len(item) != 2:
        raise Misuse(f"a header is a pair of str, not {item!r:.80}")
    name, value = item
    if not isinstance(name, str) or not isinstance(value, str):
        raise Misuse(f"a header is a pair of str, not {item!r:.80}")
    if not _NAME.fullmatch(name):
        raise Misuse(f"a header's name is a token, not {name!r:.80}")
    if not _VALUE.fullmatch(value):
        raise Misuse(f"the value of {name} has characters that no header can have")
    return name, value.strip("\t ")


def _length(value: str, before: int | None) -> int:
    if not _DIGITS.fullmatch(value) or before not in (None, int(value)):
        raise Misuse(f"Content-Length is one decimal number, not {value!r:.80}")
    return int(value)
