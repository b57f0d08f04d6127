"""Accepts connections, gives each its greenlet, and sees to their time limits.

gevent's StreamServer accepts; a `Connection` does the rest. One sweep twice a second
looks at every connection's clock, instead of a timer for each. This module must not
know JSON, schemas or the journal.
"""

from __future__ import annotations

import _socket
import errno
import socket
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import gevent
from gevent.event import Event
from gevent.server import StreamServer

from ingest.access.door import Door
from ingest.connection import Connection, Exchange, Expired
from ingest.connection_limits import Broken, Ending
from ingest.connection_memory import Memory
from ingest.errors import IngestError
from ingest.http.head import Head, HeadCache
from ingest.http.parser import Limits, RequestParser
from ingest.logs import get_logger
from ingest.peer import PLAIN, Peer
from ingest.routes import Plan

if TYPE_CHECKING:
    from ingest.admin import AdminRouter
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.responder import Responder
    from ingest.routes import Router
    from ingest.settings import Settings
    from ingest.tls.listener import Tls

#: Makes a connection of what was accepted.
Connect = Callable[["Server", Any, Any, Peer], Connection]

log = get_logger(__name__)

SWEEP_SECONDS = 0.5
#: Bytes of answers that the kernel takes beyond what is on its way to the peer (tcp(7)).
UNSENT_IN_KERNEL_BYTES = 128 << 10
#: Connections looked at between two turns of the event loop.
SWEEP_CHUNK = 2000
#: Caches of heads for peers who are judged in another way than most. Kinds of peers beyond that
#: have small ones, for as long as there is a connection of that kind.
CACHES_MAX = 32
PASSING_ENTRIES = 8
#: Answers that are counted each time, so the plan for them is not kept with the head.
_COUNTED_REFUSALS = frozenset((401, 403))


class _Acceptor(StreamServer):
    """StreamServer that hands out raw sockets: the connection has its own watcher."""

    def __init__(self, listener: socket.socket, serve: Callable[[Any, Any], None]) -> None:
        super().__init__(listener, serve)
        self._serve = serve

    def do_read(self) -> Any:
        listening: Any = self.socket
        try:
            fd, address = listening._accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock = _socket.socket(listening.family, listening.type, listening.proto, fileno=fd)
        sock.setblocking(False)
        return sock, address

    def do_handle(self, *args: Any) -> None:
        self._serve(*args)

    def drain_backlog(self) -> None:
        """Accept what the kernel has already completed, so that none of it is reset."""
        while True:
            try:
                accepted = self.do_read()
            except OSError as error:
                log.warning("server.accept_failed", error=str(error))
                return
            if accepted is None:
                return
            self._serve(*accepted)


