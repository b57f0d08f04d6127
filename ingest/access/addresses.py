"""Networks, and which client a proxy says that a request is from. PURE.

A proxy appends the address that it saw to the field. So the field is read from its end: what a
trusted proxy has written is believed, what stands before that came from somebody else.

Source: RFC 7239 sections 4 to 6 (Forwarded), RFC 4632 section 3.1 (CIDR).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

#: Proxies in a row that are looked at; what stands before them is not believed.
HOPS_MAX = 32
_BRACKETED = re.compile(r"\[([^\]]+)\](?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_WITH_PORT = re.compile(r"([0-9.]+):(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)")
#: forwarded-pair = token "=" value, value = token / quoted-string
_PAIR = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s",;=]*)')
_ELEMENTS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')


@lru_cache(4096)
def parsed(text: str) -> Address | None:
    """An address; None where it is none. An IPv4 address within an IPv6 one is taken out."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Networks:
    """A set of networks.

    Args:
        networks: all of them.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    @classmethod
    def parse(cls, text: str) -> Networks:
        """Read a list such as `10.0.0.0/8,192.0.2.7,2001:db8::/32`.

        Raises:
            ValueError: an entry is no network.
        """
        networks = []
        for entry in text.split(","):
            try:
                networks.append(ip_network(entry.strip()))
            except ValueError as error:
                raise ValueError(f"takes addresses and networks: {error}") from None
        return cls(networks)

    def __contains__(self, text: str) -> bool:
        address = parsed(text)
        return address is not None and any(address in network for network in self._networks)


class Forwards:
    """Reads from a field which client a proxy speaks for.

    Args:
        trusted: networks of proxies whose word is taken.
        field: `x-forwarded-for` or `forwarded`; the other one is never looked at, because a
            proxy that writes one hands on what clients write into the other.
    """

    def __init__(self, trusted: Networks, field: str) -> None:
        self.trusted = trusted
        self.field = field

    def client(self, address: str, headers: Mapping[str, str]) -> str:
        """The address of who sent a request: the last one that no trusted proxy has.

        Args:
            address: of the trusted proxy that the connection is from.
            headers: the request's.
        """
        value = headers.get(self.field)
        if value is None:
            return address
        hops = _forwarded(value) if self.field == "forwarded" else value.split(",")
        for hop in hops[: -HOPS_MAX - 1 : -1]:
            node = _node(hop.strip(" \t"))
            if node is None:
                break  # who wrote that is the last one known
            address = node
            if node not in self.trusted:
                break
        return address


def _forwarded(value: str) -> list[str]:
    """The `for` of each element; empty where one has none, or more than one."""
    nodes = []
    for element in _ELEMENTS.findall(value):
        found = [text for name, text in _PAIR.findall(element) if name.lower() == "for"]
        nodes.append(found[0].strip('"') if len(found) == 1 else "")
    return nodes


def _node(text: str) -> str | None:
    """The address in a node such as `192.0.2.7`, `192.0.2.7:80` or `[2001:db8::1]:80`."""
    found = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    address = parsed(found[1] if found else text)
    return None if address is None else str(address)
