"""Consumers on a hub of the test's own: where their work is done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original

from ingest.consuming import Consumers, checkpoint_name
from ingest.followers import Followers
from ingest.handlers.loader import Handler
from ingest.journal.storage import Storage
from ingest.metrics import Metrics
from ingest.settings import Settings
from tests.support.journals import Written

thread_ident = get_original("_thread", "get_ident")


def test_files_are_read_and_places_saved_in_other_threads_and_consume_runs_in_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Written(tmp_path)
    written.commit("thing", "thing")
    settings = dataclasses.replace(
        Settings(), data=str(tmp_path), disk_reserve_bytes=0, consume_checkpoint_seconds=0.0
    )
    called: list[int] = []
    consumed = Event()

    def consume(events: Any) -> None:
        called.append(thread_ident())
        consumed.set()

    consumers = Consumers(
        {"thing": Handler("thing", "thing.py", consume=consume)},
        0,
        1,
        settings,
        Metrics(),
        lambda: 2,
        Followers(),
    )
    consumers.open()
    seen: dict[str, set[int]] = {"read": set(), "rename": set(), "sync": set()}
    for name, threads in seen.items():
        original = getattr(Storage, name)

        def watched(self: Any, *args: Any, _original: Any = original, _seen: Any = threads) -> Any:
            _seen.add(thread_ident())
            return _original(self, *args)

        monkeypatch.setattr(Storage, name, watched)
    consumers.start()
    assert consumed.wait(30)
    while not seen["rename"]:
        gevent.sleep(0.01)
    consumers.stop(30)
    assert set(called) == {thread_ident()}
    for name, threads in seen.items():
        assert threads and thread_ident() not in threads, name


def test_a_checkpoint_is_named_after_its_type_however_long_that_is() -> None:
    assert checkpoint_name("order.placed") == "consume-order.placed"
    long = [checkpoint_name("t" * 127 + end) for end in "ab"]
    assert len({*long}) == 2
    assert all(len(name) <= 64 for name in long)