def listen(host: str, port: int, backlog: int, shared: bool = False) -> socket.socket:
    """Open the listening socket.

    Args:
        host: address or name; `""` listens on every address.
        port: TCP port, 0 for a free one.
        backlog: completed connections the kernel keeps for us.
        shared: others of this user may listen there too, and the kernel gives each a part
            of the connections (SO_REUSEPORT, socket(7)).

    Raises:
        OSError: the address is not ours, in use, or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it: an answer is one send and must not wait for an ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # And so is this: answers that a peer does not take are to be seen, counted and
        # bounded here, instead of filling the kernel's memory with megabytes each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_IN_KERNEL_BYTES)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Server:
    """The listening side of the gateway.

    Args:
        settings: limits and time limits.
        metrics: where connections, time-outs and refusals are counted.
        pool: the bounded pool that requests go through.
        responder: builds and sends answers.
        router: decides what a request is.
        admin_router: the same for the listener for operators.
        tls: what makes encrypted connections of those that clients open.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        pool: WorkPool,
        responder: Responder,
        router: Router,
        admin_router: AdminRouter | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.connections: set[Connection] = set()
        self.memory = Memory(settings.buffered_max_bytes, metrics)
        #: open connections by client address; kept only if there is a limit on them
        self._per_address: Counter[str] = Counter()
        self._metrics = metrics
        self._responder = responder
        self._router = router
        self._admin_router = admin_router
        self._cache = HeadCache(settings.head_cache_entries)
        self._caches: dict[Any, HeadCache] = {PLAIN: self._cache}
        self._passing: WeakValueDictionary[Any, HeadCache] = WeakValueDictionary()
        #: None where everybody is treated alike
        self.door = Door.of(settings, metrics)
        self._limits = self._limits_of(settings)
        self._connect: Connect = Connection if tls is None else tls.connect
        self._acceptor: _Acceptor | None = None
        self._admin_acceptor: _Acceptor | None = None
        self._admins = 0
        self._sweeper: gevent.Greenlet | None = None
        self._empty = Event()
        self._hurried = False
        metrics.connections.set_function(lambda: len(self.connections))
        metrics.head_cache_entries.set_function(lambda: len(self._cache))

    # -- life cycle ------------------------------------------------------------------

    def start(self, listener: socket.socket, admin: socket.socket | None = None) -> None:
        """Accept on these listeners, which this object owns from now on.

        Args:
            admin: for operators.
        """
        if admin is not None:
            self._admin_acceptor = _Acceptor(admin, self._accepted_admin)
            self._admin_acceptor.start()
        self._acceptor = _Acceptor(listener, self._accepted)
        self._acceptor.max_accept = 256
        self._acceptor.start()
        self._sweeper = gevent.spawn(self._sweep)

    def stop_accepting(self, take_backlog: bool = True) -> None:
        """Close the listening socket.

        Args:
            take_backlog: accept what it holds first, because otherwise that is reset; not
                where another process has the socket, too, and accepts it.
        """
        if self._acceptor is not None:
            self._acceptor.stop_accepting()
            if take_backlog:
                self._acceptor.drain_backlog()
            self._acceptor.close()
            self._acceptor = None

    def adopt(self, descriptor: int) -> None:
        """Serve a connection that another process has accepted."""
        sock = _socket.socket(fileno=descriptor)
        try:
            sock.setblocking(False)
            address = sock.getpeername()
        except OSError:
            sock.close()  # its client has gone
            return
        self._accepted(sock, address)

    def hurry(self) -> None:
        """Cut what `drain` waits for, now or as soon as it is called."""
        self._hurried = True
        self._empty.set()

    def drain(self, timeout_seconds: float, idle_grace_seconds: float) -> int:
        """Wait until the connections have ended.

        An idle connection may have a request on its way to us, which would be lost if
        we closed at once; so idle ones get a moment in which a request is still
        answered (with `Connection: close`), and only then are they closed.

        Args:
            timeout_seconds: after it, whatever is left is closed.
            idle_grace_seconds: how long an idle connection is kept.

        Returns:
            how many connections had to be closed with a request in flight.
        """
        deadline = monotonic() + timeout_seconds
        left = timeout_seconds
        while left > 0 and not self._hurried:
            self._wait_empty(min(idle_grace_seconds, left))
            clients = self._of_clients()
            if not clients:
                break
            # Those, too, whose handshake has ended meanwhile: their first request is on its way.
            now = monotonic()
            for connection in clients:
                if connection.idle() and now - connection.since >= idle_grace_seconds:
                    connection.retire()
            left = deadline - now
        stuck = self._of_clients()
        for connection in stuck:
            connection.interrupt(gevent.GreenletExit())
        if stuck:
            self._wait_empty(1.0)
        return len(stuck)

    def _of_clients(self) -> list[Connection]:
        """Open connections but those of operators, which nothing waits for."""
        return [connection for connection in self.connections if not connection.peer.admin]

    def stop(self) -> None:
        """Close the listener for operators and end the sweep."""
        if self._admin_acceptor is not None:
            self._admin_acceptor.close()
            self._admin_acceptor = None
        for connection in list(self.connections):
            connection.interrupt(gevent.GreenletExit())
        if self._sweeper is not None:
            self._sweeper.kill()
            self._sweeper = None

    def _wait_empty(self, timeout_seconds: float) -> None:
        self._empty.clear()
        if len(self.connections) > self._admins and not self._hurried:
            self._empty.wait(timeout_seconds)

    # -- connections --------------------------------------------------------------------

    def _accepted(self, sock: Any, address: Any) -> None:
        settings = self.settings
        if len(self.connections) - self._admins >= settings.connections_max:
            self._refuse_connection(sock, "total", "Too many connections.")
            return
        door = self.door
        if door is None:
            peer = Peer(address[0], address[1])
        else:
            limit = door.opens(address)
            if limit is not None:
                self._metrics.connections_refused.cell(limit).value += 1
                sock.close()
                return
            peer = door.peer(address)
        counted = False
        if settings.connections_per_address_max and not (door is not None and door.introduces):
            if not self._has_room_for(peer):
                self._refuse_connection(sock, "address", _TOO_MANY)
                return
            counted = self._count(peer)
        self._metrics.connections_opened.value += 1
        connection = self._connect(self, sock, address, peer)
        connection.counted = counted
        self.connections.add(connection)

    def _accepted_admin(self, sock: Any, address: Any) -> None:
        if self._admins >= self.settings.admin_connections_max:
            self._metrics.connections_refused.cell("admin").value += 1
            self._responder.refuse_connection(sock, "Too many connections of operators.")
            sock.close()
            return
        self._admins += 1
        self._metrics.connections_opened.value += 1
        peer = Peer(address[0], address[1])
        peer.admin = True
        self.connections.add(Connection(self, sock, address, peer))

    def introduced(self, connection: Connection, client: tuple[str, int] | None) -> None:
        """A trusted proxy has said whom a connection is from.

        Args:
            client: address and port; None for the proxy itself.

        Raises:
            Broken: that client may not come in.
        """
        assert self.door is not None
        address = client or connection.address
        peer = self.door.peer(address)
        limit = self.door.turns_away(peer)
        if limit is not None:
            self._metrics.connections_refused.cell(limit).value += 1
            raise Broken("protocol")
        if self.settings.connections_per_address_max:
            if not self._has_room_for(peer):
                self._metrics.connections_refused.cell("address").value += 1
                self._say(connection.sock, _TOO_MANY)
                raise Broken("limit")
            connection.counted = self._count(peer)
        connection.belongs_to(peer, address)

    def not_introduced(self) -> None:
        """A proxy began a connection with something else than it has to."""
        self._metrics.connections_refused.cell("introduction").value += 1

    def _has_room_for(self, peer: Peer) -> bool:
        """Whether a client may have one more connection; a trusted proxy has many clients."""
        most = self.settings.connections_per_address_max
        return peer.forwards is not None or self._per_address[peer.address] < most

    def _count(self, peer: Peer) -> bool:
        if peer.forwards is not None:
            return False
        self._per_address[peer.address] += 1
        return True

    def _refuse_connection(self, sock: Any, limit: str, detail: str) -> None:
        self._metrics.connections_refused.cell(limit).value += 1
        self._say(sock, detail)
        sock.close()

    def _say(self, sock: Any, detail: str) -> None:
        """Tell a client why it may not come in; before a handshake there is no way to."""
        if self._connect is Connection:
            self._responder.refuse_connection(sock, detail)

    def forget(self, connection: Connection, reason: str) -> None:
        """A connection has ended; `reason` is a value of the metric's label."""
        self.connections.discard(connection)
        if connection.counted:
            host = connection.peer.address
            self._per_address[host] -= 1
            if not self._per_address[host]:
                del self._per_address[host]
        if connection.peer.admin:
            self._admins -= 1
        self._metrics.connections_closed.cell(reason).value += 1
        if len(self.connections) == self._admins:
            self._empty.set()

    def new_parser(self, peer: Peer) -> RequestParser:
        """A parser for a connection, sharing the head cache of those who are judged alike."""
        cache = self._cache
        if peer.forwards is not None or peer.subject is not None or peer.admin:
            cache = self._cache_for(peer.kind)
        return RequestParser(self._limits, cache)

    def _cache_for(self, kind: Any) -> HeadCache:
        found = self._caches.get(kind)
        if found is None:
            found = self._passing.get(kind)
        if found is None:
            entries = self.settings.head_cache_entries
            if len(self._caches) < CACHES_MAX:
                found = self._caches[kind] = HeadCache(entries)
            else:
                found = self._passing[kind] = HeadCache(min(PASSING_ENTRIES, entries))
        return found

    def plan(self, head: Head, peer: Peer) -> Plan:
        """Decide what a request is; kept with the head if the head is."""
        self._metrics.head_cache_misses.value += 1
        try:
            if peer.forwards is not None and self.door is not None:
                self.door.judge(peer, head)
            router = self._router if not peer.admin else self._admin_router
            assert router is not None
            plan = router.plan(head, peer)
        except IngestError as error:
            plan = Plan(refusal=error)
        if plan.refusal is None or plan.refusal.status not in _COUNTED_REFUSALS:
            head.plan = plan
        return plan

    def _limits_of(self, settings: Settings) -> Limits:
        return Limits(
            settings.request_line_max_bytes,
            settings.headers_max_bytes,
            settings.header_count_max,
            settings.request_body_max_bytes,
            self._router.prefixes,
            settings.mount_body_max_bytes,
        )

    def settings_changed(self) -> None:
        """Take over what was derived from the settings; requests that have begun keep theirs."""
        self.door = Door.of(self.settings, self._metrics)
        self._limits = self._limits_of(self.settings)
        for connection in self.connections:
            connection.parser.limits = self._limits

    def route(self, router: Router) -> None:
        """Have another router decide from now on."""
        self._router = router
        self.forget_plans()

    def forget_plans(self) -> None:
        """Drop every cached decision, after the routes have changed."""
        for cache in (*self._caches.values(), *self._passing.values()):
            cache.clear()

    # -- answers that need no pool ---------------------------------------------------------

    def answer_now(self, exchange: Exchange) -> None:
        """Answer from memory: an endpoint, or a request that was refused by its head."""
        plan = exchange.plan
        responder = self._responder
        if plan.refusal is not None:
            responder.problem(exchange, plan.refusal)
            return
        try:
            plan.endpoint(exchange)
        except Ending:
            raise  # thrown into the connection's greenlet while it waited in the endpoint
        except IngestError as error:
            responder.problem(exchange, error)
        except Exception as error:  # noqa: BLE001 - counted, logged and answered
            self.unhandled("endpoint", error, **responder.about(exchange))
            responder.problem(exchange, IngestError("internal_error"))

    def refuse(self, exchange: Exchange) -> None:
        """Answer 503: the pool and the line in front of it are full, or are kept short."""
        if self.pool.short is not None:
            self.pool.short.refuse(exchange)
            return
        self._responder.problem(exchange, self._responder.overloaded("The request pool is full."))

    def out_of_memory(self) -> IngestError:
        """The refusal of a request whose bytes would have to be kept and cannot be."""
        self.memory.refused.value += 1
        return self._responder.overloaded("Too much is waiting to be received or answered.")

    def answer_error(self, connection: Connection, error: IngestError) -> None:
        """Answer something that never became a request, as the connection's last answer."""
        self._responder.protocol_error(connection, error)

    def unhandled(self, where: str, error: BaseException, **about: str) -> None:
        """Account for an error that nobody expected; `about` the request it concerns."""
        self._metrics.unhandled_errors.cell(where).value += 1
        log.error("server.unhandled_error", where=where, exc_info=error, **about)

    # -- time limits -----------------------------------------------------------------------

    def _sweep(self) -> None:
        while True:
            before = monotonic()
            gevent.sleep(SWEEP_SECONDS)
            now = monotonic()
            if now - before > 2 * SWEEP_SECONDS:
                # Something held the event loop up. What has arrived meanwhile was not
                # read, and nobody is late because of that.
                continue
            try:
                for count, connection in enumerate(list(self.connections), 1):
                    kind = connection.overdue(now, self)
                    if kind is not None:
                        if kind != "linger":
                            self._metrics.timeouts.cell(kind).value += 1
                        connection.interrupt(Expired(kind))
                    if count % SWEEP_CHUNK == 0:
                        gevent.sleep(0)
            except Exception as error:  # noqa: BLE001 - the sweep must go on
                self.unhandled("sweep", error)


_TOO_MANY = "Too many connections from your address."
#: errno values of bind() that are the operator's to solve, with what to say of them
BIND_HINTS = {
    errno.EADDRINUSE: "the port is in use; stop what listens there or choose another --bind",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)",
}
