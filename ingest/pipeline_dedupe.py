"""The way of events that may have come before, for types with `x-ingest.dedupe`.

    request ── key ── window ──┬── never seen ── decode … append ── committed ── remembered
                               ├── on its way ── wait for it, or 409
                               └── stored ────── answered as the first was

Types without it, and requests without a key where none is demanded, go the plain way of
`pipeline.py` and `pipeline_batches.py`; which way it is, the plan says. A key is claimed
before anything that takes time is done, so of two requests at once only one is the first. It
is written into the event's own line (`dedupe_records`), so it becomes durable with it.

This module must not know sockets or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ingest.batch import Fault, fault_members
from ingest.codec import DecodeError, one_line
from ingest.connection import Exchange
from ingest.dedupe import (
    ID_VALUE_BYTES,
    OUTCOME_VALUE_BYTES,
    Claim,
    Outcome,
    Window,
    fingerprint,
    id_text,
    key_digest,
    packed_id,
    parse_key,
    resolve,
    resolver,
    value_digest,
)
from ingest.dedupe_records import event_member, with_members
from ingest.errors import IngestError
from ingest.journal.record import LINE_END, LINE_START
from ingest.pipeline_dedupe_batches import REPLAYED, EventBatches, RequestBatches
from ingest.pipeline_dedupe_held import Request, Single, now_ms
from ingest.rejected import Reason
from ingest.routes import Ways

if TYPE_CHECKING:
    from ingest.handling import Handling
    from ingest.journal import Journal
    from ingest.metrics import Metrics
    from ingest.pool import WorkPool
    from ingest.refusing import Refusing
    from ingest.registry import EventType
    from ingest.responder import Responder
    from ingest.routes import Target
    from ingest.settings import Settings

KEY_FIELD = "idempotency-key"


def workers_conflict(workers: int, types: Iterable[EventType]) -> str | None:
    """Why so many workers cannot serve these types; None when they can.

    Each worker has its own partition and knows only what it stored itself, and the kernel
    gives a repetition to whichever it likes.
    """
    named = sorted(
        kind.name
        for kind in types
        if kind.options.dedupe.by != "none" or kind.options.webhook is not None
    )
    if workers == 1 or not named:
        return None
    return (
        f"workers {workers} does not go with x-ingest.dedupe or x-ingest.webhook, which "
        f"{', '.join(named)} asks for: "
        "a repetition may reach another worker than the first did; set workers to 1, or serve "
        "these types from an instance of their own"
    )


class TypeKeys:
    """The keys of one event type: where they come from, and which came before.

    Args:
        event_type: its options say how it is done.
        settings: bounds, for what the options leave open.
        metrics: counters.
        ways: how requests with a key, or events with one, are worked on.
    """

    def __init__(
        self, event_type: EventType, settings: Settings, metrics: Metrics, ways: Ways
    ) -> None:
        name, options = event_type.name, event_type.options.dedupe
        self.name = name
        self.options = options
        self.by = options.by
        self.required = options.required
        self.pointer = options.pointer
        self._tokens = resolver(options.pointer)
        self._ways = ways
        seconds = options.window_seconds or settings.dedupe_window_seconds
        requests = options.by == "idempotency-key"
        self.window = Window(
            settings.dedupe_entries_max,
            int(seconds * 1000),
            OUTCOME_VALUE_BYTES if requests else ID_VALUE_BYTES,
            settings.dedupe_answers_max_bytes if requests else 0,
        )
        self.hits = metrics.dedupe_hits.cell(name)
        self.in_flight = metrics.dedupe_conflicts.cell(name, "in_flight")
        self.mismatch = metrics.dedupe_conflicts.cell(name, "mismatch")
        window = self.window
        metrics.dedupe_entries.cell(name).set_function(lambda: len(window))
        evictions = metrics.dedupe_evictions
        evictions.cell(name, "age").set_function(lambda: window.evicted_by_age)
        evictions.cell(name, "count").set_function(lambda: window.evicted_by_count)

    def ways(self, headers: Mapping[str, str], plain: Ways) -> Ways:
        """How a request is worked on; its head alone decides.

        Raises:
            IngestError: idempotency_key_malformed, idempotency_key_required.
        """
        if self.by == "pointer":
            return self._ways
        if self.by == "idempotency-key":
            if KEY_FIELD in headers:
                parse_key(headers[KEY_FIELD])
                return self._ways
            if self.required:
                raise IngestError(
                    "idempotency_key_required",
                    f"Events of the type {self.name} are taken with an Idempotency-Key only.",
                )
        return plain  # cloudevents: these calls carry no source and id of their own

    def digest_of(self, value: Any) -> bytes | None:
        """The digest of an event's own key; None where it has none."""
        return value_digest(self.name, self.pointer, resolve(self._tokens, value))

    def explain(self, value: Any, limit: int) -> tuple[list[tuple[str, str, str]], int]:
        """What is wrong with an event that has no key and must, as a validator says it."""
        message = "a string or a 64-bit integer is needed here to tell events apart"
        return [(self.pointer, "dedupe", message)][:limit], 1


