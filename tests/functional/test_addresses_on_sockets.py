"""Who may connect, and whose word about a client is taken: refused, counted, nothing stored."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.access.proxy_protocol import LOCAL, SIGNATURE
from tests.support.gateway import Client, Gateway
from tests.support.waiting import until

EVENT = b'{"n": 1}'
JSON = {"Content-Type": "application/json"}
CLIENT, PROXY, STRANGER = "127.0.0.1", "127.0.0.3", "127.0.0.4"
V2 = SIGNATURE + bytes((0x21, 0x11, 0, 15)) + bytes((192, 0, 2, 7, 10, 0, 0, 1, 18, 52, 0, 80))
V2 += b"\x04\x00\x00"

Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Start:
    (tmp_path / "schemas").mkdir()
    kept = {"type": "object", "required": ["n"], "x-ingest": {"on_reject": "keep"}}
    (tmp_path / "schemas" / "order.json").write_text(json.dumps(kept))

    def started(*flags: str) -> Gateway:
        schemas = ("--schemas", str(tmp_path / "schemas"), "--handlers", str(tmp_path / "none"))
        return new_gateway(*schemas, *flags, env={"INGEST_ACCESS_LOG": "all"})

    return started


def connect(gateway: Gateway, source: str) -> Client:
    address = ("127.0.0.1", gateway.port)
    return Client(socket.create_connection(address, timeout=20, source_address=(source, 0)))


def post(client: Client, body: bytes = EVENT, **fields: str) -> int:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return client.request("POST", "/v1/events/order", body, {**JSON, **named}).status


def closed_without_a_word(client: Client, data: bytes = b"") -> bool:
    with contextlib.suppress(ConnectionError):
        if data:
            client.send(data)
        return client.sock.recv(1) == b""
    return True


def metric(client: Client, name: str) -> float:
    for line in client.request("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


def addresses(gateway: Gateway, count: int) -> list[str]:
    def found() -> list[str]:
        lines = [line for line in gateway.log_lines() if line.get("event") == "http.access"]
        return [line["address"] for line in lines if line["target"] == "/v1/events/order"]

    until(lambda: len(found()) >= count)
    return found()


def refused(limit: str) -> str:
    return f'ingest_connections_refused_total{{limit="{limit}"}}'


def test_who_is_not_on_the_list_is_closed_counted_and_nothing_is_stored(start: Start) -> None:
    gateway = start("--allow-addresses", "127.0.0.1,10.0.0.0/8")
    with connect(gateway, STRANGER) as stranger:
        assert closed_without_a_word(stranger)
    with connect(gateway, CLIENT) as client:
        assert post(client) == 202
        assert metric(client, refused("not_allowed")) == 1
        assert post(client, X_Forwarded_For=STRANGER) == 202  # a field that nobody asked for
    assert len(gateway.journal()) == 2


def test_a_forged_field_changes_nothing(start: Start) -> None:
    gateway = start("--trusted-proxies", PROXY, "--allow-addresses", f"192.0.2.7,{CLIENT}")
    with connect(gateway, STRANGER) as stranger:
        head = b"POST /v1/events/order HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
        assert closed_without_a_word(stranger, head)
    with connect(gateway, PROXY) as proxy:
        assert post(proxy, X_Forwarded_For="192.0.2.7, 203.0.113.9") == 403  # forged, then seen
        assert post(proxy, Forwarded="for=192.0.2.7") == 403  # not the field of this proxy
        assert post(proxy) == 403
        assert post(proxy, X_Forwarded_For="203.0.113.9, 192.0.2.7") == 202
        assert proxy.request("GET", "/readyz").status == 200
        assert proxy.request("GET", "/v1/schemas").status == 403
    with connect(gateway, CLIENT) as client:
        assert post(client, b"{}", X_Forwarded_For="192.0.2.7") == 422
        assert metric(client, 'ingest_access_refused_total{reason="address"}') == 4
    seen = addresses(gateway, 5)
    assert seen == ["203.0.113.9", PROXY, PROXY, "192.0.2.7", CLIENT]
    assert len(gateway.journal()) == 1
    until(lambda: len(gateway.journal("--rejected")) == 1)
    assert gateway.journal("--rejected")[0]["rejectedby"] == CLIENT


def test_the_same_refused_head_is_counted_each_time(start: Start) -> None:
    gateway = start("--trusted-proxies", PROXY, "--allow-addresses", CLIENT)
    with connect(gateway, PROXY) as proxy:
        assert [post(proxy, X_Forwarded_For="203.0.113.9") for _ in range(5)] == [403] * 5
    with connect(gateway, CLIENT) as client:
        assert metric(client, 'ingest_access_refused_total{reason="address"}') == 5


def test_a_head_that_one_may_send_is_not_kept_for_another(start: Start) -> None:
    gateway = start("--trusted-proxies", f"{PROXY},127.0.0.5", "--allow-addresses", "127.0.0.5")
    with connect(gateway, "127.0.0.5") as allowed, connect(gateway, PROXY) as proxy:
        for _ in range(3):
            assert (post(allowed), post(proxy)) == (202, 403)


@pytest.mark.parametrize(
    "header", [V2, b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n"], ids=["v2", "v1"]
)
def test_a_proxy_says_for_whom_it_connects(start: Start, header: bytes) -> None:
    flags = ("--proxy-protocol", "required", "--trusted-proxies", CLIENT)
    gateway = start(*flags, "--allow-addresses", f"192.0.2.7,{CLIENT}")
    with connect(gateway, CLIENT) as together:
        head = b"POST /v1/events/order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        together.send(header + head + b"Content-Length: 8\r\n\r\n" + EVENT)
        assert together.answer().status == 202
        assert post(together) == 202
    with connect(gateway, CLIENT) as pieces:
        for byte in header:
            pieces.send(bytes((byte,)))
        assert post(pieces, b"{}", X_Forwarded_For="203.0.113.9") == 422
    with connect(gateway, CLIENT) as own:
        own.send(LOCAL)
        assert post(own) == 202
    assert addresses(gateway, 4) == ["192.0.2.7"] * 3 + [CLIENT]
    until(lambda: len(gateway.journal("--rejected")) == 1)
    assert gateway.journal("--rejected")[0]["rejectedby"] == "192.0.2.7"


def test_a_header_from_elsewhere_and_none_from_a_proxy_are_refused(start: Start) -> None:
    flags = ("--proxy-protocol", "required", "--trusted-proxies", PROXY)
    gateway = start(*flags, "--allow-addresses", "192.0.2.0/24,127.0.0.3")
    head = b"POST /v1/events/order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: 8\r\n\r\n" + EVENT
    with connect(gateway, STRANGER) as stranger:
        assert closed_without_a_word(stranger, V2 + request)
    for wrong in (request, b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n" + request):
        with connect(gateway, PROXY) as proxy:
            assert closed_without_a_word(proxy, wrong)
    with connect(gateway, PROXY) as proxy:
        outside = V2.replace(bytes((192, 0, 2, 7)), bytes((203, 0, 113, 9)))
        assert closed_without_a_word(proxy, outside + request)
    with connect(gateway, PROXY) as proxy:
        proxy.send(V2)
        assert metric(proxy, refused("proxy")) == 1
        assert metric(proxy, refused("introduction")) == 2
        assert metric(proxy, refused("not_allowed")) == 1
    assert gateway.journal() == []
    assert gateway.journal("--rejected") == []


def test_a_proxy_that_says_nothing_is_let_go(start: Start) -> None:
    flags = ("--proxy-protocol", "required", "--trusted-proxies", CLIENT)
    gateway = start(*flags, "--header-timeout", "300ms")
    for begun in (b"", b"PROXY TCP4 192"):
        with connect(gateway, CLIENT) as silent:
            assert closed_without_a_word(silent, begun)


def test_the_health_command_introduces_itself(start: Start) -> None:
    flags = ("--proxy-protocol", "required", "--trusted-proxies", CLIENT)
    gateway = start(*flags)
    bind = ("--bind", f"127.0.0.1:{gateway.port}")
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "health", "--ready", *bind, *flags],
        capture_output=True, timeout=60, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_a_header_that_nobody_asked_for_is_no_request(start: Start) -> None:
    gateway = start()
    for header in (V2, b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n\r\n"):
        with connect(gateway, CLIENT) as client:
            client.send(header)
            assert client.answer().status == 400
    assert gateway.journal() == []


def test_the_limit_per_address_counts_clients_and_not_their_proxy(start: Start) -> None:
    flags = ("--proxy-protocol", "required", "--trusted-proxies", CLIENT)
    gateway = start(*flags, "--connections-per-address-max", "1")
    other = V2.replace(bytes((192, 0, 2, 7)), bytes((192, 0, 2, 8)))
    with connect(gateway, CLIENT) as first, connect(gateway, CLIENT) as second:
        first.send(V2)
        assert post(first) == 202
        second.send(other)
        assert post(second) == 202
        with connect(gateway, CLIENT) as again:
            again.send(V2)
            assert again.answer().status == 503
    with connect(gateway, CLIENT) as proxy:
        proxy.send(LOCAL)
        assert metric(proxy, refused("address")) == 1


def test_half_a_header_does_not_keep_others_waiting(start: Start) -> None:
    flags = ("--proxy-protocol", "required", "--trusted-proxies", CLIENT)
    gateway = start(*flags)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connect(gateway, CLIENT)).send(V2[:10])
        client = stack.enter_context(connect(gateway, CLIENT))
        client.send(V2)
        answers: list[int] = []
        sender = threading.Thread(target=lambda: answers.append(post(client)))
        sender.start()
        sender.join(20)
        assert answers == [202]


def test_proxies_nobody_named_are_a_reason_not_to_start(tmp_path: Path) -> None:
    for flags, said in (
        (("--proxy-protocol", "required"), "needs trusted_proxies"),
        (("--trusted-proxies", "all"), "addresses and networks"),
        (("--allow-addresses", "10.0.0.1/8"), "addresses and networks"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ingest", "check", "--data", str(tmp_path), *flags],
            capture_output=True, timeout=60, text=True,
        )  # fmt: skip
        assert done.returncode != 0
        assert said in done.stdout + done.stderr
