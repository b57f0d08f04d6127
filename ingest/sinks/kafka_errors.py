"""What a client is told when Kafka has not taken an event.

This module must not know HTTP framing, nor how messages are sent.

Source: librdkafka's error codes; the Kafka protocol's (KIP-98 for the idempotent producer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.errors import IngestError

#: librdkafka's name of an error → the code it is answered with. Of all others the outcome is
#: certain: the brokers refused the message.
ANSWERS: Mapping[str, str] = {
    "_MSG_TIMED_OUT": "sink_unavailable",
    "_TIMED_OUT": "sink_unavailable",
    "_TRANSPORT": "sink_unavailable",
    "_ALL_BROKERS_DOWN": "sink_unavailable",
    "_PURGE_INFLIGHT": "sink_unavailable",
    "_PURGE_QUEUE": "sink_unavailable",
    "_DESTROY": "sink_unavailable",
    "_FATAL": "sink_unavailable",
    "REQUEST_TIMED_OUT": "sink_unavailable",
    "NETWORK_EXCEPTION": "sink_unavailable",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": "sink_unavailable",
    "_QUEUE_FULL": "overloaded",
    "MSG_SIZE_TOO_LARGE": "message_too_large",
    "RECORD_LIST_TOO_LARGE": "message_too_large",
    "UNKNOWN_TOPIC_OR_PART": "unknown_topic",
    "_UNKNOWN_TOPIC": "unknown_topic",
    "_UNKNOWN_PARTITION": "unknown_topic",
    "TOPIC_EXCEPTION": "unknown_topic",
    "_AUTHENTICATION": "sink_unauthorized",
    "SASL_AUTHENTICATION_FAILED": "sink_unauthorized",
    "TOPIC_AUTHORIZATION_FAILED": "sink_unauthorized",
    "CLUSTER_AUTHORIZATION_FAILED": "sink_unauthorized",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "sink_unauthorized",
    "_SSL": "sink_unauthorized",
}


#: In TLS 1.3 the client's handshake is over when a server refuses its certificate (RFC 8446,
#: section 2), so to librdkafka this is a connection that broke, for a reason that OpenSSL gives.
_REFUSED_LATE = "SSL alert number"


def is_unauthorized(error: Any) -> bool:
    """Whether the brokers do not accept this service's credentials, or it not theirs."""
    if error.name() == "_TRANSPORT":
        return _REFUSED_LATE in error.str()
    return ANSWERS.get(error.name()) == "sink_unauthorized"


def failure_of(error: Any, trouble: Any, topic: str = "") -> IngestError:
    """The answer to an event that was not delivered.

    Args:
        error: librdkafka's, of its message.
        trouble: librdkafka's last error that was nobody's message's; it may be why the message
            timed out.
        topic: of its message, where that is known.
    """
    code = ANSWERS.get(error.name(), "sink_refused")
    if code == "sink_unavailable" and trouble is not None and is_unauthorized(trouble):
        detail = "Kafka does not accept the credentials of this service."
        return IngestError("sink_unauthorized", detail)
    if code == "sink_unavailable":
        return IngestError(code, f"{error.str()}; whether it is stored is not known.")
    if code == "overloaded":
        return IngestError(code, "Too many events are waiting for Kafka.")
    where = f"Topic {topic}: " if topic else ""
    return IngestError(code, f"{where}{error.str()}")
