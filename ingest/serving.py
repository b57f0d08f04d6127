"""What depends on the event types, in one piece: built at start, built anew by a reload.

    registry ──▶ targets ──▶ routers, answers about the types        ── one swap ──▶ served
                    ▲
    handlers, mounts, windows of keys, signatures seen: these outlive a reload

Nothing here is served before `Service` swaps it in, and what was there before goes on with the
requests that it has begun. This module must not know sockets, files or the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest import routes_cloudevents
from ingest.access.webhooks import Webhooks
from ingest.codec import plain_depth
from ingest.routes import Router, Target, Ways
from ingest.routes_cloudevents import CloudEventRouter

if TYPE_CHECKING:
    from ingest.access.gate import Gate
    from ingest.admission.quotas import Quotas
    from ingest.endpoints import Endpoint, Endpoints
    from ingest.handlers.loader import Handler
    from ingest.journal import Journal
    from ingest.metrics import Metrics
    from ingest.pipeline import Pipeline
    from ingest.registry import Registry
    from ingest.settings import Settings


class Lasting(NamedTuple):
    """What stays as it is when the event types change.

    Attributes:
        settings, metrics, pipeline, journal: the service's.
        answer_elsewhere: gives types their sink that are answered when it has their events.
        submit: hands an exchange to the resident greenlets.
        spawn: runs an exchange in a greenlet of its own.
        before: the handlers that run before the answer, by type.
        mounts: prefix of paths → what answers below it.
        gate: judges who sends; None lets everybody in.
    """

    settings: Settings
    metrics: Metrics
    pipeline: Pipeline
    journal: Journal
    answer_elsewhere: Callable[[Mapping[str, Target]], None]
    submit: Callable[[Any], None]
    spawn: Callable[..., None]
    before: Mapping[str, Handler]
    mounts: Mapping[str, Callable[[Any], None]]
    gate: Gate | None


class Serving:
    """The event types as they are served.

    Args:
        lasting: what it is built around.
        registry: the event types.
        endpoints: answer about them.
        served: turns the endpoints' table into that of the listener for events.
        quotas: sees to what everybody may send.
        before: what was served until now, whose signatures and keys are kept; None at start.

    Raises:
        KeysError: the secret of a webhook cannot be used.
    """

    def __init__(
        self,
        lasting: Lasting,
        registry: Registry,
        endpoints: Endpoints,
        served: Callable[[Endpoints], Mapping[str, Mapping[str, Endpoint]]],
        quotas: Quotas,
        before: Serving | None = None,
    ) -> None:
        settings, metrics, pipeline = lasting.settings, lasting.metrics, lasting.pipeline
        depth = plain_depth(settings.json_decoder, settings.json_depth_max, settings.duplicate_keys)
        self.registry = registry
        self.endpoints = endpoints
        self.targets = {
            name: Target(
                event_type,
                lasting.before.get(name),
                settings.ack,
                settings.event_max_bytes,
                metrics,
                lasting.journal,
                depth,
                settings.schemas_base,
            )
            for name, event_type in registry.types.items()
        }
        lasting.answer_elsewhere(self.targets)
        self.webhooks = Webhooks()
        for name, event_type in registry.types.items():
            options = event_type.options
            if options.dedupe.by != "none":
                self.targets[name].dedupe = pipeline.deduping.serve(event_type, pipeline.coded)
                self.targets[name].typed = None  # an event's value is looked into
            if options.webhook is not None:
                self.targets[name].webhook = self.webhooks.serve(
                    name,
                    options.webhook,
                    metrics,
                    pipeline.refuse,
                    before.webhooks if before is not None else None,
                )
        self.cloudevents = CloudEventRouter(
            self.targets,
            pipeline.cloudevents,
            lasting.submit,
            lasting.spawn,
            settings,
            metrics,
        )
        self.router = Router(
            registry,
            self.targets,
            Ways(pipeline.event, pipeline.batches.lines, pipeline.batches.array, pipeline.coded),
            lasting.submit,
            lasting.spawn,
            served(endpoints),
            metrics,
            {routes_cloudevents.PATH: self.cloudevents.plan},
            lasting.mounts,
            lasting.gate,
        )
        if lasting.gate is not None:
            self.cloudevents.attach(lasting.gate, self.router.target)
        self.router.meter = self.cloudevents.meter = quotas

    def forget(self) -> None:
        """Drop what was decided for keys that may be no more."""
        self.router.forget()
        self.cloudevents.forget()
