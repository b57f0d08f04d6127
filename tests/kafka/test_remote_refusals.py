"""What brokers refuse, and what the client and the operator are told: on a broker with rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.kafka.cluster import Cluster
from tests.support.gateway import Gateway
from tests.support.waiting import until

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
STRICT = {
    "auto.create.topics.enable": "false",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": f'{PLAIN} username="admin" '
    'password="admin-secret" user_admin="admin-secret" user_guest="guest-secret";',
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:ANONYMOUS",
}
SCHEMA = {"x-ingest": {"sink": "kafka", "ack": "remote"}}
Start = Callable[[str, str], Gateway]


@pytest.fixture(scope="module")
def strict() -> Iterator[Cluster]:
    """One broker that asks who one is, lets only admin write, and makes no topics by itself."""
    with Cluster(options=STRICT) as cluster:
        yield cluster


@pytest.fixture
def start(strict: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Start a gateway as somebody."""
    (tmp_path / "schemas").mkdir()
    for name in ("there", "missing"):
        (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps(SCHEMA))
    made: list[Gateway] = []

    def begin(user: str, password: str) -> Gateway:
        (tmp_path / "ingest.yaml").write_text(
            f"kafka_brokers: {strict.bootstrap}\nkafka_delivery_timeout_seconds: 5\n"
            "kafka_unready_after_seconds: 200ms\nqueue_delay_max_seconds: 0\n"
            "kafka:\n  security.protocol: sasl_plaintext\n  sasl.mechanism: PLAIN\n"
            f"  sasl.username: {user}\n  sasl.password: env:PASSWORD\n"
            "  topic.metadata.propagation.max.ms: 1000\n"
        )
        gateway = Gateway(tmp_path / "data", cwd=tmp_path, env={"PASSWORD": password})
        made.append(gateway)
        return gateway.start()

    yield begin
    for gateway in made:
        gateway.stop()
        assert "Traceback" not in gateway.log()
        assert "-secret" not in gateway.log()


def code_of(gateway: Gateway, type_name: str) -> tuple[int, str]:
    answer = gateway.post(f"/v1/events/{type_name}", {"n": 1})
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status, answer.json().get("code", "")


def make_topic(strict: Cluster, name: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient(
        {
            "bootstrap.servers": strict.bootstrap,
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": "admin-secret",
        }
    )
    admin.create_topics([NewTopic(name, 1)])[name].result(30)


def test_a_topic_that_nobody_made_is_said_to_be_missing_until_somebody_makes_it(
    strict: Cluster, start: Start
) -> None:
    gateway = start("admin", "admin-secret")
    assert code_of(gateway, "missing") == (503, "unknown_topic")
    make_topic(strict, "events.missing")
    until(lambda: code_of(gateway, "missing") == (202, ""))
    codes = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")
    metric = 'ingest_kafka_errors_total{code="%s",producer="remote"}'
    assert sum(gateway.metric(metric % code) for code in codes) >= 1


def test_what_is_forwarded_waits_in_the_journal_for_a_topic_that_is_missing(
    strict: Cluster, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "schemas" / "later.json").write_text('{"x-ingest": {"sink": "kafka"}}')
    gateway = start("admin", "admin-secret")
    lines = b"".join(b'{"n":%d}\n' % n for n in range(2000))
    media = {"Content-Type": "application/x-ndjson"}
    assert gateway.request("POST", "/v1/events/later", lines, media).status == 202
    metric = 'ingest_forward_%s{partition="0"}'
    until(lambda: gateway.metric(metric % "retries_total") >= 2)
    assert gateway.metric(metric % "lag_events") == 2000
    assert gateway.metric(metric % "lag_seconds") > 0
    make_topic(strict, "events.later")
    until(lambda: gateway.metric(metric % "lag_events") == 0)
    assert gateway.metric(metric % "delivered_total") == 2000
    assert gateway.metric(metric % "dead_letters_total") == 0


def test_who_may_not_write_to_a_topic_is_unauthorized(strict: Cluster, start: Start) -> None:
    make_topic(strict, "events.there")
    assert code_of(start("guest", "guest-secret"), "there") == (503, "sink_unauthorized")


def test_wrong_credentials_are_said_by_readyz_before_anybody_sends(start: Start) -> None:
    gateway = start("admin", "wrong-secret")
    until(lambda: b"uthentication" in gateway.request("GET", "/readyz?verbose").body)
    assert gateway.request("GET", "/readyz").status == 503
    assert b"[-]kafka failed: Kafka: " in gateway.request("GET", "/readyz?verbose").body
    assert code_of(gateway, "there") == (503, "sink_unauthorized")
    assert gateway.metric('ingest_kafka_troubles_total{code="_AUTHENTICATION"}') >= 1
