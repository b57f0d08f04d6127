"""Every setting of the gateway, declared once.

Flags, environment variables, the keys of `ingest.yaml`, `--help`, docs/settings.md and the
attributes below all come from the fields of `Settings`. To add a setting, add a field.
This module must not know how the settings are used, nor read the process or the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ingest import settings_kafka, settings_sources
from ingest.settings_sources import Problem
from ingest.settings_values import (
    RETENTION_MAX_SECONDS,
    UNIT_SUFFIXES,
    Kind,
    Setting,
    check_affinity,
    check_allowed,
    check_base_url,
    check_bind,
    check_bind_or_off,
    check_mounts,
    check_trusted,
    check_uri_reference,
)

T = TypeVar("T")

#: Sections in the order of --help and docs/settings.md, each with a line of introduction.
SECTIONS: Mapping[str, str] = {
    "server": "Where it listens.",
    "access": "Who may send and read; see docs/access.md.",
    "tls": "Certificates, and what is spoken with them; see docs/tls.md.",
    "paths": "What it reads and where it stores; relative to the working directory.",
    "durability": "When an event counts as stored, and how much may wait for that.",
    "kafka": "Apache Kafka, for types whose sink it is; see docs/kafka.md.",
    "deduplication": "How long it is known which events came, for types with `x-ingest.dedupe`.",
    "json": "What is accepted as an event.",
    "http": "Bounds on what one request may hold.",
    "time": "How long a client may take.",
    "connections": "How many clients there may be.",
    "closed": "What becomes of files of the journal that are written no more.",
    "reading": "What of the journal is read back over HTTP.",
    "pool": "How much is worked on at once. Beyond it clients wait, then are told to retry.",
    "handlers": "Legacy code: how long it may take, and where it may compute.",
    "consumers": "How `consume(events)` of a handler is given what is stored; see "
    "docs/consumers.md.",
    "mounts": "Which WSGI applications are served beside the events.",
    "shutdown": "What happens on SIGTERM and SIGINT.",
    "logs": "What is logged about requests.",
    "identity": "What stored events say about where they came from.",
}

#: A time limit of zero would refuse everybody; whoever wants none writes a long one.
SHORTEST_TIMEOUT_SECONDS = 0.001


class SettingsError(Exception):
    """The settings cannot be used.

    Args:
        problems: all that is wrong, not only the first.
        usable: the settings with a stand-in (a weaker source or the default) for each that
            is wrong, so that `check` can look at the rest too.
    """

    def __init__(self, problems: list[Problem], usable: Settings) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems
        self.usable = usable


def _setting(
    default: T,
    section: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    placeholder: str = "TEXT",
    check: Callable[[str], None] | None = None,
    words: Mapping[str, int] | None = None,
    pairs: bool = False,
    reloads: bool = False,
    secret: bool = False,
) -> T:
    """Declare a field of `Settings`; its kind follows from its type and its name's unit."""
    declaration = {
        "section": section,
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "placeholder": placeholder,
        "check": check,
        "words": words or {},
        "pairs": pairs,
        "reloads": reloads,
        "secret": secret,
    }
    return field(default=default, metadata=declaration, repr=not secret)