class Deduping:
    """Works on requests of types with `x-ingest.dedupe`.

    Args: as for `Batches`.

    Attributes:
        keys: of each such type, by name.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        responder: Responder,
        metrics: Metrics,
        refusing: Refusing,
        handling: Handling,
        decode: Callable[[bytes], Any],
        decode_many: Callable[[Sequence[bytes]], list[Any] | None] | None,
        encode: Callable[[Any], bytes] | None,
        middle: Callable[[Exchange, Target], bytes],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._responder = responder
        self._metrics = metrics
        self._refusing = refusing
        self._handling = handling
        self._ids = journal.id_source
        self._decode = decode
        self._encode = encode
        self._middle = middle
        parts = (
            settings, journal, responder, metrics, refusing, handling, decode, decode_many, encode,
            middle,
        )  # fmt: skip
        self._by_event = EventBatches(*parts)
        self._by_request = RequestBatches(*parts)
        self.keys: dict[str, TypeKeys] = {}
        self.pool: WorkPool

    def attach(self, pool: WorkPool) -> None:
        """Take the pool, whose slots are given back to it."""
        self.pool = self._by_event.pool = self._by_request.pool = pool

    def serve(self, event_type: EventType, coded: Callable[[Exchange], None]) -> TypeKeys:
        """Take on a type whose options say so; one that was known keeps what it remembers."""
        known = self.keys.get(event_type.name)
        if known is not None and known.options == event_type.options.dedupe:
            return known
        if event_type.options.dedupe.by == "idempotency-key":
            ways = Ways(self.request, self.request_lines, self.request_array, coded)
        else:
            ways = Ways(self.event, self._by_event.lines, self._by_event.array, coded)
        keys = TypeKeys(event_type, self._settings, self._metrics, ways)
        self.keys[keys.name] = keys
        return keys

    # -- an event's own key ------------------------------------------------------------

    def event(self, exchange: Exchange) -> None:
        """One event, with its key in it."""
        target, body = exchange.plan.target, exchange.body
        keys: TypeKeys = target.dedupe
        judged = self._judged(exchange, target, body)
        if judged is None:
            return
        (value,) = judged
        event_id = self._ids.next()
        digest = keys.digest_of(value)
        if digest is None and keys.required:
            self._refuse_without_key(exchange, target, value)
            return
        members = b"" if digest is None else self.take(exchange, keys, digest, event_id)
        if members is not None:
            self._store(exchange, target, value, body, event_id, members)

    def take(
        self, exchange: Exchange, keys: TypeKeys, digest: bytes, event_id: bytes
    ) -> bytes | None:
        """Claim the key of the one event of an exchange.

        From then on whatever refuses the exchange frees the key, and the exchange's commit
        settles it (`Held`); `exchange.context` is what says so.

        Returns:
            what the event's line needs before `data`; None when it is a duplicate: the
            exchange is answered, or will be.
        """
        found = keys.window.look(digest, now_ms())
        if found is None:
            claim = keys.window.claim(digest, packed_id(event_id))
            exchange.context = Single(keys.window, claim, event_id)
            return event_member(digest)
        exchange.body = b""
        if isinstance(found, Claim):
            found.waiters.append(partial(self._first_is, exchange, found))
        else:
            self._replay_event(exchange, id_text(found))
        return None

    def _first_is(self, exchange: Exchange, claim: Claim, error: IngestError | None) -> None:
        """The first event with the key of this exchange is stored, or is not."""
        if error is None:
            self._replay_event(exchange, id_text(claim.value))
        else:
            self._refusing.refuse(exchange, error)

    def _refuse_without_key(self, exchange: Exchange, target: Target, value: Any) -> None:
        target.rejected_schema.value += 1
        (found,), total = target.dedupe.explain(value, 1)
        members = fault_members([Fault(-1, *found)], total)
        detail = f"{found[0]}: {found[2]}"
        if target.keeps_rejected:
            self._refusing.keep(exchange, exchange.body, Reason("schema", *found))
        self._refusing.refuse(exchange, IngestError("schema_violation", detail, extensions=members))

    # -- a request's key ---------------------------------------------------------------

    def request(self, exchange: Exchange) -> None:
        """One event, in a request with an Idempotency-Key."""
        if not self._first(exchange, "event"):
            return
        target, body = exchange.plan.target, exchange.body
        judged = self._judged(exchange, target, body)
        if judged is not None:
            event_id = self._ids.next()
            held: Single = exchange.context
            self._store(exchange, target, judged[0], body, event_id, held.member(event_id))

    def request_lines(self, exchange: Exchange) -> None:
        """NDJSON, in a request with an Idempotency-Key."""
        if self._first(exchange, "lines"):
            self._by_request.lines(exchange)

    def request_array(self, exchange: Exchange) -> None:
        """An array, in a request with an Idempotency-Key."""
        if self._first(exchange, "array"):
            self._by_request.array(exchange)

    def _first(self, exchange: Exchange, form: str) -> bool:
        """Claim the key of a request. False: it is answered already."""
        plan = exchange.plan
        keys: TypeKeys = plan.target.dedupe
        window = keys.window
        key = parse_key(exchange.head.headers[KEY_FIELD])
        digest = key_digest(keys.name, key, plan.target.producer)
        # The answer depends on them, so another flag makes another request.
        flags = f"{'-atomic' if plan.atomic else ''}{'' if plan.list_ids else '-i'}"
        mark = fingerprint(form + flags, exchange.body)
        found = window.look(digest, now_ms())
        if found is None:
            claim = window.claim(digest, Outcome(bytes(ID_VALUE_BYTES), mark).pack())
            if form == "event":
                exchange.context = Single(window, claim, b"")
            else:
                exchange.context = Request(exchange, window, claim, self._answer_request)
            return True
        self._metrics.request_bytes.value += len(exchange.body)
        exchange.body = b""
        in_flight = isinstance(found, Claim)
        outcome = Outcome.unpack(found.value if isinstance(found, Claim) else found)
        if outcome.fingerprint != mark:
            keys.mismatch.value += 1
            self._refusing.refuse(
                exchange,
                IngestError(
                    "idempotency_mismatch",
                    "This Idempotency-Key came with another body before.",
                ),
            )
        elif in_flight:
            keys.in_flight.value += 1
            again = {"Retry-After": self._responder.retry_after()}
            self._refusing.refuse(exchange, IngestError("idempotency_in_flight", headers=again))
        elif not outcome.status:
            self._replay_event(exchange, id_text(outcome.event_id))
        else:
            counts = b'{"accepted":%d,"rejected":%d}\n' % (outcome.accepted, outcome.rejected)
            answer = window.answer_of(digest) or counts
            keys.hits.value += 1
            self._responder.send(exchange, outcome.status, answer, headers=REPLAYED)
            self.pool.release()
        return False

    # -- what both have in common ------------------------------------------------------

    def _judged(self, exchange: Exchange, target: Target, body: bytes) -> tuple[Any] | None:
        """Decode and validate, as `Pipeline.event` does. None: it is refused already."""
        self._metrics.request_bytes.value += len(body)
        if len(body) > target.event_max_bytes or not body:
            self._refusing.size(exchange, target, len(body))
            return None
        try:
            value = self._decode(body)
        except DecodeError as error:
            self._refusing.malformed(exchange, error)
            return None
        if not target.is_valid(value):
            self._refusing.violation(exchange, target, value)
            return None
        return (value,)

    def _store(
        self,
        exchange: Exchange,
        target: Target,
        value: Any,
        body: bytes,
        event_id: bytes,
        members: bytes,
    ) -> None:
        """Handle and append, as `Pipeline.event` does, with the key in the line."""
        if not members:
            exchange.context = event_id
        if target.handler is not None:
            try:
                body = self._handling.replace(exchange, target, value, event_id, body)
            except IngestError as error:
                self._refusing.handler(exchange, exchange.body, error)
                return
        elif self._encode is not None:
            body = self._encode(value)
        if 10 in body or 13 in body:
            body = one_line(body)
        between = self._middle(exchange, target)
        if members:
            between = with_members(between, members)
        line = b"".join((LINE_START, event_id, between, body, LINE_END))
        exchange.body = b""
        try:
            self._journal.append(line, 1, exchange, target.sync)
        except IngestError as error:
            self._refusing.refuse(exchange, error)

    def _replay_event(self, exchange: Exchange, event_id: bytes) -> None:
        exchange.plan.target.dedupe.hits.value += 1
        body = b'{"accepted":1,"id":"%s"}\n' % event_id
        self._responder.send(exchange, 202, body, headers=REPLAYED)
        self.pool.release()

    def _answer_request(self, held: Request) -> None:
        """A batch with an Idempotency-Key is stored."""
        exchange, answer = held.exchange, held.answer
        exchange.plan.target.accepted.value += held.accepted
        self._responder.send(exchange, held.status, answer)
        self.pool.release()
