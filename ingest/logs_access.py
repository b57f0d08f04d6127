"""The access log: one line a request, at a fraction of what a log call costs.

Lines are built as bytes, kept back and handed to the log writer in blocks. What is
written is decided by the mode alone; levels and handlers of logging.yaml do not apply.

This module must not know sockets or HTTP parsing.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from gevent.hub import get_hub

from ingest.logs_access_lines import Entry, renderer
from ingest.logs_render import json_text
from ingest.logs_writer import BLOCK_MAX_BYTES, LogWriter

#: Lines wait at most this long for others to share their write.
DELAY_SECONDS = 0.1
#: Of what never became a request.
NO_HEADERS: Mapping[str, str] = {}


class AccessLog:
    """Writes requests down.

    Modes: `off`: none. `errors`: statuses of 400 and above. `sample`: those, and a share
    of the others. `all`: every request.

    Args:
        mode: one of the above.
        sample: share of the answers below 400 that mode `sample` writes, 0 to 1.
        writer: where the lines go and are counted.
        form: `json` or `combined`.
        draw: a random number from 0 up to but not including 1.
        clock: seconds since the epoch.

    Attributes:
        gap: how many answers below 400 come before the next one to be written; a hot
            path that answers many at once may skip up to that many by `gap -= n`
            instead of calling `record` for each.
    """

    def __init__(
        self,
        mode: str,
        sample: float,
        writer: LogWriter,
        form: str = "json",
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._errors_wanted = mode != "off"
        self._share = {"all": 1.0, "sample": sample}.get(mode, 0.0)
        self._writer = writer
        self._draw = draw
        self._clock = clock
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: Any = None
        self.gap = self._next_gap()
        identity = f'"service":{json_text(writer.service)},"worker":{writer.worker}'
        self._render = renderer(form, writer.console, identity)
        writer.add_source(self.flush)

    def _next_gap(self) -> int:
        """How many to skip; geometric, so that each answer has the same chance."""
        if self._share >= 1.0:
            return 0
        if self._share <= 0.0:
            return sys.maxsize
        gap = math.log(1.0 - self._draw()) / math.log1p(-self._share)
        return int(min(gap, sys.maxsize))

    def wants(self, status: int) -> bool:
        """Whether `record` may have something to write for an answer of this status."""
        return self._errors_wanted if status >= 400 else self._share > 0.0

    def record(
        self,
        *,
        address: Any,
        method: str,
        target: bytes,
        status: int,
        request_bytes: int,
        response_bytes: int,
        duration_seconds: float,
        request_id: str,
        type: str,
        key: str = "-",
        version: tuple[int, int] = (1, 1),
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Write one answered request down, if the mode and its turn have it.

        Args:
            address: of the peer, as `accept` gave it.
            target: the request target as sent.
            type: event type, `-` for none.
            key: name of the key that it came with, `-` for none.
            version: of HTTP.
            headers: the request's, for `traceparent`, `Referer` and `User-Agent`.
        """
        if status < 400:
            if self.gap > 0:
                self.gap -= 1
                return
            self.gap = self._next_gap()
        elif not self._errors_wanted:
            return
        level = "info" if status < 400 else "warning" if status < 500 else "error"
        self._writer.count(level)
        entry = Entry(
            self._clock(), level, address, method, target, version, status, request_bytes,
            response_bytes, duration_seconds, request_id, type, key, headers,
        )  # fmt: skip
        self._keep(self._render(entry).encode())

    def _keep(self, line: bytes) -> None:
        if self._size + len(line) > BLOCK_MAX_BYTES:
            self.flush()
        self._lines.append(line)
        self._size += len(line)
        if len(self._lines) == 1:
            if self._timer is None:
                # Unreferenced: a pending line must not keep the loop alive by itself.
                self._timer = get_hub().loop.timer(DELAY_SECONDS, ref=False)
            self._timer.start(self.flush)

    def flush(self) -> None:
        """Hand what was kept back to the writer."""
        if self._timer is not None:
            self._timer.stop()
        lines, self._lines, self._size = self._lines, [], 0
        if lines:
            self._writer.write(b"".join(lines), len(lines))
