"""WSGI applications that fail or break the rules, and mounts that cannot be."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.settings_values import parse_mounts
from tests.support.gateway import Gateway
from tests.support.mounted import APP, ask, bodies, gateway_with, log_of, raw, seen
from tests.support.waiting import until
from tests.support.wsgi_apps import MISUSES

FAILURES = 'ingest_mount_failures_total{{mount="/legacy",reason="{}"}}'


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = gateway_with(tmp_path_factory.mktemp("wsgi") / "data")
    yield running
    running.stop()


def logged(gateway: Gateway, request_id: str) -> list[dict[str, Any]]:
    """What was logged of the application's failures in a request; waits for the first."""

    def lines() -> list[dict[str, Any]]:
        found = log_of(gateway, "wsgi.app_misuse") + log_of(gateway, "wsgi.app_failed")
        return [line for line in found if line["request_id"] == request_id]

    until(lines)
    return lines()


# -- failures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("fails", "LookupError: a secret"),
        ("fails_first", "LookupError: at once"),
        ("exits", "SystemExit: 3"),
    ],
)
def test_an_application_that_raises_is_500_with_the_traceback_in_the_log(
    mounted: Gateway, path: str, words: str
) -> None:
    before = mounted.metric(FAILURES.format("app"))
    with mounted.connect() as client:
        answer = client.request("GET", f"/legacy/{path}", headers={"X-Request-Id": f"id-{path}"})
        assert (answer.status, answer.json()["code"]) == (500, "app_error")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"] == f"id-{path}"
        assert b"LookupError" not in answer.body
        assert client.request("GET", "/legacy/ignore").body == b"unread"
    assert mounted.metric(FAILURES.format("app")) == before + 1
    (line,) = logged(mounted, f"id-{path}")
    assert line["event"] == "wsgi.app_failed"
    assert words in line["exception"]
    assert "wsgi_apps.py" in line["exception"]
    assert line["mount"] == "/legacy"


@pytest.mark.parametrize("name", MISUSES)
def test_an_application_that_breaks_the_rules_is_500(mounted: Gateway, name: str) -> None:
    answer = mounted.request("GET", f"/legacy/misuse?{name}")
    assert (answer.status, answer.json()["code"]) == (500, "app_error")
    assert "x-b" not in answer.headers
    assert len(logged(mounted, answer.headers["x-request-id"])) == 1


