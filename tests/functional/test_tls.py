"""What a plain connection does, an encrypted one does, too."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.metrics import TLS_RESULTS
from tests.support.certificates import HOST, EncryptedGateway, Serve
from tests.support.events import METRICS
from tests.support.gateway import Answer, Client
from tests.support.mounted import resident_bytes
from tests.support.waiting import until

BODY = json.dumps(METRICS).encode()
REQUEST = (
    b"POST /v1/events/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
STORED = 'ingest_events_accepted_total{type="metrics"}'
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedGateway]:
    running = EncryptedGateway(tmp_path_factory.mktemp("shared"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def gateway(shared: EncryptedGateway) -> EncryptedGateway:
    """One for all of these tests, asked by clients that have not changed what they speak."""
    shared.context = shared.authority.client()
    return shared


class Counted:
    """Handshakes and stored events from now on."""

    def __init__(self, gateway: EncryptedGateway) -> None:
        self._gateway = gateway
        self._stored = gateway.metric(STORED)
        self._before = {result: gateway.handshakes(result) for result in TLS_RESULTS}

    def handshakes(self, result: str) -> float:
        return self._gateway.handshakes(result) - self._before[result]

    def stored(self) -> float:
        return self._gateway.metric(STORED) - self._stored


def batch(size: int) -> bytes:
    """Events, one a line, of about `size` bytes together."""
    return (BODY + b"\n") * (size // len(BODY))


def post(client: Client, path: str, body: bytes, **fields: str) -> Answer:
    return client.request("POST", path, body, {"Content-Type": "application/json", **fields})


def test_a_connection_is_kept_alive_and_speaks_http_1_1(gateway: EncryptedGateway) -> None:
    counted = Counted(gateway)
    gateway.context.set_alpn_protocols(["h2", "http/1.1"])
    with gateway.connect() as client:
        sock: Any = client.sock
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert sock.version() == "TLSv1.3"
        for _ in range(50):
            assert post(client, "/v1/events/metrics", BODY).status == 202
    assert counted.stored() == 50
    assert "https://127.0.0.1:" in gateway.banner


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_1_2_is_spoken_with_forward_secrecy_and_older_is_not(gateway: EncryptedGateway) -> None:
    counted = Counted(gateway)
    gateway.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with gateway.connect() as client:
        sock: Any = client.sock
        name, version, _ = sock.cipher()
        assert (sock.version(), version) == ("TLSv1.2", "TLSv1.2")
        assert name.startswith("ECDHE-") and "GCM" in name
        assert post(client, "/v1/events/metrics", BODY).status == 202
    old = gateway.authority.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        gateway.connect(context=old)
    weak = gateway.authority.client()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA256:AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError):
        gateway.connect(context=weak)
    assert (counted.handshakes("protocol"), counted.handshakes("cipher")) == (1, 1)


def test_tls_1_3_alone_can_be_asked_for(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--tls-min-version", "1.3")
    assert gateway.request("GET", "/readyz").status == 200
    older = gateway.authority.client()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        gateway.connect(context=older)


def test_pipelined_requests_are_answered_in_order(gateway: EncryptedGateway) -> None:
    with gateway.connect() as client:
        client.send(REQUEST * 1000 + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        statuses = [client.answer().status for _ in range(1001)]
    assert statuses == [202] * 1000 + [200]


@pytest.mark.parametrize("piece", [1, 37])
def test_a_request_may_come_in_records_of_any_size(gateway: EncryptedGateway, piece: int) -> None:
    with gateway.connect() as client:
        for at in range(0, len(REQUEST), piece):
            client.send(REQUEST[at : at + piece])
        assert client.answer().status == 202


def test_ciphertext_may_come_in_pieces_of_any_size(gateway: EncryptedGateway) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with socket.create_connection(("127.0.0.1", gateway.port), 30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def dribble() -> None:
            data = outgoing.read()
            for at in range(0, len(data), 7):
                sock.sendall(data[at : at + 7])

        def exchange(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    dribble()
                    incoming.write(sock.recv(65536))
                finally:
                    dribble()

        exchange(tls.do_handshake)
        tls.write(REQUEST * 2)
        answers = b""
        while answers.count(b"HTTP/1.1 202") < 2:
            answers += exchange(lambda: tls.read(65536))


@pytest.mark.parametrize("size", [16_000, 70_000, 5_000_000])
def test_bodies_of_any_size_arrive_whole(gateway: EncryptedGateway, size: int) -> None:
    body = batch(size)
    with gateway.connect() as client:
        answer = client.request("POST", "/v1/events/metrics", body, NDJSON)
        assert (answer.status, answer.json()["accepted"]) == (202, body.count(b"\n"))
        assert post(client, "/v1/events/metrics", BODY).status == 202


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(gateway: EncryptedGateway) -> None:
    head, _, body = REQUEST.partition(b"\r\n\r\n")
    with gateway.connect() as client:
        client.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(body)
        assert client.answer().status == 202


def test_an_answer_larger_than_what_the_peer_takes_at_a_time_arrives_whole(
    gateway: EncryptedGateway,
) -> None:
    body = batch(6_000_000)
    with gateway.connect() as client:
        assert client.request("POST", "/v1/events/metrics", body, NDJSON).status == 202
    with gateway.connect() as client:
        client.send(b"GET /v1/journal/0?offset=0&limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
        pages = [client.answer() for _ in range(40)]
    assert {page.status for page in pages} == {200}
    assert len({page.body for page in pages}) == 1
    assert len(pages[0].body) > 1_000_000


def test_the_end_of_the_clients_side_is_no_end_of_the_answers(gateway: EncryptedGateway) -> None:
    counted = Counted(gateway)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with socket.create_connection(("127.0.0.1", gateway.port), 30) as sock:

        def until_done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        until_done(tls.do_handshake)
        tls.write(REQUEST * 3)
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()  # close_notify in the same segment; the socket stays open
        sock.sendall(outgoing.read())
        answers = b""
        while data := sock.recv(65536):
            incoming.write(data)
        with pytest.raises(ssl.SSLZeroReturnError):
            while True:
                answers += tls.read(65536)
    assert answers.count(b"HTTP/1.1 202") == 3
    assert counted.stored() == 3


def test_a_closing_answer_is_followed_by_a_regular_end(gateway: EncryptedGateway) -> None:
    with gateway.connect() as client:
        sock: Any = client.sock
        assert post(client, "/v1/events/metrics", BODY, Connection="close").status == 202
        sock.suppress_ragged_eofs = False
        assert sock.recv(1) == b""


def test_a_segment_is_downloaded_whole_and_in_parts(new_encrypted: Serve) -> None:
    gateway = new_encrypted()
    name = f"{0:020d}.ndjson"
    with gateway.connect() as client:
        answer = client.request("POST", "/v1/events/metrics", batch(5_000_000), NDJSON)
        assert answer.status == 202
        stored = (gateway.data / "journal" / "0" / name).read_bytes().rstrip(b"\n") + b"\n"
        whole = client.request("GET", f"/v1/journal/0/{name}")
        assert (whole.status, whole.body == stored) == (200, True)
        part = client.request("GET", f"/v1/journal/0/{name}", None, {"Range": "bytes=1000-4000000"})
        assert (part.status, part.body == stored[1000:4000001]) == (206, True)
        assert client.request("GET", "/livez").status == 200


def test_a_plain_request_on_the_port_is_told_so(gateway: EncryptedGateway) -> None:
    counted = Counted(gateway)
    with Client(socket.create_connection(("127.0.0.1", gateway.port), 30)) as client:
        answer = client.request("GET", "/readyz")
        assert (answer.status, answer.json()["code"]) == (400, "bad_request")
        assert "https" in answer.json()["detail"]
        assert client.closed()
    assert counted.handshakes("plain_http") == 1


def test_what_is_neither_is_closed_and_counted(gateway: EncryptedGateway) -> None:
    counted = Counted(gateway)
    with Client(socket.create_connection(("127.0.0.1", gateway.port), 30)) as client:
        client.send(b"\x00\x01\x02\x03 nothing of the kind \r\n\r\n")
        until_closed(client.sock)
    with gateway.connect() as client:
        raw: Any = client.sock
        socket.socket.sendall(raw, b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record, not ours
        with pytest.raises(OSError):
            while raw.recv(100):
                pass
            raise ConnectionResetError("closed without an alert")
    assert counted.handshakes("error") + counted.handshakes("protocol") == 1
    assert gateway.request("GET", "/readyz").status == 200


def until_closed(sock: socket.socket) -> None:
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass


def test_a_client_that_finds_another_host_goes_and_is_counted(gateway: EncryptedGateway) -> None:
    counted = Counted(gateway)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        sock = socket.create_connection(("127.0.0.1", gateway.port), 30)
        gateway.context.wrap_socket(sock, server_hostname="another.test")
    until(lambda: counted.handshakes("client") == 1)


def test_sessions_are_resumed(gateway: EncryptedGateway) -> None:
    with gateway.connect() as client:
        assert client.request("GET", "/livez").status == 200
        first: Any = client.sock
        session = first.session
    sock = socket.create_connection(("127.0.0.1", gateway.port), 30)
    with gateway.context.wrap_socket(sock, server_hostname=HOST, session=session) as again:
        assert again.session_reused


def test_probes_reach_it_by_command(gateway: EncryptedGateway) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "ingest", "health", "--ready",
            "--bind", f"127.0.0.1:{gateway.port}", "--tls-cert", str(gateway.certificate),
            "--tls-key", str(gateway.key),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_listener_for_operators_stays_plain(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--admin-bind", "127.0.0.1:0", "--admin-connections-max", "1")
    port = gateway.admin_port()
    with Client(socket.create_connection(("127.0.0.1", port), 30)) as client:
        assert b"ingest_tls_handshakes_total" in client.request("GET", "/metrics").body
        with Client(socket.create_connection(("127.0.0.1", port), 30)) as another:
            assert another.answer().status == 503
    with gateway.connect() as client:
        assert client.request("GET", "/readyz").status == 200


def test_a_connection_too_many_is_closed_without_a_word(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--connections-max", "1", "--admin-bind", "127.0.0.1:0")
    with gateway.connect() as client:
        assert client.request("GET", "/livez").status == 200
        with Client(socket.create_connection(("127.0.0.1", gateway.port), 30)) as another:
            assert another.closed()
        assert client.request("GET", "/livez").status == 200


def test_a_connection_that_is_idle_again_keeps_little_of_what_went_through_it(
    new_encrypted: Serve,
) -> None:
    gateway = new_encrypted()
    body, count = batch(100_000), 80

    def use(client: Client) -> None:
        path = "/v1/events/metrics?ids=false"
        assert client.request("POST", path, body, NDJSON).status == 202
        assert client.request("GET", "/v1/journal/0?offset=0&limit=1000").status == 200

    for _ in range(20):
        with gateway.connect() as client:
            use(client)
    before = resident_bytes(gateway)
    clients = [gateway.connect() for _ in range(count)]
    for client in clients:
        use(client)
    each = (resident_bytes(gateway) - before) / count
    for client in clients:
        client.sock.close()
    assert each < 120 * 1024
