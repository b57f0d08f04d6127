"""Parts of a document, and conditions on it: Range, If-Range and their kin.

PURE: field values and numbers only.

Source: RFC 9110 sections 13 (conditional requests), 14 (range requests).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple

from ingest.representations import is_current

_RANGE = re.compile(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*")
#: Longer numbers are no byte positions of ours.
_DIGITS_MAX = 19


class Part(NamedTuple):
    """Bytes of a document: the first, and the one behind the last."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range begins behind the document's end: 416."""


class Version(NamedTuple):
    """What a document is now.

    Attributes:
        tag: its strong entity tag, quotes included.
        modified: when it last changed, in whole seconds since 1970.
        settled: whether that date names this version alone, so that it is a strong
            validator (RFC 9110 section 8.8.2.2).
    """

    tag: str
    modified: int
    settled: bool

    @property
    def last_modified(self) -> str:
        """The date as Last-Modified has it."""
        return formatdate(self.modified, usegmt=True)


def condition(headers: Mapping[str, str], version: Version) -> int:
    """The status of a GET or HEAD by its conditions: 200, 304, or 412 (section 13.2.2).

    Args:
        headers: of the request, with lower-case names.
    """
    if_match = headers.get("if-match")
    if if_match is not None:
        tags = [part.strip(" \t") for part in if_match.split(",")]
        if if_match.strip(" \t") != "*" and version.tag not in tags:  # compared strongly
            return 412
    else:
        since = _seconds(headers.get("if-unmodified-since", ""))
        if since is not None and version.modified > since:
            return 412
    if_none_match = headers.get("if-none-match")
    if if_none_match is not None:
        return 304 if is_current(if_none_match, version.tag) else 200
    since = _seconds(headers.get("if-modified-since", ""))
    return 304 if since is not None and version.modified <= since else 200


def part_of(headers: Mapping[str, str], length: int, version: Version) -> Part | None:
    """The part of a document that a GET asks for, or None for all of it.

    What is malformed, in another unit or more than one range is answered with the whole
    document, as section 14.2 allows.

    Args:
        headers: of the request, with lower-case names.
        length: bytes in the document.

    Raises:
        Unsatisfiable: the range begins behind the end.
    """
    unit, equals, ranges = headers.get("range", "").partition("=")
    found = _RANGE.fullmatch(ranges)
    if not equals or unit.strip(" \t").lower() != "bytes" or not found or not length:
        return None
    if not _still(headers.get("if-range"), version):
        return None
    first, last = found.groups()
    if max(len(first), len(last)) > _DIGITS_MAX:
        return None
    if not first:
        if not last:
            return None
        if not int(last):
            raise Unsatisfiable
        return Part(max(0, length - int(last)), length)
    start = int(first)
    end = int(last) + 1 if last else length
    if end <= start and last:
        return None
    if start >= length:
        raise Unsatisfiable
    return Part(start, min(end, length))


def _still(if_range: str | None, version: Version) -> bool:
    """Whether a client that sent If-Range holds a part of this version (section 13.1.5)."""
    if if_range is None:
        return True
    if_range = if_range.strip(" \t")
    if if_range.startswith(('"', "W/")):
        return if_range == version.tag
    return version.settled and if_range == version.last_modified


def _seconds(date: str) -> int | None:
    """An HTTP date as seconds since 1970, None where it is none."""
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