@pytest.mark.parametrize(
    ("path", "begin", "end"),
    [
        ("fails_later", b"4\r\nsome\r\n", "closed:fails_later"),
        ("length?7", b"12345", "closed:length"),
        ("too_late", b"5\r\nbegun\r\n", "too_late"),
    ],
)
def test_an_answer_that_fails_on_its_way_is_cut_and_never_completed(
    mounted: Gateway, path: str, begin: bytes, end: str
) -> None:
    before = seen(mounted)[end]
    request = f"GET /legacy/{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    received = b""
    with socket.create_connection(("127.0.0.1", mounted.port), timeout=60) as sock:
        sock.sendall(request + b"GET /legacy/ignore HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            while data := sock.recv(65536):
                received += data
        except ConnectionResetError:
            pass
    assert received.startswith(b"HTTP/1.1 200") or not received
    assert received.count(b"HTTP/1.1") <= 1
    body = received.partition(b"\r\n\r\n")[2]
    assert begin.startswith(body)
    assert seen(mounted)[end] == before + 1


def test_what_is_too_long_is_cut_to_its_length_and_the_connection_kept(mounted: Gateway) -> None:
    before = mounted.metric(FAILURES.format("misuse"))
    with mounted.connect() as client:
        answer = client.request("GET", "/legacy/length?3")
        assert answer.body == b"123"
        assert client.request("GET", "/legacy/ignore").body == b"unread"
    assert mounted.metric(FAILURES.format("misuse")) == before + 1
    assert len(logged(mounted, answer.headers["x-request-id"])) == 1


def test_what_fails_in_close_is_logged_and_the_answer_stands(mounted: Gateway) -> None:
    before = mounted.metric(FAILURES.format("app"))
    with mounted.connect() as client:
        assert client.request("GET", "/legacy/fails_closing").body == b"whole"
        assert client.request("GET", "/legacy/ignore").body == b"unread"
    assert mounted.metric(FAILURES.format("app")) == before + 1
    until(lambda: "LookupError: in close" in mounted.log())


@pytest.mark.parametrize(
    ("path", "name", "count"),
    [
        ("two", "two", 1),
        ("length?5", "length", 1),
        ("fails_first", "none", 0),
    ],
)
def test_close_is_called_once(mounted: Gateway, path: str, name: str, count: int) -> None:
    before = seen(mounted)[f"closed:{name}"]
    ask(mounted, f"/legacy/{path}")
    assert seen(mounted)[f"closed:{name}"] == before + count


def test_a_failure_with_a_body_unread_keeps_the_requests_apart(mounted: Gateway) -> None:
    post = b"POST /legacy/fails HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
    smuggled = b"GET /legacy/set_event?smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /legacy/ignore HTTP/1.1\r\nHost: a\r\n\r\n"
    stream = raw(mounted, post % (len(smuggled), smuggled) + last)
    assert [status for status, _ in bodies(stream)] == [500, 200]
    stream = raw(mounted, post % (2_000_000, smuggled * 10_000))
    assert [status for status, _ in bodies(stream)] == [500]


# -- mounting -----------------------------------------------------------------------------


def project(folder: Path) -> Path:
    """A directory with an application and handler files, as an operator would have it."""
    (folder / "handlers").mkdir()
    (folder / "schemas").mkdir()
    (folder / "schemas" / "thing.json").write_text('{"type": "object"}')
    (folder / "shop.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [environ['SCRIPT_NAME'].encode()]\n"
        "def create():\n"
        "    return app\n"
        "number = 3\n"
    )
    return folder


def test_applications_are_named_in_the_settings_file_and_by_handler_files(
    tmp_path: Path, new_gateway: Any
) -> None:
    folder = project(tmp_path)
    (folder / "ingest.yaml").write_text(
        'mounts:\n  /shop: shop:app\n  "/made/here": "shop:create()"\n'
    )
    (folder / "handlers" / "old.py").write_text("from shop import app\n")
    (folder / "handlers" / "thing.py").write_text(
        "from shop import app\nPREFIX = '/things'\ndef handle(event): pass\n"
    )
    gateway = new_gateway(cwd=folder)
    for prefix in ("/shop", "/made/here", "/old", "/things"):
        assert gateway.request("GET", f"{prefix}/x").body == prefix.encode()
    assert gateway.post("/v1/events/thing", {}).status == 202
    assert gateway.request("GET", "/thing").status == 404


#: What cannot be mounted, and what is said about it.
UNUSABLE = {
    "/x=missing_module:app": "No module named 'missing_module'",
    "/y=shop:nothing": "no attribute 'nothing'",
    "/z=shop:number": "/z=shop:number is not callable",
    "/t=shop:number()": "'int' object is not callable",
    "/v1=shop:app": "/v1 is not free to mount an application at: /v1 is there",
    "/v1/mine=shop:app": "/v1/mine is not free",
    "/metrics=shop:app": "/metrics is there",
    "/old=shop:app": "/old has an application already",
    "/taken=shop:app": "/taken/by/a/type is there",
}


def test_mounts_that_cannot_be_are_told_together_before_anything_is_served(
    tmp_path: Path,
) -> None:
    folder = project(tmp_path)
    (folder / "handlers" / "old.py").write_text("from shop import app\n")
    (folder / "handlers" / "bad.py").write_text("from shop import app\nPREFIX = 'no/slash'\n")
    (folder / "schemas" / "alias.json").write_text(
        '{"type": "object", "x-ingest": {"routes": ["POST /taken/by/a/type"]}}'
    )
    for command in ([], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ingest", *command, "--mounts", ",".join(UNUSABLE)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PYTHONPATH": str(Path.cwd()), "PATH": ""},
        )
        said = done.stdout + done.stderr
        assert done.returncode == 1 if command else done.returncode != 0
        for words in UNUSABLE.values():
            assert words in said, said
        assert "bad.py" in said
        assert "PREFIX must be a path such as /legacy, not 'no/slash'" in said
        assert "Traceback" not in said
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/=shop:app", "must be none or a list"),
        ("shop:app", "must be none or a list"),
        ("/x/=shop:app", "must be none or a list"),
        ("/../x=shop:app", "must be none or a list"),
        ("/x%20=shop:app", "must be none or a list"),
        ("/x=shop:app(1)", "must be none or a list"),
        ("/x=shop:app,/x=shop:app", "names /x twice"),
    ],
)
def test_a_list_of_mounts_that_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_mounts(text)


def test_other_requests_are_what_they_were(tmp_path: Path, new_gateway: Any) -> None:
    gateway = new_gateway("--mounts", APP)
    plain = Gateway(tmp_path / "plain").start()
    try:
        for path in ("/", "/nothing", "/v1/events/none", "/openapi.json"):
            assert gateway.request("GET", path).status == plain.request("GET", path).status
        assert gateway.request("GET", "/openapi.json").body == plain.request(
            "GET", "/openapi.json"
        ).body  # fmt: skip
    finally:
        plain.stop()
