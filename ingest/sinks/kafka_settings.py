"""The settings of the Kafka sink, as a producer needs them.

This module must not know events or HTTP. It asks confluent-kafka only whether it is there, and
whether it takes the properties; the extra `kafka` brings it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.logs_secrets import HIDDEN
from ingest.settings import Settings
from ingest.settings_kafka import parse_properties

#: Where librdkafka would keep up to 2 GiB or a million messages by itself: ours is the bound.
_QUEUE_MAX_MESSAGES = 2_147_483_647
_QUEUE_MAX_KIBIBYTES = 2_147_483_647
#: What librdkafka calls secret, by the end of the name.
_SECRET = ("password", "secret", "key.pem", "sasl.oauthbearer.config", "assertion.private.key.pem")

MISSING = "sink kafka needs confluent-kafka: pip install 'ingest[kafka]'"


class KafkaUnusable(Exception):
    """Events cannot be sent to Kafka with these settings; the text says why."""


@dataclass(frozen=True)
class KafkaSettings:
    """What a producer is made of.

    Attributes:
        brokers: `host:port,…` to begin with.
        topic: where events go, `{type}` in it.
        rejected_topic: where refused events go, likewise; None for nowhere.
        mode: `binary` or `structured`, of the CloudEvents Kafka protocol binding.
        compression: codec of batches.
        inflight_max_bytes: most that may wait for delivery reports.
        delivery_timeout_seconds: how long delivery is tried.
        unready_after_seconds: how long nothing may be delivered until `healthy` says so.
        properties: of librdkafka, as the operator set them.
    """

    brokers: str
    topic: str = "events.{type}"
    rejected_topic: str | None = None
    mode: str = "binary"
    compression: str = "lz4"
    inflight_max_bytes: int = 64 << 20
    delivery_timeout_seconds: float = 30.0
    unready_after_seconds: float = 10.0
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> KafkaSettings:
        """Out of the gateway's settings."""
        rejected = settings.kafka_rejected_topic
        return cls(
            settings.kafka_brokers,
            settings.kafka_topic,
            None if rejected == "off" else rejected,
            settings.kafka_mode,
            settings.kafka_compression,
            settings.kafka_inflight_max_bytes,
            settings.kafka_delivery_timeout_seconds,
            settings.kafka_unready_after_seconds,
            parse_properties(settings.kafka),
        )

    def configuration(self) -> dict[str, Any]:
        """What librdkafka is given.

        Raises:
            KafkaUnusable: a secret that stands elsewhere cannot be had.
        """
        properties = {name: _resolved(name, value) for name, value in self.properties.items()}
        return {
            "client.id": "ingest",
            "linger.ms": "2",
            "partitioner": "murmur2_random",  # as Kafka's own clients do
            "socket.keepalive.enable": "true",
            "socket.nagle.disable": "true",
            # A topic that is not there may be made meanwhile, but nobody waits half a minute.
            "topic.metadata.propagation.max.ms": "10000",
            "reconnect.backoff.max.ms": "1000",
            **properties,
            "bootstrap.servers": self.brokers,
            "acks": "all",
            "enable.idempotence": "true",
            "compression.type": self.compression,
            "delivery.timeout.ms": str(max(1, int(self.delivery_timeout_seconds * 1000))),
            "queue.buffering.max.messages": str(_QUEUE_MAX_MESSAGES),
            "queue.buffering.max.kbytes": str(_QUEUE_MAX_KIBIBYTES),
        }

    def check(self) -> None:
        """See whether librdkafka takes the properties; connects to nobody.

        Raises:
            KafkaUnusable: it does not, or it is not there.
        """
        configuration = self.configuration()
        del configuration["bootstrap.servers"]
        library = library_or_refuse()
        try:
            library.Producer({**configuration, "log_level": 0})
        except library.KafkaException as error:
            raise KafkaUnusable(self.without_secrets(error.args[0].str())) from None

    def without_secrets(self, text: str) -> str:
        """What librdkafka says, without what nobody should read."""
        for name, value in self.properties.items():
            if name.endswith(_SECRET):
                for secret in filter(None, (value, _resolved(name, value))):
                    text = text.replace(secret, HIDDEN)
        return text


def library_or_refuse() -> Any:
    """confluent-kafka.

    Raises:
        KafkaUnusable: it is not there.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise KafkaUnusable(f"{MISSING} ({error})") from None
    return confluent_kafka


def _resolved(name: str, value: str) -> str:
    """The value of a property: `env:NAME` and `file:PATH` say where it stands.

    Raises:
        KafkaUnusable: it does not stand there.
    """
    if value.startswith("env:"):
        try:
            return os.environ[value[4:]]
        except KeyError:
            raise KafkaUnusable(f"kafka {name}: there is no variable {value[4:]}") from None
    if value.startswith("file:"):
        try:
            return Path(value[5:]).read_text().rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise KafkaUnusable(f"kafka {name}: {value[5:]}: {why}") from None
    return value
