"""The files in ops/, read; and what of them are settings of the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ingest.settings import Settings
from ingest.settings_values import parse_duration
from tests.support.gateway import ROOT

OPS = ROOT / "ops"
DOCKERFILE = OPS / "docker" / "Dockerfile"
COMPOSE = OPS / "compose" / "compose.yaml"
KUBERNETES = OPS / "kubernetes"
SYSTEMD = OPS / "systemd"


def instructions(dockerfile: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each in one line: name and the rest."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in split]


def image_environment() -> dict[str, str]:
    """The variables of the last stage of the image."""
    found: dict[str, str] = {}
    for name, rest in instructions():
        if name == "FROM":
            found = {}
        elif name == "ENV":
            found.update(pair.split("=", 1) for pair in rest.split())
    return found


def documents(directory: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every Kubernetes object in the files below a directory, with its file."""
    return [
        (path, document)
        for path in sorted(directory.rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document and "kind" in document
    ]


def kubernetes_object(kind: str) -> dict[str, Any]:
    """The one object of a kind in ops/kubernetes."""
    (found,) = [found for _, found in documents(KUBERNETES) if found["kind"] == kind]
    return found


def unit(name: str) -> dict[str, list[str]]:
    """The directives of a systemd unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def resolved(environ: Mapping[str, str], file_text: str | None = None) -> Settings:
    """The settings of a gateway that is started so.

    Raises:
        SettingsError: one of them is none, or has a value that it cannot have.
    """
    return Settings.resolve({}, environ, file_text, "ingest.yaml")


def admin_port(environ: Mapping[str, str]) -> str:
    """The port of the admin listener."""
    return environ["INGEST_ADMIN_BIND"].rpartition(":")[2]


def drain_seconds(settings: Settings) -> float:
    """How long a gateway may take to end: draining, handlers' teardown, the last log lines."""
    return (
        settings.drain_delay_seconds
        + settings.drain_timeout_seconds
        + settings.handler_setup_timeout_seconds
        + 5.0
    )


def seconds(text: str) -> float:
    """A duration as Docker, systemd, HAProxy and nginx write it: `90s`, `10min`."""
    return parse_duration(text.replace("min", "m"))


def pairs(items: Iterable[str]) -> dict[str, str]:
    """`A=b C=d` in one or several strings."""
    return dict(pair.split("=", 1) for item in items for pair in item.split())
