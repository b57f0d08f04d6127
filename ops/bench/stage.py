"""Where a measurement takes place: a server on its core, the client on another.

`bench.py` and every mode (`modes.py`) start servers here and nowhere else.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ops.bench import checks, install, machine
from ops.bench.process import ServerProcess, free_port
from ops.bench.progress import Progress
from ops.bench.servers import ROOT, Launch, Spec

Document = dict[str, Any]


class Stage(NamedTuple):
    """What a mode is given to measure with.

    Attributes:
        cores: where server and client run.
        progress: told of every step.
        rounds: how often each measurement is taken.
        seconds: how long each takes.
        schemas: the directory with the schema that everybody validates against.
        servers: names of `servers.CATALOGUE`, for modes that compare servers.
        quick: fewer points, for a look.
    """

    cores: machine.Cores
    progress: Progress
    rounds: int
    seconds: int
    schemas: Path
    servers: tuple[str, ...]
    quick: bool


class Serving(NamedTuple):
    """A server that serves.

    Attributes:
        process: its processes.
        launch: its port and its directory.
    """

    process: ServerProcess
    launch: Launch


@contextmanager
def on_both_cores(cores: machine.Cores) -> Iterator[None]:
    """What is started within may run on the server's and on the client's core.

    Outside of it, this process and what it starts unpinned run on the client's.
    """
    before = os.sched_getaffinity(0)
    both = {cpu for cpu in cores if cpu is not None}
    os.sched_setaffinity(0, both or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(
    spec: Spec,
    cpu: int | None,
    schemas: Path,
    *,
    body: bytes = checks.BODY,
    path: str = checks.PATH,
    headers: Mapping[str, str] = MappingProxyType({}),
    tls: ssl.SSLContext | None = None,
) -> Iterator[Serving]:
    """A server that answers 202, stopped at the end with all it has written.

    Args:
        spec: which.
        cpu: its core, None for those of this process.
        schemas: directory of the schemas.
        body: what it must accept before it counts as serving.
        path: where that is posted.
        headers: further fields of it.
        tls: what is spoken; None for plain HTTP.

    Raises:
        ServerFailed: it does not serve.
    """
    install.CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=install.CACHE) as workspace:
        launch = Launch(free_port(), Path(workspace), schemas)
        launch.body_file.write_bytes(body)
        process = ServerProcess(
            spec.command(launch),
            cpu=cpu,
            environment=spec.environment(launch),
            directory=ROOT,
        )
        try:
            checks.wait_until_serving(process, launch.port, body, path, headers, tls)
            yield Serving(process, launch)
        finally:
            process.stop()
