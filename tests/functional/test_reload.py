"""`--reload`: what is saved is served; what is wrong is shown, and the old code stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.waiting import until


def source(answer: str, extra: str = "") -> str:
    return f"{extra}\ndef handle(event):\n    return {{'from': {answer!r}}}\n"


@pytest.fixture
def edited(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway with `--reload`, one type `thing`, any object, and a handler."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "thing.json").write_text('{"type": "object"}')
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "thing.py").write_text(source("the first"))
    folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
    return new_gateway(*folders, "--reload")


def logged(gateway: Gateway, event: str) -> int:
    return gateway.log().count(f'"event":"{event}"')


def starts(gateway: Gateway) -> int:
    return logged(gateway, "service.started")


def stored(gateway: Gateway) -> list[str]:
    return [record["data"].get("from") for record in gateway.journal()]


def test_a_changed_handler_is_served_by_the_same_process_on_the_same_port(
    edited: Gateway, tmp_path: Path
) -> None:
    pid = edited.pid
    assert edited.post("/v1/events/thing", {}).status == 202
    (tmp_path / "handlers" / "thing.py").write_text(source("the second"))
    until(lambda: starts(edited) == 2)
    assert edited.post("/v1/events/thing", {}).status == 202
    assert stored(edited) == ["the first", "the second"]
    assert edited.pid == pid
    assert edited.stop() == 0


def test_a_changed_helper_counts_as_well(edited: Gateway, tmp_path: Path) -> None:
    (tmp_path / "handlers" / "_words.py").write_text("WORD = 'one'\n")
    uses = "import _words\ndef handle(event):\n    return {'from': _words.WORD}\n"
    (tmp_path / "handlers" / "thing.py").write_text(uses)
    until(lambda: starts(edited) == 2)
    (tmp_path / "handlers" / "_words.py").write_text("WORD = 'two'\n")
    until(lambda: starts(edited) == 3)
    assert edited.post("/v1/events/thing", {}).status == 202
    assert stored(edited) == ["two"]


def test_a_new_type_is_served(edited: Gateway, tmp_path: Path) -> None:
    assert edited.post("/v1/events/another", {}).status == 404
    (tmp_path / "schemas" / "another.json").write_text('{"type": "object"}')
    until(lambda: starts(edited) == 2)
    assert edited.post("/v1/events/another", {}).status == 202


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("handlers/thing.py", "def handle(event:\n", "SyntaxError"),
        ("handlers/thing.py", "import no_such_package\n", "ModuleNotFoundError"),
        ("handlers/thing.py", source("x", "def setup():\n    1 / 0"), "setup() failed: ZeroDiv"),
        ("schemas/thing.json", '{"type": "objekt"}', "objekt"),
    ],
    ids=["syntax", "import", "setup", "schema"],
)
def test_what_is_wrong_is_shown_and_the_old_code_stays(
    edited: Gateway, tmp_path: Path, file: str, text: str, why: str
) -> None:
    (tmp_path / file).write_text(text)
    until(lambda: logged(edited, "reload.refused"))
    assert why in edited.log() and file in edited.log()
    assert edited.post("/v1/events/thing", {}).status == 202
    assert (stored(edited), starts(edited)) == (["the first"], 1)


def test_after_a_mistake_the_next_save_counts(edited: Gateway, tmp_path: Path) -> None:
    (tmp_path / "handlers" / "thing.py").write_text("def handle(event:\n")
    until(lambda: logged(edited, "reload.refused"))
    (tmp_path / "handlers" / "thing.py").write_text(source("mended"))
    until(lambda: starts(edited) == 2)
    assert edited.post("/v1/events/thing", {}).status == 202
    assert stored(edited) == ["mended"]


def test_clients_that_post_all_the_time_are_never_refused(edited: Gateway, tmp_path: Path) -> None:
    statuses: list[int] = []
    failures: list[OSError] = []
    done = threading.Event()

    def post() -> None:
        while not done.is_set():
            try:
                statuses.append(edited.post("/v1/events/thing", {}).status)
            except OSError as error:
                failures.append(error)

    client = threading.Thread(target=post)
    client.start()
    (tmp_path / "handlers" / "thing.py").write_text(source("the second"))
    until(lambda: starts(edited) == 2)
    seen = len(statuses)
    until(lambda: len(statuses) > seen)
    done.set()
    client.join()
    assert (set(statuses), failures) == ({202}, [])
    assert set(stored(edited)) == {"the first", "the second"}
    assert len(stored(edited)) == len(statuses)


def test_it_goes_with_one_worker_only(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data", "--reload", "--workers", "2")
    gateway.spawn()
    assert not gateway.listens()
    assert gateway.wait() == 2
    assert "one worker only" in gateway.log()
