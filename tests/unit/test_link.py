"""The link between supervisor and worker, on a real pair of sockets."""

from __future__ import annotations

import os
import socket
import struct

import gevent
import pytest

from ingest import link
from ingest.link import DESCRIPTORS_MAX, Link, LinkBroken
from tests.support.waiting import until


def two() -> tuple[Link, Link]:
    ours, theirs = link.pair()
    return ours, Link(theirs)


def test_a_message_arrives_with_fields_and_blob() -> None:
    a, b = two()
    a.send("kind", blob=b"\x00\xff" * 3, text="ü", number=1, nothing=None)
    message = b.receive()
    assert message == ("kind", {"text": "ü", "number": 1, "nothing": None}, b"\x00\xff" * 3, [])


def test_messages_stay_apart_and_in_order_however_large_they_are() -> None:
    a, b = two()
    blobs = [b"", b"x" * 3_000_000, b"y", b"z" * 100_000]
    sender = gevent.spawn(lambda: [a.send("m", blob=blob) for blob in blobs])
    assert [message.blob for _ in blobs if (message := b.receive())] == blobs
    sender.join()


def test_descriptors_travel_and_are_not_inherited_by_what_the_receiver_starts() -> None:
    a, b = two()
    read, write = os.pipe()
    a.send("with", descriptors=[write, write])
    a.send("without")
    os.close(write)
    message = b.receive()
    assert message is not None
    assert len(message.descriptors) == 2
    assert not any(os.get_inheritable(descriptor) for descriptor in message.descriptors)
    os.write(message.descriptors[0], b"through")
    assert os.read(read, 100) == b"through"
    after = b.receive()
    assert after is not None and after.descriptors == []
    for descriptor in (read, *message.descriptors):
        os.close(descriptor)


def test_too_many_descriptors_are_refused_before_anything_is_sent() -> None:
    a, _ = two()
    with pytest.raises(ValueError, match="descriptors"):
        a.send("many", descriptors=[0] * (DESCRIPTORS_MAX + 1))


def test_the_end_of_the_other_side_is_told_apart_from_nonsense() -> None:
    a, b = two()
    a.close()
    assert b.receive() is None
    with pytest.raises(LinkBroken):
        b.send("to nobody")
    raw, theirs = socket.socketpair()
    raw.sendall(struct.pack("!IIH", 1 << 31, 0, 0))
    with pytest.raises(LinkBroken):
        Link(theirs).receive()  # type: ignore[arg-type]
    raw.close()


def test_closing_closes_descriptors_that_nobody_took() -> None:
    a, b = two()
    read, write = os.pipe()
    a.send("first")
    a.send("second", descriptors=[write])
    os.close(write)
    assert b.receive() is not None
    b.close()
    a.close()
    os.set_blocking(read, False)

    def no_copy_of_the_writing_end_is_left() -> bool:
        try:
            return os.read(read, 1) == b""
        except BlockingIOError:
            return False

    until(no_copy_of_the_writing_end_is_left)
    os.close(read)
