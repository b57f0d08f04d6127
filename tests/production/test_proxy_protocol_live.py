"""HAProxy says for whom it connects, with both versions of its protocol, TLVs included."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.gateway import Client, Gateway
from tests.support.proxies import free_ports
from tests.support.waiting import until

CONFIGURATION = """\
global
    stats socket {directory}/stats level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen through
    bind 127.0.0.1:{port}
    source 127.0.0.3
    server gateway 127.0.0.1:{gateway} {send} check check-send-proxy inter 200ms
"""


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_the_client_behind_haproxy_is_the_one_that_is_logged(send: str, tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.json").write_text("{}")
    gateway = Gateway(
        tmp_path / "data", "--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/none",
        "--proxy-protocol", "required", "--trusted-proxies", "127.0.0.3",
        "--allow-addresses", "127.0.0.9,127.0.0.3", env={"INGEST_ACCESS_LOG": "all"},
    ).start()  # fmt: skip
    (port,) = free_ports(1)
    path = tmp_path / "haproxy.cfg"
    path.write_text(
        CONFIGURATION.format(directory=tmp_path, port=port, gateway=gateway.port, send=send)
    )
    proxy = subprocess.Popen(["haproxy", "-db", "-f", str(path)])

    def post(source: str) -> int | None:
        try:
            sock = socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))
            with Client(sock) as client:
                fields = {"Content-Type": "application/json"}
                return client.request("POST", "/v1/events/order", b"{}", fields).status
        except (OSError, EOFError):
            return None

    try:
        until(lambda: post("127.0.0.9") == 202)
        assert post("127.0.0.8") is None
        until(lambda: "http.access" in gateway.log())
        lines = [line for line in gateway.log_lines() if line["event"] == "http.access"]
        assert {line["address"] for line in lines if line["method"] == "POST"} == {"127.0.0.9"}
    finally:
        proxy.terminate()
        proxy.wait(20)
        gateway.stop()
