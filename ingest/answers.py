"""Answers as bytes: status line, fields and body, built once and joined.

PURE: no sockets, no clock. The date comes from the caller, which keeps it for a
second. Every error becomes `application/problem+json` here and nowhere else.

Source: RFC 9112 section 4 (status line), RFC 9110 section 6.6.1 (Date),
RFC 9457 (problem details).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ingest.codec import dumps
from ingest.errors import IngestError

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = "application/json"
PROBLEM = "application/problem+json"


def answer(
    status: int,
    body: bytes,
    *,
    content_type: str = JSON,
    date: bytes,
    request_id: str = "",
    headers: Mapping[str, str] | None = None,
    close: bool = False,
    without_body: bool = False,
    length: int | None = None,
) -> bytes:
    """Build one whole answer.

    Args:
        status: HTTP status code.
        body: the representation; its length is stated even when it is not sent.
        content_type: media type of `body`; left out for an empty body.
        date: IMF-fixdate (RFC 9110 section 5.6.7) as bytes.
        request_id: the id that also stands in the logs.
        headers: further fields; values must be free of CR and LF.
        close: announce `Connection: close`.
        without_body: the request was HEAD (RFC 9110 section 9.3.2).
        length: of a body that follows piece by piece; `body` is empty then.
    """
    lines = [_STATUS_LINES[status], b"Date: ", date, b"\r\n"]
    if request_id:
        lines.append(f"X-Request-Id: {request_id}\r\n".encode("latin-1"))
    if body or length or content_type != JSON:
        lines.append(f"Content-Type: {content_type}\r\n".encode("latin-1"))
    if headers:
        for name, value in headers.items():
            lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    if close:
        lines.append(b"Connection: close\r\n")
    if status not in (204, 304):  # RFC 9110 section 8.6: a 204 has none, a 304 has the 200's
        lines.append(b"Content-Length: %d\r\n" % (len(body) if length is None else length))
    lines.append(b"\r\n")
    if not without_body:
        lines.append(body)
    return b"".join(lines)


def problem_document(error: IngestError, request_id: str) -> dict[str, Any]:
    """The problem details object of an error (RFC 9457 section 3.1)."""
    failure = error.failure
    document: dict[str, Any] = {
        "type": failure.type or f"urn:ingest:error:{error.code}",
        "title": failure.title,
        "status": failure.status,
        "code": error.code,
    }
    if error.detail:
        document["detail"] = error.detail
    if request_id:
        document["request_id"] = request_id
    document.update(error.extensions)
    return document


def problem(
    error: IngestError,
    *,
    date: bytes,
    request_id: str = "",
    close: bool = False,
    without_body: bool = False,
) -> bytes:
    """An error as a whole answer; the only place where one becomes bytes."""
    return answer(
        error.status,
        dumps(problem_document(error, request_id)) + b"\n",
        content_type=PROBLEM,
        date=date,
        request_id=request_id,
        headers=error.headers,
        close=close or error.failure.closes,
        without_body=without_body,
    )
