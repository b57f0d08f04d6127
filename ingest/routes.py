"""From a request's head to what is to be done with it: its plan.

All that can be judged by the head is judged here, before the body is read and before
`100 Continue` is sent: path, method, media type, content coding, presence of a body.
Plans for event types are built once, when the schemas are loaded; a head that is
cached keeps its plan.

This module must not know sockets or the journal.

Source: RFC 9110 sections 8.3 (Content-Type), 15.5.6 (405 with Allow), 15.5.16 (415);
RFC 5789 section 3.1 (Accept-Post's model, W3C LDP 7.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from ingest.access.principal import ANONYMOUS, NOBODY, Principal
from ingest.encodings import codings_of
from ingest.errors import IngestError
from ingest.http.head import Head
from ingest.metrics import Metrics
from ingest.metrics_cells import BothCells, Cell
from ingest.peer import NOBODY_KNOWN, Peer
from ingest.registry import EventType, Registry

if TYPE_CHECKING:
    from ingest.access.gate import Gate
    from ingest.access.webhooks import SignedWebhook

T = TypeVar("T")

JSON_TYPES = frozenset({"application/json"})
NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
#: What every event route takes, for the Accept-Post field of a 415.
EVENT_MEDIA = "application/json, application/x-ndjson, application/ndjson, application/jsonl"
BATCH_MEDIA = "application/json"


class Log(Protocol):
    """Takes the lines of accepted events, and answers those that wait for them: the journal."""

    def append(self, lines: bytes, count: int, waiter: Any, sync: bool = True) -> None:
        """Take lines of one who waits."""

    def append_each(self, lines: bytes, waiters: Sequence[Any], sync: bool = True) -> None:
        """Take as many lines as wait for them."""


class Target:
    """An event type as the pipeline needs it: everything looked up once.

    Attributes:
        name: the type's name.
        is_valid: the verdict on a decoded event.
        typed: says yes to the bytes of good events; None where it cannot, or where their
            values are wanted, too.
        validator: explains a verdict.
        event_max_bytes: size limit of one event.
        sync: answer after fdatasync (True) or after write.
        handler: legacy code to run before the answer, or None.
        dedupe: the keys of its events, or None; see `pipeline_dedupe`.
        append, append_each: take its accepted events; the journal's, or those of another log.
        remote: the log that answers them when Kafka has them; None where that is the journal.
        keeps_rejected: what is refused goes to the rejected journal.
        producer: whose events these are, by the name of a key; None where keys are off.
        webhook: sees that its events are signed; None where they are not.
        accepted, …: the counters of this type.
    """

    __slots__ = (
        "accepted", "append", "append_each", "dataschema", "dedupe", "event_max_bytes",
        "event_type", "handler", "is_valid", "keeps_rejected", "middle", "middle_ms", "name",
        "producer", "rejected_handler", "rejected_malformed", "rejected_schema",
        "rejected_too_large", "remote", "sync", "typed", "validator", "webhook",
    )  # fmt: skip

    def __init__(
        self,
        event_type: EventType,
        handler: Any,
        default_ack: str,
        default_event_max_bytes: int,
        metrics: Metrics,
        log: Log,
        depth_max: int = 0,
        schemas_url: str = "",
    ) -> None:
        name = event_type.name
        self.append = log.append
        self.append_each = log.append_each
        self.remote: Any = None
        self.event_type = event_type
        self.name = name
        self.dataschema = schemas_url + event_type.dataschema
        self.validator = event_type.validator
        self.is_valid = event_type.validator.is_valid
        typed = event_type.validator.typed
        self.typed = typed if handler is None and typed and typed.depth <= depth_max else None
        self.event_max_bytes = event_type.options.max_event_bytes or default_event_max_bytes
        self.sync = (event_type.options.ack or default_ack) != "write"
        self.handler = handler
        self.dedupe: Any = None
        self.producer: str | None = None
        self.webhook: SignedWebhook | None = None
        self.keeps_rejected = event_type.options.on_reject == "keep"
        #: the pipeline's line template for the millisecond `middle_ms`
        self.middle = b""
        self.middle_ms = -1
        self.accepted: Cell | BothCells = metrics.events_accepted.cell(name)
        self.rejected_malformed = metrics.events_rejected.cell(name, "malformed")
        self.rejected_schema = metrics.events_rejected.cell(name, "schema")
        self.rejected_handler = metrics.events_rejected.cell(name, "handler")
        self.rejected_too_large = metrics.events_rejected.cell(name, "too_large")

    def answer_from(self, remote: Log) -> None:
        """Its events are answered when Kafka has them."""
        self.append, self.append_each = remote.append, remote.append_each
        self.remote = remote

    def of(self, principal: Principal, metrics: Metrics) -> Target:
        """The same type for what one producer sends, with lines that name it."""
        own = copy(self)
        own.producer = principal.name
        own.middle_ms = -1
        own.accepted = BothCells(self.accepted, metrics.key_events.cell(principal.name))
        return own


class Plan:
    """What is to be done with a request.

    Attributes:
        alone: immediate, and may wait; see `alone`.
        streamed: alone, holds a slot of the pool, and reads the body itself.
        immediate: answered from memory by the connection's own greenlet.
        refusal: the error to answer, if the head already decides it.
        early: refuses by connection and length before the body is read; None for most.
        endpoint: answers an exchange; for immediate plans.
        submit: hands an exchange, which holds a slot, to the pool.
        run: does the work within the pool.
        codings: the body's content codings; none for most.
        way: with codings, what `run` goes on with when the body is inflated.
        single: the body is one event.
        target: the event type.
        atomic: a batch is stored as a whole or not at all.
        list_ids: the answer to a batch lists the ids.
        principal: who sent it, as far as keys tell.
        router: of CloudEvents: knows the types that there were when the request came.
        type_name: the metric label.
        accepted_answers: counter of 202 answers of this type.
    """

    __slots__ = (
        "accepted_answers", "alone", "atomic", "codings", "early", "endpoint", "immediate",
        "list_ids", "principal", "refusal", "router", "run", "single", "streamed", "submit",
        "target", "type_name", "way",
    )  # fmt: skip

    def __init__(
        self,
        *,
        type_name: str = "-",
        refusal: IngestError | None = None,
        endpoint: Callable[[Any], None] | None = None,
        submit: Callable[[Any], None] | None = None,
        run: Callable[[Any], None] | None = None,
        codings: tuple[str, ...] = (),
        way: Callable[[Any], None] | None = None,
        single: bool = False,
        target: Target | None = None,
        atomic: bool = False,
        list_ids: bool = True,
        accepted_answers: Cell | None = None,
        principal: Principal = ANONYMOUS,
    ) -> None:
        self.principal = principal
        self.router: Any = None
        self.early: Callable[[Any, int], IngestError | None] | None = None
        self.immediate = submit is None
        self.alone: bool = getattr(endpoint, "alone", False)
        self.streamed: bool = getattr(endpoint, "streamed", False)
        self.refusal = refusal
        self.endpoint: Any = endpoint
        self.submit: Any = submit
        self.run: Any = run
        self.codings = codings
        self.way: Any = way
        self.single = single
        self.target: Any = target
        self.atomic = atomic
        self.list_ids = list_ids
        self.type_name = type_name
        self.accepted_answers: Any = accepted_answers

    def accepted(self, count: int) -> None:
        """Count so many events, one a request, that were stored and answered 202."""
        self.target.accepted.value += count
        self.accepted_answers.value += count


class Meter(Protocol):
    """Counts what is sent against quotas, and refuses what is beyond them."""

    def concerns(self, principal: Principal) -> bool:
        """Whether there is any limit to what somebody sends."""

    def submit(self, submit: Callable[[Any], None], principal: Principal) -> Callable[[Any], None]:
        """Put around what hands an exchange to the pool."""

    def run(self, run: Callable[[Any], None], principal: Principal) -> Callable[[Any], None]:
        """Put around the work on a request of many events."""

    def early(self, principal: Principal) -> Callable[[Any, int], IngestError | None]:
        """What judges a request by connection and length, before its body is read."""


class Ways:
    """The three ways an event type is worked on, as the pipeline offers them.

    `coded` comes before each of them where the body has a content coding.
    """

    __slots__ = ("array", "coded", "event", "lines")

    def __init__(
        self,
        event: Callable[[Any], None],
        lines: Callable[[Any], None],
        array: Callable[[Any], None],
        coded: Callable[[Any], None],
    ) -> None:
        self.coded = coded
        self.event = event
        self.lines = lines
        self.array = array


def alone(endpoint: T) -> T:
    """Mark an endpoint that waits: it is called when its answer is due, with nothing behind."""
    endpoint.alone = True  # type: ignore[attr-defined]
    return endpoint


class Router:
    """Routes by exact path, then by the two parametrised ones.

    Args:
        registry: the event types and their aliases.
        targets: the same types as the pipeline needs them.
        ways: the pipeline's entry points.
        submit: hands an exchange to the resident greenlets.
        spawn: runs `run(exchange)` in a pool greenlet of its own, for types with a handler.
        endpoints: path to {method: function}, for what is answered from memory.
        metrics: counters of answers.
        planners: path to what decides about a POST to it, for events that name their type.
        mounts: prefix of paths to what answers all requests below it.
        gate: judges who sends and reads; None lets everybody in.
    """

    def __init__(
        self,
        registry: Registry,
        targets: Mapping[str, Target],
        ways: Ways,
        submit: Callable[[Any], None],
        spawn: Callable[[Callable[[Any], None], Any], None],
        endpoints: Mapping[str, Mapping[str, Callable[[Any], None]]],
        metrics: Metrics,
        planners: Mapping[str, Callable[[Head, Principal], Plan]],
        mounts: Mapping[str, Callable[[Any], None]] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate
        #: sees to quotas
        self.meter: Meter | None = None
        self._planners = planners
        #: the longest first: a mount may stand within another one
        self._mounts = [
            (prefix, Plan(type_name=f"mount:{prefix}", endpoint=endpoint))
            for prefix, endpoint in sorted((mounts or {}).items(), reverse=True)
        ]
        self._targets = targets
        self._ways = ways
        self._submit = submit
        self._spawn = spawn
        self._endpoints = endpoints
        self._metrics = metrics
        self._plans: dict[
            tuple[Target, str, tuple[str, ...], bool, bool, Ways, Principal], Plan
        ] = {}
        self._own_targets: dict[tuple[str, Principal], Target] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        for event_type in registry.types.values():
            for route in event_type.options.routes:
                self._aliases.setdefault(route.path, {})[route.method] = event_type.name

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Of the mounts."""
        return tuple(prefix for prefix, _ in self._mounts)

    def forget(self) -> None:
        """Drop what was decided for keys that may be no more."""
        self._plans.clear()
        self._own_targets.clear()

    def plan(self, head: Head, peer: Peer = NOBODY_KNOWN) -> Plan:
        """Decide what to do with a request. Never raises: a refusal is a plan, too.

        Args:
            peer: who has sent it, as far as the connection tells.
        """
        try:
            return self._decide(head, peer)
        except IngestError as error:
            return Plan(refusal=error)

    def _decide(self, head: Head, peer: Peer) -> Plan:
        path, method = head.path, head.method
        if path == "*":
            if method == "OPTIONS":
                return self._allowed("GET, HEAD, POST, OPTIONS")
            raise IngestError("bad_request", "The target * is for OPTIONS only.")
        if method == "CONNECT":
            return self._not_allowed(method, {"GET", "POST"})
        alias = self._aliases.get(path)
        endpoint = self._endpoints.get(path)
        if alias is not None and method in alias:
            return self._events(head, alias[method], "events", peer)
        if endpoint is not None:
            found = endpoint.get("GET" if method == "HEAD" else method)
            if found is not None:
                return self._read(head, found, peer)
        if alias is not None or endpoint is not None:
            return self._not_allowed(method, {*(alias or ()), *(endpoint or ())})
        if path in self._planners:
            if method != "POST":
                return self._not_allowed(method, {"POST"})
            return self._planners[path](head, self._sender(head, None, peer))
        for prefix, kind in (("/v1/events/", "events"), ("/v1/batch/", "batch")):
            if path.startswith(prefix) and len(path) > len(prefix):
                if method != "POST":
                    return self._not_allowed(method, {"POST"})
                return self._events(head, path[len(prefix) :], kind, peer)
        for prefix in ("/v1/schemas/", "/v1/journal/"):
            below = self._endpoints.get(f"{prefix}*")
            if below is not None and path.startswith(prefix):
                if method in ("GET", "HEAD"):
                    return self._read(head, below["GET"], peer)
                return self._not_allowed(method, {"GET"})
        for prefix, plan in self._mounts:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return plan
        raise IngestError("not_found", f"There is nothing at {path[:200]}.")

    def _allowed(self, methods: str) -> Plan:
        return Plan(endpoint=options_answer(methods, self._endpoints))

    def _not_allowed(self, method: str, methods: set[str]) -> Plan:
        allowed = set(methods) | {"OPTIONS"}
        if "GET" in allowed:
            allowed.add("HEAD")
        allow = ", ".join(sorted(allowed))
        if method == "OPTIONS":
            return self._allowed(allow)
        raise IngestError(
            "method_not_allowed",
            f"{method} is not allowed here; allowed: {allow}.",
            headers={"Allow": allow},
        )

    def _sender(self, head: Head, type_name: str | None, peer: Peer) -> Principal:
        return ANONYMOUS if self._gate is None else self._gate.sender(head, type_name, peer)

    def _read(self, head: Head, endpoint: Callable[[Any], None], peer: Peer) -> Plan:
        if self._gate is not None:
            self._gate.reader(head, peer)
        return Plan(endpoint=endpoint)

    def target(self, name: str, principal: Principal) -> Target | None:
        """An event type for what somebody sends; None when there is no such type."""
        target = self._targets.get(name)
        if target is None or principal.name == NOBODY:
            return target
        own = self._own_targets.get((name, principal))
        if own is None:
            own = self._own_targets[name, principal] = target.of(principal, self._metrics)
        return own

    def _events(self, head: Head, name: str, kind: str, peer: Peer) -> Plan:
        signed = self._targets[name].webhook if name in self._targets else None
        if signed is not None:
            signed.require_signature(head.headers)
            principal = signed.principal
        else:
            principal = self._sender(head, name, peer)
        target = self.target(name, principal)
        if target is None:
            raise IngestError("unknown_type", f"No schema is loaded for the type {name[:128]!r}.")
        headers = head.headers
        codings = codings_in(headers)
        require_body(head)
        media = headers.get("content-type", "").partition(";")[0].strip(" \t").lower()
        if media in JSON_TYPES:
            form = "array" if kind == "batch" else "event"
        elif media in NDJSON_TYPES and kind == "events":
            form = "lines"
        else:
            takes = BATCH_MEDIA if kind == "batch" else EVENT_MEDIA
            raise IngestError(
                "unsupported_media_type",
                f"Content-Type {media[:64]!r} is not taken here; send {takes}."
                if media
                else f"Content-Type is missing; send {takes}.",
                headers={"Accept-Post": takes},
            )
        atomic, list_ids = batch_flags(head)
        if atomic and target.remote is not None:
            raise not_atomic(name)
        ways = self._ways
        if target.dedupe is not None:
            ways = target.dedupe.ways(headers, ways)
        key = (target, form, codings, atomic, list_ids, ways, principal)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._event_plan(
                target, ways, form, codings, atomic, list_ids, principal
            )
        return plan

    def _event_plan(
        self,
        target: Target,
        ways: Ways,
        form: str,
        codings: tuple[str, ...],
        atomic: bool,
        list_ids: bool,
        principal: Principal,
    ) -> Plan:
        way = getattr(ways, form)
        run = ways.coded if codings else way
        if target.webhook is not None:
            run = target.webhook.before(run)
        meter = self.meter if self.meter is not None and self.meter.concerns(principal) else None
        if meter is not None and form != "event":
            run = meter.run(run, principal)
        if target.handler is None:
            submit = self._submit
        else:
            spawn = self._spawn

            def submit(exchange: Any) -> None:
                spawn(run, exchange)

        plan = Plan(
            type_name=target.name,
            submit=submit if meter is None else meter.submit(submit, principal),
            run=run,
            codings=codings,
            way=way,
            single=form == "event",
            target=target,
            atomic=atomic,
            list_ids=list_ids,
            accepted_answers=self._metrics.requests.cell(target.name, "202"),
            principal=principal,
        )
        if meter is not None:
            plan.early = meter.early(principal)
        return plan


