"""Where the body of a request ends: Content-Length and Transfer-Encoding.

PURE. Every request smuggling known to us is two recipients that answer this question
differently. So only the one spelling that no recipient can misread is accepted, and
everything else is refused together with its connection.

Source: RFC 9112 sections 6.1 to 6.3, RFC 9110 section 8.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ingest.errors import IngestError
from ingest.http.grammar import QUOTED_STRING, TCHAR

_DIGITS = re.compile(r"[0-9]+")

#: More digits than this (after leading zeros) are more than any limit of ours.
_LENGTH_DIGITS_MAX = 18

_TCHAR = TCHAR.decode()
_PARAMETER = rf"[\t ]*;[\t ]*{_TCHAR}+[\t ]*=[\t ]*(?:{_TCHAR}+|{QUOTED_STRING.decode('latin-1')})"
#: transfer-coding = token *( OWS ";" OWS transfer-parameter ) (RFC 9112 section 7).
_CODING = rf"{_TCHAR}+(?:{_PARAMETER})*"
_CODINGS = re.compile(rf"{_CODING}(?:[\t ]*,[\t ]*{_CODING})*")


def body_framing(
    headers: Mapping[str, str], version: tuple[int, int], body_max_bytes: int
) -> tuple[int | None, bool]:
    """How the body is delimited.

    Args:
        headers: lower-case names; a repeated Transfer-Encoding joined by `, `.
        version: of the request.
        body_max_bytes: a longer announced body is refused before any of it is read.

    Returns:
        The length in bytes (None: not stated) and whether the body is chunked. Neither
        means that there is no body (RFC 9112 section 6.3 item 7).

    Raises:
        IngestError: bad_request, transfer_coding_unknown, body_too_large.
    """
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is None:
        return (None if length is None else content_length(length, body_max_bytes)), False
    if length is not None:
        raise IngestError("bad_request", "Content-Length beside Transfer-Encoding")
    if version < (1, 1):
        raise IngestError("bad_request", "Transfer-Encoding in an HTTP/1.0 request")
    require_chunked(coding)
    return None, True


def content_length(value: str, body_max_bytes: int) -> int:
    """Content-Length = 1*DIGIT, once: no sign, no list, no white space within.

    Raises:
        IngestError: bad_request, or body_too_large for more than `body_max_bytes`.
    """
    if not _DIGITS.fullmatch(value):
        raise IngestError("bad_request", "Content-Length is not a decimal number")
    digits = value.lstrip("0")
    if len(digits) > _LENGTH_DIGITS_MAX or int(digits or "0") > body_max_bytes:
        raise IngestError(
            "body_too_large",
            f"the body may have {body_max_bytes} bytes",
            extensions={"limit_bytes": body_max_bytes},
        )
    return int(digits or "0")


def require_chunked(value: str) -> None:
    """Accept `chunked` alone; tell codings we lack from values that hide something.

    `chunked` has no parameters, is applied once and last (RFC 9112 sections 6.1, 7.1);
    empty list elements are legal for a recipient to skip (RFC 9110 section 5.6.1) but
    recipients differ there, so they count as hiding.

    Raises:
        IngestError: transfer_coding_unknown (501) for a well-formed list of other
            codings, with or without a final `chunked`; bad_request for all else.
    """
    lowered = value.lower()
    if lowered == "chunked":
        return
    if not _CODINGS.fullmatch(lowered):
        raise IngestError("bad_request", "Transfer-Encoding is malformed")
    names = re.split(r"[\t ]*,[\t ]*", re.sub(r'"(?:[^"\\]|\\.)*"', "", lowered))
    if any(name.split(";")[0].rstrip() == "chunked" for name in names[:-1]):
        raise IngestError("bad_request", "Transfer-Encoding: chunked is not the last coding, once")
    if names[-1].startswith("chunked") and names[-1][7:].lstrip().startswith(";"):
        raise IngestError("bad_request", "Transfer-Encoding: chunked has no parameters")
    raise IngestError("transfer_coding_unknown", "only Transfer-Encoding: chunked is understood")
