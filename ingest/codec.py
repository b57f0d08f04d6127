"""JSON in and out: the payload decoders, and the encoder for everything this program says.

Payloads are decoded by orjson, which is strict (RFC 8259) and fastest; `ujson` can be chosen
for legacy producers whose JSON is not quite JSON. Encoding is ujson's everywhere.

PURE: bytes and values. It must not know HTTP, event types or settings.

What a strict decoder refuses beyond the grammar, as RFC 8259 sections 8 and 9 allow: a byte
order mark, bytes that are not UTF-8, escapes of lone surrogates, numbers beyond the range of
a double, and nesting beyond a bound.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import repeat
from json import JSONDecoder
from typing import Any

import orjson
import ujson

from ingest.codec_scan import depth_exceeded_at, repeated_name, split_array, split_members

__all__ = [
    "DEPTH_CEILING", "DecodeError", "dumps", "make_decoder", "make_encoder", "make_many_decoder",
    "one_line", "plain_depth", "split_array", "split_members",
]  # fmt: skip

#: Levels of nesting no setting may exceed: the code that looks into values recurses.
DEPTH_CEILING = 512

#: Characters shown on each side of a fault.
_EXCERPT_SIDE = 20

Decoder = Callable[[bytes], Any]


class DecodeError(ValueError):
    """The bytes are not the JSON that was asked for.

    Attributes:
        message: what is wrong; free of the input's text.
        line: from 1; lines end with LF.
        column: from 1, in characters (in bytes where they are not UTF-8).
        excerpt: the text around the fault, printable, at most about 40 characters of it.
    """

    def __init__(self, message: str, line: int, column: int, excerpt: str) -> None:
        super().__init__(f"{message}: line {line}, column {column}")
        self.message = message
        self.line = line
        self.column = column
        self.excerpt = excerpt


def make_decoder(kind: str, depth_max: int, duplicate_keys: str) -> Decoder:
    """Build the function that turns a payload's bytes into a value.

    Args:
        kind: `orjson` (strict) or `ujson` (lenient; see `make_encoder`).
        depth_max: levels of arrays and objects within each other, at most `DEPTH_CEILING`.
        duplicate_keys: `accept` (the last one counts) or `reject`; the latter costs a second
            pass and is for the strict decoder only.

    Returns:
        A function of bytes that raises `DecodeError`.

    Raises:
        ValueError: the arguments do not go together.
    """
    if not 1 <= depth_max <= DEPTH_CEILING:
        raise ValueError(f"depth_max must be 1 to {DEPTH_CEILING}, not {depth_max}")
    if duplicate_keys not in ("accept", "reject"):
        raise ValueError(f"duplicate_keys must be accept or reject, not {duplicate_keys!r}")
    if kind == "orjson":
        strict = _strict_decoder(depth_max)
        return strict if duplicate_keys == "accept" else _without_duplicates(strict)
    if kind != "ujson":
        raise ValueError(f"the decoder must be orjson or ujson, not {kind!r}")
    if duplicate_keys == "reject":
        raise ValueError("duplicate keys can be rejected by the orjson decoder only")
    return _lenient_decoder(depth_max)


def _strict_decoder(depth_max: int) -> Decoder:
    loads = orjson.loads

    def decode(raw: bytes) -> Any:
        try:
            value = loads(raw)
        except orjson.JSONDecodeError as error:
            raise _located(raw, error) from None
        # Too deep needs more brackets than levels, two bytes each. An object around another
        # takes five ({"":}), so in a short document counting one kind is enough.
        if (
            len(raw) > 2 * depth_max
            and raw.count(b"[") + (len(raw) + 3) // 5 > depth_max
            and raw.count(b"{") + raw.count(b"[") > depth_max
            and _deeper_than(value, depth_max)
        ):
            raise _too_deep(raw, depth_max)
        return value

    return decode


def make_many_decoder(
    kind: str, depth_max: int, duplicate_keys: str
) -> Callable[[Sequence[bytes]], list[Any] | None] | None:
    """Decodes many texts at once where each is good by itself; None for decoders that cannot.

    The texts are decoded as one array, with a number between every two that nobody outside
    can know: what does not come out in its place was not whole, or more than one text.

    Args:
        kind, depth_max, duplicate_keys: as for `make_decoder`.

    Returns:
        A function of texts without line feeds. It returns their values, or None when one of
        them is not plainly good: then each has to be decoded alone.
    """
    if kind != "orjson" or duplicate_keys != "accept":
        return None
    loads = orjson.loads
    number = random.SystemRandom().getrandbits(62)
    between = b"\n,%d,\n" % number

    def decode(raws: Sequence[bytes]) -> list[Any] | None:
        if max(map(len, raws)) > 2 * depth_max and any(
            raw.count(b"[") + raw.count(b"{") > depth_max
            for raw in raws
            if len(raw) > 2 * depth_max
        ):
            return None
        try:
            values = loads(b"[%b\n]" % between.join(raws))
        except orjson.JSONDecodeError:
            return None
        if len(values) != 2 * len(raws) - 1 or values[1::2].count(number) != len(raws) - 1:
            return None
        return values[::2]

    return decode


def make_list_decoder(
    kind: str, depth_max: int, duplicate_keys: str
) -> Callable[[Sequence[bytes], bytes], list[Any] | None] | None:
    """Decodes documents one after the other, with one call for all; arguments as above.

    Returns:
        A function of at least one document, and of all of them joined. It returns their
        values, or None when one of them is not plainly good: then each has to be decoded alone.
    """
    if kind != "orjson" or duplicate_keys != "accept":
        return None
    loads = orjson.loads

    def decode(raws: Sequence[bytes], text: bytes) -> list[Any] | None:
        try:
            values = list(map(loads, raws))
        except orjson.JSONDecodeError:
            return None
        longest = max(map(len, raws))
        # As in `_strict_decoder`. Where no array begins right behind another's begin, a level
        # takes three bytes at least.
        if longest > 2 * depth_max and (longest > 3 * depth_max or b"[[" in text):
            arrays = max(map(bytes.count, raws, repeat(b"[")))
            if (
                arrays + (longest + 3) // 5 > depth_max
                and arrays + max(map(bytes.count, raws, repeat(b"{"))) > depth_max
            ):
                return None
        return values

    return decode


def plain_depth(kind: str, depth_max: int, duplicate_keys: str) -> int:
    """Levels of nesting in what is accepted for being JSON and nothing else; 0 where more is
    asked of it. Arguments as for `make_decoder`."""
    return depth_max if kind == "orjson" and duplicate_keys == "accept" else 0


def _without_duplicates(strict: Decoder) -> Decoder:
    def refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) != len(pairs):
            raise _RepeatedName

    check = JSONDecoder(object_pairs_hook=refuse_repeated, parse_int=str, parse_float=str).decode

    def decode(raw: bytes) -> Any:
        value = strict(raw)
        try:
            check(raw.decode())
        except _RepeatedName:
            raise _duplicate(raw) from None
        return value

    return decode


class _RepeatedName(Exception):
    """An object has a name twice."""


def _lenient_decoder(depth_max: int) -> Decoder:
    loads = ujson.loads

    def decode(raw: bytes) -> Any:
        try:
            value = loads(raw)
        except ValueError as error:
            raise _lenient_error(raw, str(error)) from None
        if raw.count(b"{") + raw.count(b"[") > depth_max and _deeper_than(value, depth_max):
            raise _too_deep(raw, depth_max)
        # It takes what no JSON can say (NaN, Infinity, lone surrogates) and numbers beyond a
        # double's range; what strict readers would refuse cannot be stored.
        try:
            orjson.loads(_encode(value).encode())
        except (OverflowError, UnicodeEncodeError, orjson.JSONDecodeError):
            raise _lenient_error(raw, "a number or string that JSON cannot express") from None
        return value

    return decode


def _deeper_than(value: Any, limit: int) -> bool:
    """Whether arrays and objects nest more than `limit` levels; level by level, no recursion."""
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in _CONTAINERS
        ]
    return bool(level)


_CONTAINERS = frozenset({dict, list})


# -- errors -------------------------------------------------------------------------------


def _located(raw: bytes, error: orjson.JSONDecodeError) -> DecodeError:
    """What orjson found; it counts in characters and gives no place for bad UTF-8."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        return _at_byte(raw, bad.start, "not valid UTF-8")
    position = min(error.pos, len(text))
    line_start = text.rfind("\n", 0, position) + 1
    excerpt = text[max(0, position - _EXCERPT_SIDE) : position + _EXCERPT_SIDE]
    return DecodeError(
        error.msg,
        text.count("\n", 0, position) + 1,
        position - line_start + 1,
        _printable(excerpt),
    )


