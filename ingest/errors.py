"""Every failure a client can see, each with one stable code.

The `code` is the JSON field of the answer, the key in the log line and the
metric label alike, so one word finds all three. One function elsewhere
(`ingest.answers.problem`) turns an `IngestError` into bytes. This module knows no
sockets, no HTTP framing and no event types.

Source: RFC 9457 (problem details), RFC 9110 section 15 (status codes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Failure(NamedTuple):
    """One row of the catalogue.

    Attributes:
        type: the problem type's URI where there is a registered one; else one of our own.
        status: HTTP status code.
        title: constant, short, the same for every occurrence (RFC 9457 section 3.1.3).
        closes: whether the connection is closed after the answer, because the
            position of the next request in the byte stream is no longer certain
            or because the peer must go.
        remedy: what the person who reads it can do; printed in docs/errors.md.
    """

    status: int
    title: str
    closes: bool
    remedy: str
    type: str = ""


#: Where RFC 9457 has problem types registered.
PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"

#: Closed set: also the values of the `code` label of `ingest_errors_total`.
CATALOGUE: Mapping[str, Failure] = {
    # -- HTTP framing: the byte stream cannot be trusted any further ------------
    "bad_request": Failure(
        400,
        "Malformed HTTP request",
        True,
        "Send a request that follows RFC 9112; `detail` says where.",
    ),
    "request_timeout": Failure(
        408,
        "Request took too long to arrive",
        True,
        "Send the request faster, or raise `header_timeout_seconds`, `body_timeout_seconds`.",
    ),
    "length_required": Failure(
        411,
        "Length required",
        True,
        "Send Content-Length or Transfer-Encoding: chunked with a body.",
    ),
    "body_too_large": Failure(
        413,
        "Request body too large",
        True,
        "Split the batch, or raise `request_body_max_bytes`.",
    ),
    "target_too_long": Failure(
        414, "Request target too long", True, "Shorten the URL, or raise `request_line_max_bytes`."
    ),
    "expectation_failed": Failure(
        417, "Expectation not supported", True, "Only `Expect: 100-continue` is understood."
    ),
    "headers_too_large": Failure(
        431,
        "Request headers too large",
        True,
        "Send fewer or shorter header fields, or raise `headers_max_bytes` / `header_count_max`.",
    ),
    "transfer_coding_unknown": Failure(
        501,
        "Transfer coding not implemented",
        True,
        "Only `Transfer-Encoding: chunked` is understood.",
    ),
    "version_not_supported": Failure(
        505, "HTTP version not supported", True, "Speak HTTP/1.1 or HTTP/1.0."
    ),
    # -- The request is framed well, but cannot be served -------------------------
    "bad_parameter": Failure(
        400, "Bad query parameter", False, "Correct the parameter that `detail` names."
    ),
    "unauthorized": Failure(
        401,
        "A valid key is needed",
        False,
        "Send a key: `Authorization: Bearer ing_…` or `X-API-Key`; see docs/access.md.",
    ),
    "forbidden": Failure(
        403,
        "This key does not allow that",
        False,
        "Use a key with the right or the event type that `detail` names.",
    ),
    "not_found": Failure(404, "Not found", False, "See docs/http-api.md for the routes."),
    "unknown_type": Failure(
        404, "Unknown event type", False, "Add `schemas/<type>.json`, or correct the URL."
    ),
    "method_not_allowed": Failure(
        405, "Method not allowed", False, "Use one of the methods in the Allow header."
    ),
    "offset_gone": Failure(
        410,
        "Offset no longer in the journal",
        False,
        "Go on at `first_offset`; what was asked for has been removed by retention.",
    ),
    "offset_ahead": Failure(
        404,
        "Offset beyond the journal's end",
        False,
        "Go on at `next_offset`; was this offset taken from another journal?",
    ),
    "reload_in_progress": Failure(
        409, "A reload is in progress", False, "Ask again when it has ended, if it has to be."
    ),
    "reload_refused": Failure(
        422,
        "The reload was refused",
        False,
        "Mend what `problems` lists; everything is as it was.",
    ),
    "precondition_failed": Failure(
        412, "Precondition failed", False, "The segment is not the one you know; ask anew."
    ),
    "range_not_satisfiable": Failure(
        416,
        "Range not satisfiable",
        False,
        "Ask for bytes before the length that Content-Range names.",
    ),
    "unsupported_media_type": Failure(
        415,
        "Unsupported media type",
        False,
        "Send one of the media types in the Accept-Post header.",
    ),
    "unsupported_encoding": Failure(
        415,
        "Unsupported content encoding",
        False,
        "Use one of the codings in the Accept-Encoding header of the answer.",
    ),
    # -- The payload --------------------------------------------------------------
    "malformed_json": Failure(
        400,
        "Malformed JSON",
        False,
        "Send strict RFC 8259 JSON; line, column and excerpt say where.",
    ),
    "malformed_encoding": Failure(
        400,
        "Malformed content encoding",
        False,
        "The body does not decode as its Content-Encoding.",
    ),
    "inflated_too_large": Failure(
        413,
        "Inflated body too large",
        False,
        "Split the batch, or raise `request_body_max_bytes` or `inflate_ratio_max`.",
    ),
    "event_too_large": Failure(
        413, "Event too large", False, "Shorten the event, or raise `event_max_bytes`."
    ),
    "batch_too_large": Failure(
        413,
        "Too many events in one request",
        False,
        "Send fewer events in one request, or raise `batch_events_max`.",
    ),
    "not_a_batch": Failure(
        400, "Not a batch", False, "`/v1/batch/{type}` takes a JSON array of events."
    ),
    "empty_body": Failure(400, "Empty body", False, "Send a JSON document."),
    "schema_violation": Failure(
        422,
        "Event does not match its schema",
        False,
        "Correct the fields named by the JSON Pointers in `errors`.",
    ),
    "rejected": Failure(
        422, "Event rejected by its handler", False, "`detail` holds the handler's reason."
    ),
    "invalid_cloudevent": Failure(
        422,
        "Not a valid CloudEvent",
        False,
        "Correct the attributes named in `errors`; see docs/cloudevents.md.",
    ),
    # -- The same event again: docs/deduplication.md --------------------------------
    "idempotency_key_malformed": Failure(
        400,
        "Malformed Idempotency-Key",
        False,
        'Send one quoted string: `Idempotency-Key: "8e03978e-40d5-43e8-bc93-6894a57f9324"`.',
    ),
    "idempotency_key_required": Failure(
        400,
        "Idempotency-Key is missing",
        False,
        "Send an `Idempotency-Key`, a new one for each request and the same one to repeat it.",
    ),
    "idempotency_in_flight": Failure(
        409,
        "A request with this Idempotency-Key is being worked on",
        False,
        "Send the same request again after the seconds in Retry-After; it gets the answer.",
    ),
    "idempotency_mismatch": Failure(
        422,
        "Idempotency-Key was used for another payload",
        False,
        "Repeat a request with the bytes it had, or take a new key for a new request.",
    ),
    # -- Too much: docs/overload.md ------------------------------------------------------
    "quota_exceeded": Failure(
        429,
        "Quota exceeded",
        False,
        "Send less, or in larger batches less often; retry after the seconds in Retry-After.",
        f"{PROBLEM_TYPES}quota-exceeded",
    ),
    # -- This service -------------------------------------------------------------
    "internal_error": Failure(
        500, "Internal error", False, "Look the request id up in the logs. Nothing was stored."
    ),
    "handler_error": Failure(
        500,
        "Handler failed",
        False,
        "Look the request id up in the logs; the traceback is there. Nothing was stored.",
    ),
    "app_error": Failure(
        500,
        "Application failed",
        False,
        "Look the request id up in the logs; the traceback is there. See docs/wsgi.md.",
    ),
    "overloaded": Failure(
        503,
        "Overloaded",
        False,
        "Retry after the seconds in Retry-After.",
        f"{PROBLEM_TYPES}temporary-reduced-capacity",
    ),
    "first_not_stored": Failure(
        503,
        "The event that came first with this key was not stored",
        False,
        "Retry after the seconds in Retry-After: the key is free again.",
    ),
    "draining": Failure(503, "Shutting down", True, "Retry; another instance will answer."),
    "journal_failed": Failure(
        503,
        "Event could not be made durable",
        False,
        "Retry after the seconds in Retry-After; the disk refused a write.",
    ),
    # -- Kafka, with ack remote: docs/kafka.md ---------------------------------------------
    "sink_unavailable": Failure(
        503,
        "Kafka did not take the event in time",
        False,
        "Retry after the seconds in Retry-After. Whether the event is in Kafka is not known: if "
        "it is, repeating it makes a second one, with another id.",
    ),
    "sink_refused": Failure(
        503,
        "Kafka refused the event",
        False,
        "Retry after the seconds in Retry-After; `detail` has the brokers' reason. It was not "
        "stored.",
    ),
    "sink_unauthorized": Failure(
        503,
        "Kafka lets this service not write",
        False,
        "An operator has to correct the credentials, or the rights on the topic.",
    ),
    "unknown_topic": Failure(
        503,
        "No such topic in Kafka",
        False,
        "An operator has to make the topic that `detail` names.",
    ),
    "message_too_large": Failure(
        413,
        "Event too large for Kafka",
        False,
        "Shorten the event, or raise `kafka.message.max.bytes` here and `max.message.bytes` of "
        "the topic.",
    ),
    "handler_timeout": Failure(
        504,
        "Handler took too long",
        False,
        "Make the handler faster, or raise `handler_timeout_seconds`. Nothing was stored.",
    ),
    "disk_full": Failure(
        507,
        "Disk full",
        False,
        "Free space below the reserve; events are accepted again as soon as there is room.",
    ),
}


class IngestError(Exception):
    """A failure that is answered to the client as problem+json.

    Args:
        code: a key of `CATALOGUE`.
        detail: what went wrong in this occurrence, for a person.
        extensions: further members of the problem document (for example
            `line`, `column`, `errors`); values must be JSON-encodable.
        headers: further header fields of the answer, for example `Allow`.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        extensions: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or CATALOGUE[code].title)
        self.code = code
        self.detail = detail
        self.extensions: Mapping[str, Any] = extensions or {}
        self.headers: Mapping[str, str] = headers or {}

    @property
    def failure(self) -> Failure:
        """The row of the catalogue for this error's code."""
        return CATALOGUE[self.code]

    @property
    def status(self) -> int:
        """HTTP status code of the answer."""
        return CATALOGUE[self.code].status


class Reject(Exception):
    """Raised by a handler: this event is not wanted, and the client is told why (422).

    Args:
        reason: for the producer; becomes `detail` of the answer.
        pointer: JSON Pointer (RFC 6901) of the member at fault, `""` for the whole event.
    """

    def __init__(self, reason: str, *, pointer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer


class OffloadFull(Exception):
    """Raised by an offloaded function's call: as many calls wait already as may.

    A handler that lets it through has its client told to retry (503).
    """