@dataclass(frozen=True)
class Settings:
    """The resolved settings, read as attributes. `Settings()` holds the defaults."""

    # -- server ----------------------------------------------------------------------------
    bind: str = _setting(
        "127.0.0.1:8080",
        "server",
        "Address to listen on, host:port or [v6]:port. Port 0 takes a free one.",
        placeholder="ADDRESS",
        check=check_bind,
    )
    admin_bind: str = _setting(
        "off",
        "server",
        "Address of a second listener, for operators: probes, `/metrics`, which is then not on "
        "the main one, and `/debug`. It asks for no key: let only operators reach it. Or off.",
        placeholder="off|ADDRESS",
        check=check_bind_or_off,
    )
    admin_connections_max: int = _setting(
        64,
        "server",
        "Most connections to it; beyond it 503.",
        minimum=1,
        maximum=10_000,
        reloads=True,
    )
    workers: int = _setting(
        1,
        "server",
        "Worker processes, each with an event loop and a partition of the journal of its own; "
        "auto: one for each core it may use. From two on a supervisor starts them, see "
        "docs/workers.md. Limits are for each worker.",
        minimum=1,
        maximum=256,
        words={"auto": 0},
    )
    cpu_affinity: str = _setting(
        "off",
        "server",
        "Whether workers are kept on cores: off; on, each on one of those it may use; or a list "
        "of cores such as 0,2-5, which they get in turn. With two workers or more.",
        placeholder="off|on|LIST",
        check=check_affinity,
    )
    worker_restart_min_seconds: float = _setting(
        0.1,
        "server",
        "Pause before a worker that died is started again. It doubles each time in a row, and a "
        "part of it is left to chance.",
        minimum=0.001,
    )
    worker_restart_max_seconds: float = _setting(
        30.0, "server", "Longest such pause.", minimum=0.001
    )
    backlog: int = _setting(
        4096,
        "server",
        "Connections the kernel holds until they are accepted; it caps this at net.core.somaxconn.",
        minimum=1,
        maximum=65535,
    )

    # -- access ----------------------------------------------------------------------------
    keys_file: str = _setting(
        "off",
        "access",
        "File of API keys, made by `keys add`, or off. With one, events are taken from those who "
        "have a key, and what is stored is given to them. It may change at any time.",
        placeholder="off|FILE",
    )
    allow_addresses: str = _setting(
        "any",
        "access",
        "Networks whose clients may connect, such as 10.0.0.0/8,2001:db8::/32. Connections from "
        "others are closed without an answer; what a trusted proxy forwards for them is 403.",
        placeholder="any|LIST",
        check=check_allowed,
        reloads=True,
    )
    trusted_proxies: str = _setting(
        "none",
        "access",
        "Networks of the proxies that are believed when they say whom they speak for: by "
        "forwarded_field, and by the PROXY protocol where that is required.",
        placeholder="none|LIST",
        check=check_trusted,
        reloads=True,
    )
    proxy_protocol: Literal["off", "required"] = _setting(
        "off",
        "access",
        "Whether each connection begins with a header of the PROXY protocol, version 1 or 2. "
        "Then only trusted_proxies may connect.",
    )
    forwarded_field: Literal["x-forwarded-for", "forwarded", "off"] = _setting(
        "x-forwarded-for",
        "access",
        "The field in which trusted_proxies say whom they speak for. It must be the one that they "
        "write: another one is the client's own.",
        reloads=True,
    )

    # -- tls -------------------------------------------------------------------------------
    tls_cert: str = _setting(
        "off",
        "tls",
        "Certificate in PEM, followed by those between it and its CA. With one, bind speaks TLS. "
        "It may change at any time.",
        placeholder="off|FILE",
    )
    tls_key: str = _setting(
        "off", "tls", "Its private key in PEM, without a passphrase.", placeholder="off|FILE"
    )
    tls_client_ca: str = _setting(
        "off",
        "tls",
        "Certificates in PEM of the CAs whose clients are believed.",
        placeholder="off|FILE",
    )
    tls_client_auth: Literal["off", "optional", "required"] = _setting(
        "off",
        "tls",
        "Whether clients show a certificate. Whose certificate does as well as a key is said in "
        "keys_file.",
    )
    tls_min_version: Literal["1.2", "1.3"] = _setting("1.2", "tls", "Oldest version spoken.")
    tls_ciphers: str = _setting(
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "tls",
        "Ciphers of TLS 1.2, as OpenSSL writes them; 1.3 has none that need be left out.",
        placeholder="LIST",
    )
    tls_handshake_timeout_seconds: float = _setting(
        10.0,
        "tls",
        "Time from a connection's begin to the end of its handshake.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
    )
    tls_handshakes_max: int = _setting(
        1024,
        "tls",
        "Most handshakes under way; beyond it the connection is closed that has let us wait for "
        "the longest.",
        minimum=1,
        maximum=1_000_000,
    )

    # -- paths -----------------------------------------------------------------------------
    schemas: str = _setting(
        "schemas",
        "paths",
        "Directory of the event types, one JSON Schema each.",
        placeholder="DIR",
        reloads=True,
    )
    handlers: str = _setting(
        "handlers",
        "paths",
        "Directory of the handlers, one <type>.py each. It may be missing.",
        placeholder="DIR",
    )
    data: str = _setting(
        "data",
        "paths",
        "Directory of the journal; made at start. One process at a time may hold it.",
        placeholder="DIR",
    )
    config: str = _setting(
        "ingest.yaml",
        "paths",
        "Settings file, `name: value` lines. It may be missing unless it is named.",
        placeholder="FILE",
    )
    log_config: str = _setting(
        "logging.yaml",
        "paths",
        "Logging configuration in the form of Python's dictConfig. It may be missing unless "
        "it is named; then a built-in one applies.",
        placeholder="FILE",
    )

    # -- durability ------------------------------------------------------------------------
    ack: Literal["fsync", "write", "remote"] = _setting(
        "fsync",
        "durability",
        "When an event is answered 202: fsync, when it is on the disk; write, when the kernel "
        "has it, so that a power cut may lose the last second; remote, when all replicas in sync "
        "of Kafka have it. A type may choose its own.",
        reloads=True,
    )
    sink: Literal["journal", "kafka", "journal,kafka"] = _setting(
        "journal",
        "durability",
        "Where accepted events go; a type may choose its own. With kafka and another ack than "
        "remote, the journal has them first and they are forwarded.",
    )
    segment_max_bytes: int = _setting(
        128 << 20,
        "durability",
        "Size at which the journal starts its next file.",
        minimum=1024,
    )
    segment_max_age_seconds: float = _setting(
        3600.0,
        "durability",
        "Age at which the journal starts its next file; 0 for never.",
        minimum=0,
    )
    segment_fill_bytes: int = _setting(
        1 << 20,
        "durability",
        "Empty lines kept ahead of the end of the file that is written to, which makes syncs "
        "cheaper; 0 for none, for example on a copy-on-write file system.",
        minimum=0,
        maximum=64 << 20,
    )
    commit_max_bytes: int = _setting(
        4 << 20,
        "durability",
        "Most that one commit writes, so that no client waits for a very long one.",
        minimum=1024,
    )
    journal_pending_max_bytes: int = _setting(
        64 << 20,
        "durability",
        "Most that may wait for a commit; beyond it requests are answered 503.",
        minimum=1024,
    )
    disk_reserve_bytes: int = _setting(
        256 << 20,
        "durability",
        "Free space below which events are answered 507, so that the disk never fills up.",
        minimum=0,
        reloads=True,
    )

    # -- kafka -----------------------------------------------------------------------------
    kafka_brokers: str = _setting(
        "none",
        "kafka",
        "Brokers to ask first for the others, such as kafka-1:9092,kafka-2:9092.",
        placeholder="none|LIST",
        check=settings_kafka.check_brokers,
    )
    kafka_topic: str = _setting(
        "events.{type}",
        "kafka",
        "Topic of accepted events; {type} stands for an event's type. A type may choose its own.",
        placeholder="TOPIC",
        check=settings_kafka.check_topic,
    )
    kafka_rejected_topic: str = _setting(
        "off",
        "kafka",
        "Topic of refused events of types with `on_reject: keep`, in place of data/rejected; "
        "{type} stands for the type. Or off.",
        placeholder="off|TOPIC",
        check=settings_kafka.check_topic_or_off,
    )
    kafka_mode: Literal["binary", "structured"] = _setting(
        "binary",
        "kafka",
        "How a message holds an event: binary, its data as the value and its attributes as "
        "headers; structured, all of it as a JSON object. A type may choose its own.",
    )
    kafka_compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = _setting(
        "lz4", "kafka", "Codec of the batches that go to the brokers."
    )
    kafka_inflight_max_bytes: int = _setting(
        64 << 20,
        "kafka",
        "Most that may wait for the brokers with ack remote; beyond it requests are answered 503.",
        minimum=1024,
        maximum=1 << 40,
    )
    kafka_delivery_timeout_seconds: float = _setting(
        30.0,
        "kafka",
        "How long delivery is tried with ack remote; then the request is answered 503, and the "
        "event may be in Kafka nevertheless.",
        minimum=1,
        maximum=86400,
    )
    kafka_unready_after_seconds: float = _setting(
        10.0,
        "kafka",
        "How long nothing may be delivered until /readyz says so.",
        minimum=0.1,
    )
    forward_max_attempts: int = _setting(
        3,
        "kafka",
        "Attempts after which an event that Kafka will never take, such as one that is too large, "
        "is put aside so that the others can be forwarded; 0: it is tried for ever.",
        minimum=0,
        maximum=1_000_000,
    )
    forward_unready_lag_seconds: float = _setting(
        0.0,
        "kafka",
        "Age of the oldest event that is not forwarded yet at which /readyz says so; 0: never.",
        minimum=0,
    )
    kafka: str = _setting(
        "none",
        "kafka",
        "Any property of librdkafka beside those above, such as security.protocol=ssl,"
        "linger.ms=5; a map in the settings file, or kafka.<property> each on a line. A value "
        "env:NAME or file:PATH says where it stands.",
        placeholder="PROPERTY=VALUE,…",
        check=settings_kafka.check_properties,
        pairs=True,
        secret=True,
    )

    # -- deduplication ---------------------------------------------------------------------
    dedupe_window_seconds: float = _setting(
        86400.0,
        "deduplication",
        "Time for which the key of an event is remembered. A type may choose its own.",
        minimum=1,
    )
    dedupe_entries_max: int = _setting(
        1_000_000,
        "deduplication",
        "Most keys remembered for one type, about 70 bytes each; beyond it the oldest are "
        "forgotten before their time.",
        minimum=1,
        maximum=100_000_000,
    )
    dedupe_answer_max_bytes: int = _setting(
        16 << 10,
        "deduplication",
        "Largest answer to a batch that is given again as it was; of a larger one the counts "
        "are, without ids and errors. 0 for the counts only.",
        minimum=0,
        maximum=1 << 20,
    )
    dedupe_answers_max_bytes: int = _setting(
        16 << 20,
        "deduplication",
        "Most that is kept of such answers for one type; of older ones the counts are left.",
        minimum=0,
    )

    rejected_retention_max_age_seconds: float = _setting(
        7 * 86400.0,
        "closed",
        "Age after which refused events that were kept are removed; 0 for never.",
        minimum=0,
        maximum=RETENTION_MAX_SECONDS,
        reloads=True,
    )
    rejected_retention_max_bytes: int = _setting(
        1 << 30,
        "closed",
        "Size of the rejected journal above which its oldest files are removed; 0 for no limit.",
        minimum=0,
        reloads=True,
    )
    dead_retention_max_age_seconds: float = _setting(
        0.0,
        "closed",
        "Age after which dead letters are removed; 0 for never.",
        minimum=0,
        maximum=RETENTION_MAX_SECONDS,
        reloads=True,
    )
    dead_retention_max_bytes: int = _setting(
        0,
        "closed",
        "Size of the dead letters above which their oldest files are removed; 0 for no limit.",
        minimum=0,
        reloads=True,
    )
    rejected_pending_max_bytes: int = _setting(
        8 << 20,
        "closed",
        "Refused events that may wait to be kept; beyond it they are dropped and counted.",
        minimum=1024,
    )
    rejected_event_max_bytes: int = _setting(
        64 << 10,
        "closed",
        "How much is kept of a refused event; of a longer one the beginning.",
        minimum=1024,
        maximum=16 << 20,
    )

    # -- json ------------------------------------------------------------------------------
    json_decoder: Literal["orjson", "ujson"] = _setting(
        "orjson",
        "json",
        "orjson is strict RFC 8259. ujson accepts what some legacy producers send, such as "
        "[-01] or a raw newline in a string, and stores such events encoded anew.",
    )
    duplicate_keys: Literal["accept", "reject"] = _setting(
        "accept",
        "json",
        "An object that has a name twice: accept it (the last one counts), or answer 400; "
        "the latter with json_decoder orjson only.",
    )
    json_depth_max: int = _setting(
        128, "json", "Deepest nesting of objects and arrays.", minimum=1, maximum=512
    )
    event_max_bytes: int = _setting(
        1 << 20,
        "json",
        "Largest event, as it is sent; beyond it 413. A type may choose its own.",
        minimum=1,
        reloads=True,
    )
    batch_events_max: int = _setting(
        100_000,
        "json",
        "Most events in one request; beyond it 413.",
        minimum=1,
        reloads=True,
    )
    errors_max: int = _setting(
        100,
        "json",
        "Most faults that one answer explains; it always says how many there are.",
        minimum=1,
        maximum=10_000,
        reloads=True,
    )

    # -- http ------------------------------------------------------------------------------
    request_line_max_bytes: int = _setting(
        8192,
        "http",
        "Longest request line; beyond it 414.",
        minimum=64,
        reloads=True,
    )
    headers_max_bytes: int = _setting(
        32768,
        "http",
        "Longest head, all its fields together; beyond it 431.",
        minimum=256,
        reloads=True,
    )
    header_count_max: int = _setting(
        100,
        "http",
        "Most header fields; beyond it 431.",
        minimum=1,
        maximum=10_000,
        reloads=True,
    )
    request_body_max_bytes: int = _setting(
        16 << 20,
        "http",
        "Largest request body, as it is sent and, with a content coding, when inflated; beyond "
        "it 413.",
        minimum=1,
        reloads=True,
    )
    inflate_ratio_max: int = _setting(
        100,
        "http",
        "Most times its coded size that a body of more than 64KiB may inflate to; beyond it 413.",
        minimum=1,
        maximum=1_000_000,
    )
    compress_min_bytes: int = _setting(
        1024,
        "http",
        "Size from which answers to GET are compressed for clients that accept it.",
        minimum=0,
    )
    head_cache_entries: int = _setting(
        1024,
        "http",
        "Request heads kept parsed, because clients repeat them; 0 for none.",
        minimum=0,
        maximum=1_000_000,
    )

    # -- time ------------------------------------------------------------------------------
    header_timeout_seconds: float = _setting(
        10.0,
        "time",
        "Time for a request's head, from its first byte; then 408.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
        reloads=True,
    )
    body_timeout_seconds: float = _setting(
        60.0,
        "time",
        "Time for a request's body, from the end of its head; then 408.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
        reloads=True,
    )
    idle_timeout_seconds: float = _setting(
        75.0,
        "time",
        "Time a connection is kept between requests; then it is closed without an answer.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
        reloads=True,
    )
    write_timeout_seconds: float = _setting(
        30.0,
        "time",
        "Time a client may leave its answers unread; then its connection is closed.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
        reloads=True,
    )
    body_min_bytes_per_second: int = _setting(
        256,
        "time",
        "Slowest a body may arrive, on average and after 5 seconds; then 408. 0 for any rate.",
        minimum=0,
        reloads=True,
    )
    answer_min_bytes_per_second: int = _setting(
        256,
        "time",
        "Slowest a client may take answers that wait, on average over write_timeout_seconds; "
        "then its connection is closed. 0: any rate but none at all.",
        minimum=0,
        reloads=True,
    )

    # -- connections -----------------------------------------------------------------------
    connections_max: int = _setting(
        16384,
        "connections",
        "Most connections at a time; further ones are answered 503 and closed.",
        minimum=1,
        maximum=1_000_000,
        reloads=True,
    )
    connections_per_address_max: int = _setting(
        0,
        "connections",
        "Most connections from one client address; further ones are answered 503 and closed. "
        "0 for no such limit: behind a proxy all clients have its address.",
        minimum=0,
        maximum=1_000_000,
        reloads=True,
    )
    buffered_max_bytes: int = _setting(
        256 << 20,
        "connections",
        "Most that is kept for all connections together of requests that have not arrived whole, "
        "large bodies, and answers not taken; from three quarters of it large bodies get 503. At "
        "least four times request_body_max_bytes.",
        minimum=64 << 10,
    )

    # -- closed ----------------------------------------------------------------------------
    segment_compression: Literal["zstd", "off"] = _setting(
        "zstd",
        "closed",
        "What closed files are compressed with, in the background. Any zstd tool reads them.",
    )
    segment_compression_level: int = _setting(
        3,
        "closed",
        "Level of zstd: higher ones take longer and less room.",
        minimum=1,
        maximum=19,
    )
    segment_compress_after_seconds: float = _setting(
        60.0,
        "closed",
        "Time that a closed file stays as it is, so that its followers have passed.",
        minimum=0,
    )
    retention_max_age_seconds: float = _setting(
        0.0,
        "closed",
        "Age at which events are removed, file by file; 0 for never. A type may choose its own.",
        minimum=0,
        maximum=RETENTION_MAX_SECONDS,
        reloads=True,
    )
    retention_max_bytes: int = _setting(
        0,
        "closed",
        "Most that all files of a journal may take on the disk, as they are stored; beyond it "
        "the oldest ones are removed. 0 for any size.",
        minimum=0,
        reloads=True,
    )
    retention_ignores_checkpoints: Literal["false", "true"] = _setting(
        "false",
        "closed",
        "Whether files are removed too that a consumer's checkpoint still needs.",
        reloads=True,
    )

    # -- reading ---------------------------------------------------------------------------
    journal_http: Literal["auto", "on", "off"] = _setting(
        "auto",
        "reading",
        "Whether GET /v1/journal answers. Whoever can reach it reads every event; auto: only "
        "where bind is a loopback address, and not through a proxy.",
    )
    journal_page_records_max: int = _setting(
        10_000,
        "reading",
        "Most records of one answer.",
        minimum=1,
        maximum=1_000_000,
        reloads=True,
    )
    journal_wait_max_seconds: float = _setting(
        60.0,
        "reading",
        "Longest a reader may wait for the next commit.",
        minimum=0,
        maximum=3600,
        reloads=True,
    )

    # -- pool ------------------------------------------------------------------------------
    pool_size: int = _setting(
        4096,
        "pool",
        "Most requests between decoding and answer.",
        minimum=1,
        maximum=1_000_000,
    )
    pool_residents: int = _setting(
        4,
        "pool",
        "Greenlets that work on event types without a handler, so that one huge batch does not "
        "hold up the rest.",
        minimum=1,
        maximum=1024,
    )
    pool_queue_max: int = _setting(
        16384,
        "pool",
        "Most requests that wait for a place in the pool; beyond it 503 with Retry-After.",
        minimum=0,
        maximum=1_000_000,
        reloads=True,
    )
    handler_timeout_seconds: float = _setting(
        30.0,
        "pool",
        "Time one call of a handler may take; then 504.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
        reloads=True,
    )
    retry_after_seconds: float = _setting(
        1.0,
        "pool",
        "Least Retry-After of a 503, in whole seconds; longer where what there is to do takes "
        "longer.",
        minimum=1,
        maximum=86400,
        reloads=True,
    )
    queue_delay_max_seconds: float = _setting(
        0.5,
        "pool",
        "When requests wait longer for their commit or in line, some are answered 503 so that the "
        "others need not wait; 0 for never. See docs/overload.md.",
        minimum=0,
        maximum=3600,
    )
    quota_burst_seconds: float = _setting(
        1.0,
        "pool",
        "What a key or an address may send in this time, it may send at once.",
        minimum=0.001,
        maximum=86400,
        reloads=True,
    )
    address_events_per_second: float = _setting(
        0.0,
        "pool",
        "Events a second from one client address, by each worker; more are answered 429. 0 for no "
        "limit.",
        minimum=0,
        maximum=1e12,
        reloads=True,
    )
    address_bytes_per_second: float = _setting(
        0.0,
        "pool",
        "Bytes of bodies a second from one client address, by each worker; more are answered 429. "
        "0 for no limit.",
        minimum=0,
        maximum=1e12,
        reloads=True,
    )

    # -- handlers --------------------------------------------------------------------------
    handler_setup_timeout_seconds: float = _setting(
        30.0,
        "handlers",
        "Time setup() of a handler may take at start, and teardown() of all of them at the end.",
        minimum=SHORTEST_TIMEOUT_SECONDS,
        reloads=True,
    )
    max_blocking_seconds: float = _setting(
        0.1,
        "handlers",
        "Time code may hold the event loop before it is named in the log and counted; 0 for any.",
        minimum=0,
    )
    offload_threads: int = _setting(
        16,
        "handlers",
        "Native threads for functions marked with ingest.offload.",
        minimum=1,
        maximum=1024,
    )
    offload_processes: int = _setting(
        2,
        "handlers",
        "Processes for functions marked with ingest.offload(process=True); none is started where "
        "there is no such function.",
        minimum=1,
        maximum=256,
    )
    offload_queue_max: int = _setting(
        1024,
        "handlers",
        "Calls that may wait for one of these threads, and as many for a process; beyond it 503 "
        "with Retry-After.",
        minimum=0,
        maximum=1_000_000,
    )
    reload: Literal["off", "on"] = _setting(
        "off",
        "handlers",
        "Whether it starts anew when a file of handlers or schemas changes; for development, with "
        "one worker.",
    )

    # -- consumers -------------------------------------------------------------------------
    consume_batch_events_max: int = _setting(
        100, "consumers", "Most events in one call of consume().", minimum=1, maximum=100_000
    )
    consume_batch_max_bytes: int = _setting(
        1 << 20,
        "consumers",
        "Size from which a batch is full, as its events stand in the journal.",
        minimum=1,
        maximum=256 << 20,
    )
    consume_linger_seconds: float = _setting(
        0.05,
        "consumers",
        "Pause after a batch that was not full, so that the next one has more events.",
        minimum=0,
        maximum=3600,
    )
    consume_from: Literal["start", "end"] = _setting(
        "start",
        "consumers",
        "Where a consumer without a checkpoint begins: start, with the oldest event that is "
        "stored; end, with the next one.",
    )
    consume_timeout_seconds: float = _setting(
        0.0,
        "consumers",
        "Time one call of consume() may take; then it counts as failed. 0 for any.",
        minimum=0,
    )
    consume_backoff_min_seconds: float = _setting(
        0.1,
        "consumers",
        "Pause before a batch that failed is tried again. It doubles each time, and a part of it "
        "is left to chance.",
        minimum=0.001,
    )
    consume_backoff_max_seconds: float = _setting(
        30.0, "consumers", "Longest such pause.", minimum=0.001
    )
    consume_max_attempts: int = _setting(
        10,
        "consumers",
        "Attempts after which a batch is split to find the event at fault, and after which that "
        "event becomes a dead letter; 0: it is tried for ever.",
        minimum=0,
        maximum=1_000_000,
    )
    consume_checkpoint_seconds: float = _setting(
        1.0,
        "consumers",
        "How often at most it is put down how far a consumer has come, and so how much it is "
        "given again after a crash; 0: after every batch.",
        minimum=0,
        maximum=3600,
    )

    # -- mounts ----------------------------------------------------------------------------
    mounts: str = _setting(
        "none",
        "mounts",
        "WSGI applications and the paths they answer, such as "
        "/legacy=myapp:app,/shop=shop.site:create_app(); a map in the settings file. See "
        "docs/wsgi.md.",
        placeholder="PREFIX=MODULE:NAME,…",
        check=check_mounts,
        pairs=True,
    )
    mount_body_max_bytes: int = _setting(
        1 << 30,
        "mounts",
        "Largest body of a request to one of them, which reads it as it arrives; beyond it 413.",
        minimum=1,
        reloads=True,
    )

    # -- shutdown --------------------------------------------------------------------------
    drain_delay_seconds: float = _setting(
        0.0,
        "shutdown",
        "Time between /readyz turning 503 and the end of accepting, for load balancers to see it.",
        minimum=0,
        reloads=True,
    )
    drain_timeout_seconds: float = _setting(
        30.0,
        "shutdown",
        "Time for requests in flight after that; then their connections are cut, unanswered.",
        minimum=0,
        reloads=True,
    )

    # -- logs ------------------------------------------------------------------------------
    access_log: Literal["off", "errors", "sample", "all"] = _setting(
        "errors",
        "logs",
        "Which requests are logged: none, those answered 400 and above, these and a share of "
        "the rest, or all.",
    )
    access_log_sample: float = _setting(
        0.01, "logs", "Share of requests for access_log sample.", minimum=0, maximum=1
    )
    access_log_format: Literal["json", "combined"] = _setting(
        "json",
        "logs",
        "Its lines: JSON like the rest of the log, or Apache's combined format.",
    )
    slow_request_seconds: float = _setting(
        0.0,
        "logs",
        "A request that takes longer from its last byte to its answer is logged with where the "
        "time went; 0 logs none.",
        minimum=0,
    )
    log_queue_max: int = _setting(
        10_000,
        "logs",
        "Most log lines that wait to be written; beyond it they are dropped and counted.",
        minimum=1,
        maximum=10_000_000,
    )

    # -- identity --------------------------------------------------------------------------
    source: str = _setting(
        "/ingest",
        "identity",
        "CloudEvents attribute source of stored events, a URI-reference.",
        placeholder="URI",
        check=check_uri_reference,
    )
    schemas_url: str = _setting(
        "none",
        "identity",
        "Where consumers elsewhere find this gateway, such as https://a.example: it stands "
        "before `dataschema` in stored events, which is relative without it. Or none.",
        placeholder="none|URL",
        check=check_base_url,
        reloads=True,
    )

    #: Where each setting that is not at its default was named: name → `--ack`,
    #: `INGEST_ACK`, `ingest.yaml:3`. No setting itself.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, str],
        environ: Mapping[str, str],
        file_text: str | None,
        file_name: str,
    ) -> Settings:
        """Make the settings of a process out of its inputs; flag > environment > file > default.

        Args:
            flags: setting name → text, of the flags that were given.
            environ: the process's environment; `INGEST_*` is read.
            file_text: content of the settings file, None where there is none.
            file_name: its name, for messages.

        Raises:
            SettingsError: with every problem of every source.
        """
        found = settings_sources.resolve(SETTINGS, flags, environ, file_text, file_name)
        values: dict[str, Any] = found.values
        settings = cls(**values, origins=found.origins)
        problems = found.problems + settings._disagreements()
        if problems:
            raise SettingsError(problems, settings)
        return settings

    @property
    def schemas_base(self) -> str:
        """What stands before `/v1/schemas` in `dataschema`."""
        return "" if self.schemas_url == "none" else self.schemas_url

    def merged(self, new: Settings) -> Settings:
        """These with the values of others where a running process can take them.

        Raises:
            SettingsError: they are fine each for itself and cannot stand together.
        """
        taken = {s.name: getattr(new, s.name) for s in SETTINGS if s.reloads}
        places = {s.name: (new if s.reloads else self).origins.get(s.name, "") for s in SETTINGS}
        origins = {name: place for name, place in places.items() if place}
        merged = replace(self, **taken, origins=origins)
        problems = merged._disagreements()
        if problems:
            raise SettingsError(problems, merged)
        return merged

    def differences(self, other: Settings) -> list[Setting]:
        """The settings that have another value there."""
        return [s for s in SETTINGS if getattr(self, s.name) != getattr(other, s.name)]

    def become(self, other: Settings) -> None:
        """Take all values of others: whoever reads these at the time of use has the new ones.

        The only change that there ever is, by a reload, between two turns of the event loop.
        """
        for declared in fields(self):
            object.__setattr__(self, declared.name, getattr(other, declared.name))

    def _disagreements(self) -> list[Problem]:
        """Settings that are fine each for itself and cannot stand together."""
        problems = []
        if self.json_decoder != "orjson" and self.duplicate_keys != "accept":
            message = f"duplicate_keys reject does not go with json_decoder {self.json_decoder}"
            problems.append(
                Problem(
                    "duplicate_keys", self.origins.get("duplicate_keys", "duplicate_keys"), message
                )
            )
        if self.reload == "on" and self.workers != 1:
            message = "reload is for development and goes with one worker only"
            problems.append(Problem("reload", self.origins.get("reload", "reload"), message))
        if self.proxy_protocol == "required" and self.trusted_proxies == "none":
            message = "proxy_protocol required needs trusted_proxies: who may speak it"
            problems.append(
                Problem(
                    "proxy_protocol", self.origins.get("proxy_protocol", "proxy_protocol"), message
                )
            )
        problems += self._tls_disagreements()
        if self.worker_restart_min_seconds > self.worker_restart_max_seconds:
            name = "worker_restart_min_seconds"
            if name not in self.origins:
                name = "worker_restart_max_seconds"
            message = "worker_restart_min_seconds must not be above worker_restart_max_seconds"
            problems.append(Problem(name, self.origins.get(name, name), message))
        if self.buffered_max_bytes < 4 * self.request_body_max_bytes:
            # Whichever of the two was set; both are at their default only if neither was.
            name = "buffered_max_bytes"
            if name not in self.origins:
                name = "request_body_max_bytes"
            message = "buffered_max_bytes must be at least four times request_body_max_bytes"
            problems.append(Problem(name, self.origins.get(name, name), message))
        return problems

    def _tls_disagreements(self) -> list[Problem]:
        certificate, key = self.tls_cert != "off", self.tls_key != "off"
        ca, clients = self.tls_client_ca != "off", self.tls_client_auth != "off"
        wrong = (
            (certificate and not key, "tls_cert", "tls_cert needs tls_key"),
            (key and not certificate, "tls_key", "tls_key needs tls_cert"),
            (clients and not ca, "tls_client_auth", "tls_client_auth needs tls_client_ca"),
            (ca and not clients, "tls_client_ca", "tls_client_ca needs tls_client_auth"),
            (clients and not certificate, "tls_client_auth", "tls_client_auth needs tls_cert"),
        )
        return [
            Problem(name, self.origins.get(name, name), text)
            for is_so, name, text in wrong
            if is_so
        ]


#: Reads the settings of this process anew: they, and what is wrong with them.
Reread = Callable[[], tuple[Settings, list[Problem]]]


def _declarations() -> tuple[Setting, ...]:
    hints = get_type_hints(Settings)
    defaults: Any = Settings()
    return tuple(
        Setting(
            name=declared.name,
            kind=_kind(declared.name, hints[declared.name]),
            default=getattr(defaults, declared.name),
            choices=get_args(hints[declared.name]),
            **declared.metadata,
        )
        for declared in fields(Settings)
        if declared.metadata
    )


def _kind(name: str, hint: Any) -> Kind:
    if get_args(hint):
        return "choice"
    for suffix, kind in UNIT_SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    kinds: dict[Any, Kind] = {str: "text", int: "integer", float: "number"}
    return kinds[hint]


#: Every setting, in the order of --help and docs/settings.md.
SETTINGS: tuple[Setting, ...] = _declarations()
