"""Sends messages to an HTTP target one after the other, over one connection that is kept.

What may go better later is tried again, with growing pauses that chance spreads; what the
target refuses is not. Between a message and its answer a connection may break: the message is
then sent again with the same `Idempotency-Key`, and a target that knows the key takes it once.

This module must not know the journal.

Source: RFC 9110 sections 10.2.3 (Retry-After) and 15; RFC 9457 (problem details).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import ujson

from ingest.journal.replay_messages import Message
from ingest.version import __version__

#: Pauses before a message is sent again: the first at most so long, each twice the last.
BACKOFF_SECONDS = 0.25
BACKOFF_MAX_SECONDS = 30.0
#: A target that asks for more patience than this is asked again nonetheless.
RETRY_AFTER_MAX_SECONDS = 300.0

_TRY_AGAIN = frozenset({408, 425, 429, 502, 503, 504, 507})
_POINTLESS = frozenset({401, 403, 405, 407, 421, 426, 501, 505})
_BODY_BYTES = 64 << 10
_WORDS = 300
#: A handler's own failure concerns this event; and each attempt may keep one more rejected one.
_EVENTS_OWN = frozenset({"handler_error", "handler_timeout"})


class TargetFailed(Exception):
    """The target does not take anything for now; the message says why."""


class Refused(NamedTuple):
    """The target does not want this message.

    Attributes:
        status: of its answer.
        code: of the problem, "" if it names none.
        pointer: JSON Pointer of the first fault, None if it names none.
        reason: for a person.
    """

    status: int
    code: str
    pointer: str | None
    reason: str

    def __str__(self) -> str:
        words = " ".join(filter(None, (str(self.status), self.code)))
        if self.pointer == "":
            words += ", the event"
        elif self.pointer is not None and not self.reason.startswith(self.pointer):
            words += f", {self.pointer}"
        return f"{words}: {self.reason}" if self.reason else words


class Taken(NamedTuple):
    """The target has the message.

    Attributes:
        before: whether it says that it had it before.
    """

    before: bool


class Urls:
    """Where messages go.

    Args:
        data: URL for data; `{type}` in it stands for the type.
        event: URL for whole events.

    Raises:
        ValueError: that is no URL of HTTP.
    """

    def __init__(self, data: str, event: str) -> None:
        self._urls = {False: data, True: event}
        for url in (data, event):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is no URL like http://127.0.0.1:8080/v1/events/order")
            if parts.username is not None or "{" in parts.netloc:
                raise ValueError(f"{url!r}: its host can be a name or an address only")
            parts.port  # noqa: B018 - raises ValueError when it is none
        self.secure = urlsplit(data).scheme == "https"
        self.netloc = urlsplit(data).netloc
        self._paths = {}
        for is_event, url in self._urls.items():
            parts = urlsplit(url)
            path = parts.path or "/"
            path += f"?{parts.query}" if parts.query else ""
            self._paths[is_event] = quote(path, safe="/?&=%:@!$'()*+,;~{}-._")

    def path(self, message: Message) -> str:
        """Path and query of a message."""
        return self._paths[message.is_event].replace("{type}", quote(message.type, safe=""))

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.netloc}"


class HttpTarget:
    """An HTTP service that takes messages.

    Args:
        urls: where they go.
        headers: further header fields.
        retries: how often one message is sent again.
        timeout: seconds to wait for a connection, and for an answer.
        sleep, chance, clock: `time.sleep`, `random.random` and `time.time`.

    Attributes:
        retried: how often any message was sent again.
    """

    def __init__(
        self,
        urls: Urls,
        headers: Mapping[str, str],
        retries: int,
        timeout: float,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._urls = urls
        self._headers = {"User-Agent": f"ingest-replay/{__version__}", **headers}
        self._retries = retries
        self._sleep, self._chance, self._clock = sleep, chance, clock
        kind = HTTPSConnection if urls.secure else HTTPConnection
        self._connection = kind(urls.netloc, timeout=timeout)
        self._answered = False  # whether the connection has carried an answer
        self.retried = 0

    def send(self, message: Message) -> Taken | Refused:
        """Send one message until there is an answer that counts.

        Raises:
            TargetFailed: there is none after all retries, or nothing will be taken anyway.
        """
        failures = 0
        while True:
            reused, self._answered = self._answered, False
            patience = 0.0
            try:
                response, body = self._exchange(message)
            except (OSError, HTTPException) as error:
                self._connection.close()
                if reused and isinstance(error, ConnectionError):
                    self.retried += 1
                    continue  # it was idle, and closed for that: nobody's failure
                why = _printable(str(error)) or type(error).__name__
            else:
                outcome = self._judge(response, body)
                if not isinstance(outcome, _Later):
                    return outcome
                why, patience = outcome
            failures += 1
            if failures > self._retries:
                raise TargetFailed(
                    f"{self._urls} does not take it, after {failures} attempts: {why}"
                )
            self.retried += 1
            self._sleep(patience + self._backoff(failures))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _exchange(self, message: Message) -> tuple[HTTPResponse, bytes]:
        fields = {
            **self._headers,
            "Content-Type": message.media_type,
            "Idempotency-Key": f'"{message.key}"',
        }
        self._connection.request("POST", self._urls.path(message), message.body, fields)
        response = self._connection.getresponse()
        body = response.read(_BODY_BYTES)
        if response.isclosed() or not response.read(1):
            self._answered = not response.will_close
        else:
            self._connection.close()  # a long answer, and not worth reading on
        return response, body

    def _judge(self, response: HTTPResponse, body: bytes) -> Taken | Refused | _Later:
        status = response.status
        if 200 <= status < 300:
            return Taken(response.getheader("Idempotency-Replayed") == "true")
        refused = _refused(status, body, response.reason or "")
        if status < 400 or status in _POINTLESS:
            raise TargetFailed(f"{self._urls} answers {refused}")
        patience = self._retry_after(response.getheader("Retry-After"))
        again = status in _TRY_AGAIN or (status == 409 and patience is not None)
        if again and refused.code not in _EVENTS_OWN:
            return _Later(str(refused), patience or 0.0)
        return refused

    def _retry_after(self, text: str | None) -> float | None:
        """Seconds to wait as the target says, None when it says nothing that can be read."""
        if text is None:
            return None
        try:
            seconds = float(int(text))
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - self._clock()
            except ValueError:
                return None
        return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)

    def _backoff(self, failures: int) -> float:
        ceiling = min(BACKOFF_SECONDS * 2.0 ** (failures - 1), BACKOFF_MAX_SECONDS)
        return ceiling * self._chance()


class _Later(NamedTuple):
    """It may be taken later: why not now, and when at the earliest, in seconds."""

    why: str
    patience: float


def _refused(status: int, body: bytes, phrase: str) -> Refused:
    try:
        problem: Any = ujson.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return Refused(status, "", None, _printable(phrase))
    errors = problem.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else problem
    if not isinstance(first, dict):
        first = problem
    pointer = first.get("pointer")
    reason = first.get("message") or problem.get("detail") or problem.get("title") or phrase
    return Refused(
        status,
        _printable(str(problem.get("code") or "")),
        _printable(pointer) if isinstance(pointer, str) else None,
        _printable(str(reason)),
    )


def _printable(text: str) -> str:
    """A stranger's words for a terminal: one line, of a bounded length, without controls."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:_WORDS])
