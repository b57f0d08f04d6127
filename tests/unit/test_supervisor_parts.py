"""What the supervisor decides by itself: pauses, cores, descriptors, sockets."""

from __future__ import annotations

import os
import socket

import pytest
from gevent import socket as gsocket
from hypothesis import given
from hypothesis import strategies as st

from ingest import machine
from ingest.supervisor_listeners import Listener, open_listeners
from ingest.supervisor_slot import pause_seconds
from tests.support.waiting import until


@given(st.integers(1, 10_000), st.floats(0.001, 60), st.floats(0.001, 86_400))
def test_a_pause_doubles_to_the_longest_and_half_of_it_is_chance(
    failures: int, shortest: float, longest: float
) -> None:
    whole = min(longest, shortest * 2.0 ** min(failures - 1, 60))
    assert whole / 2 <= pause_seconds(failures, shortest, longest) <= whole


def test_cores_are_given_out_in_turn() -> None:
    assert [machine.core_of(n, "4,7-8") for n in range(5)] == [4, 7, 8, 4, 7]
    usable = sorted(os.sched_getaffinity(0))
    assert machine.core_of(len(usable), "on") == usable[0]
    assert machine.core_of(3, "off") is None
    assert machine.cores_missing("on") == []
    assert machine.cores_missing(f"{usable[0]},4001") == [4001]


def test_a_shortage_of_descriptors_is_said_only_when_there_is_one() -> None:
    limit = machine.Descriptors(1024, 20_000)
    assert limit.shortage(16_384) is None
    assert "20000" in str(limit.shortage(19_900))


def test_listeners_share_one_address_and_nobody_else_does() -> None:
    sockets = open_listeners("127.0.0.1", 0, 16, 3)
    try:
        (address,) = {sock.getsockname() for sock in sockets}
        with pytest.raises(OSError, match="in use"):
            open_listeners("127.0.0.1", address[1], 16, 2)
    finally:
        for sock in sockets:
            sock.close()


def test_a_stand_in_gives_connections_to_others_only_while_it_stands_in() -> None:
    (sock,) = open_listeners("127.0.0.1", 0, 16, 1)
    taken: list[int] = []
    listener = Listener(sock, lambda found: not taken.extend(found), lambda: True)
    address = sock.getsockname()
    clients = [socket.create_connection(address) for _ in range(3)]
    listener.stand_in()
    until(lambda: len(taken) == 3)
    listener.step_back()
    clients.append(socket.create_connection(address))
    copy = gsocket.socket(fileno=listener.copy())
    accepted, _ = copy.accept()
    assert len(taken) == 3
    accepted.close()
    copy.close()
    listener.close()
    for connection in (*clients, *(socket.socket(fileno=number) for number in taken)):
        connection.close()


def test_what_waits_at_a_listener_nobody_accepts_from_is_given_over_when_it_closes() -> None:
    (sock,) = open_listeners("127.0.0.1", 0, 16, 1)
    taken: list[int] = []
    someone: list[bool] = []
    listener = Listener(sock, lambda found: not taken.extend(found), lambda: bool(someone))
    listener.stand_in()
    clients = [socket.create_connection(sock.getsockname()) for _ in range(5)]
    assert taken == []
    someone.append(True)
    listener.close()
    assert len(taken) == 5
    for connection in (*clients, *(socket.socket(fileno=number) for number in taken)):
        connection.close()
