"""From when until when a certificate is good. PURE: no files, no clock.

The standard library does not tell it of one's own certificate, so it is read from its DER.

Source: RFC 5280 section 4.1 (the structure and its times), X.690 section 8.1 (lengths).
"""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import datetime, timezone
from typing import NamedTuple

_PEM = re.compile(
    "-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----\r?\n?(.+?)-----END [A-Z0-9 ]*CERTIFICATE-----",
    re.DOTALL,
)
SEQUENCE, VERSION, UTC_TIME = 0x30, 0xA0, 0x17


class Validity(NamedTuple):
    """Both in seconds since 1970."""

    begins: float
    ends: float


def validities(pem: str) -> list[Validity]:
    """Of each certificate of a PEM file, the first being the one's own.

    Raises:
        ValueError: one is none.
    """
    return [_validity(b64decode("".join(found[1].split()))) for found in _PEM.finditer(pem)]


def _validity(der: bytes) -> Validity:
    _, start, _ = _element(der, 0)  # Certificate
    _, position, _ = _element(der, start)  # TBSCertificate
    tag, _, end = _element(der, position)
    if tag == VERSION:
        position = end
    for _ in range(3):  # serialNumber, signature, issuer
        _, _, position = _element(der, position)
    tag, position, _ = _element(der, position)
    if tag != SEQUENCE:
        raise ValueError("it has no validity")
    begins, position = _time(der, position)
    ends, _ = _time(der, position)
    return Validity(begins, ends)


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """Tag, where the content begins, and where it ends."""
    if len(der) < position + 2:
        raise ValueError("it is cut off")
    tag, length = der[position], der[position + 1]
    position += 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[position : position + count], "big")
        position += count
    if position + length > len(der):
        raise ValueError("it is cut off")
    return tag, position, position + length


def _time(der: bytes, position: int) -> tuple[float, int]:
    tag, start, end = _element(der, position)
    text = der[start:end].decode("ascii")
    if tag == UTC_TIME:  # two digits of the year: 1950 to 2049 (RFC 5280 section 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    found = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    return found.timestamp(), end
