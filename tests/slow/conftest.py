"""What the slow tests share: they take minutes and a machine to themselves (`make slow`)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import ROOT, Gateway

Report = Callable[[str], None]


@pytest.fixture(autouse=True)
def no_unhandled_hub_errors() -> None:
    """In the place of the shared fixture, whose alarm is for tests of seconds."""


@pytest.fixture(autouse=True, scope="session")
def descriptors() -> None:
    """As many descriptors as this process may have; the gateway inherits that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str]) -> Report:
    """Write a line with what was measured, also when the test passes."""

    def line(text: str) -> None:
        with capfd.disabled():
            sys.stdout.write(f"\n    {text}\n")

    return line


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Open many connections from another process; they are closed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def open_crowd(
        gateway: Gateway, connections: int, message: bytes = b""
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.crowd", "--port", str(gateway.port)]
        command += ["--connections", str(connections)]
        if message:
            path = tmp_path / f"message-{len(started)}"
            path.write_bytes(message)
            command += ["--bytes", str(path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == f"open {connections}\n"
        return process

    yield open_crowd
    for process in started:
        process.communicate()


def steady_start(gateway: Gateway, seconds: float) -> subprocess.Popen[str]:
    """Start the well-behaved client."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.steady",
         "--port", str(gateway.port), "--seconds", str(seconds)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def steady_result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the well-behaved client; what it measured."""
    output, _ = process.communicate()
    result: dict[str, Any] = json.loads(output)
    return result


def peak_bytes(gateway: Gateway) -> int:
    """The most memory that the gateway has had so far (VmHWM, proc(5))."""
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")
