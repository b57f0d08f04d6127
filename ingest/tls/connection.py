"""A connection that begins with a handshake, and is encrypted from then on.

All else is that of a plain one, which therefore knows nothing of TLS and pays nothing for it.
This module must not know HTTP beyond what a peer is told who does not speak TLS.

Source: RFC 8446, RFC 5246 section 7.4 (a client has its certificate sent within the handshake).
"""

from __future__ import annotations

import os
import ssl
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import greenlet

from ingest.connection import Connection
from ingest.connection_limits import Expired, Phase, Wait
from ingest.errors import IngestError
from ingest.logs import get_logger
from ingest.tls.handshakes import Crowded
from ingest.tls.layer import RECORD_BYTES, SEND_BYTES, TlsSocket
from ingest.tls.names import names_of

if TYPE_CHECKING:
    from ingest.peer import Peer
    from ingest.server import Server
    from ingest.tls.listener import Tls

log = get_logger(__name__)

#: Why OpenSSL fails a handshake, as the metric has it.
_REASONS = {
    "UNSUPPORTED_PROTOCOL": "protocol",
    "VERSION_TOO_LOW": "protocol",
    "WRONG_VERSION_NUMBER": "protocol",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_GROUPS": "cipher",
    "NO_SHARED_GROUPS": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_certificate",
}
#: What begins a request of HTTP, and no record of TLS.
_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class TlsConnection(Connection):
    """A greenlet that serves one encrypted socket.

    Args:
        server, sock, address, peer: as of a plain one.
        tls: certificates, and the other handshakes.
    """

    __slots__ = ("_early", "_tls")

    sock: Any

    def __init__(self, server: Server, sock: Any, address: Any, peer: Peer, tls: Tls) -> None:
        self._tls = tls
        #: what came behind a proxy's header
        self._early = b""
        encrypting: Any = TlsSocket(sock)
        super().__init__(server, encrypting, address, peer)

    def _serve(self) -> str:
        self.phase = Phase.HANDSHAKE
        handshakes = self._tls.handshakes
        result = "error"
        try:
            handshakes.begin(self)
            result = self._shake_hands()
        except Expired:
            result = "timeout"
            raise
        except Crowded:
            result = "crowded"
            raise
        except OSError:
            result = "client"
            raise
        except greenlet.GreenletExit:
            result = "drain"
            raise
        finally:
            handshakes.end(self, result)
        if result == "done":
            return super()._serve()
        if result == "plain_http":
            error = IngestError("bad_request", "This port speaks TLS: use https.")
            self._server.answer_error(self, error)
        self._wait_until_quiet()
        return self._end("protocol")

    # -- the handshake ------------------------------------------------------------------

    def _shake_hands(self) -> str:
        """Shake hands; returns how that ended.

        Raises:
            OSError: the peer has gone.
        """
        sock, handshakes = self.sock, self._tls.handshakes
        data = self._hear()
        if data[0] in _LETTERS:
            return "plain_http"
        sock.begin(self._tls.context)
        while True:
            handshakes.heard(self)
            before = perf_counter()
            try:
                done = sock.shake(data)
            except ssl.SSLError as error:
                log.debug("tls.handshake_failed", error=str(error), address=self.peer.address)
                return _result_of(error)
            finally:
                handshakes.took(perf_counter() - before)
                flight = sock.flight()
                if flight:
                    self.send(flight)
            if done:
                break
            data = self._hear()
        self._wait_until_quiet()
        self._begin_to_encrypt()
        return "done"

    def _hear(self) -> bytes:
        """What the peer says next.

        Raises:
            ConnectionResetError: nothing.
        """
        early, self._early = self._early, b""
        if early:
            return early
        self._tls.handshakes.listens(self)
        while True:
            try:
                data: bytes = self.sock.recv(RECORD_BYTES)
            except BlockingIOError:
                self._switch_to_hub()
                continue
            if not data:
                raise ConnectionResetError("the peer closed within the handshake")
            return data

    def wait_for_turn(self) -> None:
        """Let the event loop serve others before the next step."""
        self._park(Wait.TURN)

    def _begin_to_encrypt(self) -> None:
        sock, peer = self.sock, self.peer
        rest = sock.secure()
        peer.tls = True
        certificate = sock.certificate()
        if certificate:
            names = names_of(certificate)
            peer.subject, peer.alternatives = names[0], names[1:]
        self.belongs_to(peer, self.address)
        if rest:
            self.parser.feed(rest)
        self._receive = sock.recv
        self.phase = Phase.IDLE
        self.since = monotonic()

    # -- where it differs from a plain one ------------------------------------------------

    def _behind_introduction(self, data: bytes) -> None:
        self._early = data

    def send_file(self, descriptor: int, position: int, size: int) -> int:
        """As of a plain one; what is sent comes through here, to be encrypted."""
        data = os.pread(descriptor, min(size, SEND_BYTES), position)
        return self.sock.send(data) if data else 0

    def overdue(self, now: float, server: Server) -> str | None:
        """As of a plain one; the time limit of a handshake runs from the first moment."""
        if self.phase is Phase.HANDSHAKE or not self.greenlet:
            limit = server.settings.tls_handshake_timeout_seconds
            return "handshake" if now - self.since > limit else None
        return super().overdue(now, server)


def _result_of(error: ssl.SSLError) -> str:
    """Why a handshake failed, as the metric has it."""
    reason = error.reason or ""
    if "_ALERT_" in reason or reason.startswith(("TLSV1_", "SSLV3_")):
        return "client"  # it refuses our certificate, or has another reason of its own
    return _REASONS.get(reason, "error")
