"""Makes of certificates and key what TLS is spoken with, or says what is wrong with them.

Nothing here lives longer than a call: a change of the files makes another context. This module must
not know sockets or connections.

Source: RFC 9325 (recommendations for TLS), RFC 9112 section 9.7, RFC 7301 (ALPN).
"""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ingest.tls.validity import Validity, validities

if TYPE_CHECKING:
    from ingest.settings import Settings

OFF = "off"
PROTOCOLS = ["http/1.1"]
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CLIENTS = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
#: Mode bits of a key file that let people read it who have nothing to do with it.
READABLE_BY_ALL = 0o004
#: A certificate that ends within this time is warned of at start.
SOON_SECONDS = 14 * 86400
#: No file of certificates is that long.
FILE_MAX_BYTES = 4 << 20


class TlsError(Exception):
    """TLS cannot be spoken with these files and settings.

    Args:
        problems: what is wrong, each with the file or setting.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class Made(NamedTuple):
    """What was made of the files.

    Attributes:
        context: to speak TLS with.
        validities: `server`: of the gateway's own certificate, of its chain what begins last and
            ends first; `client_ca`: the same of those that clients' certificates are judged by.
        warnings: what an operator should know.
    """

    context: ssl.SSLContext
    validities: dict[str, Validity]
    warnings: list[str]


def make(settings: Settings) -> Made:
    """Read the files and make a context of them.

    Raises:
        TlsError: they cannot be used.
    """
    certificate, key, ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    pem = _text(certificate)
    _text(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.tls_min_version]
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_alpn_protocols(PROTOCOLS)
    try:
        context.set_ciphers(settings.tls_ciphers)
    except ssl.SSLError:
        raise TlsError(
            [f"tls_ciphers: no cipher of TLS 1.2 is in {settings.tls_ciphers}"]
        ) from None
    found = {"server": _times(certificate, pem)}
    _judge(certificate, found["server"])
    _load(context, certificate, key)
    context.verify_mode = CLIENTS[settings.tls_client_auth]
    if ca != OFF:
        found["client_ca"] = _times(ca, _text(ca))
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise TlsError([f"{ca}: a certificate in it is damaged"]) from None
    return Made(context, found, _warnings(settings, found))


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise TlsError([f"{path}: {error.strerror}"]) from None
    if len(data) > FILE_MAX_BYTES:
        raise TlsError([f"{path}: it is too large for a file of certificates"])
    return data.decode("latin-1")


def _times(path: str, pem: str) -> Validity:
    try:
        found = validities(pem)
    except ValueError as error:
        raise TlsError([f"{path}: a certificate in it is none: {error}"]) from None
    if not found:
        raise TlsError([f"{path}: no certificate in PEM is in it"])
    return Validity(max(one.begins for one in found), min(one.ends for one in found))


def _judge(path: str, whole: Validity) -> None:
    now = time.time()
    if whole.ends <= now:
        raise TlsError([f"{path}: it has expired on {_date(whole.ends)}"])
    if whole.begins > now:
        raise TlsError([f"{path}: it is not valid before {_date(whole.begins)}"])


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"{key}: it is not the key of the certificate in {certificate}"
        elif error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            message = f"{certificate}: its key or signature is too weak to be trusted today"
        else:
            message = f"{key}: no private key in PEM is in it, or {certificate} is damaged"
        raise TlsError([message]) from None
    except OSError as error:
        raise TlsError([f"{key}: {error.strerror}"]) from None
    except _Locked:
        raise TlsError(
            [f"{key}: it is locked with a passphrase, which nobody is here to type"]
        ) from None


class _Locked(Exception):
    """OpenSSL asks for a passphrase."""


def _no_password() -> NoReturn:
    raise _Locked


def _warnings(settings: Settings, found: dict[str, Validity]) -> list[str]:
    warnings = []
    mode = stat.S_IMODE(os.stat(settings.tls_key).st_mode)
    if mode & READABLE_BY_ALL:
        key = settings.tls_key
        warnings.append(
            f"{key}: everybody here may read the key (mode {mode:04o}); chmod o-r {key}"
        )
    for path, name in ((settings.tls_cert, "server"), (settings.tls_client_ca, "client_ca")):
        if name in found and found[name].ends - time.time() < SOON_SECONDS:
            warnings.append(f"{path}: a certificate in it expires on {_date(found[name].ends)}")
    return warnings


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
