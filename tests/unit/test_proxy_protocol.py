"""The PROXY protocol: both versions, whole or in pieces, and nothing that is neither."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.access.proxy_protocol import (
    SIGNATURE,
    V1_MAX_BYTES,
    V2_MAX_BYTES,
    Introduction,
    ProxyError,
    parse,
)

REQUEST = b"GET / HTTP/1.1\r\n"


def binary(command: int, family: int, addresses: bytes, tlvs: bytes = b"") -> bytes:
    rest = addresses + tlvs
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def tcp4(tlvs: bytes = b"") -> bytes:
    return binary(0x21, 0x11, bytes((192, 0, 2, 7, 10, 0, 0, 1)) + b"\x12\x34\x00\x50", tlvs)


V6 = ipaddress.IPv6Address("2001:db8::7").packed
GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n", ("192.0.2.7", 4660)),
    (b"PROXY TCP6 2001:db8::7 ::1 4660 80\r\n", ("2001:db8::7", 4660)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 80\r\n", ("192.0.2.7", 4660)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN whatever it says\r\n", None),
    (tcp4(), ("192.0.2.7", 4660)),
    (tcp4(b"\x04\x00\x03abc"), ("192.0.2.7", 4660)),
    (binary(0x21, 0x21, V6 * 2 + b"\x12\x34\x00\x50"), ("2001:db8::7", 4660)),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, b"x" * 12), None),
    (binary(0x21, 0x00, b"", b"\x04\x00\x00"), None),
    (binary(0x21, 0x31, b"/" * 216), None),
]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_a_header_says_who_is_spoken_for_however_it_is_cut(
    header: bytes, client: tuple[str, int] | None
) -> None:
    for end in range(len(header)):
        assert parse(header[:end]) is None
    found = Introduction(client, len(header))
    assert parse(header) == found
    assert parse(header + REQUEST) == found


@pytest.mark.parametrize(
    "wrong",
    [
        REQUEST,
        b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.7  10.0.0.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.777 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n",
        b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN" + b" " * V1_MAX_BYTES,
        binary(0x11, 0x11, b"x" * 12),
        binary(0x22, 0x11, b"x" * 12),
        binary(0x21, 0x11, b"x" * 11),
        binary(0x21, 0x41, b"x" * 12),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, V2_MAX_BYTES + 1),
        b"\r\n\r\n\0\r\nQUIX",
    ],
)
def test_what_is_no_header_is_refused(wrong: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(wrong)


@given(st.binary(max_size=300), st.sampled_from((b"", b"PROXY ", SIGNATURE, SIGNATURE + b"!\x11")))
def test_bytes_are_a_header_or_refused_or_bounded(data: bytes, start: bytes) -> None:
    data = start + data
    try:
        found = parse(data)
    except ProxyError:
        return
    if found is None:
        assert len(data) < len(SIGNATURE) + 4 + V2_MAX_BYTES
    else:
        assert 0 < found.size <= len(data)
        assert parse(data[: found.size]) == found


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.binary(max_size=100))
def test_both_versions_say_the_same(
    source: ipaddress.IPv4Address, target: ipaddress.IPv4Address, port: int, tlvs: bytes
) -> None:
    line = parse(f"PROXY TCP4 {source} {target} {port} 80\r\n".encode())
    ports = struct.pack("!HH", port, 80)
    packed = parse(binary(0x21, 0x11, source.packed + target.packed + ports, tlvs))
    assert line is not None and packed is not None
    assert line.client == packed.client == (str(source), port)
