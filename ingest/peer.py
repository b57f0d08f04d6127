"""What is known of the other side of a connection, before it has sent a request.

This module must not know sockets or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.access.addresses import Forwards


class Peer:
    """The other side.

    Attributes:
        address, port: of the client, as far as the connection tells; behind a proxy that
            speaks the PROXY protocol those that it has said.
        subject: of the certificate it has shown, as RFC 4514 writes it; None without one.
        alternatives: names that the certificate has beside it: `URI:…`, `DNS:…`, `email:…`.
        forwards: reads for whom it speaks; None unless it is a trusted proxy.
        admin: it came to the listener for operators.
        tls: what it sends is encrypted.
        allowed: whether its address may send and read; a trusted proxy may come in even if
            its own may not.
    """

    __slots__ = (
        "address", "admin", "allowed", "alternatives", "forwards", "port", "subject", "tls",
    )  # fmt: skip

    def __init__(self, address: str, port: int, forwards: Forwards | None = None) -> None:
        self.address = address
        self.port = port
        self.forwards = forwards
        self.subject: str | None = None
        self.alternatives: tuple[str, ...] = ()
        self.admin = False
        self.tls = False
        self.allowed = True

    @property
    def proxied(self) -> bool:
        """Whether it is a trusted proxy, which says in each request whom it speaks for."""
        return self.forwards is not None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What may change the judgement on a request; equal for those who are judged alike."""
        own = (self.address, self.allowed) if self.forwards is not None else None
        return self.subject, self.alternatives, self.admin, own

    def client(self, headers: Mapping[str, str]) -> str:
        """The address that a request is from.

        Args:
            headers: the request's.
        """
        if self.forwards is None:
            return self.address
        return self.forwards.client(self.address, headers)


def client_address(connection: Any, headers: Mapping[str, str]) -> tuple[Any, ...]:
    """Address and port that a request is from; port 0 where a proxy has not said it.

    Args:
        connection: it came on.
        headers: the request's.
    """
    peer = connection.peer
    if peer.forwards is None:
        found: tuple[Any, ...] = connection.address
        return found
    client = peer.client(headers)
    return connection.address if client == peer.address else (client, 0)


#: Of whom nothing is known.
NOBODY_KNOWN = Peer("", 0)
PLAIN = NOBODY_KNOWN.kind
