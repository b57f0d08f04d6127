"""What a proxy says before the first byte of a connection: for whom it speaks. PURE.

Both forms: a line of text (version 1), and a binary header (version 2) whose TLVs are skipped.

Source: The PROXY protocol, versions 1 & 2 (HAProxy, 2020-03-05), sections 2.1 and 2.2.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

#: "107 bytes is the longest line possible" (section 2.1), CRLF included.
V1_MAX_BYTES = 107
#: Addresses and TLVs; those of a client's certificate are the largest that there are.
V2_MAX_BYTES = 4096
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: A header that speaks for nobody else: the connection is the proxy's own.
LOCAL = SIGNATURE + b"\x20\0\0\0"
_START = b"PROXY "
_FIXED = struct.Struct("!BBH")
#: family and transport → bytes of the addresses
_SIZES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
#: family and transport → bytes of one address, for TCP
_TCP = {0x11: 4, 0x21: 16}
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


class ProxyError(ValueError):
    """What has come is no header of the PROXY protocol."""


class Introduction(NamedTuple):
    """A header.

    Attributes:
        client: address and port of who is spoken for; None where it is the proxy itself, or
            where the proxy does not know.
        size: bytes of the header.
    """

    client: tuple[str, int] | None
    size: int


def parse(data: bytes) -> Introduction | None:
    """Read the header at the beginning of what has come so far.

    Returns:
        None: there is more to come.

    Raises:
        ProxyError: it is none, whatever will come.
    """
    if data.startswith(SIGNATURE):
        return _binary(data)
    if data.startswith(_START):
        return _line(data)
    if SIGNATURE.startswith(data) or _START.startswith(data):
        return None
    raise ProxyError("it does not begin as one")


def _line(data: bytes) -> Introduction | None:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES:
            raise ProxyError("the line is too long")
        return None
    words = data[len(_START) : end].decode("latin-1").split(" ")
    size = end + 2
    if words[0] == "UNKNOWN":
        return Introduction(None, size)
    if len(words) != 5 or words[0] not in ("TCP4", "TCP6"):
        raise ProxyError("the line has not the right words")
    kind = IPv4Address if words[0] == "TCP4" else IPv6Address
    try:
        source, _ = kind(words[1]), kind(words[2])
    except ValueError:
        raise ProxyError("the line has no right addresses") from None
    if not all(_PORT.fullmatch(port) and int(port) <= 0xFFFF for port in words[3:]):
        raise ProxyError("the line has no right ports")
    return Introduction((_text(source), int(words[3])), size)


def _binary(data: bytes) -> Introduction | None:
    start = len(SIGNATURE) + _FIXED.size
    if len(data) < start:
        return None
    command, family, length = _FIXED.unpack_from(data, len(SIGNATURE))
    if command not in (0x20, 0x21):
        raise ProxyError("its version or its command is unknown")
    if length > V2_MAX_BYTES:
        raise ProxyError("it is too long")
    local = command == 0x20
    if not local and (family not in _SIZES or length < _SIZES[family]):
        raise ProxyError("its addresses are of no known kind, or not all there")
    size = start + length
    if len(data) < size:
        return None
    if local or family not in _TCP:
        return Introduction(None, size)
    width = _TCP[family]
    source = ip_address(data[start : start + width])
    (port,) = struct.unpack_from("!H", data, start + 2 * width)
    return Introduction((_text(source), port), size)


def _text(address: IPv4Address | IPv6Address) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(ip_address(mapped or address))
