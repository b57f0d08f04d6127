"""Mounted applications behind TLS: bodies, pieces and files, both ways."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.certificates import EncryptedGateway
from tests.support.mounted import APP
from tests.support.wsgi_apps import BLOCK

LARGE = bytes(range(256)) * 48_000  # 12 MB


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedGateway]:
    directory = tmp_path_factory.mktemp("mounted")
    file = directory / "large"
    file.write_bytes(LARGE)
    gateway = EncryptedGateway(directory, "--mounts", APP, env={"TEST_FILE": str(file)})
    gateway.context.check_hostname = False
    gateway.start()
    yield gateway
    gateway.stop()


def ask(gateway: EncryptedGateway, path: str, body: Any = None) -> bytes:
    """One request by http.client, which knows every framing."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", gateway.port, timeout=60, context=gateway.context
    )
    try:
        method = "GET" if body is None else "POST"
        connection.request(method, f"/legacy/{path}", body, {}, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


def test_an_application_knows_that_it_is_https(mounted: EncryptedGateway) -> None:
    assert json.loads(ask(mounted, "environ"))["wsgi.url_scheme"] == "https"


def test_a_body_is_read_as_it_comes(mounted: EncryptedGateway) -> None:
    assert ask(mounted, "sha", LARGE).decode() == hashlib.sha256(LARGE).hexdigest()
    pieces = iter([LARGE[:5], LARGE[5:100_000], LARGE[100_000:]])
    assert ask(mounted, "sha", pieces).decode() == hashlib.sha256(LARGE).hexdigest()


def test_pieces_arrive_in_order(mounted: EncryptedGateway) -> None:
    assert ask(mounted, "blocks?100") == BLOCK * 100
    assert ask(mounted, "write") == b"one,two,three"


@pytest.mark.parametrize("kind", ["open", "never", "memory"])
def test_a_file_arrives_whole_and_from_a_place_within(mounted: EncryptedGateway, kind: str) -> None:
    assert ask(mounted, f"file?kind={kind}") == LARGE
    if kind == "open":
        assert ask(mounted, f"file?kind={kind}&start=1000001") == LARGE[1_000_001:]


def test_a_file_that_its_client_takes_slowly_arrives_whole(mounted: EncryptedGateway) -> None:
    with mounted.connect() as client:
        client.send(b"GET /legacy/file?kind=open HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while data := client.sock.recv(1000 if len(received) < 100_000 else 65536):
            received += data
    assert received.partition(b"\r\n\r\n")[2] == LARGE
