"""Where `replay` sends records: standard output, any URL, or the calls of a gateway.

This module must not know the journal.
"""

from __future__ import annotations

import re
import sys
from typing import Protocol
from urllib.parse import urlsplit

from ingest.journal.commands import payload_of
from ingest.journal.output import Output
from ingest.journal.replay_http import HttpTarget, Refused, Taken, Urls
from ingest.journal.replay_messages import message_of

_TAKEN = Taken(before=False)


class Target(Protocol):
    """Takes records one by one.

    Attributes:
        retried: how often any was sent again.
    """

    @property
    def retried(self) -> int: ...

    def send(self, line: bytes) -> Taken | Refused:
        """Send one record.

        Raises:
            Unsendable: there is nothing to send of it.
            TargetFailed: the target takes nothing for now.
            OutputFailed: standard output cannot be written.
        """

    def flush(self) -> None:
        """What was sent has left when this returns.

        Raises:
            OutputFailed: it has not.
        """

    def close(self) -> None:
        """Let it go."""


class StandardOutput:
    """Prints records as `journal cat` does.

    Args:
        as_event: whether the whole event is printed, or only its data.
    """

    retried = 0

    def __init__(self, as_event: bool) -> None:
        self._as_event = as_event
        self._output = Output(sys.stdout.fileno(), "standard output")

    def send(self, line: bytes) -> Taken:
        self._output.write((line if self._as_event else payload_of(line)) + b"\n")
        return _TAKEN

    def flush(self) -> None:
        self._output.flush()

    def close(self) -> None:
        self._output.done()

    def __str__(self) -> str:
        return "standard output"


class Http:
    """Posts records.

    Args:
        target: sends the messages.
        where: for a person.
        as_event: whether whole events are sent, or only their data; None for what each came as.
        type_name: instead of each event's own type.
    """

    def __init__(
        self, target: HttpTarget, where: str, as_event: bool | None, type_name: str | None
    ) -> None:
        self._target = target
        self._where = where
        self._as_event = as_event
        self._type_name = type_name

    @property
    def retried(self) -> int:
        return self._target.retried

    def send(self, line: bytes) -> Taken | Refused:
        return self._target.send(message_of(line, self._as_event, self._type_name))

    def flush(self) -> None:
        """An answer came to everything that was sent."""

    def close(self) -> None:
        self._target.close()

    def __str__(self) -> str:
        return self._where


def gateway_urls(url: str) -> Urls:
    """The calls of a gateway.

    Args:
        url: of its root, such as http://127.0.0.1:8080.

    Raises:
        ValueError: that is none.
    """
    if urlsplit(url).query or urlsplit(url).fragment:
        raise ValueError(f"{url!r} is no gateway's URL like http://127.0.0.1:8080")
    root = url.rstrip("/")
    return Urls(f"{root}/v1/events/{{type}}", f"{root}/v1/events")


def url_of_bind(bind: str) -> str:
    """The URL of the gateway that listens on an address, seen from this machine.

    Raises:
        ValueError: its port is known only while it runs.
    """
    found = re.fullmatch(r"(.*):([0-9]+)", bind)
    if found is None or found[2] == "0":
        raise ValueError(f"--bind {bind} does not say where the gateway listens: --url says it")
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}.get(found[1], found[1])
    return f"http://{host}:{found[2]}"
