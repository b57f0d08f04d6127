"""Quotas: what each key and each client address may send, and the 429 beyond it.

A request is judged by its bytes and, where its head says how many events it has, by these; the
events of a batch are charged when it has been read. Bodies are charged as they are sent, before
a content coding is undone. What is refused for another reason is charged all the same: to refuse
it is work, too.

This module must not know sockets or the pool.

Source: draft-ietf-httpapi-ratelimit-headers (RateLimit, RateLimit-Policy); RFC 6585 section 4
(429); the problem type quota-exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from ingest.access.principal import Principal
from ingest.admission.buckets import Allowance, Allowances, Bucket
from ingest.admission.refusals import Prepared, Refusals, retry_fields
from ingest.errors import IngestError
from ingest.peer import client_address

if TYPE_CHECKING:
    from ingest.metrics import Metrics
    from ingest.settings import Settings

#: Addresses whose use is remembered; about 500 bytes each.
ADDRESSES_MAX = 16_384
#: Nobody is told to wait longer: by then the quota may be another one.
RETRY_MAX_SECONDS = 3600.0

Work = Callable[[Any], None]


class Quotas:
    """Puts quotas around what hands requests to the pool.

    Args:
        settings: those of addresses, and how long a burst may be.
        metrics: where refusals are counted.
        refusals: answer them.
        release: gives a slot of the pool back.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        refusals: Refusals,
        release: Callable[[], None],
    ) -> None:
        self._burst_seconds = settings.quota_burst_seconds
        self._refused = metrics.admission_refused
        self._refusals = refusals
        self._release = release
        self._addresses: Allowances | None = None
        self._shorts: dict[tuple[str, str, int, float], Prepared] = {}
        if settings.address_events_per_second or settings.address_bytes_per_second:
            self._addresses = Allowances(
                lambda now: Allowance(
                    settings.address_events_per_second,
                    settings.address_bytes_per_second,
                    self._burst_seconds,
                    now,
                ),
                ADDRESSES_MAX,
            )
        metrics.admission_addresses.set_function(
            lambda: 0 if self._addresses is None else len(self._addresses)
        )

    def concerns(self, principal: Principal) -> bool:
        """Whether there is any limit to what somebody sends."""
        return principal.quota is not None or self._addresses is not None

    def _allowances(
        self, principal: Principal, connection: Any, headers: Mapping[str, str] | None
    ) -> list[tuple[str, Allowance]]:
        now = monotonic()
        found = []
        quota = principal.quota
        if quota is not None:
            if principal.usage is None:
                principal.usage = Allowance(
                    quota.events_per_second, quota.bytes_per_second, self._burst_seconds, now
                )
            found.append(("key", principal.usage))
        # Where a proxy speaks for many, each request has its client's address in a field.
        if self._addresses is not None and (headers is not None or not connection.peer.proxied):
            address = client_address(connection, headers or {})[0]
            found.append(("address", self._addresses.of(address, now)))
        return found

    def submit(self, submit: Work, principal: Principal) -> Work:
        """Around what hands an exchange, which holds a slot, to the pool."""

        def metered(exchange: Any) -> None:
            size = len(exchange.body)
            found = self._allowances(principal, exchange.connection, exchange.head.headers)
            for whose, allowance in found:
                short = allowance.lacks(1, size, exchange.started)
                if short is not None:
                    self._refused.cell(f"{whose}_{short[0]}").value += 1
                    self._refusals.answer(exchange, self._prepared(whose, *short))
                    self._release()
                    return
            for _, allowance in found:
                allowance.charge(1, size)
            submit(exchange)

        return metered

    def run(self, run: Work, principal: Principal) -> Work:
        """Around the work on a request of many events: those beyond one are charged after it."""

        def metered(exchange: Any) -> None:
            try:
                run(exchange)
            finally:
                context = exchange.context
                batch = getattr(context, "batch", context)
                more = len(getattr(batch, "ids", (None,))) - 1
                if more > 0:
                    headers = exchange.head.headers
                    for _, allowance in self._allowances(principal, exchange.connection, headers):
                        allowance.charge(more, 0)

        return metered

    def early(self, principal: Principal) -> Callable[[Any, int], IngestError | None]:
        """Judges a request by its head, before its body is read.

        The function takes the connection and the bytes of the body, 0 where they are unknown,
        and charges nothing.
        """

        def judge(connection: Any, size: int) -> IngestError | None:
            now = monotonic()
            for whose, allowance in self._allowances(principal, connection, None):
                short = allowance.lacks(1, size, now)
                if short is not None:
                    self._refused.cell(f"{whose}_{short[0]}").value += 1
                    return self._error(whose, *short)
            return None

        return judge

    # -- answers -------------------------------------------------------------------------

    def _prepared(self, whose: str, name: str, bucket: Bucket, wait: float) -> Prepared:
        """Bytes that say how long to wait in whole seconds can be sent to many."""
        seconds = max(1, math.ceil(wait))
        key = whose, name, seconds, bucket.rate
        found = self._shorts.get(key)
        if found is None:
            if len(self._shorts) >= 256:
                self._shorts.clear()
            found = self._shorts[key] = Prepared(
                lambda: self._error(whose, name, bucket, seconds), "quota_exceeded", 429
            )
        return found

    def _error(self, whose: str, name: str, bucket: Bucket, wait: float) -> IngestError:
        seconds = max(1, math.ceil(wait))
        window = max(1, math.ceil(bucket.burst / bucket.rate))
        unit = ';qu="content-bytes"' if name == "bytes" else ""
        who = "this key" if whose == "key" else "your address"
        return IngestError(
            "quota_exceeded",
            f"The quota of {who} is {bucket.rate:g} {name} a second.",
            extensions={"violated-policies": [name]},
            headers={
                **retry_fields(seconds, RETRY_MAX_SECONDS),
                "RateLimit-Policy": f'"{name}";q={int(bucket.burst)};w={window}{unit}',
                "RateLimit": f'"{name}";r=0;t={seconds}',
            },
        )
