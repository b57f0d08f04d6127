"""Waiting for commits, and reading once for all who ask for the same."""

from __future__ import annotations

import threading

import gevent
import pytest
from gevent.monkey import get_original

from ingest.followers import Followers, SharedReads

Lock = get_original("threading", "Lock")


@pytest.fixture
def reads():  # type: ignore[no-untyped-def]
    made = SharedReads()
    yield made
    made.close()


def test_a_commit_wakes_all_who_wait_and_costs_nothing_otherwise() -> None:
    followers = Followers()
    before = followers.next_commit
    followers.commit()
    assert followers.next_commit is before, "nobody waits, so nothing is done"
    waiting = [gevent.spawn(followers.wait, followers.next_commit, 50) for _ in range(3)]
    gevent.sleep(0)
    assert followers.waiting == 3
    followers.commit()
    gevent.joinall(waiting, raise_error=True)
    assert followers.waiting == 0
    assert followers.next_commit is not before


def test_what_happens_between_looking_and_waiting_is_not_missed() -> None:
    followers = Followers()
    commit = followers.next_commit
    followers.wake()
    followers.wait(commit, 50)
    assert followers.waiting == 0


def test_who_is_ended_while_waiting_waits_no_more() -> None:
    followers = Followers()
    waiting = gevent.spawn(followers.wait, followers.next_commit, 50)
    gevent.sleep(0)
    waiting.kill()
    assert followers.waiting == 0


def test_those_who_ask_for_the_same_get_one_reading(reads: SharedReads) -> None:
    gate = Lock()
    gate.acquire()
    calls = []

    def read(name: str) -> str:
        with gate:
            calls.append(name)
            return name * 2

    same = [gevent.spawn(reads.share, "a", read, "a") for _ in range(20)]
    other = gevent.spawn(reads.share, "b", read, "b")
    gevent.sleep(0)
    same[0].kill()  # whoever asked first may go: the others get theirs
    gate.release()
    assert {greenlet.get() for greenlet in same[1:]} == {"aa"}
    assert other.get() == "bb"
    assert sorted(calls) == ["a", "b"]
    assert reads.share("a", read, "c") == "cc", "what was read before is not kept"


def test_an_error_reaches_everybody_who_asked(reads: SharedReads) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "gone", "x")

    asking = [gevent.spawn(_error_of, reads.share, "a", fail) for _ in range(3)]
    assert [greenlet.get() for greenlet in asking] == ["x"] * 3
    assert _error_of(reads.run, fail) == "x"


def _error_of(call, *arguments) -> str:  # type: ignore[no-untyped-def]
    try:
        call(*arguments)
    except FileNotFoundError as error:
        return str(error.filename)
    return ""


def test_reading_happens_in_threads_while_the_loop_goes_on(reads: SharedReads) -> None:
    main = threading.get_native_id()
    assert reads.run(threading.get_native_id) != main
