"""The encrypting socket on a pair of real ones: nothing lost, twice, or left behind."""

from __future__ import annotations

import gc
import select
import socket
import ssl
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.connection import RESET
from ingest.tls.layer import SEND_BYTES, TlsSocket
from tests.support.certificates import HOST, Authority


class Pair:
    """A server's encrypting socket, and a client that is moved by hand."""

    def __init__(self, directory: Path, version: ssl.TLSVersion) -> None:
        authority = Authority(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("server", HOST))
        context.maximum_version = version
        theirs, self.raw = socket.socketpair()
        for sock in (theirs, self.raw):
            sock.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.server: Any = TlsSocket(theirs)
        self.server.begin(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = authority.client().wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)
        done = False
        for _ in range(3):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            data = self.outgoing.read()
            done = done or (bool(data) and self.server.shake(data))
            self.incoming.write(self.server.flight())
        assert done
        assert self.server.secure() == b""

    def push(self) -> None:
        """Give the server what the client has encrypted."""
        self.raw.sendall(self.outgoing.read())

    def pull(self) -> bytes:
        """What has come to the client, decrypted; b"" for nothing yet."""
        try:
            while data := self.raw.recv(65536):
                self.incoming.write(data)
        except BlockingIOError:
            pass
        plain = b""
        try:
            while data := self.tls.read(65536):
                plain += data
        except ssl.SSLWantReadError:
            pass
        return plain

    def readable(self) -> bool:
        return bool(select.select([self.server.fileno()], [], [], 0)[0])


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(tmp_path, request.param)
    yield made
    made.server.close()
    made.raw.close()


def test_what_the_kernel_does_not_take_is_sent_later_and_once(pair: Pair) -> None:
    data = bytes(range(256)) * 4000
    left, got, waits = memoryview(data), b"", 0
    while left:
        try:
            sent = pair.server.send(left)
        except BlockingIOError:
            sent, waits = 0, waits + 1
        assert 0 <= sent <= len(left)
        left = left[sent:]
        got += pair.pull()
    assert waits > 10
    assert got + pair.pull() == data


def test_more_may_be_behind_what_was_not_taken(pair: Pair) -> None:
    """As a connection does whose answers pile up."""
    unsent, got = b"a" * 200_000, b""
    for _ in range(1000):
        try:
            unsent = unsent[pair.server.send(unsent) :]
        except BlockingIOError:
            pass
        if len(got) < 100_000:
            unsent += b"b" * 1000
        got += pair.pull()
        if not unsent:
            break
    assert got.startswith(b"a" * 200_000) and set(got[200_000:]) == set(b"b")


def test_something_else_is_not_sent_in_the_place_of_what_was_taken(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.server.send(b"a" * SEND_BYTES)
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            got += pair.pull()
            try:
                pair.server.send(b"b")
            except BlockingIOError:
                continue
    assert b"b" not in got + pair.pull()


def test_nothing_that_was_decrypted_stays_behind(pair: Pair) -> None:
    for _ in range(20):
        pair.tls.write(b"x" * 900)
    pair.push()
    assert len(pair.server.recv(65536)) == 20 * 900
    assert not pair.readable()
    with pytest.raises(BlockingIOError):
        pair.server.recv(65536)


def test_part_of_a_record_is_nothing_yet(pair: Pair) -> None:
    pair.tls.write(b"hello")
    record = pair.outgoing.read()
    for mark in record[:-1]:
        pair.raw.sendall(bytes([mark]))
        with pytest.raises(BlockingIOError):
            pair.server.recv(65536)
    pair.raw.sendall(record[-1:])
    assert pair.server.recv(65536) == b"hello"


def test_the_end_of_the_peers_side_is_one_for_the_kernel(pair: Pair) -> None:
    pair.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.tls.unwrap()
    pair.push()
    assert pair.server.recv(65536) == b"last"
    assert pair.readable()
    assert pair.server.recv(65536) == b""
    assert pair.server.send(b"") == 0
    assert pair.server.send(b"answer") == 6
    assert pair.pull() == b"answer"


def test_a_record_that_was_changed_on_its_way_ends_it_with_an_alert(pair: Pair) -> None:
    pair.tls.write(b"hello")
    record = bytearray(pair.outgoing.read())
    record[-1] ^= 1
    pair.raw.sendall(record)
    with pytest.raises(ssl.SSLError):
        pair.server.recv(65536)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert|mac"):
        pair.pull()


def test_to_peek_takes_nothing(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.server.recv(1, socket.MSG_PEEK)
    pair.tls.write(b"hello")
    pair.push()
    assert pair.server.recv(1, socket.MSG_PEEK)
    assert pair.server.recv(65536) == b"hello"


def test_an_end_is_told_unless_the_socket_is_to_be_reset(pair: Pair) -> None:
    pair.server.send(b"bye")
    pair.server.shutdown(socket.SHUT_WR)
    assert pair.pull() == b"bye"
    with pytest.raises(ssl.SSLZeroReturnError):
        pair.tls.unwrap()
        pair.tls.read(1)
    pair.raw.sendall(b"not looked at any more")
    assert pair.server.recv(65536) == b"not looked at any more"


def test_one_that_is_to_be_reset_has_no_regular_end(pair: Pair) -> None:
    pair.server.send(b"part of an")
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    pair.server.close()
    assert pair.pull() == b"part of an"
    with pytest.raises(ssl.SSLWantReadError):  # not the end that TLS has
        pair.tls.read(1)


def test_memory_is_given_back_at_once(pair: Pair) -> None:
    found = weakref.ref(pair.server._object)
    gc.disable()
    try:
        pair.server.close()
        assert found() is None
    finally:
        gc.enable()
    with pytest.raises(OSError):
        pair.server.recv(1)
