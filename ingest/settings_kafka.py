"""What the settings about Kafka may say: brokers, topics, properties of librdkafka.

Any property of librdkafka can be set but those that would break the promise behind a 2xx, which
are refused with what they would do. Whether there is such a property, librdkafka says itself.

PURE: this module must not know librdkafka, nor where a text came from.

Sources: Kafka's `Topic.validate`; librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: In a template of topics, the event type's name.
TYPE = "{type}"
TOPIC_MAX_CHARS = 249
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_BROKER = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+]*://)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
)
_PROPERTY = re.compile(r"[a-z][a-z0-9]*(?:[._][a-z0-9]+)*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
#: A comma ends a property, unless there is a backslash before it.
_PAIRS = re.compile(r"(?:[^,\\]|\\.)+", re.DOTALL)

_ALWAYS = "it is always so"
_LOST = "events could be lost, or come twice, although they were answered 2xx"
_OURS = "it belongs to this gateway"
#: Property → why it cannot be set.
DENIED: Mapping[str, str] = {
    "acks": f"{_ALWAYS}: all replicas in sync have what is answered 2xx",
    "request.required.acks": f"{_ALWAYS}: all replicas in sync have what is answered 2xx",
    "enable.idempotence": f"{_ALWAYS} on: without it {_LOST}",
    "enable.gapless.guarantee": "one message that times out would end the producer",
    "transactional.id": "there are no transactions; events are read as soon as they are stored",
    "max.in.flight": f"with more than 5 {_LOST}; it is 5",
    "max.in.flight.requests.per.connection": f"with more than 5 {_LOST}; it is 5",
    "message.send.max.retries": "it is tried until kafka_delivery_timeout_seconds",
    "retries": "it is tried until kafka_delivery_timeout_seconds",
    "message.timeout.ms": "set kafka_delivery_timeout_seconds",
    "delivery.timeout.ms": "set kafka_delivery_timeout_seconds",
    "bootstrap.servers": "set kafka_brokers",
    "metadata.broker.list": "set kafka_brokers",
    "compression.codec": "set kafka_compression",
    "compression.type": "set kafka_compression",
    "queue.buffering.max.messages": "set kafka_inflight_max_bytes",
    "queue.buffering.max.kbytes": "set kafka_inflight_max_bytes",
    "queuing.strategy": "the order of events would not be kept",
    "delivery.report.only.error": "an answer waits for each report",
    "opaque": _OURS,
    "default_topic_conf": _OURS,
    "default.topic.config": _OURS,
    "enabled_events": _OURS,
    "log.queue": _OURS,
    "logger": _OURS,
    "statistics.interval.ms": "the metrics say what there is to know",
    "plugin.library.paths": "it would run code that the operator of the gateway did not choose",
    "builtin.features": "it says what librdkafka was built with",
}
#: How a message without a key or with one finds its partition; `random` would not keep the order
#: of events with the same key.
PARTITIONERS = (
    "consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random",
)  # fmt: skip


def check_brokers(text: str) -> None:
    """Addresses of brokers, `host:port,host:port`, or `none`.

    Raises:
        ValueError: it is neither.
    """
    for part in text.split(","):
        if _BROKER.fullmatch(part.strip()) is None:
            raise ValueError("must be none or a list of brokers such as kafka-1:9092,kafka-2:9092")


def check_topic(text: str) -> None:
    """A topic, in which `{type}` stands for an event type.

    Raises:
        ValueError: no topic may have that name.
    """
    name = text.replace(TYPE, "x")
    if _TOPIC.fullmatch(name) is None or name in (".", ".."):
        raise ValueError(
            "must be a topic of at most 249 letters, digits and ._- in which {type} stands for the"
            " type of an event, such as events.{type}"
        )


def check_topic_or_off(text: str) -> None:
    """The same, or `off`.

    Raises:
        ValueError: it is neither.
    """
    if text != "off":
        check_topic(text)


def topic_of(template: str, type_name: str) -> str:
    """The topic of an event type.

    Raises:
        ValueError: it would be longer than a topic's name may be.
    """
    name = template.replace(TYPE, type_name)
    if len(name) > TOPIC_MAX_CHARS:
        raise ValueError(
            f"the topic {name[:40]}… has {len(name)} characters; Kafka takes {TOPIC_MAX_CHARS}"
        )
    return name


def parse_properties(text: str) -> dict[str, str]:
    r"""Read properties of librdkafka: `linger.ms=5,security.protocol=ssl`, or `none`.

    A comma or backslash in a value has a backslash before it.

    Raises:
        ValueError: it is none, or one of them may not be set. No value is repeated: it may be
            a secret.
    """
    properties: dict[str, str] = {}
    for part in () if text == "none" else _PAIRS.findall(text):
        name, equals, value = part.partition("=")
        name, value = name.strip(), _ESCAPED.sub(r"\1", value.strip())
        if not equals or _PROPERTY.fullmatch(name) is None:
            raise ValueError(
                "must be none or properties of librdkafka such as linger.ms=5,security.protocol=ssl"
            )
        if name in properties:
            raise ValueError(f"must name each property once, and names {name} twice")
        _check_property(name, value)
        properties[name] = value
    return properties


def check_properties(text: str) -> None:
    """Properties as `parse_properties` reads them.

    Raises:
        ValueError: it is none of these.
    """
    parse_properties(text)


def _check_property(name: str, value: str) -> None:
    why = DENIED.get(name)
    if why is None and name.endswith("_cb"):
        why = "a function cannot be named here"
    if why is None and name.startswith("test."):
        why = "what a pretended broker acknowledges is stored nowhere"
    if why is not None:
        raise ValueError(f"must not set {name}: {why}")
    if name == "partitioner" and value not in PARTITIONERS:
        raise ValueError(
            f"must have one of {', '.join(PARTITIONERS)} as partitioner: others do not keep the"
            " order of events with the same key"
        )
