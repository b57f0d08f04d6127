"""Request targets and authorities: the one place where a path is decoded.

PURE. What comes out as `path` is decoded exactly once, and nothing after this may
decode it again:

* The path is split at `/` first and its segments are decoded after, so an encoded slash
  never separates; it stays spelled `%2F`.
* `.` and `..` are removed after decoding, so `%2e%2e` is no way around it, and cannot
  climb above the root (RFC 3986 section 5.2.4).
* An octet that is not part of valid UTF-8 (overlong forms of `.` and `/` among them)
  stays spelled `%XX`. So `path` is always text that can be logged and encoded.

The query stays as sent. It may hold, beside what RFC 3986 section 3.4 allows, the
characters that browsers leave bare in a query (URL Standard, query percent-encode
set): `[ ] { } | \\ ^` and the backtick. The path may not.

Source: RFC 9112 section 3.2 (the four forms), RFC 3986, RFC 9110 section 4.2.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ingest.errors import IngestError
from ingest.http.grammar import excerpt

#: pchar = unreserved / pct-encoded / sub-delims / ":" / "@" (RFC 3986 section 3.3);
#: the classes without pct-encoded, so that the loops below have one way only.
_PCHAR = rb"A-Za-z0-9\-._~!$&'()*+,;=:@"
_ESCAPE = rb"%[0-9A-Fa-f]{2}"
_PATH = rb"/[/" + _PCHAR + rb"]*(?:" + _ESCAPE + rb"[/" + _PCHAR + rb"]*)*"
_QUERY_CLASS = rb"[/?\[\]{}|\\^`" + _PCHAR + rb"]*"
_QUERY = _QUERY_CLASS + rb"(?:" + _ESCAPE + _QUERY_CLASS + rb")*"
_ORIGIN_FORM = re.compile(rb"(" + _PATH + rb")(?:\?(" + _QUERY + rb"))?")
_ABSOLUTE_FORM = re.compile(
    rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(" + _PATH + rb")?(?:\?(" + _QUERY + rb"))?"
)
#: authority without userinfo: host [ ":" port ] (RFC 3986 section 3.2).
_AUTHORITY = re.compile(
    rb"(?:\[(?:([0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)"
    rb"(?::([0-9]*))?"
)
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*:")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%2[fF]")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_PORT_MAX = 65535


class Target(NamedTuple):
    """What a request target names.

    Attributes:
        path: decoded once, dot segments removed, begins with `/`; `*` for a request to
            the server as a whole, empty for CONNECT.
        query: as sent, without the `?`; empty when there is none.
        authority: host and port of an absolute-form or authority-form target, which
            stand above the Host field (RFC 9112 section 3.2.2); None for the others.
    """

    path: str
    query: str
    authority: str | None


def parse_target(method: str, target: bytes) -> Target:
    """Read a request target in the form that its method allows.

    Args:
        method: decides whether authority-form (CONNECT) or `*` (OPTIONS) is allowed.
        target: as sent, free of spaces and controls.

    Raises:
        IngestError: bad_request.
    """
    if method == "CONNECT":
        return _authority_form(target)
    origin = _ORIGIN_FORM.fullmatch(target)
    if origin is not None:
        path, query = origin.groups()
        return Target(_decode_path(path), _query(query), None)
    if target == b"*":
        if method == "OPTIONS":
            return Target("*", "", None)
        raise IngestError("bad_request", "the target * is for OPTIONS only")
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise IngestError("bad_request", _target_fault(target))
    authority, path, query = absolute.groups()
    if not is_authority(authority):
        raise IngestError("bad_request", "invalid authority in the target")
    if path is None and query is None and method == "OPTIONS":
        # RFC 9112 section 3.2.4: the absolute-form of `OPTIONS *`
        return Target("*", "", authority.decode("ascii"))
    return Target(_decode_path(path or b"/"), _query(query), authority.decode("ascii"))


def is_authority(value: bytes) -> bool:
    """Whether a Host value or authority is valid: host [ ":" port ], host not empty.

    RFC 9110 section 4.2.1 has empty hosts refused, section 4.2.4 userinfo.
    """
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        return False
    address, port = match.groups()
    digits = port.lstrip(b"0") if port else b""
    if digits and (len(digits) > 5 or int(digits) > _PORT_MAX):
        return False
    if address is not None:
        try:
            IPv6Address(address.decode("ascii"))
        except AddressValueError:
            return False
    return True


def _authority_form(target: bytes) -> Target:
    """CONNECT takes host ":" port, both of them (RFC 9110 section 9.3.6)."""
    if not is_authority(target) or not target.rpartition(b":")[2].isdigit():
        raise IngestError("bad_request", "CONNECT takes host:port as its target")
    return Target("", "", target.decode("ascii"))


def _query(query: bytes | None) -> str:
    if not query:
        return ""
    if b"%00" in query:
        raise IngestError("bad_request", "encoded NUL in the target")
    return query.decode("ascii")


def _decode_path(path: bytes) -> str:
    """Percent-decode and remove dot segments, each once."""
    if b"%" in path:
        if b"%00" in path:
            raise IngestError("bad_request", "encoded NUL in the target")
        path = unquote_to_bytes(_ENCODED_SLASH.sub(b"%252F", path))
    text = path.decode("utf-8", "surrogateescape")
    if not text.isascii():
        text = _NOT_UTF8.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)
    return _remove_dot_segments(text) if "/." in text else text


def _remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4: `..` takes the segment before it, never the root."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _target_fault(target: bytes) -> str:
    """What is wrong with a target that has none of the forms."""
    if b"#" in target:
        return "fragment in the target"
    if _BAD_ESCAPE.search(target):
        return "malformed percent-encoding in the target"
    if not target.startswith(b"/") and not _SCHEME.match(target):
        return f"target {excerpt(target)} does not begin with /"
    if not target.startswith(b"/") and not target.lower().startswith((b"http://", b"https://")):
        return f"target {excerpt(target)} is not http or https"
    return f"character that must be percent-encoded in the target {excerpt(target)}"
