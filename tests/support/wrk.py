"""wrk, which sends until it is told to stop and counts what was not answered 2xx."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.events import METRICS

#: Longer than any load.
FOR_EVER = "1h"
SCRIPT = """
wrk.method = "POST"
wrk.body = [[%s]]
wrk.headers["Content-Type"] = "application/json"
"""


class Counted(NamedTuple):
    """What became of a load.

    Attributes:
        requests: that were answered.
        refused: of these, with a status of 400 and above.
        broken: connections that could not be made or broke.
        text: all that wrk said.
    """

    requests: int
    refused: int
    broken: int
    text: str


class Wrk:
    """One load, from construction to `stop`.

    Args:
        port: where it goes.
        directory: for its script.
        connections: that are kept alive.
        scheme: http or https.
        fields: further header fields.
    """

    def __init__(
        self,
        port: int,
        directory: Path,
        connections: int = 32,
        scheme: str = "http",
        fields: Sequence[str] = (),
    ) -> None:
        script = directory / "load.lua"
        script.write_text(SCRIPT % json.dumps(METRICS))
        further = [word for field in fields for word in ("--header", field)]
        self._process = subprocess.Popen(
            ["wrk", "--threads", "1", "--connections", str(connections), "--duration", FOR_EVER,
             "--timeout", "60s", "--script", str(script), *further,
             f"{scheme}://127.0.0.1:{port}/metrics"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def stop(self) -> Counted:
        """End it and count; what is on its way is neither an answer nor a failure."""
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=60)
        requests = re.search(r"(\d+) requests in", text)
        assert requests is not None, text
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", text)
        return Counted(
            int(requests[1]),
            int(refused[1]) if refused else 0,
            sum(map(int, broken.groups())) if broken else 0,
            text,
        )
