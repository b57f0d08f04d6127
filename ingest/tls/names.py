"""Who a certificate says that it is for, as text. PURE: no files, no sockets.

Source: RFC 4514 (distinguished names as strings), RFC 5280 section 4.2.1.6 (alternative names).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What the standard library calls an attribute, and what RFC 4514 section 3 does. Others keep
#: their name, as `openssl x509 -nameopt RFC2253` shows them.
SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
#: Kinds of alternative names that can stand for somebody.
ALTERNATIVES = ("URI", "DNS", "email")
#: Longest name and most of them that are looked at; what a CA signs is not ours to choose.
NAME_MAX = 1024
NAMES_MAX = 32


def names_of(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The subject, then its alternative names.

    Args:
        certificate: as `getpeercert()` of the standard library gives it.

    Returns:
        the subject as RFC 4514 writes it, `""` for none, then `URI:…`, `DNS:…` and `email:…`.
    """
    names = [subject(certificate.get("subject", ()))]
    for kind, value in certificate.get("subjectAltName", ())[:NAMES_MAX]:
        if kind in ALTERNATIVES and len(value) <= NAME_MAX:
            names.append(f"{kind}:{value}")
    return tuple(names)


def subject(parts: Any) -> str:
    """A distinguished name by RFC 4514: the last part first.

    Args:
        parts: of parts, each of pairs of attribute and value.
    """
    return ",".join(
        "+".join(
            f"{SHORT.get(attribute, attribute)}={_escaped(value)}" for attribute, value in part
        )
        for part in reversed(parts)
    )


def _escaped(value: str) -> str:
    escaped = "".join(_mark(mark) for mark in value)
    if value[:1] in ("#", " "):
        escaped = "\\" + escaped
    if len(value) > 1 and value[-1] == " ":
        escaped = escaped[:-1] + "\\ "
    return escaped


def _mark(mark: str) -> str:
    if mark in '"+,;<>\\':
        return "\\" + mark
    return f"\\{ord(mark):02x}" if mark < " " or mark == "\x7f" else mark
