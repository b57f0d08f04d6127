"""Which events came before: their keys, and the window of those that are remembered.

    digest ── look ──┬─ None     never seen, or forgotten ── claim ──┬── settle   it is stored
                     │                                               └── release  it is not
                     ├─ Claim    the first one is on its way to the disk
                     └─ bytes    the first one is stored; its id, and what else is answered

A key is remembered as 128 bits of BLAKE2b (`*_digest`), which cover the event type and the
way the key was found, so keys of different types or kinds never meet. What is remembered
with it is a *value*: the id alone (`id_of`), or an `Outcome` where a request had the key.

`Window` holds the keys of one type, bounded by count and by age. Rows stand in a ring in the
order in which they were stored, which is the order in which they are forgotten; a table of
row numbers (open addressing, linear probing) finds them. Both are anonymous memory that the
kernel hands out as it is written to: a row and its places in the table take about 42 bytes
with an id and 68 with an outcome, where a dict of bytes objects would take 200.

PURE: no sockets, no files, no clock; who asks says what time it is.

Source: draft-ietf-httpapi-idempotency-key-header-07; RFC 9651 sections 3.3.3, 4.2.5 (String).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import Struct
from typing import Any, NamedTuple

from ingest.errors import IngestError

DIGEST_BYTES = 16
#: Longest `Idempotency-Key`, without its quotes and escapes.
KEY_MAX_CHARS = 255
#: Rows whose age is over that one new row removes: together they keep pace with what comes,
#: and none of them waits for a day's worth.
EXPIRE_AT_ONCE = 16

_BARE_ITEM = (
    r'(?:"(?:[ !#-\[\]-~]|\\["\\])*"|[A-Za-z*][!#$%&\'*+.^_`|~0-9A-Za-z:/-]*'
    r"|-?[0-9]{1,15}(?:\.[0-9]{1,3})?|\?[01]|:[A-Za-z0-9+/=]*:)"
)
_KEY_FIELD = re.compile(
    rf'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:; *[a-z*][a-z0-9_.*-]*(?:={_BARE_ITEM})?)*'
)
_ESCAPED = re.compile(r"\\(.)")
#: JSON numbers that every decoder reads as the same integer.
_INTEGER_LIMIT = 1 << 63


# -- keys ----------------------------------------------------------------------------------


def parse_key(field: str) -> str:
    """The key in an `Idempotency-Key` field: a structured-field String.

    Parameters behind it are passed over, as RFC 9651 section 3.1.2 has it.

    Raises:
        IngestError: idempotency_key_malformed.
    """
    found = _KEY_FIELD.fullmatch(field)
    if found is None:
        raise IngestError(
            "idempotency_key_malformed",
            "Idempotency-Key is one string in double quotes (RFC 9651 section 3.3.3), for "
            'example "8e03978e-40d5-43e8-bc93-6894a57f9324".',
        )
    key = _ESCAPED.sub(r"\1", found.group(1))
    if not 1 <= len(key) <= KEY_MAX_CHARS:
        raise IngestError(
            "idempotency_key_malformed",
            f"Idempotency-Key has {len(key)} characters; 1 to {KEY_MAX_CHARS} are taken.",
        )
    return key


def _digest(kind: bytes, *parts: bytes) -> bytes:
    """BLAKE2b over the parts, each behind its length, so that none can run into the next."""
    text = b"".join(b"%d:%s" % (len(part), part) for part in parts)
    return blake2b(text, digest_size=DIGEST_BYTES, person=kind).digest()


def key_digest(type_name: str, key: str, producer: str | None) -> bytes:
    """Of an `Idempotency-Key`; producers that are told apart do not share theirs."""
    known = () if producer is None else (producer.encode(),)
    return _digest(b"idempotency-key", type_name.encode(), key.encode(), *known)


def event_digest(type_name: str, source: str, event_id: str) -> bytes:
    """Of a CloudEvent's `source` and `id`."""
    names = (type_name.encode(), _utf8(source), _utf8(event_id))
    return _digest(b"cloudevents", *names)


def value_digest(type_name: str, pointer: str, value: Any) -> bytes | None:
    """Of a value within an event; None where it is none that can tell events apart.

    Those that can are strings, not empty, and integers of 64 bits: other numbers lose digits
    when they are decoded, so two of them might be taken for one.
    """
    if isinstance(value, str) and value:
        text = b"s" + _utf8(value)
    elif type(value) is int and -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        text = b"i%d" % value
    else:
        return None
    return _digest(b"pointer", type_name.encode(), pointer.encode(), text)


