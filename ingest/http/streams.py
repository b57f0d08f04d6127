"""A request's body piece by piece, for those who read it while it arrives.

PURE. Such a body is never held as a whole: what was fed is given out by `piece`, and what
belongs to the next request stays apart until `rest` is asked for. The parser holds one of
these in the place where it would else collect the body.

Source: RFC 9112 sections 6.2, 7.1.
"""

from __future__ import annotations

from ingest.http.chunked import ChunkedDecoder
from ingest.http.head import Limits


class SizedStream:
    """A body of known length.

    Args:
        length: of it, in bytes.
        first: what has arrived of it, and perhaps of what follows.
    """

    __slots__ = ("_data", "_left")

    def __init__(self, length: int, first: bytes) -> None:
        self._left = length
        self._data = first

    def feed(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data

    def complete(self) -> bool:
        return not self._left

    def piece(self) -> bytes:
        """What is here of it and was not given out; `b""` for nothing."""
        data, left = self._data, self._left
        if len(data) <= left:
            self._left -= len(data)
            self._data = b""
            return data
        self._left = 0
        self._data = data[left:]
        return data[:left]

    def take(self) -> tuple[bytes, bytes]:
        """Nothing more of the body, and the bytes behind it."""
        return b"", self._data

    @property
    def held(self) -> int:
        return len(self._data)

    @property
    def left(self) -> int | None:
        """Bytes that were not given out; None where that is not known."""
        return self._left


class ChunkedStream:
    """A chunked body.

    Args:
        limits: bounds on all of it together, with its extensions and trailers.
        first: what has arrived of it, and perhaps of what follows.
    """

    __slots__ = ("_data", "_decoder")

    def __init__(self, limits: Limits, first: bytes) -> None:
        self._decoder = ChunkedDecoder(limits)
        self._data = first

    def feed(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data

    def complete(self) -> bool:
        return self._decoder.done

    def piece(self) -> bytes:
        """What is here of it and was not given out; `b""` for nothing.

        Raises:
            IngestError: bad_request, body_too_large, headers_too_large.
        """
        decoder = self._decoder
        if not decoder.done:
            self._data = self._data[decoder.decode(self._data, 0) :]
        return decoder.release()

    def take(self) -> tuple[bytes, bytes]:
        """Nothing more of the body, and the bytes behind it."""
        return b"", self._data

    @property
    def held(self) -> int:
        return self._decoder.held + len(self._data)

    @property
    def left(self) -> int | None:
        """Bytes that were not given out; None where that is not known."""
        return 0 if self._decoder.done else None
