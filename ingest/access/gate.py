"""Judges a request by its head: who sends it, and whether it may.

The judgement is part of a request's plan, which is kept with the head. So a key is looked at
when a head is seen for the first time, and again after the keys have changed.

This module must not know event types, sockets or the journal.

Source: RFC 6750 sections 2.1 and 3 (Bearer), RFC 7617 (Basic), RFC 9110 section 11.6.1.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import gevent

from ingest.access import keys_file
from ingest.access.keys import Denied, Keys, KeysError
from ingest.access.principal import Principal
from ingest.errors import IngestError
from ingest.http.head import Head
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.peer import NOBODY_KNOWN, Peer
from ingest.stamps import stamp

log = get_logger(__name__)

#: How often it is looked whether the file has changed, or a key has expired.
LOOK_SECONDS = 1.0
REALM = 'realm="ingest"'
_READING = ("/v1/schemas", "/v1/journal")


class Read(NamedTuple):
    """A keys file that was read: its keys, and what tells this state of it from another."""

    keys: Keys
    stamp: tuple[int, int, int, int] | None


class Gate:
    """Lets in who has a key.

    Args:
        path: the keys file.
        metrics: where refusals are counted.
        changed: called after the keys have changed: what was decided before may be wrong.

    Raises:
        KeysError: the file cannot be used.
    """

    def __init__(self, path: Path, metrics: Metrics, changed: Callable[[], None]) -> None:
        self._path = path
        self._metrics = metrics
        self._changed = changed
        self._stamp = stamp(path)
        self._keys = keys_file.load(path)
        self._changes_at = self._keys.changes_at(time.time())
        self._watcher: gevent.Greenlet | None = None
        metrics.keys.set_function(lambda: len(self._keys))

    # -- judging ---------------------------------------------------------------------------

    def sender(
        self, head: Head, type_name: str | None = None, peer: Peer = NOBODY_KNOWN
    ) -> Principal:
        """Who sends events.

        Args:
            type_name: of the events; None where the body says it.
            peer: the connection's other side.

        Raises:
            IngestError: unauthorized, forbidden.
        """
        principal = self._who(head.headers, peer)
        if "send" not in principal.rights:
            raise self._forbidden("right", "This key may not send events.")
        if type_name is not None:
            self.require_type(principal, type_name)
        return principal

    def require_type(self, principal: Principal, type_name: str) -> None:
        """See that somebody may send events of a type.

        Raises:
            IngestError: forbidden.
        """
        if not principal.may_send(type_name):
            raise self._forbidden(
                "type", f"This key may not send events of the type {type_name[:128]!r}."
            )

    def reader(self, head: Head, peer: Peer = NOBODY_KNOWN) -> None:
        """See that a request for something stored may have it.

        Args:
            peer: the connection's other side.

        Raises:
            IngestError: unauthorized, forbidden.
        """
        if head.path.startswith(_READING) and "read" not in self._who(head.headers, peer).rights:
            raise self._forbidden("right", "This key may not read.")

    def _who(self, headers: Mapping[str, str], peer: Peer) -> Principal:
        if peer.subject is not None and not _brings_key(headers):
            client = self._keys.client(peer.subject, *peer.alternatives)
            if client is not None:
                return client
            if self._keys.has_clients:
                raise self._forbidden(
                    "client", f"The certificate's subject {peer.subject[:256]!r} is not known here."
                )
        token = self._token(headers)
        try:
            return self._keys.find(token, time.time())
        except Denied as denied:
            raise self._refusal(
                denied.reason, "The key is not valid.", ', error="invalid_token"'
            ) from None

    def _token(self, headers: Mapping[str, str]) -> str:
        """The key that a request brings."""
        authorization, bare = headers.get("authorization"), headers.get("x-api-key")
        if authorization is not None and bare is not None:
            raise self._refusal("malformed", "Send one key: Authorization or X-API-Key.")
        if bare is not None:
            return bare
        if authorization is None:
            raise self._refusal("missing", "A key is needed: `Authorization: Bearer ing_…`.")
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return rest.strip(" ")
        if scheme.lower() == "basic":
            return self._password(rest.strip(" "))
        raise self._refusal(
            "malformed", "Authorization takes Bearer, or Basic with the key as password."
        )

    def _password(self, credentials: str) -> str:
        """Of user-id and password; the user-id may be anything (RFC 7617 section 2)."""
        try:
            _, colon, password = b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:
            colon = password = ""
        if not colon:
            raise self._refusal(
                "malformed", "The Basic credentials are not user:password in base64."
            )
        return password

    def _refusal(self, reason: str, detail: str, error: str = "") -> IngestError:
        self._metrics.access_refused.cell(reason).value += 1
        challenge = f"Bearer {REALM}{error}, Basic {REALM}"
        return IngestError("unauthorized", detail, headers={"WWW-Authenticate": challenge})

    def _forbidden(self, reason: str, detail: str) -> IngestError:
        self._metrics.access_refused.cell(reason).value += 1
        return IngestError("forbidden", detail)

    # -- changes ---------------------------------------------------------------------------

    def start(self) -> None:
        """Look after the file from now on."""
        self._watcher = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher = None

    def reload(self) -> list[str]:
        """Read the file anew; a bad one changes nothing.

        Returns:
            what is wrong with it.
        """
        try:
            read = self.read()
        except KeysError as error:
            return error.problems
        self.adopt(read)
        return []

    def read(self) -> Read:
        """Read the file anew, and change nothing yet.

        Raises:
            KeysError: the file cannot be used.
        """
        found = stamp(self._path)
        try:
            return Read(keys_file.load(self._path), found)
        except KeysError as error:
            self._stamp = found  # said once for each state of the file
            self._metrics.keys_reloads.cell("failed").value += 1
            log.error("keys.reload_failed", file=str(self._path), problems=error.problems)
            raise

    def adopt(self, read: Read) -> None:
        """Let in who has a key of these from now on."""
        self._keys, self._stamp = read
        self._metrics.keys_reloads.cell("done").value += 1
        log.info("keys.reloaded", file=str(self._path), keys=len(read.keys))
        self._decide_anew()

    def _decide_anew(self) -> None:
        self._changes_at = self._keys.changes_at(time.time())
        self._changed()

    def _watch(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            if stamp(self._path) != self._stamp:
                self.reload()
            elif self._changes_at is not None and time.time() >= self._changes_at:
                self._decide_anew()


def _brings_key(headers: Mapping[str, str]) -> bool:
    return "authorization" in headers or "x-api-key" in headers
