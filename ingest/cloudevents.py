"""CloudEvents as producers send them: read, check, and the lines they become.

An event comes in one of three modes, which the media type of the request tells apart: its
attributes in header fields and its data as the body (binary), all of it as one JSON object
(structured), or many such objects as an array (batched). Whatever the mode, its faults are
named by JSON Pointers into the event as a JSON object: `/id`, `/data/price`.

The record of such an event keeps the producer's attributes. Ours stand right behind `time`:

    {"specversion":"1.0","id":"…","source":"…","type":"…","time":"…","ingestid":"…",
     "ingesttime":"…"[,"subject":"…"],"datacontenttype":"application/json","dataschema":"…"
     [,"ingestschema":"…"][,<extensions>],"data":…}

PURE: no sockets, no clock, no journal. It must not know event types or how data is judged.

Source: CloudEvents 1.0.2: specification, JSON event format, HTTP protocol binding; RFC 3339;
RFC 3986.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from ingest.codec import dumps, split_members
from ingest.errors import IngestError
from ingest.settings_values import check_uri_reference

#: What all structured and batched media types start with, and the two that are taken.
MEDIA_PREFIX = "application/cloudevents"
STRUCTURED_TYPE = "application/cloudevents+json"
BATCHED_TYPE = "application/cloudevents-batch+json"

#: Bounds, in characters. `id` and `source` lead the record's line, whose beginning is read
#: to tell when a segment began.
ID_MAX_CHARS = 256
URI_MAX_CHARS = 1024
SUBJECT_MAX_CHARS = 1024
TIME_MAX_CHARS = 64
EXTENSION_MAX_CHARS = 2048
NAME_MAX_CHARS = 20
EXTENSIONS_MAX = 32

#: Ours: what records say of how they came in, or why they did not.
RESERVED_PREFIXES = ("ingest", "rejected")

_JSON_MEDIA = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:[a-z0-9!#$&^_.+-]+\+)?json", re.IGNORECASE)
_NAME = re.compile(rf"[a-z0-9]{{1,{NAME_MAX_CHARS}}}")
#: Section 3.1: no controls, surrogates or noncharacters in a string.
_NONCHARACTERS = "".join(
    chr(plane + low) for plane in range(0, 17 << 16, 1 << 16) for low in (0xFFFE, 0xFFFF)
)
_UNFIT = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
    r"(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED = re.compile(r"\\(.)")
_INT32 = range(-(1 << 31), 1 << 31)

#: Attributes that are no extensions.
_REQUIRED = ("specversion", "id", "source", "type")
_CONTEXT = frozenset({*_REQUIRED, "time", "subject", "datacontenttype", "dataschema"})
_DATA_NAMES = frozenset({"data", "data_base64"})
_FIELD = "ce-"


class Fault(NamedTuple):
    """One thing wrong with an event's attributes: JSON Pointer, what failed, for a person."""

    pointer: str
    keyword: str
    message: str


