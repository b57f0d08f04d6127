"""What the endpoints under /debug answer, and what they refuse."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from ingest.debug_endpoints import BODY_MAX_BYTES, DebugEndpoints
from ingest.errors import IngestError

NAME = "tests.debug.one"


class Asked:
    """An exchange, as far as these endpoints look at it."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body


class Answers:
    """A responder that keeps what it was given."""

    def __init__(self) -> None:
        self.body = b""
        self.headers: dict[str, str] = {}

    def send(self, exchange: Any, status: int, body: bytes, **more: Any) -> None:
        assert status == 200
        self.body, self.headers = body, more["headers"]


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def endpoints(answers: Answers) -> Iterator[DebugEndpoints]:
    logging.getLogger(NAME)
    yield DebugEndpoints(answers, 3, {"connections": lambda: 7})  # type: ignore[arg-type]
    logging.getLogger(NAME).setLevel(logging.NOTSET)


def ask(endpoints: DebugEndpoints, method: str, path: str, document: Any = None) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    endpoints.table()[f"/debug/{path}"][method](Asked(body))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["greenlets", "stacks", "memory", "log-level"])
def test_each_answer_says_which_process_it_is_about_and_is_not_to_be_kept(
    endpoints: DebugEndpoints, answers: Answers, path: str
) -> None:
    ask(endpoints, "GET", path)
    text = answers.body.decode()
    assert str(os.getpid()) in text and "3" in text
    assert answers.headers["Cache-Control"] == "no-store"
    assert text.endswith("\n")


def test_the_answer_about_memory_has_what_the_service_counts(
    endpoints: DebugEndpoints, answers: Answers
) -> None:
    ask(endpoints, "GET", "memory")
    document = json.loads(answers.body)
    assert document["service"] == {"connections": 7}
    assert document["process"]["resident_bytes"] > 0
    assert 0 < len(document["objects"]["by_type"]) <= 40


def test_stacks_are_places_and_no_values(endpoints: DebugEndpoints, answers: Answers) -> None:
    password = "a-value-on-the-stack"
    ask(endpoints, "GET", "stacks")
    assert __file__ in answers.body.decode()
    assert password not in answers.body.decode()


def test_those_that_take_their_time_wait_for_their_turn(endpoints: DebugEndpoints) -> None:
    table = endpoints.table()
    alone = {path for path in table if getattr(table[path]["GET"], "alone", False)}
    assert alone == {"/debug/greenlets", "/debug/memory"}


def test_a_level_is_changed_and_shown(endpoints: DebugEndpoints, answers: Answers) -> None:
    ask(endpoints, "PUT", "log-level", {"logger": NAME, "level": "debug", "seconds": 60})
    shown = json.loads(answers.body)
    assert shown["levels"][NAME] == "DEBUG"
    assert 59 <= shown["temporary"][NAME]["ends_in_seconds"] <= 60
    ask(endpoints, "PUT", "log-level", {"logger": NAME, "level": "NOTSET"})
    assert NAME not in json.loads(answers.body)["levels"]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "bad_parameter"),
        (b"{", "bad_parameter"),
        (b"[]", "bad_parameter"),
        (b" " * BODY_MAX_BYTES + b"{}", "bad_parameter"),
        ({"logger": NAME}, "bad_parameter"),
        ({"level": "DEBUG"}, "bad_parameter"),
        ({"logger": "", "level": "DEBUG"}, "bad_parameter"),
        ({"logger": NAME, "level": "LOUD"}, "bad_parameter"),
        ({"logger": NAME, "level": 10}, "bad_parameter"),
        ({"logger": NAME, "level": "DEBUG", "seconds": 0}, "bad_parameter"),
        ({"logger": NAME, "level": "DEBUG", "seconds": 1e9}, "bad_parameter"),
        ({"logger": NAME, "level": "DEBUG", "seconds": True}, "bad_parameter"),
        ({"logger": NAME, "level": "DEBUG", "for": 5}, "bad_parameter"),
        ({"logger": "tests.debug.none", "level": "DEBUG"}, "not_found"),
    ],
)
def test_what_is_no_change_of_a_level_is_refused_and_changes_nothing(
    endpoints: DebugEndpoints, document: Any, code: str
) -> None:
    with pytest.raises(IngestError) as refused:
        ask(endpoints, "PUT", "log-level", document)
    assert refused.value.code == code
    assert logging.getLogger(NAME).level == logging.NOTSET
