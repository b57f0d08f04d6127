"""A socket that encrypts, with the few methods that a connection uses of a plain one.

Until the handshake has ended it *is* the plain one: what is received and sent goes through as it
is, so that a proxy's header can be read before it, and who speaks plain HTTP can be told so.

OpenSSL works on memory here and never on the socket. So it is always known who waits for what:

1. `recv` decrypts all that it took from the kernel before it returns. Nothing that was decrypted
   stays behind, so the kernel's "readable" is the whole truth, as with a plain socket.
2. `send` says that bytes are sent when the kernel has what they were encrypted to. Until then they
   are owed: the caller brings them again, as with a plain socket, and they are not encrypted twice.
3. A peer that ends its side within TLS (close_notify) has ended it for the kernel, too.

OpenSSL's memory is as large ever after as what it held at a time, so it is given a record's worth
at a time, in both directions: a connection that is idle after much has gone through it must not
keep more than another.

This module must not know HTTP, nor wait.

Source: RFC 8446 section 6.1 (close_notify, half-close), SSL_read(3), SSL_write(3).
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

#: Bytes encrypted between two sends; a record holds 16 KiB of them.
SEND_BYTES = 65536
#: Longest plaintext of a record (RFC 8446 section 5.1).
RECORD_BYTES = 16384
#: Most ciphertext kept for a peer that takes nothing: a piece with its frames, and what TLS itself
#: has to say (alerts, new keys).
REST_MAX_BYTES = 2 * SEND_BYTES


class TlsSocket:
    """One connection's socket.

    Args:
        sock: the raw non-blocking socket.

    Attributes:
        recv, send, fileno, getsockname: as of a socket.
    """

    __slots__ = (
        "_ends", "_incoming", "_object", "_outgoing", "_owed", "_rest", "_secured", "_sock",
        "fileno", "getsockname", "recv", "send",
    )  # fmt: skip

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._object: Any = None
        self._incoming: Any = None
        self._outgoing: Any = None
        #: ciphertext that the kernel has not taken, and the plaintext bytes it stands for
        self._rest = b""
        self._owed = 0
        self._secured = False
        #: the peer is to see a regular end
        self._ends = True
        self.fileno = sock.fileno
        self.getsockname = sock.getsockname
        self.recv: Any = sock.recv
        self.send: Any = sock.send

    # -- the handshake ------------------------------------------------------------------

    def begin(self, context: ssl.SSLContext) -> None:
        """Speak TLS; not before somebody does, because it takes memory.

        Args:
            context: certificates and settings, of now: later ones are for later connections.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake(self, received: bytes) -> bool:
        """Take a step of the handshake.

        Args:
            received: what came from the peer.

        Returns:
            whether it has ended. Send `flight()` in any case.

        Raises:
            ssl.SSLError: it has failed.
        """
        self._incoming.write(received)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def flight(self) -> bytes:
        """What TLS itself has to say to the peer."""
        return self._outgoing.read()

    def secure(self) -> bytes:
        """The handshake has ended, and all of `flight` has been sent: from now on it encrypts.

        Returns:
            what came behind the handshake, decrypted.

        Raises:
            OSError: that is no TLS.
        """
        self._secured = True
        self.recv = self._receive
        self.send = self._send
        return self._decrypted(b"")

    def certificate(self) -> Any:
        """The peer's certificate, which was verified; None without one."""
        return self._object.getpeercert()

    # -- receiving ----------------------------------------------------------------------

    def _receive(self, size: int, flags: int = 0) -> bytes:
        """As recv(2), with up to `size` bytes.

        Args:
            flags: MSG_PEEK tells whether something came; what comes back is not decrypted.

        Raises:
            BlockingIOError: nothing, or nothing whole, has come.
            OSError: the connection is broken.
        """
        data: bytes = self._sock.recv(size, flags)
        if flags or not data:
            return data
        try:
            plain = self._decrypted(data)
        finally:
            if self._outgoing.pending:
                self._answer_for_itself()
        if not plain:
            raise BlockingIOError
        return plain

    def _decrypted(self, data: bytes) -> bytes:
        """All that can be decrypted now that this has come; `b""` for nothing yet."""
        pieces: list[bytes] = []
        if len(data) <= RECORD_BYTES:
            self._incoming.write(data)
            self._decrypt(pieces)
        else:
            view = memoryview(data)
            for at in range(0, len(data), RECORD_BYTES):
                self._incoming.write(view[at : at + RECORD_BYTES])
                self._decrypt(pieces)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _decrypt(self, pieces: list[bytes]) -> None:
        incoming, read = self._incoming, self._object.read
        try:
            while incoming.pending:
                piece = read(RECORD_BYTES)
                if not piece:  # close_notify: what is behind it is nobody's
                    self._sock.shutdown(socket.SHUT_RD)  # so that the next recv says so
                    incoming.read()
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass

    def _answer_for_itself(self) -> None:
        """Send an alert, or new keys; whether they arrive is the peer's own affair."""
        self._push(self._outgoing.read())
        if len(self._rest) > REST_MAX_BYTES:
            raise ConnectionResetError("the peer takes nothing, and asks for more")

    # -- sending ------------------------------------------------------------------------

    def _send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """As send(2); what was not sent is to be the beginning of the next call's.

        Args:
            flags: have no meaning here.

        Raises:
            BlockingIOError: nothing could be sent.
            OSError: the connection is broken.
        """
        if self._rest and not self._push(b""):
            raise BlockingIOError
        taken, self._owed = self._owed, 0
        total = len(data)
        if taken > total:
            raise ConnectionResetError("something else is sent than before")
        view, write, read = memoryview(data), self._object.write, self._outgoing.read
        while taken < total:
            done = write(view[taken : taken + RECORD_BYTES])
            encrypted = read()
            most = min(SEND_BYTES, total - taken)
            while done < most:
                done += write(view[taken + done : taken + min(done + RECORD_BYTES, most)])
                encrypted += read()
            if not self._push(encrypted):
                self._owed = done
                if not taken:
                    raise BlockingIOError
                break
            taken += done
        return taken

    def _push(self, data: bytes) -> bool:
        """Give the kernel what is encrypted. False: it has not taken all of it."""
        if self._rest:
            data = self._rest + data
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        self._rest = data[sent:]
        return not self._rest

    # -- ending -------------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """End our side; what still comes is not decrypted any more."""
        self._say_goodbye()
        self.recv = self._sock.recv
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """As of a socket; one that is to be reset has no regular end."""
        if option == socket.SO_LINGER:
            self._ends = False
        self._sock.setsockopt(level, option, value)

    def close(self) -> None:
        """Close it; where the peer has all that was sent, with a regular end."""
        self._say_goodbye()
        self._sock.close()
        # Or it would refer to itself, and its memory wait for the garbage collector.
        self.recv, self.send = self._sock.recv, self._sock.send
        self._object = self._incoming = self._outgoing = None
        self._rest = b""
        self._secured = False

    def _say_goodbye(self) -> None:
        if not self._secured or not self._ends or self._rest:
            return
        self._ends = False
        try:
            self._object.unwrap()
        except OSError:
            pass  # it waits for the peer's goodbye, which we do not
        try:
            self._push(self._outgoing.read())
        except OSError:
            pass  # the peer has gone first
