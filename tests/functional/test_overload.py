"""More is sent than is agreed (429), or than can be done (503): over sockets."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest import cli
from tests.support.gateway import Answer, Gateway
from tests.support.waiting import until

NDJSON = "application/x-ndjson"
#: A token in more than a quarter of an hour: no test takes so long.
RATE = 0.001
GATE = """
import os, time
def handle(event):
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
"""
Start = Callable[..., Gateway]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Flags that name a folder of schemas and one of handlers, which is empty."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "schemas").mkdir()
    for name in ("thing", "gated"):
        (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps({"type": "object"}))
    return ["--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers"]


class Keyed:
    """A gateway with a keys file."""

    def __init__(self, directory: Path, start: Start, folders: list[str], **env: str) -> None:
        self.file = directory / "keys.json"
        self.tokens = {"free": self.add("free")}
        flags = (*folders, "--keys-file", str(self.file))
        self.start = lambda: start(*flags, env={f"INGEST_{k}": v for k, v in env.items()})

    def add(self, name: str, *flags: str) -> str:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            words = ["keys", "add", name, *flags, "--json", "--keys-file", str(self.file)]
            assert cli.main(words) == 0
        token: str = json.loads(said.getvalue())["token"]
        return token


def post(gateway: Gateway, body: bytes, token: str = "", media: str = "application/json") -> Answer:
    fields = {"Content-Type": media, **({"Authorization": f"Bearer {token}"} if token else {})}
    return gateway.request("POST", "/v1/events/thing", body, fields)


def require_quota_exceeded(answer: Answer, name: str, least: int, fields: bool = True) -> None:
    document = answer.json()
    assert (answer.status, document["code"]) == (429, "quota_exceeded")
    assert document["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert document["violated-policies"] == [name]
    assert least <= int(answer.headers["retry-after"]) <= max(3600, least)
    assert answer.headers["ratelimit"].startswith(f'"{name}";r=0;t=')
    assert answer.headers["ratelimit-policy"].startswith(f'"{name}";q=')


def test_a_key_beyond_its_quota_is_429_and_the_others_go_on(
    tmp_path: Path, new_gateway: Start, folders: list[str]
) -> None:
    keyed = Keyed(tmp_path, new_gateway, folders)
    scarce = keyed.add("scarce", "--events-per-second", str(RATE))
    gateway = keyed.start()
    assert post(gateway, b"{}", scarce).status == 202
    for _ in range(3):
        require_quota_exceeded(post(gateway, b"{}", scarce), "events", 900)
    assert post(gateway, b"{}", keyed.tokens["free"]).status == 202
    producers = [record["ingestproducer"] for record in gateway.journal()]
    assert producers == ["scarce", "free"]
    assert gateway.metric('ingest_admission_refused_total{reason="key_events"}') == 3
    assert gateway.metric('ingest_requests_total{status="429",type="thing"}') == 3
    assert gateway.metric("ingest_pool_in_use") == 0


def test_refusals_stay_in_their_order_on_a_connection_that_is_kept(
    tmp_path: Path, new_gateway: Start, folders: list[str]
) -> None:
    gateway = new_gateway(*folders, "--address-events-per-second", str(RATE))
    request = (
        b"POST /v1/events/thing HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    with gateway.connect() as client:
        client.send(request * 3)
        assert [client.answer().status for _ in range(3)] == [202, 429, 429]
        client.send(request)
        require_quota_exceeded(client.answer(), "events", 900)
        with_id = request.replace(b"Host: t", b"Host: t\r\nX-Request-Id: mine")
        client.send(with_id)
        assert client.answer().headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("path", "media", "body"),
    [
        ("/v1/events/thing", NDJSON, b"{}\n" * 50),
        ("/v1/batch/thing", "application/json", b"[" + b",".join([b"{}"] * 50) + b"]"),
        (
            "/v1/events",
            "application/cloudevents-batch+json",
            json.dumps(
                [
                    {
                        "specversion": "1.0",
                        "id": str(n),
                        "source": "/t",
                        "type": "thing",
                        "data": {},
                    }
                    for n in range(50)
                ]
            ).encode(),
        ),
    ],
)
def test_a_batch_may_overdraw_and_then_the_address_owes(
    new_gateway: Start, folders: list[str], path: str, media: str, body: bytes
) -> None:
    gateway = new_gateway(*folders, "--address-events-per-second", "0.1")
    stored = gateway.request("POST", path, body, {"Content-Type": media})
    assert (stored.status, stored.json()["accepted"]) == (202, 50)
    require_quota_exceeded(post(gateway, b"{}"), "events", 400)
    assert gateway.metric('ingest_admission_refused_total{reason="address_events"}') == 1
    assert gateway.metric("ingest_admission_addresses") == 1


def test_bytes_have_a_quota_too_and_it_is_judged_before_a_body_is_sent(
    new_gateway: Start, folders: list[str]
) -> None:
    gateway = new_gateway(*folders, "--address-bytes-per-second", "10")
    assert post(gateway, b'{"a":"%s"}' % (b"x" * 20_000)).status == 202  # above the burst
    require_quota_exceeded(post(gateway, b"{}"), "bytes", 1000)
    with gateway.connect() as client:
        client.send(
            b"POST /v1/events/thing HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )
        require_quota_exceeded(client.answer(), "bytes", 1000)
    assert len(gateway.journal()) == 1


def test_reads_and_probes_have_no_quota(new_gateway: Start, folders: list[str]) -> None:
    gateway = new_gateway(*folders, "--address-events-per-second", str(RATE))
    for _ in range(3):
        assert gateway.request("GET", "/readyz").status == 200
        assert gateway.request("GET", "/v1/schemas").status == 200


@pytest.fixture
def stuck(tmp_path: Path, new_gateway: Start, folders: list[str]) -> tuple[Gateway, Path]:
    """A pool of two slots, whose handler waits for a file to appear."""
    (tmp_path / "handlers" / "gated.py").write_text(GATE)
    gate = tmp_path / "gate"
    env = {"GATE": str(gate), "INGEST_POOL_SIZE": "2", "INGEST_QUEUE_DELAY_MAX_SECONDS": "0.05s"}
    return new_gateway(*folders, env=env), gate


def shedding(gateway: Gateway) -> bool:
    return gateway.metric("ingest_admission_shedding") == 1


def test_who_would_wait_too_long_is_refused_reads_first_and_all_is_well_again_afterwards(
    stuck: tuple[Gateway, Path],
) -> None:
    gateway, gate = stuck
    assert gateway.request("GET", "/v1/journal").status == 200
    answers: list[int] = []

    def send() -> None:
        answers.append(gateway.post("/v1/events/gated", {}).status)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: shedding(gateway))
    refused = gateway.post("/v1/events/thing", {})
    document = refused.json()
    assert (refused.status, document["code"]) == (503, "overloaded")
    assert document["type"].endswith("#temporary-reduced-capacity")
    assert int(refused.headers["retry-after"]) >= 1
    read = gateway.request("GET", "/v1/journal")
    assert (read.status, read.json()["code"]) == (503, "overloaded")
    assert gateway.request("GET", "/livez").status == 200
    assert gateway.metric('ingest_admission_refused_total{reason="delay"}') == 1
    assert gateway.metric('ingest_admission_refused_total{reason="read"}') == 1
    gate.touch()
    for thread in threads:
        thread.join()
    assert answers == [202] * 3
    until(lambda: not shedding(gateway))
    assert gateway.post("/v1/events/thing", {}).status == 202
    assert gateway.request("GET", "/v1/journal").status == 200
    assert gateway.metric("ingest_admission_short_total") >= 1
    assert gateway.metric("ingest_pool_in_use") == 0
    assert gateway.metric("ingest_admission_limit") == 2


class Flood:
    """Sends batches from many connections, again and again, whatever the answers are."""

    def __init__(self, gateway: Gateway, token: str, connections: int) -> None:
        body = b'{"n":1}\n' * 1000
        self._request = (
            b"POST /v1/events/thing HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
            % (token.encode(), len(body), body)
        )
        self.statuses: Counter[int] = Counter()
        self.refusal: Answer | None = None
        self._stopped = False
        self._gateway = gateway
        self._threads = [threading.Thread(target=self._send) for _ in range(connections)]

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with self._gateway.connect() as client:
            while not self._stopped:
                client.send(self._request)
                answer = client.answer()
                self.statuses[answer.status] += 1
                if answer.status == 503:
                    self.refusal = answer


def test_who_floods_is_refused_and_the_other_key_is_not(
    tmp_path: Path, new_gateway: Start, folders: list[str]
) -> None:
    keyed = Keyed(tmp_path, new_gateway, folders, QUEUE_DELAY_MAX_SECONDS="0.02s")
    other = keyed.add("other")
    gateway = keyed.start()
    with Flood(gateway, keyed.tokens["free"], 48) as flood:
        until(lambda: flood.statuses[503] > 0)
        answers = [post(gateway, b"{}", other).status for _ in range(60)]
    assert Counter(answers) == {202: 60}
    assert set(flood.statuses) == {202, 503}
    assert flood.refusal is not None
    assert flood.refusal.json()["code"] == "overloaded"
    assert int(flood.refusal.headers["retry-after"]) >= 1
    refused = sum(
        gateway.metric(f'ingest_admission_refused_total{{reason="{reason}"}}')
        for reason in ("delay", "share")
    )
    assert refused == flood.statuses[503]
    assert gateway.metric('ingest_requests_total{status="503",type="thing"}') == refused
    until(lambda: not shedding(gateway))
    assert post(gateway, b"{}", keyed.tokens["free"]).status == 202
    assert gateway.metric('ingest_key_events_total{key="other"}') == 60
