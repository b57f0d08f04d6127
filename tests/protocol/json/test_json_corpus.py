"""Every document of the corpus is decoded or refused as RFC 8259 says."""

import json
import math
from collections import Counter

import pytest

from ingest.codec import DecodeError, make_decoder, one_line, split_array
from tests.protocol.json.corpus import ACCEPT, DEPTH_MAX, LIMITS, REJECT, Case

decode = make_decoder("orjson", DEPTH_MAX, "accept")
decode_unique = make_decoder("orjson", DEPTH_MAX, "reject")


def ids(case: Case) -> str:
    return case.name


def same(one: object, other: object) -> bool:
    """Equal in type, too: 1, 1.0 and true are different, and so are 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)  # type: ignore[arg-type]
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)  # type: ignore
    return one == other


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    cases = [*ACCEPT, *REJECT, *LIMITS]
    assert len(cases) >= 400
    for cases_of_one_kind in (ACCEPT, REJECT, LIMITS):
        assert set(Counter(map(ids, cases_of_one_kind)).values()) == {1}
    assert len({case.raw for case in cases}) >= len(cases) - 5  # few stand under two rules


@pytest.mark.parametrize("case", ACCEPT, ids=ids)
def test_what_the_grammar_allows_is_accepted(case: Case) -> None:
    assert same(decode(case.raw), case.value), case.why


@pytest.mark.parametrize("case", ACCEPT, ids=ids)
def test_what_is_stored_of_it_is_one_line_of_the_same_json(case: Case) -> None:
    line = one_line(case.raw)
    assert b"\n" not in line and b"\r" not in line
    assert len(line) == len(case.raw)
    assert same(decode(line), case.value)


@pytest.mark.parametrize("case", [c for c in ACCEPT if not c.name.startswith("depth")], ids=ids)
def test_as_elements_of_an_array_it_is_found_exactly_as_it_was_sent(case: Case) -> None:
    bare = case.raw.strip()
    for raw in (b"[%s]" % case.raw, b"[{}, %s,\n%s ,[1]]" % (case.raw, case.raw)):
        assert bare in split_array(raw)
        assert [decode(part) for part in split_array(raw)] == decode(raw)


@pytest.mark.parametrize("case", [*REJECT, *LIMITS], ids=ids)
@pytest.mark.parametrize("decoder", [decode, decode_unique], ids=["accept", "reject"])
def test_everything_else_is_refused_with_a_place(case: Case, decoder) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DecodeError) as caught:
        decoder(case.raw)
    error = caught.value
    assert error.line >= 1 and error.column >= 1, case.why
    assert error.line <= case.raw.count(b"\n") + 1
    assert error.excerpt.isprintable() and len(error.excerpt) <= 400
    error.excerpt.encode()  # can be put into an answer


#: Not JSON, but within brackets they are.
LISTS = (b"", b" ", b"\n", b"\t \r\n", b"1,000", b"true,false")


@pytest.mark.parametrize("case", [case for case in REJECT if case.raw not in LISTS], ids=ids)
def test_inside_an_array_it_is_refused_as_well(case: Case) -> None:
    with pytest.raises(DecodeError):
        decode(b"[" + case.raw + b"]")


@pytest.mark.parametrize("case", [c for c in REJECT if not c.name.startswith("nan")], ids=ids)
def test_another_strict_parser_refuses_the_same_documents(case: Case) -> None:
    with pytest.raises(ValueError):
        json.loads(case.raw.decode())  # not UTF-8 is a ValueError, too


def test_repeated_names_can_be_refused() -> None:
    for raw in (b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'[{"b":{"c":[],"d":0,"c":1}}]'):
        with pytest.raises(DecodeError, match="twice"):
            decode_unique(raw)
    for raw in (b'{"a":{"a":1},"b":{"a":1}}', b'[{"a":1},{"a":2}]', b'{"a":"a","b":"a"}'):
        assert decode_unique(raw) == json.loads(raw)
