"""The line of one event, and the ids that order the lines.

A record is one CloudEvents 1.0 JSON object on one line. `data` is its last member and
holds the producer's own bytes, so numbers keep their precision:

    {"specversion":"1.0","id":"…","source":"…","type":"…","time":"…",
     "datacontenttype":"application/json","dataschema":"…"[,"traceparent":"…"],"data":…}

An event with an id and a time of its producer's has ours in `ingestid` and `ingesttime`, right
behind `time`: see `cloudevents.py`.

PURE: no sockets, no files, no clock; `IdSource` is given its clock and its randomness.

Source: CloudEvents 1.0.2 JSON format; RFC 9562 (UUIDv7); RFC 3339.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import ujson

LINE_START = b'{"specversion":"1.0","id":"'
LINE_END = b"}\n"

#: The last millisecond RFC 3339 can write with a four-digit year.
TIME_MAX_MS = 253_402_300_799_999

_EPOCH = datetime(1970, 1, 1)
_UUID7 = re.compile(rb"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-([0-9a-f]{12})")
_STRING = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_HEAD = re.compile(
    re.escape(LINE_START[:-1]) + _STRING + rb',"source":' + _STRING
    + rb',"type":' + _STRING + rb',"time":' + _STRING
    + rb'(?:,"ingestid":' + _STRING + rb',"ingesttime":' + _STRING + rb")?"
)  # fmt: skip
_DATA_KEY = b',"data":'
_DATA64_KEY = b',"data_base64":"'

#: The last three hex digits of an id come from a table: a lookup is a quarter of the
#: cost of formatting.
_LOW_BITS = 12
_LOW_DIGITS = tuple(b"%03x" % low for low in range(1 << _LOW_BITS))
_HIGH_MAX = 1 << 36
#: Ids that `IdSource.run` makes at a time.
RUN_MAX = 1 << _LOW_BITS

#: What some ids start with, and how each ends. Many of a batch are so never made one by one.
IdRun = tuple[bytes, Sequence[bytes]]


@lru_cache(maxsize=1024)
def quoted(text: str) -> str:
    """A string as JSON has it, quotes included, as `middle` writes it."""
    return ujson.dumps(text, ensure_ascii=True, escape_forward_slashes=False)


def time_text(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, always 24 characters, so that it sorts."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds") + "Z"


def middle(
    source: str,
    type_name: str,
    time: str,
    dataschema: str,
    traceparent: str | None = None,
    producer: str | None = None,
) -> bytes:
    """The part of a line between the id and the data.

    Args:
        source: CloudEvents `source`, a URI-reference.
        type_name: CloudEvents `type`, the name of the schema.
        time: as `time_text` makes it.
        dataschema: URI-reference of the schema version that judged the data.
        traceparent: a valid W3C trace context, if the producer sent one.
        producer: who sent it, by the name of a key.
    """
    trace = f',"traceparent":"{traceparent}"' if traceparent is not None else ""
    if producer is not None:
        trace += f',"ingestproducer":{quoted(producer)}'
    return (
        f'","source":{quoted(source)},"type":{quoted(type_name)},"time":"{time}"'
        f',"datacontenttype":"application/json","dataschema":{quoted(dataschema)}{trace},"data":'
    ).encode()


def lines_of(ids: IdRun, between: bytes, raws: Sequence[bytes]) -> bytes:
    """The lines of many events that share what stands between id and data."""
    start, ends = ids
    parts = [LINE_END + LINE_START + start, b"", between, b""] * len(ends)
    parts[0] = LINE_START + start
    parts[1::4] = ends
    parts[3::4] = raws
    return b"".join(parts) + LINE_END


class RecordHead(NamedTuple):
    """What leads a line: attributes as they stand there, JSON escapes and all.

    Attributes:
        ingestid, ingesttime: our id and time of an event that has its producer's; else None.
    """

    id: bytes
    source: bytes
    type: bytes
    time: bytes
    ingestid: bytes | None = None
    ingesttime: bytes | None = None

    @property
    def stored_id(self) -> bytes:
        """The id that we gave it: these are ordered within a partition."""
        return self.id if self.ingestid is None else self.ingestid

    @property
    def stored_time(self) -> bytes:
        """When we stored it: these are ordered within a partition."""
        return self.time if self.ingesttime is None else self.ingesttime


def head_of(line: bytes) -> RecordHead | None:
    """The leading attributes of a line, or None when it does not start like one of ours."""
    found = _HEAD.match(line)
    return RecordHead(*found.groups()) if found else None


def data_of(line: bytes) -> bytes:
    """The bytes of `data` of a record without its commit mark and line end; b"" if none.

    Every member before `data` is a string in which quotes are escaped, so the first
    unescaped key is the member itself.
    """
    at = line.find(_DATA_KEY)
    return line[at + len(_DATA_KEY) : -1] if at >= 0 else b""


def data64_of(line: bytes) -> bytes | None:
    """The `data_base64` of a record as `data_of`; None of a record that has `data`."""
    at = line.find(_DATA64_KEY)
    if at < 0 or 0 <= line.find(_DATA_KEY) < at:
        return None
    return line[at + len(_DATA64_KEY) : -2]


class IdSource:
    """Makes UUIDv7s that only ever grow, whatever the clock does.

    Within a millisecond a counter orders them (RFC 9562 section 6.2, method 1): 26
    random bits, then 36 bits of counter seeded at random below half its range, then 12
    bits counted from 0. A clock that stands still or goes back changes nothing: the last
    millisecond stays and the counter grows. So ids and times made from `ms` are ordered
    within a partition, and 61 random bits a millisecond keep partitions apart.

    Args:
        clock: seconds since 1970, for example `time.time`.
        random_bits: that many random bits as an int, for example `random.getrandbits`.

    Attributes:
        ms: the millisecond of the last id; the time of the event that bears it.
    """

    __slots__ = ("_clock", "_fixed", "_high", "_low", "_prefix", "_random_bits", "_tick_at", "ms")

    def __init__(self, clock: Callable[[], float], random_bits: Callable[[int], int]) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self.ms = 0
        self._low = 0
        self._prefix = b""
        self._new_millisecond(int(clock() * 1000))

    def next(self) -> bytes:
        """A new id, greater than every one before it, in its 36-character form."""
        now = self._clock()
        if now >= self._tick_at:
            ms = int(now * 1000)
            if ms > self.ms:  # not so when the division that made `_tick_at` rounded down
                self._new_millisecond(ms)
        low = self._low
        if low == 1 << _LOW_BITS:
            self._carry()
            low = 0
        self._low = low + 1
        return self._prefix + _LOW_DIGITS[low]

    def run(self, count: int) -> IdRun:
        """So many new ids of the same millisecond, at most `RUN_MAX`.

        They have a start in common; where the last run left too few ends of it, those are left out.
        """
        now = self._clock()
        if now >= self._tick_at and int(now * 1000) > self.ms:
            self._new_millisecond(int(now * 1000))
        if self._low + count > RUN_MAX:
            self._low = 0
            self._carry()
        low = self._low
        self._low = low + count
        return self._prefix, _LOW_DIGITS[low : low + count]

    def take(self, count: int) -> list[bytes]:
        """So many new ids, as from `next`, all of the same millisecond."""
        ids = [self.next()]
        ms = self.ms
        while len(ids) < count:
            low = self._low
            if low == 1 << _LOW_BITS:
                self._carry()
                if self.ms != ms:  # once in 2^48 ids: they start over in the new one
                    return self.take(count)
                low = 0
            high = min(low + count - len(ids), 1 << _LOW_BITS)
            prefix = self._prefix
            ids += [prefix + digits for digits in _LOW_DIGITS[low:high]]
            self._low = high
        return ids

    def resume(self, last: bytes) -> bool:
        """Continue after an id found in the journal.

        Args:
            last: the id of the partition's last record.

        Returns:
            whether it was one of ours and lies ahead of the clock, so that ids and times
            stand still until the clock has caught up.
        """
        found = _UUID7.fullmatch(last)
        if found is None:
            return False
        ms = int(found.group(1) + found.group(2), 16)
        if ms < self.ms or ms > TIME_MAX_MS:
            return False
        counter = int(found.group(3), 16)
        self.ms = ms
        self._tick_at = (ms + 1) / 1000
        self._fixed = last[:24]
        self._high = counter >> _LOW_BITS
        self._low = (counter & ((1 << _LOW_BITS) - 1)) + 1
        self._prefix = self._fixed + b"%09x" % self._high
        return ms > int(self._clock() * 1000)

    def _new_millisecond(self, ms: int) -> None:
        self.ms = ms
        self._tick_at = (ms + 1) / 1000
        random = self._random_bits(61)
        stamp = b"%012x" % ms
        self._fixed = b"%s-%s-7%03x-%04x-" % (
            stamp[:8],
            stamp[8:],
            random >> 49,
            0x8000 | (random >> 35) & 0x3FFF,
        )
        self._high = random & ((1 << 35) - 1)
        self._low = 0
        self._prefix = self._fixed + b"%09x" % self._high

    def _carry(self) -> None:
        self._high += 1
        if self._high == _HIGH_MAX:
            self._new_millisecond(self.ms + 1)
            return
        self._prefix = self._fixed + b"%09x" % self._high
