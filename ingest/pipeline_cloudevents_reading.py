"""From the bytes of a request to events whose attributes are good.

This module must not know the journal, handlers or answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ingest.cloudevents import (
    CloudEvent,
    Invalid,
    data_of,
    from_fields,
    from_members,
    refusal,
    salvaged_data,
)
from ingest.codec import DecodeError
from ingest.connection import Exchange
from ingest.errors import IngestError
from ingest.pipeline_cloudevents_held import DATA_POINTER, Refused, Sent
from ingest.refusing import malformed_json
from ingest.rejected import Reason

if TYPE_CHECKING:
    from ingest.routes import Target
    from ingest.routes_cloudevents import CloudEventRouter


class Reading:
    """Reads events.

    Args:
        errors_max: faults to list.
        decode: bytes to value.
        keeps_bytes: what was sent is stored as it was.
    """

    def __init__(self, errors_max: int, decode: Callable[[bytes], Any], keeps_bytes: bool) -> None:
        self.errors_max = errors_max
        self._decode = decode
        self._keeps_bytes = keeps_bytes

    def from_request_fields(self, exchange: Exchange) -> Sent:
        """Raises: Refused."""
        target, body = exchange.plan.target, exchange.body
        try:
            event = from_fields(exchange.head.headers)
        except Invalid as invalid:
            raise self._invalid(invalid, target, body, exchange.plan.router) from None
        if not body:
            raise Refused(
                IngestError("empty_body", "The body is the data, a JSON document."),
                Reason("malformed", DATA_POINTER, "json", "There is no data."),
                target=target,
                event=event,
            )
        self._check_size(event, target, body)
        return self._decoded(event, target, body)

    def from_body(self, exchange: Exchange) -> Sent:
        """Raises: Refused."""
        body = exchange.body
        if not body:
            error = IngestError("empty_body", "A CloudEvent is a JSON object.")
            raise Refused(error, Reason("malformed", "", "json", "There is no event."))
        try:
            value = self._decode(body)
        except DecodeError as error:
            reason = Reason("malformed", "", "json", error.message)
            any_type = exchange.plan.router.any_type
            raise Refused(malformed_json(error), reason, target=any_type) from None
        return self.from_json(body if self._keeps_bytes else b"", value, exchange.plan.router)

    def from_json(self, raw: bytes, value: Any, router: CloudEventRouter) -> Sent:
        """An event in the JSON format.

        Args:
            raw: its bytes; empty where they are not kept as they were sent.
            value: the same, decoded.
            router: knows the types.

        Raises:
            Refused
        """
        target = router.known(value)
        try:
            event = from_members(value)
            data = data_of(raw, value)
        except Invalid as invalid:
            kept = target is not None and target.keeps_rejected
            data = salvaged_data(raw, value) if kept else b""
            raise self._invalid(invalid, target, data, router) from None
        if target is None:
            error = router.unknown(event.type)
            raise Refused(error, Reason("schema", "/type", error.code, error.detail))
        self._check_size(event, target, data)
        if "data" in value:
            return Sent(event, target, data, value["data"])
        return self._decoded(event, target, data)

    def _decoded(self, event: CloudEvent, target: Target, data: bytes) -> Sent:
        """Raises: Refused."""
        try:
            return Sent(event, target, data, self._decode(data))
        except DecodeError as error:
            reason = Reason("malformed", DATA_POINTER, "json", error.message)
            raise Refused(
                malformed_json(error), reason, target=target, raw=data, event=event
            ) from None

    def _check_size(self, event: CloudEvent, target: Target, data: bytes) -> None:
        """Raises: Refused."""
        most = target.event_max_bytes
        if len(data) > most:
            message = f"{len(data)} bytes; at most {most}"
            raise Refused(
                IngestError("event_too_large", f"{message}."),
                Reason("too_large", DATA_POINTER, "max_event_bytes", message),
                target=target,
                raw=data,
                event=event,
            )

    def _invalid(
        self, invalid: Invalid, target: Target | None, data: bytes, router: CloudEventRouter
    ) -> Refused:
        faults = invalid.faults
        return Refused(
            refusal(invalid, self.errors_max),
            Reason("schema", *faults[0], len(faults)),
            faults=faults,
            target=target or router.any_type,
            raw=data,
        )
