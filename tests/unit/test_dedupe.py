"""Keys, and the window of those that are remembered: against a naive list."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.dedupe import (
    EXPIRE_AT_ONCE,
    ID_VALUE_BYTES,
    KEY_MAX_CHARS,
    OUTCOME_VALUE_BYTES,
    Claim,
    Outcome,
    Window,
    event_digest,
    fingerprint,
    id_text,
    key_digest,
    ms_of,
    packed_id,
    parse_key,
    resolve,
    resolver,
    value_digest,
)
from ingest.errors import IngestError

UUID = b"01a20752-3a1f-74f1-ad07-759b640a5000"


# -- Idempotency-Key -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ('"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('" "', " "),
        (r'"a\"b\\c"', r"a\"b\c".replace(r"\"", '"')),
        ('"a";b=1; c;d="x\\"y";e=?1;f=:aGk=:;g=*tok/en;h=-1.5', "a"),
        (f'"{"k" * KEY_MAX_CHARS}"', "k" * KEY_MAX_CHARS),
    ],
)
def test_a_key_is_a_structured_field_string(field: str, key: str) -> None:
    assert parse_key(field) == key


@pytest.mark.parametrize(
    "field",
    [
        "", '""', "8e03978e", "'a'", '"a', 'a"', '"a" "b"', '"a", "b"', '"a\\b"', '"a\tb"', '"ä"',
        '"a"b', '"a";', '"a";B=1', '"a";b=', ':aGk=:', f'"{"k" * (KEY_MAX_CHARS + 1)}"',
    ],
)  # fmt: skip
def test_anything_else_is_400_and_says_why(field: str) -> None:
    with pytest.raises(IngestError) as caught:
        parse_key(field)
    assert (caught.value.code, caught.value.status) == ("idempotency_key_malformed", 400)
    assert "Idempotency-Key" in caught.value.detail


# -- digests -------------------------------------------------------------------------------


def test_keys_of_different_types_kinds_and_places_never_meet() -> None:
    digests = [
        key_digest("a", "x", None), key_digest("b", "x", None), key_digest("a", "y", None),
        key_digest("a", "x", "p"), key_digest("a", "x", "q"),
        value_digest("a", "/p", "x"), value_digest("b", "/p", "x"), value_digest("a", "/q", "x"),
        value_digest("a", "/p", "1"), value_digest("a", "/p", 1), value_digest("a", "/p", -1),
        event_digest("a", "x", "y"), event_digest("a", "xy", ""), event_digest("a", "", "xy"),
        event_digest("b", "x", "y"), key_digest("a", "x1:y", None), event_digest("a", "x1:y", ""),
    ]  # fmt: skip
    assert all(digest is not None and len(digest) == 16 for digest in digests)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    "value", [None, "", True, False, 1.0, 1e30, 2**63, -(2**63) - 1, [], ["a"], {}, {"a": 1}]
)
def test_what_cannot_tell_events_apart_is_no_key(value: object) -> None:
    assert value_digest("a", "/p", value) is None


@pytest.mark.parametrize("value", ["a", "\ud800", "\0", 0, 2**63 - 1, -(2**63)])
def test_strings_and_64_bit_integers_are_keys(value: object) -> None:
    assert value_digest("a", "/p", value) is not None


def test_another_reading_of_the_same_bytes_is_another_payload() -> None:
    prints = {fingerprint(form, body) for form in ("event", "lines", "array-atomic-i")
              for body in (b"", b"[]")}  # fmt: skip
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/a", 1), ("/b/0", "x"), ("/b/1/c", 2), ("/~1~0", 3), ("/", 4), ("/b/01", None),
        ("/b/-", None), ("/b/2", None), ("/b/99999999999", None), ("/a/b", None), ("/x", None),
        ("/~01", 5), ("/b/²", None),
    ],
)  # fmt: skip
def test_a_pointer_leads_where_rfc_6901_says(pointer: str, found: object) -> None:
    document = {"a": 1, "b": ["x", {"c": 2}], "/~": 3, "": 4, "~1": 5}
    assert resolve(resolver(pointer), document) == found


# -- values --------------------------------------------------------------------------------


def test_an_id_is_packed_and_back_and_tells_its_millisecond() -> None:
    packed = packed_id(UUID)
    assert (len(packed), id_text(packed), id_text(packed + b"more")) == (16, UUID, UUID)
    assert ms_of(packed) == 0x01A207523A1F


def test_an_outcome_is_packed_and_back() -> None:
    outcome = Outcome(packed_id(UUID), b"f" * 16, 207, 99_999, 100_000)
    assert len(outcome.pack()) == OUTCOME_VALUE_BYTES
    assert Outcome.unpack(outcome.pack()) == outcome


# -- the window, against a naive list --------------------------------------------------------

WINDOW_MS = 50


def digest_of(key: int) -> bytes:
    return bytes([key]) * 16


def value_of(now: int, number: int) -> bytes:
    return now.to_bytes(6, "big") + number.to_bytes(10, "big")


class Naive:
    """What a window does, said with a list: rows in the order in which they were stored."""

    def __init__(self, entries_max: int) -> None:
        self.entries_max = entries_max
        self.rows: list[tuple[bytes, bytes]] = []
        self.by_age = self.by_count = 0

    def over(self, value: bytes, now: int) -> bool:
        return ms_of(value) + WINDOW_MS <= now

    def known(self, digest: bytes, now: int) -> bytes | None:
        for key, value in reversed(self.rows):
            if key == digest:
                return None if self.over(value, now) else value
        return None

    def drop(self, now: int) -> None:
        digest, value = self.rows.pop(0)
        if digest not in [key for key, _ in self.rows]:
            if self.over(value, now):
                self.by_age += 1
            else:
                self.by_count += 1

    def add(self, digest: bytes, value: bytes, now: int) -> None:
        if len(self.rows) == self.entries_max:
            self.drop(now)
        for _ in range(EXPIRE_AT_ONCE):
            if self.rows and self.over(self.rows[0][1], now):
                self.drop(now)
        self.rows.append((digest, value))


STEP = st.tuples(st.integers(0, 11), st.sampled_from(["store", "store", "fail", "hold", "look"]),
                 st.integers(0, 20))  # fmt: skip


@settings(max_examples=400)
@given(st.integers(1, 9), st.lists(STEP, max_size=120))
def test_a_window_remembers_what_a_naive_list_does(
    entries_max: int, steps: list[tuple[int, str, int]]
) -> None:
    window = Window(entries_max, WINDOW_MS, ID_VALUE_BYTES)
    naive = Naive(entries_max)
    held: dict[bytes, Claim] = {}
    now = 1_000_000
    for number, (key, what, passed) in enumerate(steps):
        now += passed
        digest = digest_of(key)
        found = window.look(digest, now)
        if digest in held:  # in flight: everybody sees the claim, whatever became of old rows
            assert found is held[digest]
            claim = held.pop(digest)
            claim.waiters.append(number)
        else:
            assert found == naive.known(digest, now)
            if found is not None or what == "look":
                continue
            claim = window.claim(digest, value_of(now, number))
            if what == "hold":
                held[digest] = claim
                continue
        expected = [number] if claim.waiters else []
        if what == "fail":
            assert window.release(claim) == expected
        else:
            claim.value = value_of(now, number)
            assert window.settle(claim, now) == expected
            naive.add(digest, claim.value, now)
        assert len(window) == len({digest for digest, _ in naive.rows})
        assert (window.evicted_by_age, window.evicted_by_count) == (naive.by_age, naive.by_count)
    for key in range(12):
        if digest_of(key) not in held:
            assert window.look(digest_of(key), now) == naive.known(digest_of(key), now)


def test_what_is_forgotten_for_its_number_is_the_oldest() -> None:
    window = Window(1000, WINDOW_MS, ID_VALUE_BYTES)
    digests = [number.to_bytes(16, "big") for number in range(3000)]
    for number, digest in enumerate(digests):
        window.add(digest, value_of(1, number), 1)
    assert [window.look(digest, 1) is not None for digest in digests] == [False] * 2000 + [
        True
    ] * 1000
    assert (len(window), window.evicted_by_count, window.evicted_by_age) == (1000, 2000, 0)


def test_what_is_over_is_removed_a_few_at_a_time() -> None:
    window = Window(1000, WINDOW_MS, ID_VALUE_BYTES)
    for number in range(100):
        window.add(number.to_bytes(16, "big"), value_of(1, number), 1)
    later = 1 + WINDOW_MS
    assert window.look((99).to_bytes(16, "big"), later) is None
    window.add(b"n" * 16, value_of(later, 1), later)
    assert len(window) == 100 - EXPIRE_AT_ONCE + 1
    for number in range(10):
        window.add(bytes([number]) * 16, value_of(later, 1), later)
    assert len(window) == 11
    assert (window.evicted_by_age, window.evicted_by_count) == (100, 0)


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    window = Window(10, WINDOW_MS, ID_VALUE_BYTES)
    window.add(b"a" * 16, value_of(1_000, 1), 1_000)
    assert window.look(b"a" * 16, 10) is not None


def test_whole_answers_are_bounded_by_bytes_and_go_with_their_keys() -> None:
    window = Window(3, WINDOW_MS, OUTCOME_VALUE_BYTES, answers_max_bytes=10)
    value = value_of(1, 1) + bytes(OUTCOME_VALUE_BYTES - 16)
    for key in range(3):
        window.add(digest_of(key), value, 1, b"12345")
    assert [window.answer_of(digest_of(key)) for key in range(3)] == [b"", b"12345", b"12345"]
    assert window.look(digest_of(0), 1) == value  # the key stays when its answer goes
    for key in range(3, 5):
        window.add(digest_of(key), value, 1)
    assert window.look(digest_of(1), 1) is None
    assert [window.answer_of(digest_of(key)) for key in range(3)] == [b"", b"", b"12345"]
    window.add(digest_of(5), value, 1, b"much too long")
    assert window.answer_of(digest_of(5)) == b""


def test_many_keys_come_and_go_without_one_being_lost_in_the_table() -> None:
    window = Window(64, 1 << 40, ID_VALUE_BYTES)
    for number in range(20_000):
        window.add(number.to_bytes(16, "little"), value_of(1, number), 1)
        oldest = max(0, number - 63)
        for known in (oldest, (oldest + number) // 2, number):
            assert window.look(known.to_bytes(16, "little"), 1) == value_of(1, known)
        if oldest:
            assert window.look((oldest - 1).to_bytes(16, "little"), 1) is None


def test_each_key_has_one_first_whatever_the_order_of_the_others() -> None:
    for order in itertools.permutations(range(4)):
        window = Window(4, WINDOW_MS, ID_VALUE_BYTES)
        claims = [window.claim(digest_of(key), value_of(1, key)) for key in range(4)]
        for key in order:
            window.settle(claims[key], 1)
        assert [window.look(digest_of(key), 1) for key in range(4)] == [
            value_of(1, key) for key in range(4)
        ]
        assert not window.claims
