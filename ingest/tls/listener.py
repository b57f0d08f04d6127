"""What makes the main listener speak TLS: its certificates, read anew when they change.

Connections that are there keep what they began with; later ones begin with the new files. Files
that cannot be used change nothing. This module must not know HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent

from ingest.logs import get_logger
from ingest.stamps import stamp
from ingest.tls.connection import TlsConnection
from ingest.tls.context import OFF, TlsError, make
from ingest.tls.handshakes import Handshakes

if TYPE_CHECKING:
    import ssl

    from ingest.metrics import Metrics
    from ingest.peer import Peer
    from ingest.server import Server
    from ingest.settings import Settings

log = get_logger(__name__)

#: How often it is looked whether a file has changed.
LOOK_SECONDS = 1.0


class Tls:
    """Certificates and handshakes of one listener.

    Args:
        settings: where the files are, and what is spoken.
        metrics: counts handshakes and reloads, and tells when the certificate expires.

    Attributes:
        context: for the next connection.
        handshakes: those under way.

    Raises:
        TlsError: the files cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._files = [
            name
            for name in (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            if name != OFF
        ]
        self._metrics = metrics
        self._stamp = self._stamps()
        self.context: ssl.SSLContext
        self._take()
        self.handshakes = Handshakes(settings.tls_handshakes_max, metrics)
        self._watcher: gevent.Greenlet | None = None

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> Tls | None:
        """One with these settings; None where plain HTTP is spoken."""
        return None if settings.tls_cert == OFF else cls(settings, metrics)

    def connect(self, server: Server, sock: Any, address: Any, peer: Peer) -> TlsConnection:
        """A connection that was accepted."""
        return TlsConnection(server, sock, address, peer, self)

    # -- changes ---------------------------------------------------------------------------

    def start(self) -> None:
        """Look after the files from now on."""
        self._watcher = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher = None

    def problems(self) -> list[str]:
        """What is wrong with the files as they are now."""
        try:
            make(self._settings)
        except TlsError as error:
            return error.problems
        return []

    def reload(self) -> list[str]:
        """Read the files anew; bad ones change nothing.

        Returns:
            what is wrong with them.
        """
        self._stamp = self._stamps()  # said once for each state of the files
        try:
            self._take()
        except TlsError as error:
            self._metrics.tls_reloads.cell("failed").value += 1
            log.error("tls.reload_failed", problems=error.problems)
            return error.problems
        self._metrics.tls_reloads.cell("done").value += 1
        log.info("tls.reloaded", file=self._settings.tls_cert)
        return []

    def _take(self) -> None:
        made = make(self._settings)
        self.context = made.context
        expiry = self._metrics.tls_certificate_expiry_timestamp_seconds
        for name, validity in made.validities.items():
            expiry.cell(name).value = validity.ends
        for warning in made.warnings:
            log.warning("tls.certificate", reason=warning)

    def _stamps(self) -> list[Any]:
        """What tells one state of the files from another."""
        return [stamp(name) for name in self._files]

    def _watch(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            if self._stamps() != self._stamp:
                self.reload()
