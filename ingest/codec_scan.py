"""Looking into JSON bytes without decoding them: element boundaries, depth, repeated names.

The decoders give values; what is stored is the producer's own bytes, so the elements of an
array have to be cut out of it exactly as they were sent, and what a decoder does not report
(where it got too deep, which name was repeated) has to be found in the text.

PURE: bytes in, positions out. Everything here takes text that a decoder has accepted;
on other text the results mean nothing.

Source: RFC 8259 sections 2 (grammar), 4 (names), 5 (arrays).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecoder

import orjson

#: RFC 8259 section 2: `ws`.
_WHITE = b" \t\n\r"
_skip_white = re.compile(r"[ \t\n\r]*").match

#: Where one object may end and the next begin; starts with a fixed byte, so that the
#: regex engine looks for it with memchr.
_OBJECT_SEAM = re.compile(rb"\}[ \t\n\r]*,[ \t\n\r]*\{")

#: Anything in which a comma need not separate elements.
_NESTS = re.compile(rb'["\[{]')

#: A whole string, or one structural character.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}:,]', re.DOTALL)

#: The standard library's C scanner says where a value ends. Numbers stay text: their
#: size does not matter here, and `int` refuses more than 4300 digits.
_scan_value = JSONDecoder(strict=False, parse_int=str, parse_float=str).scan_once  # type: ignore[attr-defined]


def split_array(raw: bytes) -> list[bytes]:
    """Cut an array into its elements.

    Args:
        raw: a JSON array that a strict decoder has accepted.

    Returns:
        The bytes of each element exactly as they stand in `raw`, without the white space
        around them.
    """
    body = raw.strip(_WHITE)[1:-1].strip(_WHITE)
    if not body:
        return []
    if body[:1] == b"{":
        objects = _split_objects(body)
        if objects is not None:
            return objects
    if not _NESTS.search(body):
        return [element.strip(_WHITE) for element in body.split(b",")]
    return list(_split_any(body.decode()))


def _split_objects(body: bytes) -> list[bytes] | None:
    """Elements of an array of objects, or None where that cannot be told quickly.

    Candidates are the seams `},{` at which braces balance, those in strings counted, too;
    so a candidate can be wrong. But JSON's grammar is unambiguous: if each piece is a JSON
    text, then these are the elements, and decoding them proves it at native speed.
    """
    pieces: list[bytes] = []
    start = segment = depth = 0
    for seam in _OBJECT_SEAM.finditer(body):
        end = seam.start() + 1
        depth += body.count(b"{", segment, end) - body.count(b"}", segment, end)
        segment = end
        if depth == 0:
            pieces.append(body[start:end])
            start = segment = seam.end() - 1
    pieces.append(body[start:])
    try:
        for piece in pieces:
            orjson.loads(piece)
    except orjson.JSONDecodeError:
        return None
    return pieces


def _split_any(text: str) -> Iterator[bytes]:
    """Elements of any array; `text` is what stands between its brackets."""
    position, length = 0, len(text)
    while True:
        end = _scan_value(text, position)[1]
        yield text[position:end].encode()
        position = _skip_white(text, end).end()  # type: ignore[union-attr]
        if position >= length:
            return
        position = _skip_white(text, position + 1).end()  # type: ignore[union-attr]


def split_members(raw: bytes) -> list[tuple[str, bytes]]:
    """Cut an object into its members.

    Args:
        raw: a JSON object that a strict decoder has accepted.

    Returns:
        Name and bytes of each value, exactly as they stand in `raw`, repeated names included.
    """
    text = raw.strip(_WHITE)[1:-1].decode()
    members = []
    position = _skip_white(text).end()  # type: ignore[union-attr]
    while position < len(text):
        name, end = _scan_value(text, position)
        colon = _skip_white(text, end).end()  # type: ignore[union-attr]
        start = _skip_white(text, colon + 1).end()  # type: ignore[union-attr]
        end = _scan_value(text, start)[1]
        members.append((name, text[start:end].encode()))
        comma = _skip_white(text, end).end()  # type: ignore[union-attr]
        position = _skip_white(text, comma + 1).end()  # type: ignore[union-attr]
    return members


def depth_exceeded_at(raw: bytes, limit: int) -> int:
    """Byte position of the first bracket that opens more than `limit` levels; 0 if none."""
    depth = 0
    for token in _TOKEN.finditer(raw):
        byte = raw[token.start()]
        if byte in b"[{":
            depth += 1
            if depth > limit:
                return token.start()
        elif byte in b"]}":
            depth -= 1
    return 0


def repeated_name(raw: bytes) -> tuple[str, int] | None:
    """The first name that stands twice in one object, and its byte position.

    Names are compared as decoded: `"a"` and `"\\u0061"` are the same name.
    """
    scopes: list[set[str] | None] = []
    name_expected = False
    for token in _TOKEN.finditer(raw):
        byte = raw[token.start()]
        if byte == 0x22:  # a string
            names = scopes[-1] if scopes else None
            if name_expected and names is not None:
                name = orjson.loads(token.group())
                if name in names:
                    return name, token.start()
                names.add(name)
                name_expected = False
        elif byte == 0x7B:  # {
            scopes.append(set())
            name_expected = True
        elif byte == 0x5B:  # [
            scopes.append(None)
            name_expected = False
        elif byte in b"]}":
            scopes.pop()
            name_expected = False
        elif byte == 0x2C:  # ,
            name_expected = scopes[-1] is not None
    return None
