"""Socket activation and notification, as systemd does them: real descriptors, real datagrams."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.waiting import until

#: Becomes the gateway after it has made of its inherited sockets what systemd would have.
ACTIVATE = """
import os, sys
count, names, *command = sys.argv[1:]
for number, descriptor in enumerate(map(int, os.environ["HANDED"].split(",")), 3):
    os.dup2(descriptor, number + 20)
for number in range(3, 3 + int(count)):
    os.dup2(number + 20, number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count, LISTEN_FDNAMES=names)
os.execv(sys.executable, [sys.executable, *command])
"""


#: A handler whose `setup` takes as long as a test wants.
SETS_UP = """
import os, pathlib, time

def setup():
    pathlib.Path(os.environ["BEGAN"]).touch()
    while not os.path.exists(os.environ["GO_ON"]):
        time.sleep(0.01)

def handle(event):
    pass
"""


@pytest.fixture
def listening() -> Iterator[Callable[[], socket.socket]]:
    """Listening sockets that the gateway is to inherit."""
    made: list[socket.socket] = []

    def make() -> socket.socket:
        sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        sock.set_inheritable(True)
        made.append(sock)
        return sock

    yield make
    for sock in made:
        sock.close()


class Activated(Gateway):
    """A gateway that is handed sockets; `Popen` must not close them."""

    def __init__(self, data: Path, sockets: dict[str, socket.socket], *flags: str) -> None:
        handed = ",".join(str(sock.fileno()) for sock in sockets.values())
        program = ("-c", ACTIVATE, str(len(sockets)), ":".join(sockets), "-m", "ingest")
        super().__init__(data, *flags, program=program, env={"HANDED": handed})
        self.pass_fds = [sock.fileno() for sock in sockets.values()]


def test_clients_of_the_socket_that_systemd_opened_are_served(
    tmp_path: Path, listening: Callable[[], socket.socket]
) -> None:
    main = listening()
    with socket.create_connection(main.getsockname()) as early:  # before the service is there
        gateway = Activated(tmp_path / "data", {"main": main}).start()
        try:
            assert gateway.port == main.getsockname()[1]
            early.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert early.recv(12) == b"HTTP/1.1 200"
            assert gateway.post("/v1/events/metrics", METRICS).status == 202
        finally:
            assert gateway.stop() == 0


def test_several_workers_share_it_and_operators_have_their_own(
    tmp_path: Path, listening: Callable[[], socket.socket]
) -> None:
    main, admin = listening(), listening()
    flags = ("--workers", "2", "--admin-bind", "127.0.0.1:0")
    gateway = Activated(tmp_path / "data", {"main": main, "admin": admin}, *flags).start()
    try:
        for _ in range(20):
            assert gateway.post("/v1/events/metrics", METRICS).status == 202
        with socket.create_connection(admin.getsockname()) as operator:
            operator.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert operator.recv(12) == b"HTTP/1.1 200"
    finally:
        assert gateway.stop() == 0


def test_a_process_that_starts_anew_in_development_keeps_both_sockets(
    tmp_path: Path, listening: Callable[[], socket.socket]
) -> None:
    main, admin = listening(), listening()
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    (schemas / "thing.json").write_text('{"type": "object"}')
    places = ("--schemas", str(schemas), "--handlers", str(tmp_path / "handlers"))
    flags = (*places, "--reload", "--admin-bind", "127.0.0.1:0")
    gateway = Activated(tmp_path / "data", {"main": main, "admin": admin}, *flags).start()
    try:
        (schemas / "other.json").write_text('{"type": "object"}')
        until(lambda: gateway.log().count('"service.started"') == 2)
        assert gateway.post("/v1/events/other", {}).status == 202
        with socket.create_connection(admin.getsockname()) as operator:
            operator.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert operator.recv(12) == b"HTTP/1.1 200"
    finally:
        assert gateway.stop() == 0


def test_a_socket_for_operators_that_nobody_asked_for_is_a_clear_error(
    tmp_path: Path, listening: Callable[[], socket.socket]
) -> None:
    gateway = Activated(tmp_path / "data", {"main": listening(), "admin": listening()})
    gateway.spawn()
    assert not gateway.listens()
    assert gateway.wait() != 0
    assert "but admin_bind is off" in gateway.log()


@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_says_when_it_serves_that_it_lives_and_when_it_stops(
    tmp_path: Path, new_gateway: Callable[..., Gateway], abstract: bool, workers: str
) -> None:
    name = f"@ingest-{os.getpid()}-{workers}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1) if abstract else name)
        sock.settimeout(60)
        watchdog = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        gateway = new_gateway("--workers", workers, env=watchdog)
        told = [sock.recv(4096).decode() for _ in range(3)]
        assert told[0].startswith("READY=1\nSTATUS=serves")
        assert told[1:] == ["WATCHDOG=1"] * 2
        gateway.send_signal(signal.SIGTERM)
        while not told[-1].startswith("STOPPING=1"):
            told.append(sock.recv(4096).decode())
        assert gateway.wait() == 0
    assert set(told[3:-1]) <= {"WATCHDOG=1"}


def test_who_hangs_does_not_say_that_it_lives(
    tmp_path: Path, new_gateway: Callable[..., Gateway]
) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(60)
        gateway = new_gateway(env={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
        assert sock.recv(4096).startswith(b"READY=1")
        gateway.send_signal(signal.SIGSTOP)
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:  # what was sent before it stood still
                sock.recv(4096)
        gateway.send_signal(signal.SIGCONT)
        sock.settimeout(60)
        assert sock.recv(4096) == b"WATCHDOG=1"


def test_signals_for_a_service_do_not_kill_one_that_starts(
    tmp_path: Path, new_gateway: Callable[..., Gateway]
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "metrics.py").write_text(SETS_UP)
    began, go_on = tmp_path / "began", tmp_path / "go-on"
    gateway = Gateway(
        tmp_path / "data", "--handlers", f"{tmp_path}/handlers",
        env={"BEGAN": str(began), "GO_ON": str(go_on)},
    )  # fmt: skip
    gateway.spawn()
    try:
        until(began.exists)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            gateway.send_signal(number)
        go_on.touch()
        assert gateway.listens(), gateway.log()
    finally:
        assert gateway.stop() == 0


def test_sighup_reads_the_keys_anew(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    keys.chmod(0o600)
    gateway = new_gateway("--keys-file", str(keys))
    gateway.send_signal(signal.SIGHUP)
    until(lambda: '"reload.done"' in gateway.log())
    keys.write_text("{")
    gateway.send_signal(signal.SIGHUP)
    until(lambda: '"reload.refused"' in gateway.log())
    assert gateway.request("GET", "/livez").status == 200
