"""Judges connections by where they come from, and requests by whom a proxy speaks for.

This module must not know sockets, keys or event types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.access.addresses import Forwards, Networks, parsed
from ingest.errors import IngestError
from ingest.peer import Peer

if TYPE_CHECKING:
    from ingest.http.head import Head
    from ingest.metrics import Metrics
    from ingest.settings import Settings

ANY, NONE = "any", "none"
#: Whoever may connect may ask these: a load balancer asks them for itself.
_PROBES = frozenset({"/health", "/livez", "/readyz", "/startupz"})


class Door:
    """Knows which addresses may come in, and which of them are proxies.

    Args:
        settings: the lists.
        metrics: where refusals are counted.

    Attributes:
        introduces: each connection begins with a header of the PROXY protocol.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.introduces = settings.proxy_protocol == "required"
        self._trusted = _networks(settings.trusted_proxies, NONE)
        self._allowed = _networks(settings.allow_addresses, ANY)
        self._forwards: Forwards | None = None
        if self._trusted is not None and settings.forwarded_field != "off":
            self._forwards = Forwards(self._trusted, settings.forwarded_field)
        self._refused = metrics.access_refused.cell("address")

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> Door | None:
        """One with these settings; None where everybody is treated alike."""
        if settings.trusted_proxies == NONE and settings.allow_addresses == ANY:
            return None
        return cls(settings, metrics)

    def peer(self, address: Any) -> Peer:
        """What is known of a client by its address.

        Args:
            address: as `accept` gave it.
        """
        host = _plain(address[0])
        forwards = self._forwards
        if forwards is not None and host not in forwards.trusted:
            forwards = None
        peer = Peer(host, address[1], forwards)
        peer.allowed = self._allowed is None or host in self._allowed
        return peer

    def opens(self, address: Any) -> str | None:
        """Whether a connection may be accepted.

        Returns:
            the limit that it is refused by; None for a welcome.
        """
        if self.introduces:
            trusted = self._trusted is not None and _plain(address[0]) in self._trusted
            return None if trusted else "proxy"
        return self.turns_away(self.peer(address))

    def turns_away(self, peer: Peer) -> str | None:
        """The same for a client that is known, from its connection or what a proxy says."""
        return None if peer.allowed or peer.forwards is not None else "not_allowed"

    def judge(self, peer: Peer, head: Head) -> None:
        """See that the client whom a trusted proxy speaks for may come in.

        Raises:
            IngestError: forbidden.
        """
        if self._allowed is None or head.path in _PROBES:
            return
        client = peer.client(head.headers)
        if not (peer.allowed if client == peer.address else client in self._allowed):
            self._refused.value += 1
            raise IngestError("forbidden", "Your address may not send or read here.")


def _networks(text: str, nothing: str) -> Networks | None:
    return None if text == nothing else Networks.parse(text)


def _plain(host: str) -> str:
    """An address as it is compared and shown: IPv4 clients of an IPv6 socket have one of IPv4."""
    address = parsed(host)
    return host if address is None else str(address)
