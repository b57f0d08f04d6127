"""The catalogue: every server that is measured and how its users would start it.

A peer's program stands in `peers/`. Each gets one process, its usual fast loop, logs off,
and a backlog that takes 1000 connections at once, so that nobody loses by a default.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ingest.version import __version__
from ops.bench import install

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
METRICS_SCHEMA = "metrics.json"


class Launch(NamedTuple):
    """What a command line is made of.

    Attributes:
        port: where to listen on 127.0.0.1.
        workspace: an empty directory of this one start, removed after it.
        schemas: the directory with `metrics.json`.
    """

    port: int
    workspace: Path
    schemas: Path

    @property
    def body_file(self) -> Path:
        return self.workspace / "body.json"

    @property
    def schema_file(self) -> str:
        return str(self.schemas / METRICS_SCHEMA)


class Spec(NamedTuple):
    """One server.

    Attributes:
        title: its name in the table.
        does: what it does with the body.
        prepare: installs what it needs; raises install.Unavailable.
        version: versions of what counts, as one line.
        command: its command line for a launch.
        environment: further variables for a launch.
        validates: the harness proves that it refuses bad bodies.
        stores: the harness counts what is in its journal afterwards.
        pipelines: it is measured with pipelined requests as well.
        quick: it takes part in `--quick`.
    """

    title: str
    does: str
    prepare: Callable[[], object]
    version: Callable[[], str]
    command: Callable[[Launch], list[str]]
    environment: Callable[[Launch], Mapping[str, str]] = lambda launch: {}
    validates: bool = True
    stores: bool = False
    pipelines: bool = False
    quick: bool = False


def ours(ack: str, *flags: str) -> Spec:
    """This project's server, with further flags of its command line."""

    def command(launch: Launch) -> list[str]:
        return [
            sys.executable, "-m", "ingest",
            "--bind", f"127.0.0.1:{launch.port}",
            "--schemas", str(launch.schemas),
            "--data", str(journal_directory(launch)),
            "--ack", ack, *flags,
        ]  # fmt: skip

    return Spec(
        title=f"ingest, ack {ack}",
        does="parse, validate, " + ("fdatasync" if ack == "fsync" else "write"),
        prepare=lambda: None,
        version=lambda: f"ingest {__version__}, Python {sys.version.split()[0]}",
        command=command,
        stores=True,
        pipelines=True,
        quick=True,
    )


def journal_directory(launch: Launch) -> Path:
    """Where this project's server stores during a launch."""
    return launch.workspace / "data"


def _nginx(launch: Launch) -> list[str]:
    text = (PEERS / "nginx.conf").read_text().replace("@PORT@", str(launch.port))
    config = launch.workspace / "nginx.conf"
    config.write_text(text)
    return [install.nginx(), "-e", "stderr", "-p", str(launch.workspace), "-c", str(config)]


def _granian(launch: Launch) -> list[str]:
    # Of its interfaces and thread modes this one costs least: about 24 µs a request, ASGI 40.
    return [
        str(install.VENV_BIN / "granian"), "--interface", "wsgi", "--blocking-threads", "1",
        "--host", "127.0.0.1", "--port", str(launch.port), "--workers", "1",
        "--backlog", "4096", "--http", "1", "--no-ws", "--log-level", "warning",
        "--working-dir", str(PEERS), "falcon_app:app",
    ]  # fmt: skip


def _uvicorn(launch: Launch) -> list[str]:
    return [
        str(install.VENV_BIN / "uvicorn"), "--loop", "uvloop", "--http", "httptools",
        "--host", "127.0.0.1", "--port", str(launch.port), "--backlog", "4096",
        "--no-access-log", "--log-level", "warning", "--app-dir", str(PEERS), "fastapi_app:app",
    ]  # fmt: skip


def _gunicorn(launch: Launch) -> list[str]:
    return [
        str(install.VENV_BIN / "gunicorn"), "--worker-class", "gevent", "--workers", "1",
        "--worker-connections", "4096", "--backlog", "4096", "--keep-alive", "75",
        "--bind", f"127.0.0.1:{launch.port}", "--log-level", "warning",
        "--chdir", str(PEERS), "flask_app:app",
    ]  # fmt: skip


def _schema_variable(launch: Launch) -> dict[str, str]:
    return {"BENCH_SCHEMA": launch.schema_file, "PYTHONDONTWRITEBYTECODE": "1"}


def _python_peer(
    title: str,
    packages: tuple[str, ...],
    command: Callable[[Launch], list[str]],
) -> Spec:
    return Spec(
        title=title,
        does="parse, validate",
        prepare=install.python_peers,
        version=lambda: install.python_version_of(*packages),
        command=command,
        environment=_schema_variable,
    )


CATALOGUE: Mapping[str, Spec] = {
    "nginx": Spec(
        title="nginx `return 202`",
        does="nothing with the body",
        prepare=install.nginx,
        version=install.nginx_version,
        command=_nginx,
        validates=False,
        pipelines=True,
        quick=True,
    ),
    "ingest-fsync": ours("fsync"),
    "ingest-write": ours("write"),
    "granian": _python_peer(
        "granian + Falcon + msgspec + jsonschema-rs",
        ("granian", "falcon", "msgspec", "jsonschema-rs"),
        _granian,
    ),
    "fastify": Spec(
        title="Fastify 5 + ajv",
        does="parse, validate",
        prepare=install.node_peers,
        version=lambda: install.node_version_of("fastify", "ajv"),
        command=lambda launch: [
            "node", str(PEERS / "fastify.cjs"), str(launch.port), launch.schema_file,
        ],
        environment=lambda launch: {
            "NODE_PATH": str(install.NODE_MODULES), "NODE_ENV": "production",
        },
    ),
    "fastapi": _python_peer(
        "FastAPI + uvicorn (uvloop, httptools)",
        ("fastapi", "pydantic", "uvicorn", "uvloop", "httptools"),
        _uvicorn,
    ),
    "pywsgi": _python_peer(
        "gevent.pywsgi + ujson + jsonschema",
        ("gevent", "ujson", "jsonschema"),
        lambda launch: [
            str(install.VENV_BIN / "python"), str(PEERS / "pywsgi_app.py"),
            str(launch.port), launch.schema_file,
        ],
    ),
    "gunicorn": _python_peer(
        "gunicorn -k gevent + Flask + ujson + jsonschema",
        ("gunicorn", "flask", "ujson", "jsonschema"),
        _gunicorn,
    ),
}  # fmt: skip
