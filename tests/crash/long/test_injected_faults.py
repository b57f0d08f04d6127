"""File system calls of a real gateway fail at random under load (libfiu).

Whatever fails: nothing acknowledged is lost, clients are told 503 or 507, and the gateway
lives and works again when the calls do. At its start it either serves or says in a sentence
why it cannot.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ingest.exits import ExitCode
from tests.crash.conftest import Report
from tests.support.audit import read_acks, require_stored, stored_events
from tests.support.chance import SCALE
from tests.support.gateway import Gateway
from tests.support.kills import require_clean
from tests.support.recording import FLAGS, Storming, wait_until_ready

#: What fails (one or more), how often, with which errno. (EIO 5, EMFILE 24, ENOSPC 28, EROFS 30)
FAULTS = [
    ("posix/io/rw/pwrite*", 0.2, 5),
    ("posix/io/rw/pwrite*", 0.2, 28),
    ("posix/io/rw/pwritev2/reduce", 0.5, 0),
    ("posix/io/sync/fdatasync", 0.2, 5),
    ("posix/io/sync/fdatasync", 0.2, 28),
    ("posix/io/sync/fsync", 0.5, 5),
    ("posix/io/oc/open", 0.5, 5),
    ("posix/io/oc/open", 0.5, 24),
    ("posix/io/oc/open", 0.2, 28),  # a segment takes two; each failure costs a second
    ("posix/io/oc/open", 0.5, 30),
    ("posix/io/oc/close", 0.2, 5),
    ("posix/io/rw/ftruncate*", 0.5, 5),
    ("posix/io/dir/rename", 0.5, 5),
    ("posix/io/dir/rename", 0.5, 28),
    ("posix/io/dir/unlink", 0.5, 5),
    ("posix/io/rw/p* posix/io/rw/f* posix/io/sync/* posix/io/dir/* posix/io/oc/*", 0.05, 5),
]
#: Calls of the start that fail, at random; a start opens too many other files to fail that.
AT_START = [
    ("posix/io/rw/pwrite*", 0.4, 5),
    ("posix/io/rw/pwrite*", 0.4, 28),
    ("posix/io/sync/*", 0.05, 5),
    ("posix/io/dir/rename", 0.4, 5),
    ("posix/io/dir/unlink", 0.4, 5),
    ("posix/io/rw/ftruncate*", 0.4, 5),
]
STARTS_EACH = 2 * SCALE


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fiu") / "pwritev2.so"
    source = Path(__file__).with_name("pwritev2.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-DFIU_ENABLE",
         "-o", str(made), str(source), "-lfiu", "-ldl"],
        check=True,
    )  # fmt: skip
    return made


class Fiu:
    """Runs gateways under libfiu and tells it what is to fail."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._prefix = directory / "fiu"
        shown = subprocess.run(
            ["fiu-run", "-n", "-x", "true"], check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r'LD_PRELOAD="([^"]*)"', shown)
        assert found, shown
        self._preload = f"{library} {found[1]}"

    def environment(self, *commands: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": self._preload,
            "FIU_CTRL_FIFO": str(self._prefix),
            "FIU_ENABLE": "\n".join(commands),
        }

    def tell(self, gateway: Gateway, command: str) -> None:
        subprocess.run(
            ["fiu-ctrl", "-f", str(self._prefix), "-c", command, str(gateway.pid)], check=True
        )


@pytest.fixture
def fiu(library: Path, tmp_path: Path) -> Fiu:
    return Fiu(library, tmp_path)


def require_no_traceback(gateway: Gateway) -> None:
    """No exception went where nobody expected one.

    Who watches the event loop reads files below /proc. A fault of that is none of a disk's; it is
    logged, and the watching goes on.
    """
    lines = [line for line in gateway.log().splitlines() if "Traceback" in line]
    assert not [line for line in lines if "hub.blocking_monitor_failed" not in line], lines


def enable(name: str, probability: float, code: int) -> str:
    return f"enable_random name={name},probability={probability},failinfo={code}"


@pytest.mark.parametrize(("names", "probability", "code"), FAULTS)
def test_calls_that_fail_under_load_cost_nothing_acknowledged(
    tmp_path: Path, fiu: Fiu, report: Report, names: str, probability: float, code: int
) -> None:
    data, acks = tmp_path / "data", tmp_path / "acks"
    acks.touch()
    gateway = Gateway(data, *FLAGS, env=fiu.environment()).start()
    storming = Storming(acks, clients=16, batch_max=4)
    storming.against(gateway.port)
    storming.wait_for(50, gateway)
    for name in names.split():
        fiu.tell(gateway, enable(name, probability, code))
    storming.wait_for_line(b"call", 400 * SCALE, gateway)
    storming.wait_for(100 * SCALE, gateway)  # after ENOSPC, most are refused for a second
    for name in names.split():
        fiu.tell(gateway, f"disable name={name}")
    storming.wait_for(100, gateway)
    wait_until_ready(gateway)
    failures = {
        operation: gateway.metric(f'ingest_journal_failures_total{{operation="{operation}"}}')
        for operation in ("open", "write", "sync", "rotate", "close")
    }
    assert gateway.stop() == 0, gateway.log()
    require_no_traceback(gateway)
    storming.result()
    storming.end()

    told = read_acks(acks)
    assert set(told.statuses) <= {202, 503, 507}, told.statuses
    require_clean(data)
    require_stored(stored_events(data), told.all, names)
    report(f"{names} {code}: {dict(told.statuses)}, {failures}")


@pytest.mark.parametrize(("name", "probability", "code"), AT_START)
def test_a_start_whose_calls_fail_serves_or_says_why_not(
    tmp_path: Path, fiu: Fiu, report: Report, name: str, probability: float, code: int
) -> None:
    data, acks = tmp_path / "data", tmp_path / "acks"
    acks.touch()
    starts = {"served": 0, "refused": 0}
    for number in range(STARTS_EACH):
        leave_torn(data, acks, str(number))
        gateway = Gateway(data, *FLAGS, env=fiu.environment(enable(name, probability, code)))
        gateway.spawn()
        if gateway.listens():
            fiu.tell(gateway, f"disable name={name}")
            wait_until_ready(gateway)
            assert gateway.stop() == 0, gateway.log()
            starts["served"] += 1
        else:
            assert gateway.wait() == ExitCode.DATA_UNUSABLE, gateway.log()
            assert re.search(f"^ingest: .*{re.escape(str(data))}.*: .+", gateway.log(), re.M)
            starts["refused"] += 1
        require_no_traceback(gateway)
    assert Gateway(data, *FLAGS).start().stop() == 0
    require_clean(data)
    require_stored(stored_events(data), read_acks(acks).all, name)
    report(f"{name} {code}: {starts}")


def leave_torn(data: Path, acks: Path, name: str) -> None:
    """A gateway that was killed under load, and a tail that is no commit."""
    gateway = Gateway(data, *FLAGS).start()
    storming = Storming(acks, clients=5, batch_max=4, name=name)
    storming.against(gateway.port)
    storming.wait_for(30, gateway)
    gateway.kill()
    storming.result()
    storming.end()
    newest = max((data / "journal" / "0").glob("*.ndjson"))
    with newest.open("r+b") as file:
        file.seek(len(file.read().rstrip(b"\n")) + 1)
        file.write(b'{"specversion":"1.0","id":"torn')
