"""The plan of `POST /v1/events`: CloudEvents in their three modes.

Only in binary mode does the head name the event's type, and so all that depends on it. In
the other two the body does: their plans are of no type, and the pipeline takes one that is,
`of_type`, when it has read it.

This module must not know sockets or the journal.

Source: CloudEvents 1.0.2 HTTP protocol binding section 3 (content modes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ingest.access.principal import Principal
from ingest.cloudevents import (
    BATCHED_TYPE,
    MEDIA_PREFIX,
    STRUCTURED_TYPE,
    Invalid,
    from_fields,
    is_json_media,
    refusal,
)
from ingest.errors import IngestError
from ingest.http.head import Head
from ingest.metrics import Metrics
from ingest.routes import Meter, Plan, Target, batch_flags, codings_in, require_body
from ingest.settings import Settings

if TYPE_CHECKING:
    from ingest.access.gate import Gate

PATH = "/v1/events"
#: For the Accept-Post field of a 415.
MEDIA = f"{STRUCTURED_TYPE}, {BATCHED_TYPE}, application/json"

#: The metric label of requests whose event type nobody knows.
NO_TYPE = "-"


class Entrances(Protocol):
    """Where the pipeline takes exchanges with CloudEvents; `coded` leads to the others."""

    @property
    def binary(self) -> Callable[[Any], None]: ...
    @property
    def structured(self) -> Callable[[Any], None]: ...
    @property
    def batched(self) -> Callable[[Any], None]: ...
    @property
    def coded(self) -> Callable[[Any], None]: ...


class AnyType:
    """Stands for the event type of a request until its body has been read.

    Attributes: as those of `Target` that are asked for until then.
    """

    def __init__(self, body_max_bytes: int, metrics: Metrics) -> None:
        self.name = NO_TYPE
        self.handler = None
        self.webhook = None
        self.event_max_bytes = body_max_bytes
        self.keeps_rejected = False
        self.rejected_handler = metrics.events_rejected.cell(NO_TYPE, "handler")
        self.rejected_malformed = metrics.events_rejected.cell(NO_TYPE, "malformed")
        self.rejected_schema = metrics.events_rejected.cell(NO_TYPE, "schema")
        self.rejected_too_large = metrics.events_rejected.cell(NO_TYPE, "too_large")


class CloudEventRouter:
    """Plans requests with CloudEvents.

    Args:
        targets: the event types by name.
        entrances: the pipeline's.
        submit: hands an exchange to the resident greenlets.
        spawn: runs `run(exchange)` in a pool greenlet of its own, for types with a handler.
        settings: sizes, and how many faults are listed.
        metrics: counters of answers.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        entrances: Entrances,
        submit: Callable[[Any], None],
        spawn: Callable[[Callable[[Any], None], Any], None],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._targets = targets
        self._entrances = entrances
        self._submit = submit
        self._spawn = spawn
        self._errors_max = settings.errors_max
        self._metrics = metrics
        #: stands for the type until it is known
        self.any_type: Any = AnyType(settings.request_body_max_bytes, metrics)
        self._plans: dict[tuple[str, str, tuple[str, ...], bool, bool, Principal], Plan] = {}
        self._gate: Gate | None = None
        #: sees to quotas
        self.meter: Meter | None = None
        self._own: Callable[[str, Principal], Target | None]

    def known(self, value: Any) -> Target | None:
        """The event type that an event in the JSON format names, if there is one."""
        name = value.get("type") if isinstance(value, dict) else None
        return self._targets.get(name) if isinstance(name, str) else None

    def unknown(self, name: str) -> IngestError:
        """The refusal of an event whose type is not among those that there are."""
        return IngestError("unknown_type", f"No schema is loaded for the type {name[:128]!r}.")

    def of_type(self, target: Target, principal: Principal) -> Plan:
        """The plan of an exchange whose body has named the type."""
        return self._plan("structured", target, (), False, True, principal)

    def attach(self, gate: Gate, own: Callable[[str, Principal], Target | None]) -> None:
        """Let in only who has a key.

        Args:
            gate: tells who may send what.
            own: the event type for what somebody sends.
        """
        self._gate = gate
        self._own = own

    def own(self, target: Target, principal: Principal) -> Target:
        """An event type for what somebody sends.

        Raises:
            IngestError: forbidden.
        """
        if target.webhook is not None:
            raise IngestError(
                "forbidden", f"Events of the type {target.name!r} are signed, each by itself."
            )
        if self._gate is None:
            return target
        self._gate.require_type(principal, target.name)
        return self._own(target.name, principal) or target

    def forget(self) -> None:
        """Drop what was decided for keys that may be no more."""
        self._plans.clear()

    def plan(self, head: Head, principal: Principal) -> Plan:
        """Decide what to do with a POST.

        Args:
            principal: who sends it.

        Raises:
            IngestError: the head alone decides that it is refused.
        """
        headers = head.headers
        require_body(head)
        codings = codings_in(headers)
        flags = batch_flags(head)  # wrong ones are refused, also where they mean nothing
        media = headers.get("content-type", "").partition(";")[0].strip(" \t").lower()
        if media == STRUCTURED_TYPE:
            return self._plan("structured", self.any_type, codings, False, True, principal)
        if media == BATCHED_TYPE:
            return self._plan("batched", self.any_type, codings, *flags, principal)
        if media.startswith(MEDIA_PREFIX) or not is_json_media(media):
            raise IngestError(
                "unsupported_media_type",
                f"Content-Type {media[:64]!r} is not taken here; send {MEDIA}."
                if media
                else f"Content-Type is missing; send {MEDIA}.",
                headers={"Accept-Post": MEDIA},
            )
        target = self._targets.get(headers.get("ce-type", ""))
        if target is None:  # it is missing, unknown, or written in another way
            try:
                name = from_fields(headers).type
            except Invalid as invalid:
                raise refusal(invalid, self._errors_max) from None
            target = self._targets.get(name)
            if target is None:
                raise self.unknown(name)
        target = self.own(target, principal)
        return self._plan("binary", target, codings, False, True, principal)

    def _plan(
        self,
        mode: str,
        target: Target,
        codings: tuple[str, ...],
        atomic: bool,
        list_ids: bool,
        principal: Principal,
    ) -> Plan:
        key = (mode, target.name, codings, atomic, list_ids, principal)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._new_plan(
                mode, target, codings, atomic, list_ids, principal
            )
        return plan

    def _new_plan(
        self,
        mode: str,
        target: Target,
        codings: tuple[str, ...],
        atomic: bool,
        list_ids: bool,
        principal: Principal,
    ) -> Plan:
        way = getattr(self._entrances, mode)
        run = self._entrances.coded if codings else way
        submit, spawn = self._submit, self._spawn
        meter = self.meter if self.meter is not None and self.meter.concerns(principal) else None
        if meter is not None and mode == "batched":
            run = meter.run(run, principal)
        if target.handler is not None:

            def submit(exchange: Any) -> None:
                spawn(run, exchange)

        plan = Plan(
            type_name=target.name,
            submit=submit if meter is None else meter.submit(submit, principal),
            run=run,
            codings=codings,
            way=way,
            single=mode == "binary",
            target=target,
            atomic=atomic,
            list_ids=list_ids,
            accepted_answers=self._metrics.requests.cell(target.name, "202"),
            principal=principal,
        )
        plan.router = self
        if meter is not None:
            plan.early = meter.early(principal)
        return plan
