"""The journal over HTTP: lists, pages of records with long poll, segment files.

Each endpoint waits in its connection's own greenlet: for a native thread that reads, for the
next commit, for the peer. What may be shown is decided in `journal/pages.py`.

This module must not know how the journal is written.

Source: RFC 9110 sections 13 and 14 (conditions, ranges).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from functools import wraps
from ipaddress import ip_address
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import gevent

from ingest.codec import dumps
from ingest.connection import Exchange
from ingest.connection_files import FileBody
from ingest.encodings import compress, negotiate
from ingest.errors import IngestError
from ingest.followers import Followers, SharedReads
from ingest.journal.pages import OffsetOutOfRange, OpenSegment, Page, Pages, PartitionInfo
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.ranges import Part, Unsatisfiable, Version, condition, part_of
from ingest.responder import Responder
from ingest.routes import alone
from ingest.settings import Settings

log = get_logger(__name__)

NDJSON = "application/x-ndjson"
ZSTD = "application/zstd"
#: Records of a page where the client names no limit.
LIMIT = 1000
#: Bytes of a page, unless its first record alone is longer.
PAGE_BYTES = 1 << 20
#: How often the partition of another worker is looked at while somebody waits for it.
LOOK_SECONDS = 0.25

_PARTITION = re.compile(r"/v1/journal/(0|[1-9][0-9]{0,8})")
_SEGMENT = re.compile(r"/v1/journal/(0|[1-9][0-9]{0,8})/([0-9]{20}\.ndjson(?:\.zst)?)")
_GONE = (errno.ENOENT, errno.ENOTDIR)
#: Fields that proxies add to what they pass on.
_PASSED_ON = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"})

Endpoint = Callable[[Exchange], None]


def offered(settings: Settings) -> bool:
    """Whether the journal is to be read over HTTP; who reads it sees every event."""
    if settings.journal_http != "auto":
        return settings.journal_http == "on"
    host = urlsplit(f"//{settings.bind}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def not_offered() -> Mapping[str, Mapping[str, Callable[[Exchange], None]]]:
    """The table of endpoints where it is not."""

    def refuse(exchange: Exchange) -> None:
        raise IngestError("not_found", "The journal is not read over HTTP here: `journal_http`.")

    return {"/v1/journal": {"GET": refuse}, "/v1/journal/*": {"GET": refuse}}


def _only_directly(endpoint: Endpoint) -> Endpoint:
    """Refuse what a proxy has passed on: it may listen for everybody, though we do not."""

    @wraps(endpoint)
    def checked(exchange: Exchange) -> None:
        if not _PASSED_ON.isdisjoint(exchange.head.headers):
            message = "The journal is read through a proxy only where `journal_http` is on."
            raise IngestError("not_found", message)
        endpoint(exchange)

    return checked


class _Wanted(NamedTuple):
    """The query of a page."""

    offset: int | str
    limit: int
    wait_seconds: float


class JournalEndpoints:
    """The endpoints and their paths.

    Args:
        settings: the bounds of a page.
        responder: sends the answers.
        pages: reads the journal.
        durable: by partition that this process writes, the offset up to which its records
            may be shown.
        metrics: where reading is counted.
    """

    def __init__(
        self,
        settings: Settings,
        responder: Responder,
        pages: Pages,
        durable: Mapping[int, Callable[[], int]],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._responder = responder
        self._pages = pages
        self._durable = durable
        self._compress_min_bytes = settings.compress_min_bytes
        self._reads = SharedReads()
        self._followers: dict[int, Followers] = {number: Followers() for number in durable}
        self._watched: dict[int, gevent.Greenlet] = {}
        self._released = False
        self._counts = {kind: metrics.journal_reads.cell(kind) for kind in ("list", "page", "file")}
        self._bytes = {kind: metrics.journal_read_bytes.cell(kind) for kind in ("page", "file")}
        metrics.journal_followers.set_function(
            lambda: sum(followers.waiting for followers in self._followers.values())
        )

    def table(self) -> Mapping[str, Mapping[str, Callable[[Exchange], None]]]:
        """Path to method to endpoint, as `Endpoints.table` has it."""
        listing: Endpoint = self.listing
        below: Endpoint = self.below
        if self._settings.journal_http == "auto":
            listing, below = _only_directly(listing), _only_directly(below)
        return {"/v1/journal": {"GET": listing}, "/v1/journal/*": {"GET": below}}

    def followers(self, partition: int) -> Followers:
        """Who waits for commits of a partition that this process writes."""
        return self._followers[partition]

    def release(self) -> None:
        """Answer everybody who waits: the service stops."""
        self._released = True
        for followers in self._followers.values():
            followers.wake()

    def close(self) -> None:
        """End the threads; after the last connection."""
        self._reads.close()

    # -- the list -------------------------------------------------------------------------------

    @alone
    def listing(self, exchange: Exchange) -> None:
        """`GET /v1/journal`: partitions and segments."""
        self._counts["list"].value += 1
        durable = {number: read() for number, read in self._durable.items()}
        key = ("list", tuple(durable.values()))
        infos = self._read(self._reads.share, key, self._describe, durable)
        self._send(exchange, dumps({"partitions": infos}) + b"\n", "application/json", {})

    def _describe(self, durable: Mapping[int, int]) -> list[dict[str, Any]]:
        return [
            _as_json(self._pages.describe(number, durable.get(number)))
            for number in self._pages.partitions()
        ]

    # -- pages ----------------------------------------------------------------------------------

    @alone
    def below(self, exchange: Exchange) -> None:
        """`GET /v1/journal/{partition}`, `GET /v1/journal/{partition}/{segment}`."""
        path = exchange.head.path
        found = _PARTITION.fullmatch(path)
        if found is not None:
            self.page(exchange, int(found.group(1)))
            return
        found = _SEGMENT.fullmatch(path)
        if found is None:
            raise IngestError("not_found", f"There is nothing at {path[:200]}.")
        self.segment(exchange, int(found.group(1)), found.group(2))

    def page(self, exchange: Exchange, partition: int) -> None:
        """Records from an offset on; waits for the first one if told to."""
        self._counts["page"].value += 1
        wanted = self._query(exchange.head.query)
        wait = 0.0 if exchange.head.method == "HEAD" else wanted.wait_seconds
        try:
            offset = self._offset(partition, wanted.offset)
            page = self._wait_for_page(partition, offset, wanted.limit, monotonic() + wait)
        except OffsetOutOfRange as error:
            raise _out_of_range(error) from None
        headers = {
            "Ingest-Offset": str(page.offset),
            "Ingest-Next-Offset": str(page.next_offset),
            "Ingest-End-Offset": str(page.end_offset),
        }
        self._bytes["page"].value += len(page.body)
        self._send(exchange, page.body, NDJSON, headers)

    def _query(self, query: str) -> _Wanted:
        given = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=32)) if query else {}
        settings = self._settings
        offset: int | str = given.get("offset", "earliest")
        if offset not in ("earliest", "latest"):
            offset = _number("offset", str(offset), "earliest, latest or an offset")
        limit = _number("limit", given.get("limit", str(LIMIT)), "a number from 1 on")
        if not limit:
            raise IngestError("bad_parameter", "?limit takes a number from 1 on, not 0.")
        text = given.get("wait", "0")
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            raise IngestError("bad_parameter", f"?wait takes seconds, not {text[:32]!r}.")
        return _Wanted(
            offset,
            min(limit, settings.journal_page_records_max),
            min(float(text), settings.journal_wait_max_seconds),
        )

    def _offset(self, partition: int, wanted: int | str) -> int:
        if isinstance(wanted, int):
            return wanted
        durable = self._shown(partition)
        first, end = self._read(self._reads.run, self._pages.bounds, partition, durable)
        return end if wanted == "latest" else first

    def _shown(self, partition: int) -> int | None:
        read = self._durable.get(partition)
        return read() if read is not None else None

    def _wait_for_page(self, partition: int, offset: int, limit: int, until: float) -> Page:
        followers = self._followers.get(partition) or Followers()
        while True:
            commit = followers.next_commit
            durable = self._shown(partition)
            if durable is None or durable != offset or monotonic() >= until:
                key = (partition, offset, limit, durable)
                page: Page = self._read(
                    self._reads.share, key, self._pages.page, *key[:3], PAGE_BYTES, durable
                )
                if page.body or page.next_offset != offset or monotonic() >= until:
                    return page
            if self._released:
                until = 0.0
                continue
            if durable is None:
                followers = self._followers.setdefault(partition, followers)
                if partition not in self._watched:
                    self._watched[partition] = gevent.spawn(self._watch, partition, followers)
            followers.wait(commit, max(0.0, until - monotonic()))

    def _watch(self, partition: int, followers: Followers) -> None:
        """Wake those who follow a partition that another process writes."""
        try:
            seen: object = None
            while True:
                gevent.sleep(LOOK_SECONDS)
                if not followers.waiting:
                    return
                now = self._reads.run(self._pages.bounds, partition, None)
                if now != seen:
                    seen = now
                    followers.wake()
        except Exception as error:  # noqa: BLE001 - who waits looks for himself, and answers it
            log.warning("journal.watch_failed", partition=partition, error=str(error))
            followers.wake()
        finally:
            del self._watched[partition]

    # -- files ------------------------------------------------------------------------------------

    def segment(self, exchange: Exchange, partition: int, name: str) -> None:
        """A segment as it is on the disk, or a part of it."""
        self._counts["file"].value += 1
        durable = self._shown(partition)
        file: OpenSegment = self._read(self._reads.run, self._pages.open, partition, name, durable)
        media = ZSTD if name.endswith(".zst") else NDJSON
        version = Version(f'"{file.tag}"', file.modified, not file.growing)
        headers = {
            "ETag": version.tag,
            "Last-Modified": version.last_modified,
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
        }
        request = exchange.head
        status = condition(request.headers, version)
        if status == 412:
            raise IngestError("precondition_failed", headers=headers)
        if status == 304:
            self._responder.send(exchange, 304, b"", headers=headers)
            return
        part: Part | None = None
        if request.method == "GET":
            try:
                part = part_of(request.headers, file.length, version)
            except Unsatisfiable:
                headers["Content-Range"] = f"bytes */{file.length}"
                raise IngestError(
                    "range_not_satisfiable",
                    f"The segment has {file.length} bytes.",
                    headers=headers,
                ) from None
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{file.length}"
        start, end = part or Part(0, file.length)
        body = FileBody(file, start, end - start, self._reads.run)
        try:
            self._responder.send_pieces(
                exchange, 206 if part else 200, body, content_type=media, headers=headers
            )
        finally:
            self._bytes["file"].value += body.sent

    # -- what they share ---------------------------------------------------------------------

    def _read(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """Read, and say of what is not there that it is not."""
        try:
            return read(*arguments)
        except OSError as error:
            if error.errno in _GONE or error.errno is None:
                detail = "There is no such partition or segment (any more); see GET /v1/journal."
                raise IngestError("not_found", detail) from None
            raise

    def _send(
        self, exchange: Exchange, body: bytes, media: str, headers: Mapping[str, str]
    ) -> None:
        fields = {**headers, "Cache-Control": "no-store", "Vary": "Accept-Encoding"}
        accepted = exchange.head.headers.get("accept-encoding", "")
        if len(body) >= self._compress_min_bytes and (coding := negotiate(accepted)):
            # Those who share a page share the bytes of its body, too.
            body = self._reads.share((id(body), coding), compress, body, coding)
            fields["Content-Encoding"] = coding
        self._responder.send(exchange, 200, body, content_type=media, headers=fields)


def _number(name: str, text: str, takes: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise IngestError("bad_parameter", f"?{name} takes {takes}, not {text[:32]!r}.")
    return int(text)


def _out_of_range(error: OffsetOutOfRange) -> IngestError:
    if error.offset < error.first_offset:
        code = "offset_gone"
        detail = f"The oldest record has the offset {error.first_offset}."
    else:
        code = "offset_ahead"
        detail = f"The next record will have the offset {error.next_offset}."
    return IngestError(
        code,
        detail,
        extensions={"first_offset": error.first_offset, "next_offset": error.next_offset},
    )


def _as_json(info: PartitionInfo) -> dict[str, Any]:
    return {
        **info._asdict(),
        "segments": [segment._asdict() for segment in info.segments],
    }
