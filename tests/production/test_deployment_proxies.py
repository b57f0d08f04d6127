"""The shipped configurations of HAProxy and nginx: checked by them, and used by them."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.proxies import HAPROXY, NGINX, PASSTHROUGH, Client, Recorder, haproxy, nginx
from tests.support.waiting import until

BODY = json.dumps(METRICS).encode()
JSON = {"Content_Type": "application/json"}
MIB = 1 << 20

Proxy = Callable[[Path, int, int], AbstractContextManager[int]]
BOTH = pytest.mark.parametrize("proxy", [haproxy, nginx], ids=["haproxy", "nginx"])


def said(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_haproxy_has_nothing_to_say_about_its_configuration(tmp_path: Path) -> None:
    code, words = said("haproxy", "-c", "-f", str(HAPROXY))
    assert code == 0, words
    assert "[WARNING]" not in words and "[ALERT]" not in words, words
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.read_text().replace("retry-on", "retry-one"))
    assert said("haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg"))[0] != 0


@pytest.mark.parametrize("shipped", [NGINX, PASSTHROUGH], ids=lambda path: path.name)
def test_nginx_has_nothing_to_say_about_its_configurations(shipped: Path, tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(shipped.read_text().replace("/run/nginx.pid", f"{tmp_path}/nginx.pid"))
    code, words = said("nginx", "-t", "-c", str(path))
    assert code == 0 and "[warn]" not in words, words
    path.write_text(path.read_text().replace("least_conn;", "least_con;"))
    assert said("nginx", "-t", "-c", str(path))[0] != 0


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Gateway]]:
    """Two instances with journals of their own, which stay."""
    directory = tmp_path_factory.mktemp("instances")
    first, second = (Gateway(directory / name).start() for name in ("one", "two"))
    yield first, second
    for gateway in (first, second):
        gateway.stop()


@BOTH
def test_events_go_through_to_both_and_operators_paths_do_not(
    proxy: Proxy, two: tuple[Gateway, Gateway], tmp_path: Path
) -> None:
    before = [len(gateway.journal()) for gateway in two]
    with proxy(tmp_path, two[0].port, two[1].port) as port:
        for _ in range(8):
            assert Client(port).ask("POST", "/metrics", BODY, **JSON)[0] == 202
        client = Client(port)
        for path in ("/metrics", "/%6detrics", "/metrics?x=1", "/debug/stacks", "/%61dmin/reload"):
            assert client.ask("GET", path)[0] == 404, path
        for path in ("/v1/journal", "/v1/journal/0", "/v1/%6aournal/0", "/v1/journal/0?offset=0"):
            assert client.ask("GET", path)[0] == 404, path
        for path in (
            "/x/../metrics",
            "/x/%2e%2E/metrics",
            "/./metrics",
            "/x/..%2fmetrics",
            "/v1/x/../journal/0",
            "/v1/./journal",
        ):
            assert client.ask("GET", path)[0] in (400, 404), path
        # What is encoded arrives encoded: %2F is no separator, and no such type exists.
        assert client.ask("POST", "/v1%2Fevents%2Fmetrics", BODY, **JSON)[0] == 404
    stored = [len(gateway.journal()) - old for gateway, old in zip(two, before, strict=True)]
    assert sum(stored) == 8 and all(stored)


@BOTH
def test_limits_are_the_gateway_s_seen_through_the_proxy(
    proxy: Proxy, two: tuple[Gateway, Gateway], tmp_path: Path
) -> None:
    line = b'{"metrics":[{"name":"a","value":1,"type":"gauge","tags":{"t":"%s"}}]}\n' % (b"x" * 999)
    fits = line * (16 * MIB // len(line))
    lines = {"Content_Type": "application/x-ndjson"}
    with proxy(tmp_path, two[0].port, two[1].port) as port:
        client = Client(port)
        status, body, _ = client.ask("POST", "/v1/events/metrics?ids=false", fits, **lines)
        assert status < 300, body[:200]
        assert json.loads(body)["accepted"] == len(fits) // len(line)
        assert (
            Client(port).ask("POST", "/v1/events/metrics", b" " * (16 * MIB + 1), **lines)[0] == 413
        )
        # A head of 31 KiB in fields of up to 7 KiB is one that the gateway takes.
        fields = {f"X_Long_{number}": "v" * 7000 for number in range(4)}
        assert Client(port).ask("POST", "/metrics", BODY, **JSON, **fields)[0] == 202
        long = "/v1/events/metrics?" + "q" * 8000
        assert Client(port).ask("POST", long, BODY, **JSON)[0] in (202, 400)


@BOTH
def test_a_client_cannot_say_where_it_comes_from(proxy: Proxy, tmp_path: Path) -> None:
    forged = {"X_Forwarded_For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    with Recorder() as recorder, proxy(tmp_path, recorder.port, recorder.port) as port:
        until(lambda: Client(port).ask("GET", "/look-for-me", **forged)[0] == 200)
    head = next(head for head in recorder.heads if b"look-for-me" in head)
    assert b"203.0.113.9" not in head
    assert b"x-forwarded-for: 127.0.0.1" in head.lower()


def test_haproxy_takes_out_an_instance_that_drains_before_it_stops(  # type: ignore[no-untyped-def]
    new_gateway, tmp_path: Path
) -> None:
    first = new_gateway("--drain-delay", "4", data=tmp_path / "one")
    second = new_gateway(data=tmp_path / "two")
    statuses = set()
    with haproxy(tmp_path, first.port, second.port) as port:
        client = Client(port)
        first.send_signal(signal.SIGTERM)
        while first.alive():
            statuses.add(client.ask("POST", "/metrics", BODY, **JSON)[0])
        for _ in range(10):
            statuses.add(Client(port).ask("POST", "/metrics", BODY, **JSON)[0])
    assert statuses == {202}
    assert first.wait() == 0
    assert len(second.journal()) >= 10


@BOTH
def test_an_instance_that_is_gone_costs_no_request(  # type: ignore[no-untyped-def]
    proxy: Proxy, new_gateway, tmp_path: Path
) -> None:
    first, second = (new_gateway(data=tmp_path / name) for name in ("one", "two"))
    with proxy(tmp_path, first.port, second.port) as port:
        first.kill()
        statuses = {Client(port).ask("POST", "/metrics", BODY, **JSON)[0] for _ in range(20)}
    assert statuses == {202}
    assert len(second.journal()) == 20
