"""Every metric of a worker, declared once, and their exposition.

`Metrics` is the catalogue: each attribute of the class is one family's declaration and,
on an object, the family itself. docs/metrics.md is generated from `CATALOGUE`. There is
no global registry: a worker has one `Metrics`, which is passed to whoever counts.

This module must not know what is counted where; label values come from closed sets or
from the loaded event types, never from what a client sent.

Source: OpenMetrics 1.0; the Prometheus text format 0.0.4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CollectorRegistry

from ingest.encodings import ANSWER_CODINGS
from ingest.errors import CATALOGUE as ERRORS
from ingest.metrics_exposition import Exposition, Readings, encode, read_family
from ingest.metrics_families import (
    GAUGE,
    OPEN,
    Family,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
    histograms,
)

#: Plain stdlib logging: the log writer counts its lines here, so it stands above this module.
log = logging.getLogger(__name__)

#: Why an event is in the rejected journal.
REJECTED_CODES = ("malformed", "schema", "handler", "too_large", "handler_error")

#: 100 µs · 2ⁿ to 26 s: an answer takes a commit at best and a handler's time at worst.
LATENCY_BUCKETS = (
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512,
    0.1024, 0.2048, 0.4096, 0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144,
)  # fmt: skip
#: 1 ms · 2ⁿ to 8 s with finer steps below: a good disk syncs in a fraction of one.
DISK_BUCKETS = (
    0.000125, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064,
    0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
)  # fmt: skip
#: 1 to 65,536 records.
COUNT_BUCKETS = tuple(float(4**n) for n in range(9))
#: 1 KiB to 64 MiB.
SIZE_BUCKETS = tuple(float(1024 * 4**n) for n in range(9))


#: The journals there are: of accepted events, of rejected ones, and of dead letters.
JOURNALS = ("journal", "rejected", "dead")
#: What messages are for: requests that wait for them, records of the journal, refused events.
KAFKA_PRODUCERS = ("remote", "forward", "rejected")


#: Where errors may turn up that nobody expected.
PLACES = (
    "blocking_monitor", "connection", "dedupe", "endpoint", "finaliser", "health", "hub",
    "hub_monitor", "janitor", "journal", "kafka", "metrics", "pool", "reload", "sweep", "thread",
)  # fmt: skip


#: How a TLS handshake can end.
TLS_RESULTS = (
    "done", "timeout", "crowded", "client", "drain", "plain_http", "protocol", "cipher",
    "no_certificate", "bad_certificate", "error",
)  # fmt: skip


class Metrics:
    """The metrics of one worker."""

    # -- requests -----------------------------------------------------------------
    requests = counters(
        "Requests answered, by event type (`-`: none) and status.",
        "Look at the status: 4xx is the producers' to correct, 5xx ours; see `ingest_errors`.",
        type=OPEN,
        status=OPEN,
    )
    errors = counters(
        "Errors answered, by the code that also stands in the answer and the log.",
        "docs/errors.md says what to do about each code.",
        code=tuple(ERRORS),
    )
    request_bytes = counter(
        "Bytes of request bodies taken in; of those with a content coding, what they inflated to.",
        "Nothing by itself; growth without more events means larger events.",
    )
    coded_bytes = counter(
        "Bytes of request bodies that had a content coding, as sent.", "Nothing by itself."
    )
    inflated_bytes = counter(
        "Bytes that bodies with a content coding were inflated to.",
        "Over `ingest_coded_bytes_total` it is the ratio. When it rises without "
        "`ingest_request_bytes_total`, look for `inflated_too_large` in `ingest_errors_total`.",
    )
    response_bytes = counter("Bytes of answers handed to the kernel.", "Nothing by itself.")
    answers_compressed = counters(
        "Answers to GET that were sent compressed, by coding.",
        "Nothing by itself; see `compress_min_bytes`.",
        coding=ANSWER_CODINGS,
    )
    request_duration = histogram(
        "Seconds from a request's last byte to its answer; without requests to `/v1/journal`.",
        "Compare `ingest_journal_commit_seconds` (disk), `ingest_pool_wait_seconds` (too much "
        "at once) and `ingest_handler_seconds` (legacy code); the one that rose too is the cause.",
        LATENCY_BUCKETS,
        "seconds",
    )
    events_accepted = counters(
        "Events made durable and acknowledged, by type.",
        "When it falls, producers have stopped or are refused; see `ingest_requests`.",
        type=OPEN,
    )
    events_rejected = counters(
        "Events refused, by type and reason.",
        "Read the `errors` of the answers: a producer sends what the schema or handler refuses.",
        type=OPEN,
        reason=("malformed", "schema", "handler", "too_large"),
    )
    timeouts = counters(
        "Time limits that expired, by kind.",
        "`header`, `body`, `body_rate`, `write`, `handshake`: slow or hostile peers; see "
        "docs/limits.md. `idle`: normal. `handler`: make it faster or raise "
        "`handler_timeout_seconds`.",
        kind=("header", "body", "body_rate", "idle", "write", "handler", "handshake"),
    )

    # -- access -------------------------------------------------------------------
    access_refused = counters(
        "Requests answered 401 or 403, by what was wrong with key, signature or address.",
        "`missing`, `unknown`, `malformed`: a producer is not set up, or somebody tries; see the "
        "addresses in the access log. `revoked`, `expired`: it needs a new key. `type`, `right`: "
        "its key is for something else. `client`: the keys file does not know its certificate. "
        "`unsigned`, `signature`, `stale`, `replayed`: a webhook "
        "that is not signed, or not with our secret, is late, or came before. `address`: a proxy "
        "forwarded it for a client that `allow_addresses` does not have.",
        reason=(
            "missing",
            "malformed",
            "unknown",
            "client",
            "revoked",
            "expired",
            "type",
            "right",
            "unsigned",
            "signature",
            "stale",
            "replayed",
            "address",
        ),
    )
    key_events = counters(
        "Events made durable and acknowledged, by the name of the key they came with.",
        "Who sends how much; nothing while keys are off.",
        key=OPEN,
    )
    keys = gauge("Keys in the keys file, revoked ones too.", "Nothing; 0 while keys are off.")
    keys_reloads = counters(
        "Times the keys file was read anew, by result.",
        "`failed`: the log says what is wrong with it; the keys before it still apply.",
        result=("done", "failed"),
    )

    reloads = counters(
        "Reloads of schemas, settings, keys and certificates, by result.",
        "`failed`: the log says all that is wrong (`reload.refused`); everything is as it was.",
        result=("ok", "failed"),
    )
    reload_failed = gauge(
        "Whether the last reload was refused (1).",
        "Mend what the log names (`reload.refused`) and reload again: what is on the disk would "
        "not start.",
        "max",
    )
    reload_last_success_timestamp_seconds = gauge(
        "When the last reload succeeded, in seconds since 1970; 0 for none since the start.",
        "Nothing by itself.",
        "max",
    )

    handovers_refused = counter(
        "Hand-overs to new code that its trial refused.",
        "The log says why (`handover.refused`); the old code goes on.",
    )

    # -- tls ----------------------------------------------------------------------
    tls_handshakes = counters(
        "TLS handshakes that ended, by how.",
        "`protocol`, `cipher`: clients too old for `tls_min_version` or `tls_ciphers`. "
        "`plain_http`: they speak http where it is https. `no_certificate`, `bad_certificate`: "
        "they show none, or one that `tls_client_ca` does not vouch for or that has expired. "
        "`client`: they go, or refuse our certificate. `crowded`: see `tls_handshakes_max`. "
        "`timeout`: slow or hostile. `drain`: we end. See docs/tls.md.",
        result=TLS_RESULTS,
    )
    tls_handshakes_now = gauge(
        "TLS handshakes under way.", "Near `tls_handshakes_max`: look who connects and why."
    )
    tls_certificate_expiry_timestamp_seconds = gauges(
        "When the first certificate of a file expires, in seconds since 1970.",
        "Renew it; it is taken as soon as the file has changed. See docs/tls.md.",
        "min",
        certificate=OPEN,
    )
    tls_reloads = counters(
        "Times the files of certificates were read anew, by result.",
        "`failed`: the log says what is wrong with them; what was before still applies.",
        result=("done", "failed"),
    )

    # -- connections --------------------------------------------------------------
    connections = gauge(
        "Open client connections.",
        "Near `connections_max`: lower `idle_timeout_seconds`, or add workers.",
    )
    connections_opened = counter(
        "Connections accepted.", "Rising as fast as requests: producers do not keep them alive."
    )
    connections_closed = counters(
        "Connections ended, by reason.",
        "`protocol`, `error`: malformed requests and resets; look at the access log. `limit`: "
        "see `ingest_buffered_full`.",
        reason=("client", "idle", "timeout", "error", "limit", "drain", "protocol"),
    )
    connections_refused = counters(
        "Connections refused: answered 503 because too many were open, or closed at once, by the "
        "limit.",
        "`total`: raise `connections_max` (and the descriptor limit), or add workers. "
        "`address`: one client opens more than `connections_per_address_max`. `not_allowed`: it "
        "is not in `allow_addresses`. `proxy`: it is not in `trusted_proxies` and the PROXY "
        "protocol is required. `introduction`: a proxy sent no such header. `admin`: too many to "
        "`admin_bind`.",
        limit=("total", "address", "not_allowed", "proxy", "introduction", "admin"),
    )
    buffered_bytes = gauge(
        "Bytes kept for connections: requests that have not arrived whole, large bodies until "
        "they are answered, answers not yet taken.",
        "Near `buffered_max_bytes`: many slow clients, or a disk or handler slower than the "
        "producers; see docs/limits.md.",
    )
    buffered_full = counters(
        "What the bound `buffered_max_bytes` led to.",
        "`paused`: bodies not read on for a while. `refused`: requests answered 503. `closed`: "
        "clients cut that did not take their answers. Raise the bound if the clients are yours.",
        effect=("paused", "refused", "closed"),
    )
    head_cache_misses = counter(
        "Request heads that had to be parsed because they were not in the head cache.",
        "Near the request rate: heads differ in each request; see `head_cache_entries`.",
    )
    head_cache_entries = gauge("Request heads in the head cache.", "Nothing; it is bounded.")

    # -- pool ---------------------------------------------------------------------
    pool_size = gauge("Slots of the request pool.", "Nothing; it is the setting.")
    pool_in_use = gauge(
        "Pool slots in use.",
        "At `ingest_pool_size` for long: the disk or a handler is slower than the producers.",
    )
    pool_waiting = gauge(
        "Requests in line for a pool slot.",
        "As for `ingest_pool_in_use`; past `pool_queue_max` requests are refused.",
    )
    pool_wait_seconds = histogram(
        "Seconds a request stood in line for a pool slot.",
        "Make handlers faster, raise `pool_size`, or add workers.",
        LATENCY_BUCKETS,
    )
    pool_refused = counter(
        "Requests refused because the line for the pool was full.",
        "Add workers or machines, or slow the producers; each got 503 with Retry-After.",
    )
    admission_refused = counters(
        "Requests refused because too much was sent: by a key or an address beyond its quota "
        "(429), or by all together (503).",
        "`key_…`, `address_…`: its producer sends more than agreed. `delay`, `share`, `read`: add "
        "workers or machines; see docs/overload.md.",
        reason=(
            "key_events", "key_bytes", "address_events", "address_bytes", "delay", "share", "read",
        ),
    )  # fmt: skip
    admission_short = counter(
        "Times that load shedding began.",
        "More is sent than can be done: add workers or machines, or slow the producers.",
    )
    admission_shedding = gauge(
        "Whether load is shed: 1 while requests are refused so that others need not wait.",
        "As for `ingest_admission_short`.",
    )
    admission_limit = gauge(
        "Requests that may be in flight; less than `ingest_pool_size` while load is shed.",
        "Nothing by itself.",
    )
    admission_drain_rate = gauge(
        "Requests done a second in the last busy seconds; Retry-After is made from it.",
        "Nothing by itself.",
    )
    admission_parties_above = gauge(
        "Keys, or addresses where there are no keys, that ask for more than their fair share while "
        "load is shed.",
        "One: somebody floods the service; give it a quota.",
    )
    admission_addresses = gauge(
        "Client addresses whose use is remembered for their quota.",
        "Nothing; 0 without such quotas.",
    )
    pool_runs = counter(
        "Runs in which resident greenlets drained the work queue.",
        "Nothing by itself; requests per run is how well work is batched.",
    )

    # -- handlers -----------------------------------------------------------------
    handler_seconds = histograms(
        "Seconds a handler took for one event, by type.",
        "Make the handler faster; what it waits for is usually another service.",
        LATENCY_BUCKETS,
        type=OPEN,
    )
    handler_errors = counters(
        "Handlers that raised something other than Reject, by type.",
        "Read the traceback in the log under the request id of the answer.",
        type=OPEN,
    )

    hub_blocked = counters(
        "Times code held the event loop for longer than `max_blocking_seconds`, by handler; `-`: "
        "no handler's file was in its stack.",
        "The log names file and line once for each place (`hub.blocked`): put what computes or "
        "waits there into a function marked with `ingest.offload`.",
        handler=OPEN,
    )
    hub_blocked_seconds = counters(
        "Seconds the event loop was held in such cases, by handler.",
        "As for `ingest_hub_blocked_total`: so long nobody else was served.",
        handler=OPEN,
    )
    offload_in_use = gauges(
        "Threads and processes that run offloaded functions.",
        "At its bound for long: raise `offload_threads` or `offload_processes`, if there are "
        "cores for them.",
        kind=("thread", "process"),
    )
    offload_waiting = gauges(
        "Calls of offloaded functions that wait for a thread or process.",
        "As for `ingest_offload_in_use`; past `offload_queue_max` calls are refused.",
        kind=("thread", "process"),
    )
    offload_seconds = histograms(
        "Seconds an offloaded function ran, without waiting.",
        "Nothing by itself; it is what the function takes.",
        LATENCY_BUCKETS,
        kind=("thread", "process"),
    )
    offload_refused = counters(
        "Calls of offloaded functions that were refused because too many waited.",
        "As for `ingest_offload_waiting`; each raised ingest.OffloadFull, 503 unless caught.",
        kind=("thread", "process"),
    )
    offload_deaths = counter(
        "Processes for offloaded functions that ended by themselves; each was replaced.",
        "The log has the signal or exit status (`offload.process_died`): out of memory, or a "
        "fault in C code.",
    )

    # -- consumers ----------------------------------------------------------------
    consumer_lag_events = gauges(
        "Records of the journal, of whichever type, that a consumer has yet to look at or to be "
        "done with, by type.",
        "Growing: consume() is slower than the producers, fails, or is paused; see "
        "`ingest_consumer_lag_seconds`.",
        type=OPEN,
    )
    consumer_lag_bytes = gauges(
        "The same in bytes, as they stand in the journal before compression; looked up once a "
        "second.",
        "Nothing closed is removed that a consumer still needs: mind the disk.",
        type=OPEN,
    )
    consumer_lag_seconds = gauges(
        "Age of the oldest event that a consumer has in hand and is not done with; 0 with none.",
        "Alert on it. Failures and attempts say whether it is tried in vain; else make consume() "
        "faster, raise `consume_batch_events_max`, or add workers.",
        combine="max",
        type=OPEN,
    )
    consumer_attempts = counters(
        "Calls of consume(), by type.", "Nothing; it is the rate of batches.", type=OPEN
    )
    consumer_failures = counters(
        "Attempts that failed, by type and reason.",
        "Read the traceback in the log (`consumer.failed`). `timeout`: it took longer than "
        "`consume_timeout_seconds`. `dead_letter`: the disk takes no dead letter.",
        type=OPEN,
        reason=("error", "reject", "timeout", "dead_letter"),
    )
    consumer_events = counters(
        "Events that consume() was done with, by type.",
        "Nothing; events that came again after a crash count again.",
        type=OPEN,
    )
    consumer_dead_letters = counters(
        "Events that consume() could not process and that were put aside, by type.",
        "Look at them with `python -m ingest journal cat --dead`, mend what failed, replay them.",
        type=OPEN,
    )
    consumer_missed_events = counters(
        "Records that were not in the journal any more when a consumer came to them, by type.",
        "The log has offsets and reason (`consumer.gap`): damage, or retention with "
        "`retention_ignores_checkpoints`.",
        type=OPEN,
    )
    consumer_paused = gauges(
        "Workers in which a consumer is paused, by type.",
        "SIGUSR1 once more or `ingest.consumers.resume()` lets it go on.",
        type=OPEN,
    )
    consumer_seconds = histograms(
        "Seconds one call of consume() took, by type.",
        "Nothing by itself; no answer waits for it.",
        LATENCY_BUCKETS,
        type=OPEN,
    )
    consumer_batch_events = histogram(
        "Events in a batch.",
        "At `consume_batch_events_max` all the time: a larger one may cost less for each event.",
        COUNT_BUCKETS,
    )
    consumer_checkpoint_failures = counters(
        "Checkpoints that could not be saved or read, and looks into the journal that failed, by "
        "type.",
        "Check the disk and the log; until it works more comes again after a crash.",
        type=OPEN,
    )

    # -- mounts -------------------------------------------------------------------
    mount_seconds = histograms(
        "Seconds a mounted application took for one request, its bodies included, by mount.",
        "Look for what the application waits for; slow clients count, too.",
        LATENCY_BUCKETS,
        mount=OPEN,
    )
    mount_failures = counters(
        "Requests that a mounted application did not answer whole, by mount and reason.",
        "`app`: read the traceback in the log under the request id of the answer. `misuse`: it "
        "breaks PEP 3333. `body`: a client sent no proper body, or too slowly. `client`: the "
        "client left, or the connection had to end.",
        mount=OPEN,
        reason=("app", "misuse", "body", "client"),
    )

    # -- journal ------------------------------------------------------------------
    journal_commits = counter(
        "Commits: one write and, unless `ack: write`, one fdatasync.", "Nothing by itself."
    )
    journal_slow_writes = counter(
        "Writes of `ack: write` that held the event loop up for more than 2 ms; the journal's "
        "thread writes for the next 10 s.",
        "Many: the disk is busy, or memory is short and the kernel makes writers wait.",
    )
    journal_commit_records = histogram(
        "Records in one commit.",
        "Small under load: producers wait for each answer; batch or pipeline requests.",
        COUNT_BUCKETS,
    )
    journal_commit_bytes = histogram(
        "Bytes of one commit.", "Nothing by itself; bounded by `commit_max_bytes`.", SIZE_BUCKETS
    )
    journal_commit_seconds = histogram(
        "Seconds from the start of a commit's write to its end.",
        "The disk is slow or shared; see `ingest_journal_sync_seconds`.",
        DISK_BUCKETS,
    )
    journal_sync_seconds = histogram(
        "Seconds of one fdatasync.",
        "Move `data` to a faster disk, or one that is not shared; check its health.",
        DISK_BUCKETS,
    )
    journal_bytes = counter("Bytes written to the journal.", "Nothing by itself.")
    journal_records = counter("Records written to the journal.", "Nothing by itself.")
    journal_pending_records = gauge(
        "Records that wait for their commit.", "The disk is slower than the producers."
    )
    journal_pending_bytes = gauge(
        "Bytes that wait for their commit.",
        "The disk is slower than the producers; past `journal_pending_max_bytes` requests get 503.",
    )
    journal_segments = gauge(
        "Journal segments on disk.",
        "Each takes up to `segment_max_bytes`; see the settings about retention.",
    )
    journal_next_offset = gauge(
        "Offset of the next record.", "When it stands still, nothing is stored."
    )
    journal_failures = counters(
        "File operations of the journal that failed, by operation.",
        "Any is urgent: check the disk and the log. Nothing acknowledged was lost; producers "
        "got 503 or 507.",
        operation=("open", "write", "sync", "rotate", "close"),
    )
    journal_torn_bytes = counter(
        "Bytes that recovery cut off the journal's end; they were never acknowledged.",
        "Normal after a crash or power loss; otherwise check the disk.",
    )
    journal_free_bytes = gauge(
        "Free bytes of the journal's file system.",
        "When it falls to `disk_reserve_bytes`, events are refused with 507: free space.",
        "min",
    )
    journal_reserve_bytes = gauge(
        "Free bytes below which the journal takes no events.",
        "Nothing; it is the setting `disk_reserve_bytes`.",
        "max",
    )

    # -- kafka --------------------------------------------------------------------
    kafka_delivered = counters(
        "Messages that all replicas in sync have, by what they are for.",
        "When it stands still while `ingest_kafka_inflight_messages` does not fall: look at the "
        "brokers.",
        producer=KAFKA_PRODUCERS,
    )
    kafka_errors = counters(
        "Messages that were not delivered, by what they are for and librdkafka's code.",
        "docs/kafka.md says what each code is answered with and what to do.",
        producer=KAFKA_PRODUCERS,
        code=OPEN,
    )
    kafka_troubles = counters(
        "What librdkafka reports of brokers and connections, by code.",
        "`_TRANSPORT`, `_RESOLVE`: a broker cannot be reached. `_AUTHENTICATION`, `_SSL`: correct "
        "the credentials or certificates. The log has its words (`kafka.trouble`).",
        code=OPEN,
    )
    kafka_inflight_messages = gauges(
        "Messages that wait for their delivery report, by what they are for.",
        "The brokers are slower than the producers.",
        producer=KAFKA_PRODUCERS,
    )
    kafka_inflight_bytes = gauges(
        "Bytes of these messages, as librdkafka keeps them.",
        "Past `kafka_inflight_max_bytes` requests get 503: look at the brokers.",
        producer=KAFKA_PRODUCERS,
    )
    kafka_delivery_seconds = histogram(
        "Seconds from a message's way to librdkafka to its delivery report.",
        "`linger.ms` and the brokers' replication are in it: look at what the brokers wait for.",
        DISK_BUCKETS,
    )
    kafka_wakeups = counters(
        "Wake-ups of the event loop by delivery reports, by what they are for.",
        "Nothing by itself: each brings all reports that have come.",
        producer=KAFKA_PRODUCERS,
    )

    # -- forwarder ------------------------------------------------------------------
    forward_lag_events = gauges(
        "Records between the forwarder's place and the journal's end, by partition.",
        "It grows while brokers are away; afterwards it must fall. See docs/kafka.md.",
        partition=OPEN,
    )
    forward_lag_bytes = gauges(
        "Bytes of these records; looked up once a second.",
        "Retention keeps them: the disk must hold what an outage takes.",
        partition=OPEN,
    )
    forward_lag_seconds = gauges(
        "Age of the oldest event that is not forwarded yet, by partition.",
        "Look at the brokers, `ingest_kafka_troubles_total` and `ingest_forward_retries_total`.",
        "max",
        partition=OPEN,
    )
    forward_delivered = counters(
        "Events that were forwarded, by partition; repetitions count.",
        "When it stands still while the lag grows: look at the brokers.",
        partition=OPEN,
    )
    forward_retries = counters(
        "Times the forwarder began anew because a message was not delivered.",
        "The log says why (`forwarder.not_delivered`): a topic or a right may be missing.",
        partition=OPEN,
    )
    forward_dead_letters = counters(
        "Events that Kafka will never take, put aside in `data/dead`.",
        "`ingest journal cat --dead` shows them with the reason; most are too large.",
        partition=OPEN,
    )
    forward_missed_events = counters(
        "Records that were removed or damaged before they were forwarded.",
        "Any is a loss downstream: see the log (`forwarder.gap`) and `ingest journal verify`.",
        partition=OPEN,
    )
    forward_checkpoint_failures = counters(
        "Looks into the journal and checkpoints of the forwarder that failed.",
        "Check the disk and the log. Nothing is lost; more is repeated after a crash.",
        partition=OPEN,
    )

    # -- closed segments ----------------------------------------------------------
    journal_segments_closed = counter(
        "Journal segments that were closed because they were full, old or had failed.",
        "As fast as commits: the disk fails; see `ingest_journal_failures`.",
    )
    journal_compressed_segments = counters(
        "Closed segments that were compressed, by journal.",
        "Nothing by itself; compare `ingest_journal_uncompressed_segments`.",
        journal=JOURNALS,
    )
    journal_compress_read_bytes = counters(
        "Bytes that segments had before they were compressed.",
        "Nothing by itself; over `ingest_journal_compress_written_bytes_total` it is the ratio.",
        journal=JOURNALS,
    )
    journal_compress_written_bytes = counters(
        "Bytes that segments had after they were compressed.",
        "Nothing by itself.",
        journal=JOURNALS,
    )
    journal_compress_seconds = histogram(
        "Seconds it took to compress a segment, pauses included.",
        "Nothing by itself: it takes about a quarter of a core; lower "
        "`segment_compression_level` when segments wait.",
        LATENCY_BUCKETS,
    )
    journal_uncompressed_segments = gauges(
        "Closed segments that are not compressed, by journal.",
        "When it grows: events come faster than they are compressed, or segments are damaged; "
        "see the log for `journal.left_uncompressed`.",
        journal=JOURNALS,
    )
    journal_removed_segments = counters(
        "Segments that retention removed, by journal and reason.",
        "`size` before `age`: raise `retention_max_bytes` if events are to be kept longer.",
        journal=JOURNALS,
        reason=("age", "size"),
    )
    journal_removed_bytes = counters(
        "Bytes on the disk that retention removed, by journal and reason.",
        "Nothing by itself.",
        journal=JOURNALS,
        reason=("age", "size"),
    )
    journal_retention_blocked_segments = gauges(
        "Segments that retention would remove but for a consumer's checkpoint.",
        "The consumer named in the log (`journal.retention_blocked`) is behind, or gone: start "
        "it, or remove its checkpoint.",
        journal=JOURNALS,
    )
    journal_stored_bytes = gauges(
        "Bytes on the disk of all that belongs to a journal.",
        "Lower `retention_max_bytes` or a retention, or get more room.",
        journal=JOURNALS,
    )
    journal_oldest_record_age_seconds = gauges(
        "Age of a journal's oldest record; 0 when there is none.",
        "Compare the retention; it is longer when a type in the same segment is kept longer.",
        journal=JOURNALS,
    )
    journal_janitor_failures = counters(
        "File operations on closed segments that failed, by operation.",
        "Check the disk and the log. Nothing is lost; it is tried again after a minute.",
        operation=("list", "compress", "remove"),
    )

    # -- reading ------------------------------------------------------------------
    journal_reads = counters(
        "Requests that read the journal back, by what for: the list, a page of records, a file.",
        "Nothing by itself; each costs time that events could have.",
        kind=("list", "page", "file"),
    )
    journal_read_bytes = counters(
        "Bytes of the journal sent to readers, before any content coding.",
        "Nothing by itself; see `ingest_journal_reads`.",
        kind=("page", "file"),
    )
    journal_followers = gauge(
        "Readers that wait for the next commit.", "Nothing; each holds a connection."
    )

    # -- deduplication ------------------------------------------------------------
    dedupe_hits = counters(
        "Events and requests that came again and were answered as the first was, by type.",
        "Producers repeat what they got no answer to: look at their timeouts and the network.",
        type=OPEN,
    )
    dedupe_conflicts = counters(
        "Requests refused for their Idempotency-Key, by type and reason.",
        "`in_flight`: the producer repeats before it has the answer. `mismatch`: it uses a key "
        "for two payloads, which is a fault of its own.",
        type=OPEN,
        reason=("in_flight", "mismatch"),
    )
    dedupe_entries = gauges(
        "Keys remembered, by type.", "Nothing; `dedupe_entries_max` bounds it.", type=OPEN
    )
    dedupe_evictions = counters(
        "Keys forgotten, by type and reason.",
        "`age`: normal. `count`: forgotten before their window was over, so a late repetition "
        "would be stored again: raise `dedupe_entries_max`, or shorten the window.",
        type=OPEN,
        reason=("age", "count"),
    )
    dedupe_load_seconds = gauge(
        "Seconds that reading the keys took at start.",
        "Long: a segment whose key file was missing had to be read; see docs/deduplication.md.",
    )
    dedupe_failures = counters(
        "Key files that could not be read or written, and segments that could not be read for "
        "their keys, by operation.",
        "Check the disk and the log. `read`, `write`: the next start takes longer. `segment`: "
        "repetitions of its events are not recognised.",
        operation=("read", "write", "segment"),
    )

    # -- rejected events ----------------------------------------------------------
    rejected_kept = counters(
        "Refused events that are in the rejected journal, by type and reason.",
        "Look at them with `python -m ingest journal cat --rejected`.",
        type=OPEN,
        code=REJECTED_CODES,
    )
    rejected_dropped = counters(
        "Refused events that should have been kept and could not be, by why.",
        "overloaded: raise `rejected_pending_max_bytes`; else look at the disk.",
        reason=tuple(sorted(ERRORS)),
    )
    rejected_journal_failures = gauge(
        "File operations of the rejected journal that failed since the start.",
        "Check the disk and the log. Accepted events are not concerned.",
    )

    # -- the process --------------------------------------------------------------
    hub_lag_seconds = histogram(
        "Seconds a timer of the event loop ran late.",
        "Something blocks the event loop: a handler in C code or computing; or the CPU is full.",
        LATENCY_BUCKETS,
    )
    hub_lag_last_seconds = gauge(
        "Seconds the last timer of the event loop ran late.",
        "As for `ingest_hub_lag_seconds`.",
        "max",
    )
    log_lines = counters(
        "Log lines made, by level.",
        "Read them: `error` and `critical` need a person.",
        level=("debug", "info", "warning", "error", "critical"),
    )
    log_lines_dropped = counter(
        "Log lines lost because their reader did not keep up, or could not be written.",
        "Look at what reads stderr; lower `access_log`, or raise `log_queue_max`.",
    )
    unhandled_errors = counters(
        "Errors that nobody expected, by place.",
        "Each is a fault of ours: its traceback is in the log; report it.",
        where=OPEN,
    )
    ready = gauge("1 while `/readyz` answers 200.", "0: `/readyz?verbose` says why.", "max")
    info = gauges("Always 1; the version is a label.", "Nothing.", "max", version=OPEN)

    # -- workers ------------------------------------------------------------------
    worker_up = gauges(
        "1 for each worker whose figures are in this answer, 0 for one that gave none in time; "
        "with two workers or more.",
        "0: it starts, or it hangs; `/readyz?verbose` and the log say which. Its counters are "
        "shown as they were last known, its gauges are missing.",
        worker=OPEN,
    )
    worker_restarts = counters(
        "Workers that were started again, by number and cause.",
        "`died`: the log has the signal or exit status (`supervisor.worker_died`). `asked`: "
        "SIGHUP, or a SIGTERM to that worker.",
        worker=OPEN,
        cause=("died", "asked"),
    )
    worker_adopted = counter(
        "Connections to a worker that did not accept, which the supervisor gave to another one.",
        "Normal while a worker is started again; otherwise see `ingest_worker_up`.",
    )

    def __init__(self) -> None:
        for family in CATALOGUE:
            setattr(self, family.attribute, family.build())
        for place in PLACES:  # there before the first one, so that its increase is seen
            self.unhandled_errors.cell(place)
        registry = CollectorRegistry()
        registry.register(Exposition(CATALOGUE, self.read))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._registry = registry

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The exposition and its content type.

        Args:
            accept: the request's Accept field; OpenMetrics if it asks for it,
                otherwise the Prometheus text format.
        """
        return encode(self._registry, accept)

    def read(self) -> Readings:
        """What every family holds now."""
        return self._read(CATALOGUE)

    def read_counted(self) -> Readings:
        """What the counters and histograms hold: what remains when all else has ended."""
        return self._read(family for family in CATALOGUE if family.kind != GAUGE)

    def _read(self, families: Iterable[Family]) -> Readings:
        return {
            family.attribute: read_family(family, getattr(self, family.attribute), self._failed)
            for family in families
        }

    def _failed(self, family: Family, error: Exception) -> None:
        self.unhandled_errors.cell("metrics").value += 1
        log.error("metrics.function_failed", exc_info=error, extra={"metric": family.full_name})


#: Every family in the order of its declaration.
CATALOGUE: tuple[Family, ...] = tuple(
    declared for declared in vars(Metrics).values() if isinstance(declared, Family)
)
