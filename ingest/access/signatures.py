"""What webhooks are signed with, and whether it is right. PURE: no clock, no files.

Every scheme is an HMAC with SHA-256 over the body as it was sent; two of them sign a time with
it. Digests are compared in constant time, all of them against all secrets.

Source: GitHub, "Validating webhook deliveries"; Stripe, "Verify webhook signatures manually";
Standard Webhooks 1.0.0, "Signature scheme".
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from binascii import Error
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Signatures looked at in a request; a sender has as many as it has secrets.
SIGNATURES_MAX = 8
_HEX = re.compile(r"[0-9a-f]{64}")
_SECONDS = re.compile(r"[1-9][0-9]{0,11}")
_MESSAGE_ID = re.compile(r"[!-~]{1,256}")
_PREFIX = "whsec_"
#: The field that a request must have.
FIELDS = {
    "github": "x-hub-signature-256",
    "stripe": "stripe-signature",
    "standard": "webhook-signature",
}


class Signed(NamedTuple):
    """What a request's fields say.

    Attributes:
        digests: of which one must be right.
        lead: what is signed before the body.
        time: seconds since 1970 at which it was signed; None where that is not said.
    """

    digests: tuple[bytes, ...]
    lead: bytes
    time: int | None


def read(scheme: str, headers: Mapping[str, str]) -> Signed | None:
    """The signature in the fields of a request.

    Args:
        scheme: `github`, `stripe` or `standard`.
        headers: names in lower case.

    Returns:
        None: there is none that could be one.
    """
    signed = _READERS[scheme](headers)
    return signed if signed is not None and signed.digests else None


def key_of(scheme: str, secret: str) -> bytes:
    """The HMAC key that a secret stands for.

    Raises:
        ValueError: it can be none.
    """
    if not secret:
        raise ValueError("the secret is empty")
    if scheme != "standard":
        return secret.encode()
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (Error, ValueError):
        raise ValueError("the secret is not base64, with or without whsec_") from None
    if not key:
        raise ValueError("the secret is empty")
    return key


def matching(signed: Signed, body: bytes, keys: Sequence[bytes]) -> bytes | None:
    """The right digest, if one of those given is; the time it takes does not say which.

    Args:
        body: as it was sent.
        keys: of which any may have been used.
    """
    right = None
    for key in keys:
        mac = hmac.new(key, signed.lead, "sha256")
        mac.update(body)
        digest = mac.digest()
        for given in signed.digests:
            if hmac.compare_digest(digest, given):
                right = digest
    return right


def _github(headers: Mapping[str, str]) -> Signed | None:
    value = headers.get(FIELDS["github"], "")
    scheme, _, digest = value.partition("=")
    if scheme != "sha256" or not _HEX.fullmatch(digest):
        return None
    return Signed((bytes.fromhex(digest),), b"", None)


def _stripe(headers: Mapping[str, str]) -> Signed | None:
    times, digests = [], []
    for item in headers.get(FIELDS["stripe"], "").split(","):
        name, _, value = item.strip(" ").partition("=")
        if name == "t":
            times.append(value)
        elif name == "v1" and _HEX.fullmatch(value):
            digests.append(bytes.fromhex(value))
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]):
        return None
    return Signed(tuple(digests[:SIGNATURES_MAX]), f"{times[0]}.".encode(), int(times[0]))


def _standard(headers: Mapping[str, str]) -> Signed | None:
    message, time = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _MESSAGE_ID.fullmatch(message) or not _SECONDS.fullmatch(time):
        return None
    digests = []
    for item in headers.get(FIELDS["standard"], "").split(" "):
        version, _, text = item.partition(",")
        try:
            digest = b64decode(text, validate=True) if version == "v1" else b""
        except (Error, ValueError):
            continue
        if len(digest) == 32:
            digests.append(digest)
    return Signed(tuple(digests[:SIGNATURES_MAX]), f"{message}.{time}.".encode(), int(time))


_READERS = {"github": _github, "stripe": _stripe, "standard": _standard}
