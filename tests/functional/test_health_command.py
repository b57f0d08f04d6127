"""`ingest health`: what a container's health check and a shell script get to know."""

import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest import cli
from ingest.cli import load_settings
from ingest.exits import ExitCode
from ingest.health_command import Unusable, ask, target_of_settings
from ingest.settings import Settings
from tests.support.gateway import ROOT, Gateway


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def health(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Runs the command; in this process, which is patched as the product's is."""

    def run(*arguments: str, **env: str) -> Done:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        return Done(cli.main(["health", *arguments]), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One that is asked and not changed."""
    running = Gateway(tmp_path_factory.mktemp("health") / "data").start()
    yield running
    running.stop()


@contextmanager
def peer(answers: bytes, endless: bool = False) -> Iterator[int]:
    """Someone who answers one request with these bytes and, if endless, never ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        with listener.accept()[0] as client:
            client.recv(4096)
            client.sendall(answers)
            while endless and not over.wait(0.05):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        thread.join()
        listener.close()


def test_it_is_a_command_of_the_program_that_needs_no_deployment_around_it(
    gateway: Gateway, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "health", "--bind", f"127.0.0.1:{gateway.port}"],
        capture_output=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, b"ok\n", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [(), ("--ready",)])
def test_a_gateway_that_is_well_is_0(health, gateway: Gateway, flags: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = health("--bind", f"127.0.0.1:{gateway.port}", *flags)
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "ok\n", "")


def test_the_address_is_that_of_the_settings_whichever_way_they_come(  # type: ignore[no-untyped-def]
    health, gateway: Gateway, tmp_path: Path
) -> None:
    config = tmp_path / "ingest.yaml"
    config.write_text(f"bind: 0.0.0.0:{gateway.port}\n")
    assert health("--config", str(config)).returncode == ExitCode.OK
    assert health(INGEST_BIND=f"0.0.0.0:{gateway.port}").returncode == ExitCode.OK


def test_a_gateway_that_drains_lives_but_is_not_ready_and_the_check_is_named(
    health, new_gateway
) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--drain-delay", "30")
    gateway.send_signal(signal.SIGTERM)
    while gateway.request("GET", "/readyz").status != 503:
        pass
    assert health("--bind", f"127.0.0.1:{gateway.port}").returncode == ExitCode.OK
    done = health("--bind", f"127.0.0.1:{gateway.port}", "--ready")
    assert done.returncode == ExitCode.PROBLEMS
    assert "503" in done.stderr and "[-]draining failed" in done.stderr
    assert "[+]" not in done.stderr
    gateway.kill()


def test_a_url_keeps_its_path_and_gets_the_probe_s_where_it_has_none(
    health, gateway: Gateway
) -> None:  # type: ignore[no-untyped-def]
    base = f"http://127.0.0.1:{gateway.port}"
    assert health("--url", base).returncode == ExitCode.OK
    assert health("--url", f"{base}/startupz").returncode == ExitCode.OK
    done = health("--url", f"{base}/elsewhere")
    assert done.returncode == ExitCode.PROBLEMS
    assert "404" in done.stderr


def test_nobody_there_is_1_and_one_line_without_a_traceback(health) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = health("--bind", f"127.0.0.1:{port}")
    assert done.returncode == ExitCode.PROBLEMS
    assert done.stderr == f"ingest: http://127.0.0.1:{port}/livez?verbose: nobody listens there\n"


@pytest.mark.parametrize(
    ("answers", "endless", "words"),
    [
        (b"", True, "no answer in"),
        (b"HTTP/1.1 200 OK\r\nX-Endless: ", True, "no answer in time"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False, "no answer in HTTP"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 8\r\n\r\n\x1b[2Jgone", False, "500\n?[2Jgone"),
    ],
    ids=["drips", "head without end", "not HTTP", "control characters"],
)
def test_a_peer_that_answers_nonsense_or_never_ends_is_1(  # type: ignore[no-untyped-def]
    health, answers: bytes, endless: bool, words: str
) -> None:
    with peer(answers, endless) as port:
        done = health("--url", f"http://127.0.0.1:{port}", "--timeout", "500ms")
    assert done.returncode == ExitCode.PROBLEMS
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bind", "127.0.0.1:0"),
        ("--url", "ftp://127.0.0.1/"),
        ("--url", "http://user:password@127.0.0.1/"),
        ("--url", "http://127.0.0.1/a b"),
        ("--url", "http://[::1"),
        ("--url", "http://127.0.0.1:99999/"),
        ("--timeout", "soon"),
        ("--timeout", "0"),
        ("--no-such-flag",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked_is_2_and_said_in_words(health, arguments: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = health(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("ingest: ") and "Traceback" not in done.stderr
    assert "password" not in done.stderr


@pytest.mark.parametrize(
    ("bind", "asked"),
    [
        ("0.0.0.0:80", "http://127.0.0.1:80/livez?verbose"),
        ("[::]:80", "http://[::1]:80/livez?verbose"),
        ("[fd00::1]:80", "http://[fd00::1]:80/livez?verbose"),
        ("events.example:80", "http://events.example:80/livez?verbose"),
    ],
)
def test_the_address_asked_is_one_that_reaches_the_listener(bind: str, asked: str) -> None:
    settings, _ = load_settings({"bind": bind}, {})
    assert str(target_of_settings(settings, "/livez")) == asked


CERTIFICATE = ROOT / "tests" / "data" / "tls" / "localhost.crt"


@contextmanager
def tls_peer() -> Iterator[int]:
    """Someone who answers one request 200 over TLS, with a certificate that signs itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as client:
            try:
                with context.wrap_socket(client, server_side=True) as secure:
                    secure.recv(4096)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            except ssl.SSLError:
                pass  # the client did not like the certificate

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


def test_a_url_s_certificate_is_checked(health) -> None:  # type: ignore[no-untyped-def]
    with tls_peer() as port:
        done = health("--url", f"https://127.0.0.1:{port}")
    assert done.returncode == ExitCode.PROBLEMS
    assert "its certificate is refused: self-signed certificate" in done.stderr
    with tls_peer() as port:
        done = health("--url", f"https://localhost:{port}/readyz", SSL_CERT_FILE=str(CERTIFICATE))
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


def settings_of(**changes: Any) -> Settings:
    return Settings(**{"bind": "127.0.0.1:1", **changes})


def test_the_own_listener_s_certificate_is_for_other_names_and_not_checked() -> None:
    with tls_peer() as port:
        settings = settings_of(bind=f"0.0.0.0:{port}", tls_cert=str(CERTIFICATE))
        target = target_of_settings(settings, "/livez")
        assert str(target) == f"https://127.0.0.1:{port}/livez?verbose"
        assert ask(target, 30) == (200, b"ok\n")


def test_the_admin_listener_is_asked_where_there_is_one_in_the_clear() -> None:
    settings = settings_of(admin_bind="[::]:9090", tls_cert="c", tls_client_auth="required")
    assert str(target_of_settings(settings, "/readyz")) == "http://[::1]:9090/readyz?verbose"


def test_a_listener_that_wants_a_certificate_of_its_clients_cannot_be_asked() -> None:
    settings = settings_of(tls_cert="c", tls_client_auth="required")
    with pytest.raises(Unusable, match="admin_bind"):
        target_of_settings(settings, "/livez")


def test_it_loads_nothing_that_takes_long_since_it_runs_every_few_seconds() -> None:
    code = "import sys; from ingest import cli; cli.main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "health", "--bind", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert "ingest.health_command" in loaded
    assert not loaded & {"jsonschema", "jsonschema_rs", "duckdb", "pyarrow", "ingest.service"}