def _lenient_error(raw: bytes, message: str) -> DecodeError:
    """ujson gives no place; where orjson stumbles, too, that is the most likely one."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        strict = _located(raw, error)
        return DecodeError(message, strict.line, strict.column, strict.excerpt)
    return _at_byte(raw, 0, message)


def _too_deep(raw: bytes, limit: int) -> DecodeError:
    return _at_byte(raw, depth_exceeded_at(raw, limit), f"nested more than {limit} levels deep")


def _duplicate(raw: bytes) -> DecodeError:
    found = repeated_name(raw)
    return _at_byte(raw, found[1] if found else 0, "a name stands twice in one object")


def _at_byte(raw: bytes, position: int, message: str) -> DecodeError:
    line_start = raw.rfind(b"\n", 0, position) + 1
    before = raw[line_start:position]
    excerpt = raw[max(0, position - _EXCERPT_SIDE) : position + _EXCERPT_SIDE]
    return DecodeError(
        message,
        raw.count(b"\n", 0, position) + 1,
        len(before.decode(errors="replace")) + 1,
        _printable(excerpt.decode(errors="backslashreplace")),
    )


def _printable(text: str) -> str:
    """Safe in a log line, a terminal and an answer: what does not print is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


# -- out ------------------------------------------------------------------------------------


def make_encoder(kind: str) -> Callable[[Any], bytes] | None:
    """How an accepted payload becomes the bytes to store.

    Args:
        kind: the decoder, as in `make_decoder`.

    Returns:
        None for the strict decoder: the producer's own bytes are JSON and are kept, so that
        numbers keep their precision. For the lenient one `dumps`: what it takes need not be
        JSON, so what it understood is encoded anew.
    """
    return None if kind == "orjson" else dumps


def one_line(raw: bytes) -> bytes:
    """Replace CR and LF by spaces.

    In what a strict decoder accepted they can only be white space between tokens.
    """
    if b"\n" in raw or b"\r" in raw:
        return raw.translate(_LINE_ENDS_TO_SPACES)
    return raw


_LINE_ENDS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


def dumps(value: Any) -> bytes:
    """Encode a value as JSON, UTF-8, in one line.

    Lone surrogates are escaped and numbers that are not finite become null, so that no
    text a client sent can keep an answer or a log line from being written.

    Raises:
        TypeError: something in it is not a JSON type.
        OverflowError: it is nested too deep.
    """
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        return _encode(value, ensure_ascii=True).encode()
    except OverflowError:
        return _encode(_finite(value), ensure_ascii=True).encode()


def _encode(value: Any, *, ensure_ascii: bool = False) -> str:
    return ujson.dumps(
        value,
        ensure_ascii=ensure_ascii,
        escape_forward_slashes=False,
        reject_bytes=True,
        allow_nan=False,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return value
