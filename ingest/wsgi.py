"""WSGI applications under a prefix: each request in a greenlet of its own, within the pool.

    connection's greenlet                      application's greenlet
    all earlier answers have left
    takes a slot of the pool ────────────────▶ app(environ, start_response)
    waits, and the server's time limits          reads and sends through the channel
    find it here                                 close() of what the application returned
    counts, reads what is left of the  ◀──────── gives the slot back
    body, and goes on with the next request

The application's greenlet is never interrupted from outside while it is in the
application's own code: if the connection ends, its next read or send fails. Only at the end
of the drain time is it killed, as a handler is.

This module must not know the journal or event types.

Source: PEP 3333; docs/decisions/0002-own-wsgi-runner.md says why it is not a library's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
from gevent.event import Event
from structlog.contextvars import bind_contextvars

from ingest.connection_limits import Broken
from ingest.errors import IngestError
from ingest.logs import get_logger
from ingest.peer import client_address
from ingest.tracing import trace_names
from ingest.wsgi_answer import DISCARD_MAX_BYTES, Answer, Misuse
from ingest.wsgi_channel import Channel, OwnFile
from ingest.wsgi_environ import environ_of
from ingest.wsgi_streams import ErrorStream, FileWrapper, input_stream

if TYPE_CHECKING:
    from ingest.connection import Exchange
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.responder import Responder
    from ingest.settings import Settings

log = get_logger(__name__)

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Mount(NamedTuple):
    """An application and where it is.

    Attributes:
        prefix: of the paths it answers, such as `/legacy`.
        app: the WSGI callable.
    """

    prefix: str
    app: App


class Mounts:
    """The endpoints of the mounted applications.

    Args:
        mounts: the applications.
        settings: time limits, `workers`.
        metrics: counters.
        responder: answers where an application does not.
        pool: its slots bound how many requests are in applications.
    """

    def __init__(
        self,
        mounts: Iterable[Mount],
        settings: Settings,
        metrics: Metrics,
        responder: Responder,
        pool: WorkPool,
    ) -> None:
        self._mounts = list(mounts)
        self._settings = settings
        self._metrics = metrics
        self._responder = responder
        self._pool = pool

    def table(self) -> Mapping[str, Callable[[Exchange], None]]:
        """Prefix to endpoint; each is called with a slot of the pool held for it."""
        return {mount.prefix: self._endpoint(mount) for mount in self._mounts}

    def _endpoint(self, mount: Mount) -> Callable[[Exchange], None]:
        def endpoint(exchange: Exchange) -> None:
            self._serve(mount, exchange)

        endpoint.alone = endpoint.streamed = True  # type: ignore[attr-defined]
        return endpoint

    def _serve(self, mount: Mount, exchange: Exchange) -> None:
        """Answer one request; runs in the connection's greenlet.

        Raises:
            IngestError: nothing was answered yet, and this is to be.
            Ending: the connection ends.
        """
        connection = exchange.connection
        channel = Channel(connection, exchange.head, self._settings, self._metrics)
        answer = Answer(exchange, channel, self._responder)
        call = _Call(mount, exchange, channel, answer, self._responder, self._settings)
        self._pool.spawn(self._run, call)
        try:
            call.ended.wait()
            if not answer.complete:
                if channel.gone:
                    raise Broken("client")
                if answer.begun:
                    raise Broken("error")
            if not channel.discard(DISCARD_MAX_BYTES):
                exchange.close = True
            if call.failure is not None and not answer.begun:
                raise call.failure
            connection.complete(exchange, b"")
        finally:
            if answer.begun:
                if not answer.complete:
                    channel.cut()
                self._responder.account(exchange, answer.status, channel.sent)
            channel.break_off()

    def _run(self, call: _Call) -> None:
        """Call the application; runs in a greenlet of the pool and raises nothing."""
        started = monotonic()
        prefix = call.mount.prefix
        try:
            call.run()
        except BaseException as error:  # noqa: BLE001 - counted, logged and answered
            reason = call.failed(error)
            self._metrics.mount_failures.cell(prefix, reason).value += 1
        finally:
            self._pool.release()
            self._metrics.mount_seconds.cell(prefix).observe(monotonic() - started)
            call.ended.set()


class _Call:
    """One call of an application.

    Attributes:
        ended: set when it is over.
        failure: what the client is told, if it still can be; None when all went well.
    """

    def __init__(
        self,
        mount: Mount,
        exchange: Exchange,
        channel: Channel,
        answer: Answer,
        responder: Responder,
        settings: Settings,
    ) -> None:
        self.mount = mount
        self.ended = Event()
        self.failure: IngestError | None = None
        self._exchange = exchange
        self._channel = channel
        self._answer = answer
        self._request_id = responder.request_id(exchange)
        self._errors = ErrorStream(self._log_line)
        self._workers = settings.workers

    def run(self) -> None:
        """Call the application and send what it returns.

        Raises:
            BaseException: whatever the application, or sending, raises.
        """
        answer = self._answer
        # What the application logs carries them: this greenlet is the request's own.
        bind_contextvars(request_id=self._request_id, **trace_names(self._exchange.head.headers))
        result = self.mount.app(self._environ(), answer.start_response)
        try:
            if not self._send_file(result):
                answer.single = isinstance(result, (list, tuple)) and len(result) == 1
                for block in result:
                    answer.write(block)
                    if answer.enough:
                        break
                answer.finish()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
            self._errors.flush()

    def _send_file(self, result: Any) -> bool:
        """Let the kernel send the answer if it is a file on a disk."""
        if not isinstance(result, FileWrapper) or self._answer.begun:
            return False
        place = result.on_disk()
        if place is None:
            return False
        descriptor, start, there = place
        self._answer.finish_with_file(OwnFile(descriptor), start, there)
        return True

    def _environ(self) -> dict[str, Any]:
        exchange = self._exchange
        connection = exchange.connection
        environ = environ_of(
            exchange.head,
            self.mount.prefix,
            connection.sock.getsockname(),
            client_address(connection, exchange.head.headers),
        )
        environ |= {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if connection.peer.tls else "http",
            "wsgi.input": input_stream(self._channel.read),
            "wsgi.input_terminated": True,
            "wsgi.errors": self._errors,
            "wsgi.multithread": True,
            "wsgi.multiprocess": self._workers > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "ingest.request_id": self._request_id,
        }
        return environ

    def failed(self, error: BaseException) -> str:
        """Account for what ended the call; returns the reason as the metric has it."""
        names = {"mount": self.mount.prefix, "request_id": self._request_id}
        self.failure = IngestError("app_error", "The application failed.")
        if self._channel.gone or isinstance(error, gevent.GreenletExit):
            log.debug("wsgi.client_gone", **names, error=repr(error))
            return "client"
        if self._channel.failed is not None:
            # Whatever the application makes of that, it is the client's fault.
            self.failure = self._channel.failed
            log.info("wsgi.body_failed", **names, error=repr(error)[:500])
            return "body"
        misuse = isinstance(error, Misuse)
        log.error("wsgi.app_misuse" if misuse else "wsgi.app_failed", **names, exc_info=error)
        return "misuse" if misuse else "app"

    def _log_line(self, line: str) -> None:
        log.warning("wsgi.errors", mount=self.mount.prefix, request_id=self._request_id, line=line)
