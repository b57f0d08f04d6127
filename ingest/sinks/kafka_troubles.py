"""What is wrong between librdkafka and the brokers, beside single messages: noted, logged, counted.

librdkafka tells it from within `poll`, in whatever thread that is called; it is logged on the hub.
This module must not know messages.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.sinks.kafka_errors import is_unauthorized
from ingest.sinks.kafka_settings import KafkaSettings

log = get_logger(__name__)

#: The same words of librdkafka are logged so often.
SAY_SECONDS = 10.0
SAID_MAX = 1000
#: Stands for a fault of ours in place of librdkafka's code.
UNEXPECTED = "unexpected"


class _Said(NamedTuple):
    level: int  # as syslog has them: up to 2 critical, 3 error, 4 warning
    code: str
    text: str


class Troubles:
    """The troubles of one producer.

    Args:
        settings: tell what is secret.
        metrics: where troubles are counted.
        name: of the producer.

    Attributes:
        last: librdkafka's last error since brokers were known to be well; None when they are.
        since: since when nothing has shown that they are; None when they are.
        fatal: why nothing is taken: the producer has failed as a whole and is to be made anew.
    """

    def __init__(self, settings: KafkaSettings, metrics: Metrics, name: str) -> None:
        self._settings = settings
        self._metrics = metrics
        self._name = name
        self._said: deque[_Said] = deque(maxlen=SAID_MAX)
        self._said_at: dict[str, float] = {}
        self.last: Any = None
        self.since: float | None = time.monotonic()
        self._text = "no broker has answered yet"
        self.fatal: str | None = None

    # -- in any thread ---------------------------------------------------------------------

    def failed(self, error: Any) -> None:
        """librdkafka's `error_cb`."""
        self._said.append(_Said(3, error.name(), error.str()))
        if error.fatal():
            self.fatal = error.str()
        if self.last is None or not is_unauthorized(self.last):  # what follows says less
            self.last = error
            self._text = error.str()
        if self.since is None:
            self.since = time.monotonic()

    def log(self, level: int, text: str, *args: Any, **_: Any) -> None:
        """Take a line of librdkafka's log; it takes this object for a logger."""
        self._said.append(_Said(level, "", text % args if args else text))

    def unexpected(self, error: BaseException) -> None:
        """Something that nobody expected."""
        self._said.append(_Said(2, UNEXPECTED, repr(error)))

    def over(self) -> None:
        """The brokers are well."""
        self.last = None
        self.since = None

    @property
    def unsaid(self) -> bool:
        """Whether there is anything to log."""
        return bool(self._said)

    # -- on the hub ------------------------------------------------------------------------

    def say(self) -> None:
        """Log and count what there is, not the same every second."""
        while self._said:
            said = self._said.popleft()
            if said.code == UNEXPECTED:
                self._metrics.unhandled_errors.cell("kafka").value += 1
            elif said.code:
                self._metrics.kafka_troubles.cell(said.code).value += 1
            self._say(said, self._settings.without_secrets(said.text))

    def _say(self, said: _Said, text: str) -> None:
        now = time.monotonic()
        known = said.code or text
        if now - self._said_at.get(known, -SAY_SECONDS) < SAY_SECONDS:
            return
        if len(self._said_at) >= SAID_MAX:
            self._said_at.clear()
        self._said_at[known] = now
        write = log.error if said.level <= 2 else log.warning if said.level <= 4 else log.info
        write("kafka.trouble", producer=self._name, code=said.code or None, reason=text)

    def why(self, limit_seconds: float) -> str | None:
        """What has been wrong for so long; None when nothing has."""
        if self.fatal is not None:
            return self._settings.without_secrets(self.fatal)
        since = self.since
        if since is not None and time.monotonic() - since > limit_seconds:
            return self._settings.without_secrets(self._text)
        return None
