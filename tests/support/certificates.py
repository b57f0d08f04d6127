"""A CA of the tests' own, certificates that it signs, and clients that speak TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme

from tests.support.gateway import Client, Gateway

HOST = "gateway.test"
NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


class Authority:
    """A CA, with its own certificate in a file.

    Args:
        directory: where files go.
        name: of its file.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._ca = trustme.CA(organization_name=f"ingest tests {name}")
        self._directory = directory
        self.file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *names: str, **options: Any) -> tuple[Path, Path]:
        """Sign a certificate; returns its file and its key's, which are replaced.

        Args:
            name: of the files.
            names: host names or email addresses that it is for.
            options: as for trustme's `issue_cert`.
        """
        made = self._ca.issue_cert(*names, **options)
        certificate = self._directory / f"{name}.pem"
        key = self._directory / f"{name}.key"
        for path in (certificate, key):
            path.unlink(missing_ok=True)
        key.touch(0o600)
        made.private_key_pem.write_to_path(str(key))
        for number, blob in enumerate(made.cert_chain_pems):
            blob.write_to_path(str(certificate), append=number > 0)
        return certificate, key

    def expired(self, name: str, *names: str) -> tuple[Path, Path]:
        """One that was good until yesterday."""
        return self.issue(name, *names, not_before=NOW - 3 * DAY, not_after=NOW - DAY)

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What a client speaks that believes this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.file)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


class EncryptedGateway(Gateway):
    """A gateway that speaks TLS, asked by clients that believe its CA.

    Args:
        directory: where its files are.
        flags: beside those of its certificate.
        optional: keywords of a gateway.
    """

    def __init__(self, directory: Path, *flags: str, **optional: Any) -> None:
        self.authority = Authority(directory)
        self.certificate, self.key = self.authority.issue("server", HOST)
        own = ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))
        super().__init__(directory / "data", *own, *flags, **optional)
        #: what clients speak unless the test says otherwise
        self.context = self.authority.client()

    def connect(self, timeout: float = 30, context: ssl.SSLContext | None = None) -> Client:
        """A keep-alive connection; its handshake has ended for the client."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout)
        try:
            return Client((context or self.context).wrap_socket(sock, server_hostname=HOST))
        except BaseException:
            sock.close()
            raise

    def handshakes(self, result: str) -> float:
        return self.metric(f'ingest_tls_handshakes_total{{result="{result}"}}')


#: Makes gateways with further flags.
Serve = Callable[..., EncryptedGateway]
