"""Lets in events of types that are signed: the right secret, not too old, not seen before.

A signature is remembered for as long as it would be taken again. One whose request we could
not store, for reasons of ours, is forgotten: its sender will repeat it.

This module must not know event types, sockets or the journal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.access import signatures
from ingest.access.keys import KeysError
from ingest.access.principal import Principal
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.metrics import Metrics
    from ingest.type_options import Webhook

#: Signatures of a type that are remembered; beyond it nothing more is taken until one is old,
#: because what is forgotten too early could be sent again.
SEEN_MAX = 200_000
SECRETS_MAX = 16
#: What a clock may be ahead of ours.
AHEAD_SECONDS = 60.0


def secrets_of(options: Webhook, environ: Mapping[str, str]) -> list[bytes]:
    """The HMAC keys of a type.

    Raises:
        ValueError, OSError: there are none, or they cannot be used.
    """
    if options.secret_env:
        given = [environ.get(options.secret_env, "")]
        if not given[0]:
            raise ValueError(f"the environment variable {options.secret_env} is not set")
    else:
        text = Path(options.secret_file).read_text("utf-8")
        given = [line.strip() for line in text.splitlines() if line.strip()]
        if not 0 < len(given) <= SECRETS_MAX:
            raise ValueError(f"{options.secret_file} has no secret, or more than {SECRETS_MAX}")
    return [signatures.key_of(options.scheme, secret) for secret in given]


class SignedWebhook:
    """The webhook of one event type.

    Args:
        type_name: whose events it brings.
        options: the scheme, and where the secret is.
        metrics: where refusals are counted.
        refuse: answers an error and gives the slot back.
        clock: seconds since 1970.

    Raises:
        ValueError, OSError: the secret cannot be used.

    Attributes:
        principal: whose events these are.
    """

    def __init__(
        self,
        type_name: str,
        options: Webhook,
        metrics: Metrics,
        refuse: Callable[[Any, IngestError], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.principal = Principal(f"webhook:{type_name}", None, frozenset(("send",)))
        self._options = options
        self._metrics = metrics
        self._refuse = refuse
        self._clock = clock
        self.keys = secrets_of(options, os.environ)
        #: right signatures → until when they are remembered, and the request that brought them
        self._seen: dict[bytes, tuple[float, tuple[int, float]]] = {}

    def require_signature(self, headers: Mapping[str, str]) -> None:
        """See that a request has what could be a signature; asked before its body is read.

        Raises:
            IngestError: unauthorized.
        """
        if signatures.read(self._options.scheme, headers) is None:
            field = signatures.FIELDS[self._options.scheme]
            raise self._refusal("unsigned", f"A signature is needed, in {field}.")

    def before(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        """What is done with a request, behind the check of its signature."""

        def checked(exchange: Any) -> None:
            try:
                self.check(exchange)
            except IngestError as error:
                self._refuse(exchange, error)
            else:
                run(exchange)

        return checked

    def check(self, exchange: Any) -> None:
        """See that a request is signed, of now, and new; remembers it.

        Raises:
            IngestError: unauthorized, overloaded.
        """
        options, now = self._options, self._clock()
        signed = signatures.read(options.scheme, exchange.head.headers)
        if signed is None:
            raise self._refusal("unsigned", "A signature is needed.")
        digest = signatures.matching(signed, exchange.body, self.keys)
        if digest is None:
            raise self._refusal("signature", "The signature is not right.")
        since = now if signed.time is None else float(signed.time)
        if not -options.tolerance_seconds <= since - now <= AHEAD_SECONDS:
            raise self._refusal("stale", "The signature is too old, or a clock is wrong.")
        self._forget_old(now)
        if digest in self._seen:
            raise self._refusal("replayed", "This signature was sent before.")
        if len(self._seen) >= SEEN_MAX:
            raise IngestError("overloaded", "Too many signatures are remembered.")
        self._seen[digest] = since + options.tolerance_seconds, _identity(exchange)

    def failed(self, exchange: Any) -> None:
        """A request was answered 5xx: it may come again."""
        signed = signatures.read(self._options.scheme, exchange.head.headers)
        for digest in signed.digests if signed is not None else ():
            found = self._seen.get(digest)
            if found is not None and found[1] == _identity(exchange):
                del self._seen[digest]

    def remember(self, before: SignedWebhook) -> None:
        """Take over what another one of the same type has seen, and sees."""
        self._seen = before._seen

    def _forget_old(self, now: float) -> None:
        """Those that came first go first; one signed ahead of our clock may hold some back."""
        while self._seen:
            digest = next(iter(self._seen))
            if self._seen[digest][0] >= now:
                break
            del self._seen[digest]

    def _refusal(self, reason: str, detail: str) -> IngestError:
        self._metrics.access_refused.cell(reason).value += 1
        challenge = {"WWW-Authenticate": 'Webhook realm="ingest"'}
        return IngestError("unauthorized", detail, headers=challenge)


class Webhooks:
    """Those of all types that have one."""

    def __init__(self) -> None:
        self._by_type: dict[str, SignedWebhook] = {}

    def serve(
        self,
        type_name: str,
        options: Webhook,
        metrics: Metrics,
        refuse: Callable[[Any, IngestError], None],
        before: Webhooks | None = None,
    ) -> SignedWebhook:
        """The webhook of one more type.

        Args:
            before: those until now: signatures they have seen are not taken again.

        Raises:
            KeysError: its secret cannot be used.
        """
        try:
            made = SignedWebhook(type_name, options, metrics, refuse)
        except (OSError, ValueError) as error:
            raise KeysError([f"webhook of {type_name}: {_reason(error)}"]) from None
        known = before._by_type.get(type_name) if before is not None else None
        if known is not None:
            made.remember(known)
        self._by_type[type_name] = made
        return made


def problems_of(webhooks: Iterable[tuple[str, Webhook]]) -> list[str]:
    """What is wrong with the secrets of types, for `check`."""
    problems = []
    for name, options in webhooks:
        try:
            secrets_of(options, os.environ)
        except (OSError, ValueError) as error:
            problems.append(f"webhook of {name}: {_reason(error)}")
    return problems


def _identity(exchange: Any) -> tuple[int, float]:
    return id(exchange), exchange.started


def _reason(error: Exception) -> str:
    """Why, without anything of a secret."""
    if isinstance(error, UnicodeDecodeError):
        return "the secret is not UTF-8 text"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)
