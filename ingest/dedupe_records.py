"""How a key stands in the journal: the extension attributes `ingestkey` and `ingestanswer`.

A key becomes durable with its event, because it stands in the event's own line, so what is
remembered after a crash is exactly what is stored after it:

    "ingestkey":"e <digest>"                                            an event's own key
    "ingestkey":"k <digest> <fingerprint>"                              a request with one event
    "ingestkey":"b <digest> <fingerprint> <status> <accepted> <rejected>"   one with many: in
                                                                        the first that got in
    "ingestanswer":"<the whole answer to a request with many, if it is short>"

Digests and fingerprints are 32 hex digits. Both members stand before `data`, like all others.

PURE: bytes in, keys out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import ujson

from ingest.dedupe import Outcome, packed_id
from ingest.journal.record import head_of

KEY = b',"ingestkey":"'
ANSWER = b',"ingestanswer":'
#: What a producer's own extension attributes may not be called.
RESERVED_ATTRIBUTES = frozenset({"ingestkey", "ingestanswer"})

_DATA = b',"data":'
_HEX = rb"([0-9a-f]{32})"
_NUMBER = rb"(0|[1-9][0-9]{0,8})"
_MEMBERS = re.compile(
    re.escape(KEY)
    + rb"(?:e %s|k %s %s|b %s %s (20[27]) %s %s)\"" % (_HEX, _HEX, _HEX, _HEX, _HEX, *[_NUMBER] * 2)
    + rb"(?:%s(\"[^\"\\]*(?:\\.[^\"\\]*)*\"))?" % re.escape(ANSWER)
)
_DATA_MEMBER = re.compile(rb',"data(?:_base64)?":')


class KeyedRecord(NamedTuple):
    """A record that has a key.

    Attributes:
        type: of the event.
        digest: of the key.
        value: what is remembered with it.
        answer: the whole answer, b"" if there is none.
    """

    type: str
    digest: bytes
    value: bytes
    answer: bytes


def event_member(digest: bytes) -> bytes:
    """What to write before `data` of an event that has a key of its own."""
    return b'%se %s"' % (KEY, digest.hex().encode())


def request_member(digest: bytes, outcome: Outcome, answer: bytes = b"") -> bytes:
    """What to write before `data` of the first event that a request with a key stores."""
    keys = digest.hex(), outcome.fingerprint.hex()
    if not outcome.status:
        text = "k {} {}".format(*keys)
    else:
        text = "b {} {} {} {} {}".format(*keys, outcome.status, outcome.accepted, outcome.rejected)
    member = b'%s%s"' % (KEY, text.encode())
    return member + ANSWER + ujson.dumps(answer.decode()).encode() if answer else member


def with_members(line: bytes, members: bytes) -> bytes:
    """A line, or its part up to `data`, with members before its `data`.

    All that stands before `data` are strings in which quotes are escaped, so the first
    unescaped key is the member itself.
    """
    at = line.index(_DATA)
    return line[:at] + members + line[at:]


def keyed_records(body: bytes) -> Iterator[KeyedRecord]:
    """The records that have a key, among the lines of a commit, in order."""
    at = body.find(KEY)
    while at >= 0:
        start = body.rfind(b"\n", 0, at) + 1
        lead = body[start:at]
        # Behind the line's own `data`, it is a payload that only looks like one of ours.
        if _DATA_MEMBER.search(lead) is None:
            record = _record(lead, body, at)
            if record is not None:
                yield record
        end = body.find(b"\n", at)
        at = body.find(KEY, end) if end >= 0 else -1


def _record(lead: bytes, body: bytes, at: int) -> KeyedRecord | None:
    head = head_of(lead)
    found = _MEMBERS.match(body, at)
    if head is None or found is None:
        return None
    try:
        event_id = packed_id(getattr(head, "stored_id", head.id))
    except ValueError:
        return None
    event, single, single_print, batch, batch_print, status, accepted, rejected, answer = (
        found.groups()
    )
    if event is not None:
        return KeyedRecord(head.type.decode(), bytes.fromhex(event.decode()), event_id, b"")
    if single is not None:
        outcome = Outcome(event_id, bytes.fromhex(single_print.decode()))
    else:
        outcome = Outcome(
            event_id,
            bytes.fromhex(batch_print.decode()),
            int(status),
            int(accepted),
            int(rejected),
        )
    return KeyedRecord(
        head.type.decode(),
        bytes.fromhex((single or batch).decode()),
        outcome.pack(),
        ujson.loads(answer).encode() if answer else b"",
    )