class Invalid(Exception):
    """It is no CloudEvent.

    Attributes:
        faults: all that is wrong with it, at least one.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


class CloudEvent(NamedTuple):
    """The attributes of an event, checked.

    Attributes:
        time: as sent; None where the producer gave none.
        content_type: of the data, JSON of some kind; None where it was not said.
        extensions: by name, in the order they were sent.
    """

    id: str
    source: str
    type: str
    time: str | None
    subject: str | None
    content_type: str | None
    dataschema: str | None
    extensions: Mapping[str, str | int | bool]


# -- reading -------------------------------------------------------------------------------


def is_json_media(text: str) -> bool:
    """Whether a media type, its parameters aside, is JSON or something written in it."""
    return _JSON_MEDIA.fullmatch(text.partition(";")[0].strip(" \t")) is not None


def from_fields(headers: Mapping[str, str]) -> CloudEvent:
    """The attributes of an event in binary mode (HTTP binding section 3.1).

    Args:
        headers: the request's fields: names in lower case, values as latin-1 text.

    Raises:
        Invalid: with all that is wrong.
    """
    attributes: dict[str, Any] = {}
    faults: list[Fault] = []
    for field, value in headers.items():
        if not field.startswith(_FIELD):
            continue
        name = field[len(_FIELD) :]
        if name == "datacontenttype" or name in _DATA_NAMES:
            message = f"{field} is none of the binary mode: the body is the data, and Content-Type"
            faults.append(Fault(f"/{name}", "name", f"{message} says what it is."))
            continue
        try:
            attributes[name] = field_text(value)
        except ValueError as error:
            faults.append(Fault(_pointer(name), "percent-encoding", f"{field}: {error}"))
            attributes[name] = "-"  # it is there, so it need not be missed, too
    if "content-type" in headers:
        attributes["datacontenttype"] = headers["content-type"]
    return _event(attributes, faults)


def field_text(value: str) -> str:
    """The value of a `ce-` field as the text it stands for (HTTP binding section 3.1.3.2).

    Raises:
        ValueError: it is not percent-encoded UTF-8.
    """
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    raw = value.encode("latin-1")
    if b"%" in raw:
        if _LONE_PERCENT.search(raw):
            raise ValueError("a % that two hex digits do not follow")
        raw = unquote_to_bytes(raw)
    elif value.isascii():
        return value
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None


def from_members(value: Any) -> CloudEvent:
    """The attributes of an event in the JSON format.

    A member that is null counts as absent (JSON format section 2.2).

    Args:
        value: the decoded event.

    Raises:
        Invalid: with all that is wrong.
    """
    if not isinstance(value, dict):
        raise Invalid([Fault("", "type", "A CloudEvent is a JSON object.")])
    attributes = {
        name: member
        for name, member in value.items()
        if member is not None and name not in _DATA_NAMES
    }
    return _event(attributes, list(_data_faults(value)))


def data_of(raw: bytes, value: Mapping[str, Any]) -> bytes:
    """The bytes of the data of an event in the JSON format.

    Args:
        raw: the event as it was sent, strict JSON; empty where it is not kept so.
        value: the same, decoded, and found good by `from_members`.

    Raises:
        Invalid: it has a member twice, or `data_base64` is no Base64.
    """
    members = split_members(raw) if raw else list(value.items())
    if len(members) != len(value):
        raise Invalid([Fault("", "uniqueNames", "a name stands twice in the event")])
    if "data" in value:
        return dict(members)["data"] if raw else dumps(value["data"])
    try:
        return b64decode(value["data_base64"], validate=True)
    except ValueError:  # of which binascii.Error is one
        message = "data_base64 is not Base64 (RFC 4648 section 4)"
        raise Invalid([Fault("/data_base64", "contentEncoding", message)]) from None


def salvaged_data(raw: bytes, value: Any) -> bytes:
    """What is kept of an event in the JSON format that is none: its data, or else all of it."""
    if not isinstance(value, dict) or "data" not in value:
        return raw or dumps(value)
    return dict(split_members(raw))["data"] if raw else dumps(value["data"])


def _data_faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    encoded = value.get("data_base64")
    if "data" in value:
        if encoded is not None:
            yield Fault("/data_base64", "not", "data and data_base64 exclude each other")
    elif encoded is None:
        yield Fault("/data", "required", "data is missing: the schema of the type judges it")
    elif not isinstance(encoded, str):
        yield Fault("/data_base64", "type", "data_base64 is a string")


# -- checking ------------------------------------------------------------------------------


def _event(attributes: Mapping[str, Any], faults: list[Fault]) -> CloudEvent:
    faults += _faults(attributes)
    if faults:
        raise Invalid(faults)
    return CloudEvent(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        attributes.get("time"),
        attributes.get("subject"),
        attributes.get("datacontenttype"),
        attributes.get("dataschema"),
        {name: value for name, value in attributes.items() if name not in _CONTEXT},
    )


def _faults(attributes: Mapping[str, Any]) -> Iterator[Fault]:
    for name in _REQUIRED:
        if name not in attributes:
            yield Fault(f"/{name}", "required", f"{name} is missing")
    extensions = 0
    for name, value in attributes.items():
        if name in _CONTEXT:
            yield from _context_faults(name, value)
        else:
            extensions += 1
            if extensions > EXTENSIONS_MAX:
                message = f"more than {EXTENSIONS_MAX} extension attributes"
                yield Fault("", "maxProperties", message)
                return
            yield from _extension_faults(name, value)


def _context_faults(name: str, value: Any) -> Iterator[Fault]:
    pointer = f"/{name}"
    if not isinstance(value, str):
        yield Fault(pointer, "type", f"{name} is a string")
        return
    most, check = _CHECKS[name]
    if not value:
        yield Fault(pointer, "minLength", f"{name} is empty")
    elif len(value) > most:
        yield Fault(pointer, "maxLength", f"{name} has more than {most} characters")
    elif _UNFIT.search(value):
        yield Fault(pointer, "pattern", f"{name} has a character that no attribute may have")
    elif (message := check(value)) is not None:
        yield Fault(pointer, _KEYWORDS.get(name, "format"), message)


def _extension_faults(name: str, value: Any) -> Iterator[Fault]:
    pointer = _pointer(name)
    if _NAME.fullmatch(name) is None:
        message = f"names of attributes are 1 to {NAME_MAX_CHARS} of a-z and 0-9"
        yield Fault(pointer, "propertyNames", message)
    elif name.startswith(RESERVED_PREFIXES):
        message = f"names that start with {' or '.join(RESERVED_PREFIXES)} are this service's own"
        yield Fault(pointer, "propertyNames", message)
    elif name == "data":
        yield Fault(pointer, "propertyNames", "no attribute is called data")
    elif isinstance(value, str):
        if len(value) > EXTENSION_MAX_CHARS:
            message = f"{name} has more than {EXTENSION_MAX_CHARS} characters"
            yield Fault(pointer, "maxLength", message)
        elif _UNFIT.search(value):
            message = f"{name} has a character that no attribute may have"
            yield Fault(pointer, "pattern", message)
    elif not isinstance(value, bool) and not (isinstance(value, int) and value in _INT32):
        message = f"{name} is a string, a boolean or an integer of 32 bits"
        yield Fault(pointer, "type", message)


def _pointer(name: str) -> str:
    """To a member whose name anybody may have chosen; cut, as it goes into an answer."""
    return "/" + name[:64].replace("~", "~0").replace("/", "~1")


def _version_fault(value: str) -> str | None:
    return None if value == "1.0" else "specversion is 1.0"


@lru_cache(maxsize=1024)
def _reference_fault(value: str) -> str | None:
    try:
        check_uri_reference(value)
    except ValueError as error:
        return str(error)
    return None


def _uri_fault(value: str) -> str | None:
    if _URI.match(value) is None:
        return "must be a URI with a scheme (RFC 3986)"
    return _reference_fault(value)


def _time_fault(value: str) -> str | None:
    found = _TIME.fullmatch(value)
    try:
        if found is not None:
            date(int(found[1]), int(found[2]), int(found[3]))
            return None
    except ValueError:
        pass
    return "time is a timestamp of RFC 3339, such as 2026-11-23T01:02:03.456Z"


def _content_type_fault(value: str) -> str | None:
    return None if is_json_media(value) else "datacontenttype is JSON: application/json or …+json"


def _no_fault(value: str) -> None:
    """Any text will do."""


_CHECKS: Mapping[str, tuple[int, Any]] = {
    "specversion": (ID_MAX_CHARS, _version_fault),
    "id": (ID_MAX_CHARS, _no_fault),
    "source": (URI_MAX_CHARS, _reference_fault),
    "type": (ID_MAX_CHARS, _no_fault),
    "time": (TIME_MAX_CHARS, _time_fault),
    "subject": (SUBJECT_MAX_CHARS, _no_fault),
    "datacontenttype": (ID_MAX_CHARS, _content_type_fault),
    "dataschema": (URI_MAX_CHARS, _uri_fault),
}
_KEYWORDS = {"specversion": "const", "datacontenttype": "contentMediaType"}


# -- answers and records -------------------------------------------------------------------


def refusal(invalid: Invalid, most: int) -> IngestError:
    """The error to answer an event with that is none.

    Args:
        most: faults to list.
    """
    faults = invalid.faults
    return IngestError(
        "invalid_cloudevent",
        f"{faults[0].pointer or 'the event'}: {faults[0].message}",
        extensions={
            "errors": [fault._asdict() for fault in faults[:most]],
            "errors_total": len(faults),
        },
    )


def escaped(text: str) -> bytes:
    """A text as it stands between the quotes of a JSON string."""
    return dumps(text)[1:-1]


def lead_of(
    event: CloudEvent,
    stored_id: bytes,
    stored_time: str,
    dataschema: str,
    producer: str | None = None,
) -> bytes:
    """The part of a record's line between the id and `,"data":`.

    Args:
        stored_id: our id of it.
        stored_time: ours, as `time_text` makes it; also the event's where it has none.
        dataschema: of the schema that judged the data.
        producer: who sent it, by the name of a key.
    """
    ours: dict[str, Any] = {
        "source": event.source,
        "type": event.type,
        "time": event.time or stored_time,
        "ingestid": stored_id.decode(),
        "ingesttime": stored_time,
    }
    if event.subject is not None:
        ours["subject"] = event.subject
    ours["datacontenttype"] = event.content_type or "application/json"
    ours["dataschema"] = event.dataschema or dataschema
    if event.dataschema is not None:
        ours["ingestschema"] = dataschema
    if producer is not None:
        ours["ingestproducer"] = producer
    return b'",' + dumps({**ours, **event.extensions})[1:-1]
