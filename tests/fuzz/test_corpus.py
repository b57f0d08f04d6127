"""The saved inputs, through the same checks as under the fuzzer, without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz import coding_target, http_target, json_target
from tests.fuzz.seeds import CORPUS, FOUND, INPUT_MAX_BYTES, SEEDS

CHECKS: dict[str, Callable[[bytes], None]] = {
    "http": http_target.check,
    "json": json_target.check,
    "coding": coding_target.check,
}
TARGETS = sorted(CHECKS)
#: Inputs of one test; the first that breaks a promise names its file.
GROUP = 50


def groups() -> list[tuple[str, list[Path]]]:
    found = []
    for target in TARGETS:
        files = iter(sorted([*(CORPUS / target).iterdir(), *(FOUND / target).glob("*")]))
        while group := list(islice(files, GROUP)):
            found.append((target, group))
    return found


@pytest.mark.parametrize(
    ("target", "files"), groups(), ids=[f"{t}-{f[0].name[:8]}" for t, f in groups()]
)
def test_no_saved_input_breaks_a_promise(target: str, files: list[Path]) -> None:
    for file in files:
        try:
            CHECKS[target](file.read_bytes())
        except BaseException as error:
            raise AssertionError(f"{file.relative_to(CORPUS.parent)} breaks a promise") from error


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_hold_what_is_promised(target: str) -> None:
    """The cases of tests/protocol and the schemas' examples as they are now."""
    for seed in islice(SEEDS[target](), 0, None, 4):
        if len(seed) <= INPUT_MAX_BYTES:
            CHECKS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_kept_small(target: str) -> None:
    sizes = [file.stat().st_size for file in (CORPUS / target).iterdir()]
    assert 30 <= len(sizes) <= 400
    assert sum(sizes) < 1 << 20


def test_a_parser_that_finds_a_request_behind_a_refusal_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checks can fail: a parser that forgets its refusal does not pass."""

    def forgets(self: http_target.RequestParser, error: Exception) -> Exception:
        self.buffer = b""
        self._head = None
        return error

    stream = b"\x00GET / HTTP/1.1\r\n\r\n"
    http_target.check(stream)
    monkeypatch.setattr(http_target.RequestParser, "_refuse", forgets)
    with pytest.raises(AssertionError):
        http_target.check(stream)


def test_a_decoder_that_is_not_strict_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    json_target.check(b"\x00[NaN]")
    monkeypatch.setattr(json_target, "decode", json.loads)
    with pytest.raises(AssertionError):
        json_target.check(b"\x00[NaN]")
