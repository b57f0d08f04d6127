"""Range and the conditional fields, by the tables of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.ranges import Part, Unsatisfiable, Version, condition, part_of

NOW = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER, LATER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"
VERSION = Version('"a-1"', NOW, settled=True)


def test_the_date_is_an_imf_fixdate() -> None:
    assert VERSION.last_modified == DATE


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if-match": '"a-1"'}, 200),
        ({"if-match": '"b", "a-1"'}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": '"b"'}, 412),
        ({"if-match": 'W/"a-1"'}, 412),
        ({"if-match": ""}, 412),
        ({"if-unmodified-since": DATE}, 200),
        ({"if-unmodified-since": LATER}, 200),
        ({"if-unmodified-since": EARLIER}, 412),
        ({"if-unmodified-since": "never"}, 200),
        ({"if-match": '"a-1"', "if-unmodified-since": EARLIER}, 200),
        ({"if-match": '"a-1"', "if-none-match": '"a-1"'}, 304),
        ({"if-none-match": '"b", "a-1"'}, 304),
        ({"if-none-match": 'W/"a-1"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"b"'}, 200),
        ({"if-modified-since": DATE}, 304),
        ({"if-modified-since": EARLIER}, 200),
        ({"if-modified-since": "Tue, 99 Nov 2023 22:13:19 GMT"}, 200),
        ({"if-none-match": '"b"', "if-modified-since": DATE}, 200),
    ],
)
def test_conditions_in_their_order(headers: dict[str, str], status: int) -> None:
    assert condition(headers, VERSION) == status


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("bytes=0-499", Part(0, 500)),
        ("bytes=500-999", Part(500, 1000)),
        ("bytes=-500", Part(500, 1000)),
        ("bytes=9-", Part(9, 1000)),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=-2000", Part(0, 1000)),
        ("bytes=999-1000", Part(999, 1000)),
        ("Bytes \t=\t0-1 ", Part(0, 2)),
        ("bytes=0-1,2-3", None),
        ("bytes=0-1,", None),
        ("bytes=2-1", None),
        ("bytes=--1", None),
        ("bytes=+1-2", None),
        ("bytes=1-2-3", None),
        ("bytes=\u0661-2", None),
        ("bytes", None),
        ("", None),
        ("none=0-1", None),
    ],
)
def test_a_range(field: str, part: Part | None) -> None:
    assert part_of({"range": field}, 1000, VERSION) == part


@pytest.mark.parametrize("field", ["bytes=1000-", "bytes=1000-1001", "bytes=-0"])
def test_a_range_that_cannot_be(field: str) -> None:
    with pytest.raises(Unsatisfiable):
        part_of({"range": field}, 1000, VERSION)


def test_there_are_no_parts_of_nothing() -> None:
    assert part_of({"range": "bytes=0-"}, 0, VERSION) is None


@pytest.mark.parametrize(
    ("if_range", "settled", "taken"),
    [
        ('"a-1"', False, True),
        ('"a-2"', True, False),
        ('W/"a-1"', True, False),
        (DATE, True, True),
        (DATE, False, False),
        (LATER, True, False),
        ("", True, False),
    ],
)
def test_if_range(if_range: str, settled: bool, taken: bool) -> None:
    version = VERSION._replace(settled=settled)
    part = part_of({"range": "bytes=0-1", "if-range": if_range}, 10, version)
    assert (part is not None) is taken


@given(st.text(alphabet="bytes=-,0123456789 \t", max_size=30), st.integers(0, 10**20))
def test_whatever_is_sent_is_a_part_within_the_document_or_all_of_it(
    field: str, length: int
) -> None:
    try:
        part = part_of({"range": "bytes=" + field}, length, VERSION)
    except Unsatisfiable:
        return
    assert part is None or 0 <= part.start < part.end <= length
