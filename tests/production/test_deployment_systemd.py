"""The systemd units: read by systemd's own tools, and held against what the gateway really does."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deployment import SYSTEMD, unit
from tests.support.events import METRICS
from tests.support.gateway import ROOT, Gateway
from tests.support.waiting import until

#: `systemd-analyze security` gives 100 to what is not confined at all, and 14 to these units.
EXPOSURE_MAX = 20


def analyze(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, env=env or None
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are installed, but for the path of the program."""
    for path in SYSTEMD.glob("ingest.s[eo]*"):
        text = path.read_text().replace("/opt/ingest/bin/python", "/bin/true")
        (tmp_path / path.name).write_text(text)
    return tmp_path


def complaints(units: Path) -> list[str]:
    """What systemd says about the units."""
    done = analyze("verify", str(units / "ingest.service"), str(units / "ingest.socket"))
    return [line for line in done.stderr.splitlines() if line.strip()]


def test_systemd_has_nothing_to_say_about_the_units(units: Path) -> None:
    assert complaints(units) == []
    service = units / "ingest.service"
    service.write_text(service.read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert complaints(units) != [], "it reads nothing"


def test_the_service_is_exposed_no_more_than_it_must_be(units: Path) -> None:
    arguments = ("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}")
    done = analyze(*arguments, str(units / "ingest.service"))
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout


def test_the_journal_s_user_is_one_that_systemd_can_make(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    program = shutil.which("systemd-sysusers")
    assert program is not None
    done = subprocess.run(
        [program, f"--root={tmp_path}", str(SYSTEMD / "ingest.sysusers")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ingest:x:" in (tmp_path / "etc" / "passwd").read_text()


def permitted() -> set[str]:
    """The system calls that the unit lets through."""
    allowed: set[str] = set()
    for value in unit("ingest.service")["SystemCallFilter"]:
        calls = set().union(*(members(name) for name in value.lstrip("~").split()))
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def members(name: str) -> set[str]:
    """The system calls of a set of systemd's, such as @system-service."""
    if not name.startswith("@"):
        return {name}
    lines = analyze("syscall-filter", name).stdout.splitlines()[1:]
    found = [line.strip() for line in lines]
    return set().union(*(members(item) for item in found if item and not item.startswith("#")))


def life_of(gateway: Gateway) -> None:
    """Events, a batch, reads, probes, a pause long enough for the background to run, the end."""
    gateway.start()
    assert gateway.post("/metrics", METRICS).status == 202
    for _ in range(4):  # whichever worker takes each, one gets two, and closes a segment
        assert gateway.post("/v1/batch/metrics", [METRICS] * 50).status == 202
    for path in ("/readyz?verbose", "/metrics", "/v1/journal", "/openapi.json", "/nowhere"):
        gateway.request("GET", path)
    until(lambda: any(gateway.data.glob("journal/*/*.zst")))
    assert gateway.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_that_the_gateway_asks_of_the_kernel_is_let_through(
    tmp_path: Path, workers: str
) -> None:
    trace = tmp_path / "trace"
    gateway = Gateway(
        tmp_path / "data",
        *("--workers", workers, "--cpu-affinity", "on" if workers == "2" else "off"),
        env={"INGEST_SEGMENT_MAX_BYTES": "1KiB", "INGEST_SEGMENT_COMPRESS_AFTER_SECONDS": "0"},
        # Detached (-D): the process that is started is the gateway, and gets its signals.
        wrapper=("strace", "-D", "-f", "-qq", "-o", str(trace)),
        cwd=ROOT,
    )
    life_of(gateway)
    text = trace.read_text()
    used = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed)", text, re.MULTILINE))
    assert {"epoll_wait", "fdatasync", "accept4"} & used, "nothing was traced"
    assert used - permitted() == set()
    # MemoryDenyWriteExecute: no memory may be both, nor become executable after it was written.
    writable = re.findall(r"mmap\([^)\n]*PROT_WRITE\|PROT_EXEC.*", text)
    later = re.findall(r"mprotect\([^)\n]*PROT_EXEC.*", text)
    assert (writable, later) == ([], [])
    families = set(re.findall(r" socket\((AF_[A-Z0-9]+)", text))
    assert families <= set(unit("ingest.service")["RestrictAddressFamilies"][0].split())
