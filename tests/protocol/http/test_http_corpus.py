"""The corpus of raw requests, against the pure parser."""

from __future__ import annotations

import pytest

from ingest.errors import IngestError
from ingest.http.parser import HeadCache, Limits, RequestParser
from tests.protocol.http.corpus import Case, load_cases

CASES = list(load_cases())


def run(case: Case, step: int, cache: HeadCache) -> tuple[int, int | None, bool]:
    """Feed a case in pieces; returns accepted requests, refusal, and whether it must close.

    A server reads no further behind a request that closes; neither does this.
    """
    parser = RequestParser(Limits(), cache)
    accepted = 0
    try:
        for start in range(0, len(case.raw), step):
            parser.feed(case.raw[start : start + step])
            while (head := parser.head()) is not None and parser.body() is not None:
                accepted += 1
                if not head.keep_alive:
                    return accepted, None, True
    except IngestError as error:
        return accepted, error.status, error.failure.closes
    assert not parser.begun, "the case ends within a request"
    return accepted, None, False


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_parser_gives_the_expected_verdict(case: Case) -> None:
    accepted, refusal, closes = run(case, len(case.raw), HeadCache(16))
    assert (case.accepted, case.refusal) == (accepted, refusal), case.why
    if case.verdict == "parser":
        assert case.closes == closes, case.why


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_verdict_is_the_same_byte_by_byte_and_from_the_cache(case: Case) -> None:
    cache = HeadCache(16)
    for step in (1, 7, len(case.raw), len(case.raw)):
        accepted, refusal, _ = run(case, step, cache)
        assert (case.accepted, case.refusal) == (accepted, refusal), f"{case.why} (step {step})"


def test_the_corpus_is_large_and_every_case_says_why() -> None:
    assert len(CASES) >= 150
    for case in CASES:
        assert case.why, case.name
        assert "RFC " in case.rfc, case.name
        assert case.closes or case.refusal is None, f"{case.name}: a refusal always closes"


def test_every_refusal_of_the_parser_stands_in_the_corpus() -> None:
    assert {400, 413, 414, 417, 431, 501, 505} == {case.refusal for case in CASES} - {None}
