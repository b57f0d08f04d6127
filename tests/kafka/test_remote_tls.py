"""Brokers that speak TLS and ask for a certificate: librdkafka's properties are passed through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ops.kafka.cluster import Cluster
from tests.support.certificates import Authority
from tests.support.gateway import Gateway
from tests.support.waiting import until

Start = Callable[..., Gateway]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def encrypted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker that takes TLS only, from who shows a certificate of the CA."""
    certificate, key = authority.issue("broker", "127.0.0.1")
    parsed = load_pem_private_key(key.read_bytes(), None)
    # Java wants the key as PKCS #8, and beside the certificate.
    both = tmp_path_factory.mktemp("broker") / "broker.pem"
    both.write_bytes(
        parsed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.read_bytes()
    )
    options = {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SSL",
        "ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
    }
    with Cluster(options=options) as cluster:
        yield cluster


@pytest.fixture
def start(encrypted: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Start a gateway with properties of librdkafka's."""
    schema = {"x-ingest": {"sink": {"kafka": {"key": "/n"}}, "ack": "remote"}}
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "sealed.json").write_text(json.dumps(schema))
    made: list[Gateway] = []

    def begin(properties: dict[str, str]) -> Gateway:
        (tmp_path / "ingest.yaml").write_text(
            f"kafka_brokers: {encrypted.bootstrap}\nkafka_delivery_timeout_seconds: 5\n"
            "kafka_unready_after_seconds: 200ms\nqueue_delay_max_seconds: 0\nkafka:\n"
            + "".join(f"  {name}: {value}\n" for name, value in properties.items())
        )
        made.append(Gateway(tmp_path / "data", cwd=tmp_path))
        return made[-1].start()

    yield begin
    for gateway in made:
        gateway.stop()
        assert "Traceback" not in gateway.log()


def with_certificate(authority: Authority, believed: Authority | None = None) -> dict[str, str]:
    """What a client of the CA is configured with.

    Args:
        believed: the CA that brokers' certificates are checked against, if another.
    """
    certificate, key = authority.issue("producer", "producer.test")
    return {
        "security.protocol": "ssl",
        "ssl.ca.location": str((believed or authority).file),
        "ssl.certificate.location": str(certificate),
        "ssl.key.location": str(key),
    }


def read_one(encrypted: Cluster, properties: dict[str, str]) -> tuple[bytes, bytes]:
    """The key and value of the only message of the topic."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            **properties,
            "bootstrap.servers": encrypted.bootstrap,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["events.sealed"])
    found = []

    def polled() -> bool:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            found.append((message.key(), message.value()))
        return bool(found)

    try:
        until(polled)
    finally:
        consumer.close()
    return found[0]


def test_events_reach_brokers_that_want_tls_and_a_certificate(
    encrypted: Cluster, authority: Authority, start: Start
) -> None:
    properties = with_certificate(authority)
    gateway = start(properties)
    until(lambda: gateway.post("/v1/events/sealed", {"n": 1}).status == 202)
    assert read_one(encrypted, properties) == (b"1", b'{"n": 1}')
    assert gateway.request("GET", "/readyz").status == 200


@pytest.mark.parametrize(
    ("fault", "code"),
    [("no certificate", "_TRANSPORT"), ("unknown authority", "_SSL")],
    ids=["no certificate", "unknown authority"],
)
def test_a_handshake_that_fails_is_said_and_nothing_is_accepted(
    authority: Authority, start: Start, tmp_path: Path, fault: str, code: str
) -> None:
    if fault == "no certificate":
        properties = {"security.protocol": "ssl", "ssl.ca.location": str(authority.file)}
    else:
        properties = with_certificate(authority, believed=Authority(tmp_path, "another"))
    gateway = start(properties)
    until(lambda: gateway.request("GET", "/readyz").status == 503)
    until(
        lambda: b"[-]kafka failed: Kafka: ssl://" in gateway.request("GET", "/readyz?verbose").body
    )
    answer = gateway.post("/v1/events/sealed", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (503, "sink_unauthorized")
    assert int(answer.headers["retry-after"]) >= 1
    assert gateway.metric(f'ingest_kafka_troubles_total{{code="{code}"}}') >= 1
