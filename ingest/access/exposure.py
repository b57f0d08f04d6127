"""Whether the whole network may send and read. PURE.

Source: RFC 1122 section 3.2.1.3 and RFC 4291 section 2.5.3 (loopback).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.settings import Settings


def exposed(host: str, settings: Settings) -> str | None:
    """What to warn of when a gateway listens beyond its own machine and takes all that comes.

    Args:
        host: address that the listening socket is bound to.
        settings: whether there is a keys file, or a list of those who may come in.

    Returns:
        a sentence; None where there is nothing to warn of.
    """
    certified = settings.tls_client_auth == "required"
    if settings.keys_file != "off" or settings.allow_addresses != "any" or certified:
        return None
    try:
        if ip_address(host).is_loopback:
            return None
    except ValueError:
        pass  # not an address of the Internet
    return (
        f"anybody who reaches {host or 'this machine'} may send events and read the journal: name "
        "a keys_file, or in allow_addresses those who may, or let only a proxy that checks them "
        "reach it; see docs/access.md"
    )
