"""From the line of an event to its message in Kafka.

Binary mode: the value is the event's data, each attribute a header `ce_<name>`, the content type
a header of its own. Structured mode: the value is the line itself.

What stands between id and data is the same for all events of a type in a millisecond, so its
headers are made once.

PURE: no sockets, no clock; this module must not know who sends the messages.

Source: CloudEvents 1.0.2 Kafka protocol binding, sections 3.1 (keys), 3.2 (binary), 3.3
(structured).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import orjson

from ingest.dedupe import resolve, resolver
from ingest.journal.record import LINE_START
from ingest.sinks.kafka_reports import Headers, Message
from ingest.sinks.routing import SUBJECT

STRUCTURED_HEADERS: Headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
_DATA = b',"data":'
_BASE64 = b',"data_base64":"'
_ID_START = len(LINE_START)
_ID_END = _ID_START + 36
_LEAD_START = b'","'
#: So many leads are known; most often one or two are used.
_LEADS_MAX = 64


class Messages:
    """Makes messages of the events of one type.

    Args:
        mode: `binary` or `structured`.
        key: `subject` or a JSON Pointer; None for messages without a key.
    """

    def __init__(self, mode: str, key: str | None) -> None:
        self._structured = mode == "structured"
        self._subject = key == SUBJECT
        self._tokens = resolver(key) if key is not None and key != SUBJECT else None
        self._keyed = key is not None
        #: what stands between id and data, with the name of the data, and its headers
        self._leads: dict[bytes, Headers] = {}
        self._lead, self._lead_end, self._headers = b"", _ID_END, STRUCTURED_HEADERS
        #: a message of a line without its line end
        self.message: Callable[[bytes], Message] = (
            self._structured_message if self._structured else self._binary_message
        )

    def _binary_message(self, line: bytes) -> Message:
        lead = self._lead
        known = lead and line.startswith(lead, _ID_END)
        if not known and not self._turn_to(line):
            return self.any_message(line)
        value = line[self._lead_end : -1]
        key = self._key(value, None) if self._tokens is not None else None
        return key, value, [("ce_id", line[_ID_START:_ID_END]), *self._headers]

    def _turn_to(self, line: bytes) -> bool:
        """Take what stands between id and data of a line as that of those that follow; False
        where it has an id of its producer's, or is otherwise like no other."""
        at = line.find(_DATA, _ID_END)
        if at < 0:
            return False
        end = at + len(_DATA)
        lead = line[_ID_END:end]
        headers = self._leads.get(lead) or self._learn(lead[: -len(_DATA)])
        if headers is None:
            return False
        if len(self._leads) >= _LEADS_MAX:
            self._leads.clear()
        self._leads[lead] = headers
        self._lead, self._lead_end, self._headers = lead, end, headers
        return True

    def _learn(self, lead: bytes) -> Headers | None:
        """The headers of what stands between id and data. Lines with `ingestid` have an id of
        their producer's, of whatever length, so the others' end where ours do."""
        if not lead.startswith(_LEAD_START) or b'"ingestid"' in lead or b'"subject"' in lead:
            return None
        try:
            attributes = orjson.loads(b'{"specversion":"1.0","id":"' + lead + b"}")
        except orjson.JSONDecodeError:
            return None
        del attributes["id"]
        return headers_of(attributes)

    def any_message(self, line: bytes) -> Message:
        """The same for a line that is like no other one; of any form."""
        if self._structured:
            return self._structured_message(line)
        attributes, value = parted(line)
        return self._key(value, attributes), value, headers_of(attributes)

    def _structured_message(self, line: bytes) -> Message:
        key = None
        if self._keyed:
            attributes, value = parted(line)
            key = self._key(value, attributes)
        return key, line, STRUCTURED_HEADERS

    def _key(self, value: bytes, attributes: dict[str, Any] | None) -> bytes | None:
        if self._subject:
            return None if attributes is None else _text(attributes.get("subject"))
        if self._tokens is None:
            return None
        try:
            return _text(resolve(self._tokens, orjson.loads(value)))
        except orjson.JSONDecodeError:  # data that is no JSON: bytes of a refused event
            return None


def parted(line: bytes) -> tuple[dict[str, Any], bytes]:
    """The attributes and the data of a line without its line end.

    Every member before the data is a string in which quotes are escaped, or a number, so the first
    unescaped name is the member itself.
    """
    at, at64 = line.find(_DATA), line.find(_BASE64)
    if at64 >= 0 and not 0 <= at < at64:
        attributes = orjson.loads(line[:at64] + b"}")
        attributes["datacontenttype"] = "application/octet-stream"  # it is no JSON
        return attributes, b64decode(line[at64 + len(_BASE64) : -2])
    if at < 0:
        return orjson.loads(line), b""
    return orjson.loads(line[:at] + b"}"), line[at + len(_DATA) : -1]


def headers_of(attributes: dict[str, Any]) -> Headers:
    """The headers of attributes (binding, section 3.2.3)."""
    headers: Headers = []
    for name, value in attributes.items():
        text = _text(value)
        if text is not None:
            header = "content-type" if name == "datacontenttype" else f"ce_{name}"
            headers.append((header, text))
    return headers


def _text(value: Any) -> bytes | None:
    """A value as text: a string as it is, anything else as JSON has it; None for null."""
    if value is None:
        return None
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else orjson.dumps(value)
