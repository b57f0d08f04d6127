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
from collections.abc import Callable
from typing import Any

from gevent.hub import get_hub

from ingest.logs_render import cut, json_text, timestamp
from ingest.logs_secrets import scrub_target
from ingest.logs_writer import BLOCK_MAX_BYTES, LogWriter

#: Lines wait at most this long for others to share their write.
DELAY_SECONDS = 0.1
#: Longest request target shown, in bytes.
TARGET_MAX = 1024


class AccessLog:
    """Writes requests down.

    Modes: `off`: none. `errors`: statuses of 400 and above. `sample`: those, and a share
    of the others. `all`: every request.

    Args:
        mode: one of the above.
        sample: share of the answers below 400 that mode `sample` writes, 0 to 1.
        writer: where the lines go and are counted.
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
        self._identity = f'"service":{json_text(writer.service)},"worker":{writer.worker}'
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
    ) -> None:
        """Write one answered request down, if the mode and its turn have it.

        Args:
            address: of the peer, as `accept` gave it.
            target: the request target as sent.
            type: event type, `-` for none.
            key: name of the key that it came with, `-` for none.
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
        peer = str(address[0]) if isinstance(address, tuple) and address else str(address or "-")
        where = cut(scrub_target(target.decode("utf-8", "backslashreplace")), TARGET_MAX)
        now = timestamp(self._clock())
        if self._writer.console:
            line = (
                f"{now} [{level:<7}] {peer} {json_text(f'{method} {where}')} {status} "
                f"{response_bytes} B {duration_seconds * 1000:.1f} ms {request_id}\n"
            )
        else:
            known = "" if key == "-" else f'"key":{json_text(key)},'
            line = (
                f'{{"timestamp":"{now}","level":"{level}","event":"http.access",'
                f'"logger":"ingest.access",{self._identity},'
                f'"request_id":{json_text(request_id)},"address":{json_text(peer)},'
                f'"method":{json_text(method)},"target":{json_text(where)},"status":{status},'
                f'"type":{json_text(type)},{known}"request_bytes":{request_bytes},'
                f'"response_bytes":{response_bytes},"duration_seconds":{duration_seconds:.6f}}}\n'
            )
        self._keep(line.encode())

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