def codings_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The body's content codings, as applied; none for most.

    Raises:
        IngestError: unsupported_encoding.
    """
    return codings_of(headers["content-encoding"]) if "content-encoding" in headers else ()


def require_body(head: Head) -> None:
    """See that the request has a body.

    Raises:
        IngestError: length_required.
    """
    if head.content_length is None and not head.chunked:
        raise IngestError("length_required", "A body is needed: send Content-Length or chunked.")


def batch_flags(head: Head) -> tuple[bool, bool]:
    """Whether a batch is stored as a whole or not at all, and whether its answer lists ids.

    Raises:
        IngestError: bad_parameter.
    """
    query = parse_qsl(head.query, keep_blank_values=True) if head.query else []
    return _flag(query, "atomic", default=False), _flag(query, "ids", default=True)


def not_atomic(name: str) -> IngestError:
    """The refusal of a batch that is to be stored as a whole, where that cannot be had."""
    return IngestError(
        "bad_parameter",
        f"?atomic=true is not possible for the type {name}: Kafka takes each event by itself.",
    )


def _flag(query: Sequence[tuple[str, str]], name: str, *, default: bool) -> bool:
    values = [value for key, value in query if key == name]
    if not values:
        return default
    if len(values) > 1:
        raise IngestError("bad_parameter", f"?{name} is given {len(values)} times.")
    (value,) = values
    if value not in ("true", "false"):
        raise IngestError("bad_parameter", f"?{name} takes true or false, not {value[:32]!r}.")
    return value == "true"


def options_answer(
    methods: str, endpoints: Mapping[str, Mapping[str, Callable[[Any], None]]]
) -> Callable[[Any], None]:
    """What answers OPTIONS with the methods that there are."""
    answer = endpoints["*"]["OPTIONS"]

    def endpoint(exchange: Any) -> None:
        exchange.context = methods
        answer(exchange)

    return endpoint
