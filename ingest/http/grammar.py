"""The character classes of RFC 9110 and RFC 3986, as pieces of regular expressions.

PURE. Each constant quotes its rule. Nothing here knows what a field means.
"""

from __future__ import annotations

import re

#: token = 1*tchar (RFC 9110 section 5.6.2); one tchar.
TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

#: field-vchar / SP / HTAB, where field-vchar = VCHAR / obs-text (RFC 9110 section 5.5).
FIELD_BYTE = rb"[\t\x20-\x7e\x80-\xff]"

#: quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE (RFC 9110 section 5.6.4).
QUOTED_STRING = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'

#: field-line CRLF (RFC 9112 section 5): no space before the colon, no line folding.
FIELD_LINE = TCHAR + rb"+:" + FIELD_BYTE + rb"*\r\n"

#: What can never stand in a head, however it goes on: a bare LF, a bare CR (one at the
#: very end may yet become CRLF), NUL and the other controls but HTAB (RFC 9112 section 2.2,
#: RFC 9110 section 5.5).
STRAY = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_TOKEN = re.compile(TCHAR + rb"+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

#: Longest piece of the input that an error message repeats, in bytes.
EXCERPT_MAX_BYTES = 40


def excerpt(data: bytes) -> str:
    """The beginning of hostile bytes as printable ASCII, for the detail of an error."""
    text = data[:EXCERPT_MAX_BYTES].decode("latin-1").encode("unicode_escape").decode("ascii")
    return f"'{text}'" + ("..." if len(data) > EXCERPT_MAX_BYTES else "")


def stray_fault(byte: bytes) -> str:
    """Words for what `STRAY` found."""
    if byte == b"\n":
        return "bare LF; lines end with CRLF"
    if byte == b"\r":
        return "bare CR; lines end with CRLF"
    return f"control character {excerpt(byte)}"


def field_fault(line: bytes) -> str:
    """What is wrong with a field line that does not match `FIELD_LINE`.

    Args:
        line: the line without its CRLF.
    """
    if b"\n" in line or b"\r" in line:
        return stray_fault(b"\n" if b"\n" in line else b"\r")
    if line[:1] in (b" ", b"\t"):
        return "line begins with white space; folded lines are obsolete (RFC 9112 section 5.2)"
    name, colon, value = line.partition(b":")
    if not colon:
        return f"no colon in {excerpt(line)}"
    if not name:
        return "empty field name"
    if name[-1:] in (b" ", b"\t"):
        return f"white space before the colon after {excerpt(name.rstrip())}"
    if not _TOKEN.fullmatch(name):
        return f"field name {excerpt(name)} is not a token"
    control = _CONTROL.search(value)
    found = excerpt(control[0]) if control else "bytes that are not allowed"
    return f"{found} in the value of {excerpt(name)}"
