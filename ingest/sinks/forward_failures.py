"""Which messages Kafka will never take, however often they are sent.

Everything else is a matter of time, or of an operator: brokers that are away, a topic or a right
that is missing. This module must not know how messages are sent.
"""

from __future__ import annotations

from typing import Any

from ingest.errors import IngestError
from ingest.sinks.kafka_errors import failure_of

#: librdkafka's names of what is the matter with the message itself.
POISON = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
        "INVALID_MSG",
        "INVALID_MSG_SIZE",
        "INVALID_RECORD",
        "INVALID_TIMESTAMP",
        "_BAD_MSG",
        "_INVALID_ARG",
    }
)


def is_poison(error: Any) -> bool:
    """Whether the message is at fault.

    Args:
        error: librdkafka's, or ours of one that it did not take.
    """
    if isinstance(error, IngestError):
        return error.code == "message_too_large"
    return error.name() in POISON


def reason_of(error: Any, trouble: Any) -> IngestError:
    """An error in our words; `trouble` as for `failure_of`."""
    return error if isinstance(error, IngestError) else failure_of(error, trouble)


def code_of(error: Any) -> str:
    """The code of an error, librdkafka's where it is."""
    return str(error.code if isinstance(error, IngestError) else error.name())
