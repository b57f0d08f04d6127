"""Load shedding: looks at the queues, and answers for the pool while there is too much to do.

    sockets ──▶ work queue ──▶ journal's commit ──▶ answers        wait: age of what is answered
         └────▶ line for a slot of the pool                        wait: age of who is first

In a calm time nothing of this is asked anything: the pool's limit is its size. From the first
sign on the limit is 0, so that every request comes by `admits`: it is counted whose it is, and
once it is short, who asks for more than his fair share (a key, or an address where there are no
keys) finds room for `Control.limit` requests in flight, and everybody else for twice as many.
What is refused is answered with prepared bytes.

The order of a brown-out: reading is refused before any event is.

This module must not know JSON or the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent

from ingest.access.principal import NOBODY
from ingest.admission.control import WHILE_SECONDS, Control, State
from ingest.admission.drain import WAIT_MAX_SECONDS, Drain
from ingest.admission.fairness import Shares
from ingest.admission.refusals import Prepared, Refusals, retry_fields
from ingest.errors import IngestError
from ingest.logs import get_logger

if TYPE_CHECKING:
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.settings import Settings

log = get_logger(__name__)

Endpoint = Callable[[Any], None]

#: The journal's share of what may wait for the disk from which reading is refused.
PENDING_SHARE = 0.5
SAID_SECONDS = 1.0
AT_FIRST = 0.5


class Overload:
    """Sees to it that who is let in does not wait long.

    Args:
        settings: the wait that is too long.
        metrics: state, limit and refusals.
        pool: whose slots are given away.
        refusals: answer.
        pending_bytes: what waits for the disk.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        pool: WorkPool,
        refusals: Refusals,
        pending_bytes: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._refusals = refusals
        self._pending_bytes = pending_bytes
        self._pending_most = settings.journal_pending_max_bytes * PENDING_SHARE
        self.control = Control(settings.queue_delay_max_seconds, pool.size)
        self.shares = Shares()
        self.drain = Drain(monotonic())
        self._ages_seconds, self._ages = 0.0, 0
        self._asked = self._refused = 0
        #: what waited when it became short and may wait still; who is within his share need not
        #: suffer for it
        self._inherited = 0
        self._done = 0
        self._looked = monotonic()
        self._said, self._unsaid = 0.0, 0
        self._prepared = Prepared(self._overloaded, "overloaded", 503)
        self._greenlet: gevent.Greenlet | None = None
        self._delayed = metrics.admission_refused.cell("delay")
        self._unfair = metrics.admission_refused.cell("share")
        self._reads = metrics.admission_refused.cell("read")
        self._turns = metrics.admission_short
        metrics.admission_limit.set_function(lambda: self.control.limit)
        metrics.admission_shedding.set_function(lambda: int(self.short))
        metrics.admission_drain_rate.set_function(lambda: self.drain.rate)
        metrics.admission_parties_above.set_function(lambda: self.shares.above)

    # -- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Look after the queues from now on."""
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Look no more; everybody is let in."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
        self._open()

    def _watch(self) -> None:
        while True:
            gevent.sleep(WHILE_SECONDS)
            self.look(monotonic())

    # -- the signal ------------------------------------------------------------------------

    def committed(self, exchanges: list[Any]) -> None:
        """Something is about to be answered: the first of it waited longest."""
        first = exchanges[0]
        target = first.plan.target
        if target is None or target.handler is not None:
            return  # what a handler takes is not waiting
        self._ages_seconds += monotonic() - first.started
        self._ages += 1

    def look(self, now: float) -> None:
        """Judge the while that ends now."""
        pool = self._pool
        waited = self._ages_seconds / self._ages if self._ages else None
        if pool.in_use and waited is None:
            oldest = pool.oldest()
            waited = None if oldest is None else now - oldest.started
        line = pool.line_age(now)
        if line is not None and (waited is None or line > waited):
            waited = line
        self._ages_seconds, self._ages = 0.0, 0
        done = pool.done - self._done
        self._done = pool.done
        elapsed, self._looked = max(1e-3, now - self._looked), now
        self.drain.look(now, pool.done, pool.in_use > 0 or done > 0)
        before = self.control.state
        state = self.control.look(waited, done / elapsed, self._asked, self._refused)
        self._unsaid += self._refused
        self._asked = self._refused = 0
        if state is State.SHORT or self.control.late:
            # Nobody can ask for more than is done before somebody is refused, so who takes
            # more than his share of half of it is taken to be above it at first.
            self.shares.turn(done if before is State.SHORT else done * AT_FIRST)
            self._inherited = min(self._inherited, self._waiting)
            self._pool.limit = 0
            self._pool.short = self
        elif pool.short is not None:
            self._open()
        if state is not before:
            self._turn(state)
        if state is State.SHORT:
            self._say(now, waited)

    def _turn(self, state: State) -> None:
        if state is State.SHORT:
            self._turns.value += 1
            self._inherited = self._waiting
        else:
            log.warning("admission.calm", refused=self._unsaid)
            self._unsaid = 0

    def _open(self) -> None:
        self._pool.limit = self._pool.size
        self._pool.short = None
        self.shares.clear()

    def _say(self, now: float, waited: float | None) -> None:
        if now - self._said >= SAID_SECONDS:
            self._said = now
            log.warning(
                "admission.short",
                refused=self._unsaid,
                limit=self.control.limit,
                waited_seconds=None if waited is None else round(waited, 4),
            )
            self._unsaid = 0

    # -- while short -----------------------------------------------------------------------

    @property
    def short(self) -> bool:
        """Whether some are refused so that the others need not wait."""
        return self.control.state is State.SHORT

    @property
    def _waiting(self) -> int:
        """Requests in flight, without those that a handler works on."""
        return self._pool.in_use - self._pool.spawned_count

    def admits(self, connection: Any, head: Any, plan: Any) -> bool | None:
        """Whether a request is let in; None: it may stand in line for a slot."""
        self._asked += 1
        within = self.shares.ask(party(connection, head, plan))
        pool, limit = self._pool, self.control.limit
        if not self.short:
            return True if pool.in_use < pool.size else None
        if self._waiting < (2 * limit + self._inherited if within else limit):
            if pool.in_use < pool.size:
                return True
            if within and self.shares.parties > 1:
                return None
        self._refused += 1
        (self._delayed if within or self.shares.parties < 2 else self._unfair).value += 1
        return False

    def take(self, connection: Any, head: Any, plan: Any) -> bytes | None:
        """The answer to a request that came whole and is not let in; None for one that is."""
        if self.admits(connection, head, plan):
            return None
        data = self._refusals.bytes(self._prepared, connection.since)
        self._refusals.count(plan, self._prepared, len(data))
        return data

    @property
    def quick(self) -> bool:
        """Whether `take` may be asked."""
        return self._refusals.quick

    def refuse(self, exchange: Any) -> None:
        """Answer what `admits` has refused."""
        self._refusals.answer(exchange, self._prepared)

    # -- answers ---------------------------------------------------------------------------

    def retry_after_seconds(self) -> float:
        """How long the backlog takes at the rate of the last seconds."""
        return self.drain.seconds(self._pool.in_use + self._pool.waiting)

    def _overloaded(self) -> IngestError:
        seconds = max(self._settings.retry_after_seconds, self.retry_after_seconds())
        return IngestError(
            "overloaded",
            "More is sent than can be done.",
            headers=dict(retry_fields(seconds, max(seconds, WAIT_MAX_SECONDS))),
        )

    # -- brown-out ---------------------------------------------------------------------------

    def after_writes(
        self, table: Mapping[str, Mapping[str, Endpoint]]
    ) -> dict[str, Mapping[str, Endpoint]]:
        """The same endpoints, refused while there is too much to do or to write."""
        return {
            path: {method: self._yielding(endpoint) for method, endpoint in methods.items()}
            for path, methods in table.items()
        }

    def _yielding(self, endpoint: Endpoint) -> Endpoint:
        def yielding(exchange: Any) -> None:
            if self.short or self._pending_bytes() > self._pending_most:
                self._reads.value += 1
                raise self._overloaded()
            endpoint(exchange)

        for mark in ("alone", "streamed"):
            if getattr(endpoint, mark, False):
                setattr(yielding, mark, True)
        return yielding


def party(connection: Any, head: Any, plan: Any) -> Hashable:
    """Whose share it is: a key's, or where there are no keys that of the client's address,
    which behind a trusted proxy stands in the head."""
    name = plan.principal.name
    return name if name != NOBODY else connection.peer.client(head.headers)
