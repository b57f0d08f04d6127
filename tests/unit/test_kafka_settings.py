"""What librdkafka is given, and what is said where it does not take it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ingest.settings import Settings
from ingest.sinks.kafka_settings import KafkaSettings, KafkaUnusable


def test_the_promise_is_part_of_every_configuration() -> None:
    configuration = KafkaSettings("kafka:9092", properties={"linger.ms": "7"}).configuration()
    assert configuration["acks"] == "all"
    assert configuration["enable.idempotence"] == "true"
    assert configuration["delivery.timeout.ms"] == "30000"
    assert configuration["bootstrap.servers"] == "kafka:9092"
    assert configuration["linger.ms"] == "7"


def test_the_gateways_settings_are_what_it_is_made_of() -> None:
    settings = KafkaSettings.of(
        Settings(kafka_brokers="a:1", kafka_compression="zstd", kafka="linger.ms=3")
    )
    assert (settings.brokers, settings.compression) == ("a:1", "zstd")
    assert (settings.rejected_topic, settings.properties) == (None, {"linger.ms": "3"})


def test_librdkafkas_own_words_say_what_it_does_not_know() -> None:
    KafkaSettings("a:1", properties={"security.protocol": "plaintext"}).check()
    with pytest.raises(KafkaUnusable, match=r'No such configuration property: "linger\.msec"'):
        KafkaSettings("a:1", properties={"linger.msec": "5"}).check()
    with pytest.raises(
        KafkaUnusable, match=r'Invalid value "lzma" for configuration property "compression'
    ):
        KafkaSettings("a:1", compression="lzma").check()


def test_a_secret_may_stand_in_a_file_or_variable_and_is_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    monkeypatch.setenv("SASL_USER", "shop")
    settings = KafkaSettings(
        "a:1", properties={"sasl.username": "env:SASL_USER", "sasl.password": f"file:{secret}"}
    )
    configuration = settings.configuration()
    assert configuration["sasl.username"] == "shop"
    assert configuration["sasl.password"] == "hunter2"
    assert settings.without_secrets("refused: hunter2") == "refused: [hidden]"
    assert "hunter2" not in repr(KafkaSettings("a:1", properties={"sasl.password": "hunter2"}))


def test_a_secret_that_is_not_there_is_said_without_a_traceback(tmp_path: Path) -> None:
    for value, words in (
        ("env:NO_SUCH_VARIABLE", "there is no variable NO_SUCH_VARIABLE"),
        (f"file:{tmp_path}/none", "No such file or directory"),
    ):
        with pytest.raises(KafkaUnusable, match=words):
            KafkaSettings("a:1", properties={"sasl.password": value}).check()


def test_without_confluent_kafka_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(KafkaUnusable, match=r"pip install 'ingest\[kafka\]'"):
        KafkaSettings("a:1").check()
