"""A small file system filled to the brim under load, and emptied again; one that is read-only.

Mounts a tmpfs, which `make crash` may do because it has a mount namespace of its own.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.exits import ExitCode
from tests.crash.conftest import Report
from tests.support.audit import read_acks, require_stored, stored_events
from tests.support.events import signed
from tests.support.gateway import Gateway
from tests.support.kills import require_clean
from tests.support.recording import FLAGS_OF_TYPES, Storming, wait_until_ready

SIZE = "48m"
TIMES = 3


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)],
        capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.fail(f"may not mount a tmpfs ({mounted.stderr.strip()}); `make crash` can")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the room there is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    size = 1 << 20
    while size:
        try:
            os.write(descriptor, bytes(size))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            size //= 2
    os.close(descriptor)


@pytest.mark.parametrize("reserve", ["0", "4MiB"])
def test_a_disk_filled_to_the_brim_refuses_and_resumes_by_itself(
    tmp_path: Path, small: Path, report: Report, reserve: str
) -> None:
    data, acks, ballast = small / "data", tmp_path / "acks", small / "ballast"
    acks.touch()
    flags = (*FLAGS_OF_TYPES, "--disk-reserve", reserve)
    gateway = Gateway(data, *flags).start()
    storming = Storming(acks, clients=16, batch_max=4)
    storming.against(gateway.port)
    for _ in range(TIMES):
        storming.wait_for(200, gateway)
        fill(ballast)
        storming.wait_for_line(b'"status": 507', 200, gateway)
        wait_until_ready(gateway, 503)
        assert gateway.post("/v1/events/durable", b"{}").status == 422, "it lives"
        ballast.unlink()
        storming.wait_for(200, gateway)
        wait_until_ready(gateway)
    assert gateway.stop() == 0, gateway.log()
    assert "Traceback" not in gateway.log(), gateway.log()
    storming.result()
    storming.end()
    assert Gateway(data, *flags).start().stop() == 0
    told = read_acks(acks)
    assert set(told.statuses) == {202, 507}, told.statuses
    require_clean(data)
    require_stored(stored_events(data), told.all)
    report(f"reserve {reserve}: {dict(told.statuses)}")


def test_a_gateway_killed_on_a_full_disk_starts_on_it_and_serves_when_there_is_room(
    tmp_path: Path, small: Path
) -> None:
    data, acks, ballast = small / "data", tmp_path / "acks", small / "ballast"
    acks.touch()
    flags = (*FLAGS_OF_TYPES, "--disk-reserve", "0")
    gateway = Gateway(data, *flags).start()
    storming = Storming(acks, clients=16, batch_max=4)
    storming.against(gateway.port)
    storming.wait_for(200, gateway)
    fill(ballast)
    storming.wait_for_line(b'"status": 507', 200, gateway)
    gateway.kill()
    storming.result()
    again = Gateway(data, *flags).start()
    storming.against(again.port)
    storming.wait_for_line(b'"status": 507', 10, again)
    ballast.unlink()
    storming.wait_for(200, again)
    wait_until_ready(again)
    assert again.stop() == 0, again.log()
    storming.result()
    storming.end()
    require_clean(data)
    require_stored(stored_events(data), read_acks(acks).all)


def test_a_read_only_file_system_is_said_at_the_start(small: Path) -> None:
    data = small / "data"
    flags = (*FLAGS_OF_TYPES, "--disk-reserve", "0")
    for number, remount in enumerate(("rw", "ro", "rw")):
        subprocess.run(["mount", "-o", f"remount,{remount}", str(small)], check=True)
        gateway = Gateway(data, *flags)
        gateway.spawn()
        if remount == "rw":
            assert gateway.listens(), gateway.log()
            assert gateway.post("/v1/events/durable", signed(str(number), 10)).status == 202
            assert gateway.stop() == 0
        else:
            assert not gateway.listens()
            assert gateway.wait() == ExitCode.DATA_UNUSABLE
            assert f"ingest: data directory {data}: Read-only file system" in gateway.log()
            assert "Traceback" not in gateway.log()
    assert len(stored_events(data)) == 2
