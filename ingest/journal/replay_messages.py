"""What `replay` sends of a record: its data, or the whole CloudEvent.

The key of a message is the id that the gateway gave the record. It is the same however often
a record is sent, so a target that knows `Idempotency-Key` takes it once.

PURE: a line in, a message out.

Source: draft-ietf-httpapi-idempotency-key-header; CloudEvents 1.0.2 HTTP binding, structured mode.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import Any, NamedTuple

from ingest.journal.record import data64_of, data_of, head_of

EVENT_MEDIA_TYPE = "application/cloudevents+json"
DATA_MEDIA_TYPE = "application/json"

#: This service's own attributes, which no producer may send.
_OWN = re.compile(r"ingest|rejected")
_DATA_MEMBER = re.compile(rb',"data(?:_base64)?":')


class Unsendable(Exception):
    """A record that there is nothing to send of; the message says why."""


class Message(NamedTuple):
    """What is sent of one record.

    Attributes:
        type: of the event.
        key: tells it from all others, and a repetition as one.
        media_type: of the body.
        body: the data as it was sent, or the event.
    """

    type: str
    key: str
    media_type: str
    body: bytes

    @property
    def is_event(self) -> bool:
        """Whether the body is a whole CloudEvent."""
        return self.media_type == EVENT_MEDIA_TYPE


def message_of(line: bytes, as_event: bool | None, type_name: str | None) -> Message:
    """The message that a record makes.

    Args:
        line: the record, without commit mark and line end.
        as_event: whether the whole event is sent, or only its data; None for what it came as.
        type_name: instead of the event's own type.

    Raises:
        Unsendable: it is no record of ours, or only the beginning of its data was kept.
    """
    head = head_of(line)
    found = _DATA_MEMBER.search(line)
    if head is None or found is None:
        raise Unsendable("it is no event with data")
    attributes: dict[str, Any] = json.loads(line[: found.start()] + b"}")
    if "rejectedsize" in attributes:
        raise Unsendable(f"only the beginning of its {attributes['rejectedsize']:,} bytes was kept")
    if as_event is None:
        as_event = head.ingestid is not None
    kind = type_name if type_name is not None else attributes["type"]
    key = head.stored_id.decode()
    if as_event:
        body = _event(attributes, kind, line[found.start() :])
        return Message(kind, key, EVENT_MEDIA_TYPE, body)
    coded = data64_of(line)
    data = data_of(line) if coded is None else b64decode(coded)
    return Message(kind, key, DATA_MEDIA_TYPE, data)


def _event(attributes: dict[str, Any], kind: str, data: bytes) -> bytes:
    """The event as its producer would send it; `data` is the last member and all behind it."""
    # Beside `ingestschema`, `dataschema` is the producer's own; alone it is ours, and relative.
    if "ingestschema" not in attributes:
        attributes.pop("dataschema", None)
    kept = {name: value for name, value in attributes.items() if not _OWN.match(name)}
    kept["type"] = kind
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()[:-1] + data