def fingerprint(form: str, body: bytes) -> bytes:
    """Of a request's payload.

    Args:
        form: what the bytes are taken for: another reading of them is another payload.
        body: the content, without content codings.
    """
    return blake2b(body, digest_size=DIGEST_BYTES, person=form.encode()).digest()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def resolver(pointer: str) -> list[str]:
    """The tokens of a JSON Pointer (RFC 6901 section 4)."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def resolve(tokens: Sequence[str], value: Any) -> Any:
    """What stands at a pointer; None where nothing does."""
    for token in tokens:
        if isinstance(value, dict):
            value = value.get(token)
        elif isinstance(value, list) and token.isdecimal() and token.isascii():
            index = int(token) if len(token) < 10 and (token == "0" or token[0] != "0") else -1
            value = value[index] if 0 <= index < len(value) else None
        else:
            return None
    return value


# -- values --------------------------------------------------------------------------------

#: id of the first event, fingerprint of the payload, status, accepted, rejected.
_OUTCOME = Struct(">16s16sHII")
ID_VALUE_BYTES = 16
OUTCOME_VALUE_BYTES = _OUTCOME.size


class Outcome(NamedTuple):
    """What became of a request that had a key.

    Attributes:
        event_id: of the first event it stored; 16 bytes.
        fingerprint: of its payload.
        status: of the answer; 0 for a single event, whose answer follows from its id.
        accepted: events that got in.
        rejected: events that did not.
    """

    event_id: bytes
    fingerprint: bytes
    status: int = 0
    accepted: int = 1
    rejected: int = 0

    def pack(self) -> bytes:
        """As it is remembered."""
        return _OUTCOME.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Outcome:
        """From what is remembered."""
        return cls(*_OUTCOME.unpack(value))


def packed_id(text: bytes) -> bytes:
    """The 16 bytes of a UUID in its 36-character form."""
    return bytes.fromhex(text.replace(b"-", b"").decode())


def id_text(value: bytes) -> bytes:
    """The id at the head of a value, in its 36-character form."""
    text = value[:16].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode()


def ms_of(value: bytes) -> int:
    """When it was: milliseconds since 1970, which lead a UUIDv7 (RFC 9562 section 5.7)."""
    return int.from_bytes(value[:6], "big")


# -- the window ----------------------------------------------------------------------------


class Claim:
    """A key whose first event is neither stored nor given up yet.

    Attributes:
        digest: of the key.
        value: what will be remembered; may be completed until it is settled.
        waiters: whoever is to be told how it ends.
    """

    __slots__ = ("digest", "value", "waiters")

    def __init__(self, digest: bytes, value: bytes) -> None:
        self.digest = digest
        self.value = value
        self.waiters: list[Any] = []


class Window:
    """The keys of one event type.

    Args:
        entries_max: most keys remembered; the oldest are forgotten first.
        window_ms: age at which a key is forgotten, counted from its first event.
        value_bytes: `ID_VALUE_BYTES` or `OUTCOME_VALUE_BYTES`.
        answers_max_bytes: most that is kept of whole answers.

    Attributes:
        claims: keys in flight, by digest.
        evicted_by_age: keys forgotten because their time was over.
        evicted_by_count: keys forgotten before that, because there were too many.
    """

    __slots__ = (
        "_answers", "_answers_bytes", "_answers_max_bytes", "_head", "_live", "_mask", "_rows",
        "_slots", "_tail", "_width", "claims", "entries_max", "evicted_by_age",
        "evicted_by_count", "value_bytes", "window_ms",
    )  # fmt: skip

    def __init__(
        self, entries_max: int, window_ms: int, value_bytes: int, answers_max_bytes: int = 0
    ) -> None:
        self.entries_max = entries_max
        self.window_ms = window_ms
        self.value_bytes = value_bytes
        self.claims: dict[bytes, Claim] = {}
        self.evicted_by_age = 0
        self.evicted_by_count = 0
        self._width = DIGEST_BYTES + value_bytes
        self._rows = mmap(-1, entries_max * self._width, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        # At most two thirds of the places are taken: few probes, and always a free one.
        size = 1 << (entries_max + entries_max // 2).bit_length()
        self._mask = size - 1
        table = mmap(-1, size * 4, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        #: row number + 1 by hash, 0 for none
        self._slots = memoryview(table).cast("I")
        self._head = 0  # rows written since the start
        self._tail = 0  # rows given up
        self._live = 0
        self._answers: dict[bytes, bytes] = {}
        self._answers_bytes = 0
        self._answers_max_bytes = answers_max_bytes

    def __len__(self) -> int:
        """Keys remembered, those in flight not counted."""
        return self._live

    def look(self, digest: bytes, now_ms: int) -> Claim | bytes | None:
        """What is known of a key.

        Args:
            now_ms: milliseconds since 1970.
        """
        claim = self.claims.get(digest)
        if claim is not None:
            return claim
        _, at = self._find(digest)
        if at < 0:
            return None
        value = self._rows[at + DIGEST_BYTES : at + self._width]
        return None if ms_of(value) + self.window_ms <= now_ms else value

    def claim(self, digest: bytes, value: bytes) -> Claim:
        """Take a key that `look` knows nothing of."""
        claim = self.claims[digest] = Claim(digest, value)
        return claim

    def settle(self, claim: Claim, now_ms: int, answer: bytes = b"") -> list[Any]:
        """Its event is stored: remember the key; returns who waits for that."""
        self.release(claim)
        self.add(claim.digest, claim.value, now_ms, answer)
        return claim.waiters

    def release(self, claim: Claim) -> list[Any]:
        """Its event is not stored: the key is free again; returns who waits for that."""
        del self.claims[claim.digest]
        return claim.waiters

    def add(self, digest: bytes, value: bytes, now_ms: int, answer: bytes = b"") -> None:
        """Remember a key whose event is stored; it takes the place of the same one before.

        Args:
            value: of `value_bytes` bytes.
            answer: the whole answer, if it is to be given again as it was.
        """
        width = self._width
        if self._head - self._tail == self.entries_max:
            self._drop_oldest(now_ms)
        for _ in range(EXPIRE_AT_ONCE):
            if self._tail == self._head or not self._oldest_is_over(now_ms):
                break
            self._drop_oldest(now_ms)
        slot, at = self._find(digest)
        if at >= 0:
            self._forget_answer(digest)
            self._live -= 1  # its row stays where it is, and nothing leads to it any more
        row = self._head % self.entries_max
        start = row * width
        self._rows[start : start + width] = digest + value
        self._slots[slot] = row + 1
        self._head += 1
        self._live += 1
        if answer:
            self._keep_answer(digest, answer)

    def answer_of(self, digest: bytes) -> bytes:
        """The whole answer kept with a key; b"" when there is none (any more)."""
        return self._answers.get(digest, b"")

    # -- rows ------------------------------------------------------------------------------

    def _find(self, digest: bytes) -> tuple[int, int]:
        """The place in the table of a key, and the byte of its row; -1 for a free place.

        Python's hash of bytes is keyed with a secret of the process, so nobody can send keys
        that all want the same place.
        """
        slots, rows, mask, width = self._slots, self._rows, self._mask, self._width
        slot = hash(digest) & mask
        while number := slots[slot]:
            at = (number - 1) * width
            if rows[at : at + DIGEST_BYTES] == digest:
                return slot, at
            slot = (slot + 1) & mask
        return slot, -1

    def _oldest_is_over(self, now_ms: int) -> bool:
        at = self._tail % self.entries_max * self._width + DIGEST_BYTES
        return ms_of(self._rows[at : at + 6]) + self.window_ms <= now_ms

    def _drop_oldest(self, now_ms: int) -> None:
        at = self._tail % self.entries_max * self._width
        digest = self._rows[at : at + DIGEST_BYTES]
        slot, found = self._find(digest)
        if found == at:  # otherwise the key has come again since, and has a newer row
            if self._oldest_is_over(now_ms):
                self.evicted_by_age += 1
            else:
                self.evicted_by_count += 1
            self._clear(slot)
            self._forget_answer(digest)
            self._live -= 1
        self._tail += 1

    def _clear(self, hole: int) -> None:
        """Free a place of the table; what was put behind it for want of room moves up."""
        slots, rows, mask, width = self._slots, self._rows, self._mask, self._width
        place = (hole + 1) & mask
        while number := slots[place]:
            at = (number - 1) * width
            home = hash(rows[at : at + DIGEST_BYTES]) & mask
            if (place - home) & mask >= (place - hole) & mask:
                slots[hole] = number
                hole = place
            place = (place + 1) & mask
        slots[hole] = 0

    # -- whole answers ---------------------------------------------------------------------

    def _keep_answer(self, digest: bytes, answer: bytes) -> None:
        answers = self._answers
        answers[digest] = answer
        self._answers_bytes += len(answer)
        while self._answers_bytes > self._answers_max_bytes:
            self._forget_answer(next(iter(answers)))

    def _forget_answer(self, digest: bytes) -> None:
        if self._answers:
            self._answers_bytes -= len(self._answers.pop(digest, b""))


class Held:
    """What an exchange keeps of its claims until it is answered; see `pipeline_dedupe`."""

    __slots__ = ()

    def stored(self) -> bytes | None:
        """What it claimed is stored; called once, when its commit has succeeded.

        Returns:
            the id to answer a single event with; None when it sees to the answer, and to the
            slot, itself.
        """
        raise NotImplementedError

    def dropped(self, error: IngestError) -> None:
        """Nothing of it is stored: its keys are free again, and who waits for them is told."""
        raise NotImplementedError
