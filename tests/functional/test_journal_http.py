"""The journal over HTTP: lists, pages, long polls, on a real gateway and its real files."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest

from ingest.journal.frame import mark
from tests.support.events import METRICS
from tests.support.gateway import Answer, Client, Gateway
from tests.support.journals import Written, until

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

EVENT = json.dumps(METRICS).encode()


def send(gateway: Gateway, count: int) -> None:
    """Store events, all of them in one commit."""
    answer = gateway.request(
        "POST",
        "/v1/events/metrics",
        b"\n".join([EVENT] * count),
        {"Content-Type": "application/x-ndjson"},
    )
    assert answer.status == 202


def read(gateway: Gateway, query: str = "", partition: int = 0, **headers: str) -> Answer:
    return gateway.request("GET", f"/v1/journal/{partition}?{query}", headers=headers)


def ids(answer: Answer) -> list[str]:
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line)["id"] for line in answer.body.splitlines()]


def offsets(answer: Answer) -> tuple[int, int, int]:
    names = ("ingest-offset", "ingest-next-offset", "ingest-end-offset")
    first, following, end = (int(answer.headers[name]) for name in names)
    return first, following, end


def listed(gateway: Gateway) -> list[dict[str, Any]]:
    answer = gateway.request("GET", "/v1/journal")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()["partitions"]


# -- the list ---------------------------------------------------------


def test_the_list_names_partitions_and_segments_with_what_can_be_read_of_them(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--segment-max", "4KiB")
    for _ in range(4):
        send(gateway, 5)
    (partition,) = listed(gateway)
    segments = partition["segments"]
    assert (partition["partition"], partition["first_offset"], partition["next_offset"]) == (
        0, 0, 20,
    )  # fmt: skip
    assert len(segments) == 4
    assert [s["first_offset"] for s in segments] == [0, 5, 10, 15]
    assert [s["next_offset"] for s in segments] == [5, 10, 15, 20]
    assert [s["open"] for s in segments] == [False, False, False, True]
    events = gateway.journal()
    assert [s["first_time"] for s in segments] == [events[n]["time"] for n in (0, 5, 10, 15)]
    for segment in segments:
        body = gateway.request("GET", f"/v1/journal/0/{segment['segment']}").body
        assert segment["bytes"] == len(body)
        assert body.endswith(b'"}\n')


# -- pages ---------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_in_a_row_are_all_records_each_once_whatever_the_commits(
    new_gateway,  # type: ignore[no-untyped-def]
    limit: int,
) -> None:
    gateway = new_gateway("--segment-max", "8KiB")
    for count in (1, 20, 3, 9, 1, 1):
        send(gateway, count)
    seen: list[str] = []
    offset = 0
    while True:
        page = read(gateway, f"offset={offset}&limit={limit}")
        first, following, end = offsets(page)
        assert (first, end) == (offset, 35)
        if first == end:
            break
        assert following - first == len(ids(page)) == min(limit, 35 - offset)
        seen += ids(page)
        offset = following
    assert page.body == b""
    assert seen == [event["id"] for event in gateway.journal()]
    assert ids(read(gateway)) == seen
    assert ids(read(gateway, "offset=earliest&limit=2")) == seen[:2]
    assert offsets(read(gateway, "offset=latest")) == (35, 35, 35)


def test_a_page_shows_lines_as_the_journal_has_them_without_the_commit_marks(
    gateway: Gateway,
) -> None:
    send(gateway, 3)
    lines = read(gateway).body.splitlines()
    assert [json.loads(line) for line in lines] == gateway.journal()
    assert json.loads(lines[2])["data"] == METRICS
    assert b"ingestcommit" not in b"".join(lines)


def test_a_page_ends_at_a_mebibyte_unless_its_first_record_alone_is_longer(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--event-max", "4MiB")
    big = {"metrics": [{**METRICS["metrics"][0], "tags": {"a": "x" * 400}}]}
    long = json.dumps(big).encode() + b" " * 2_000_000
    assert gateway.post("/v1/events/metrics", long).status == 202
    send(gateway, 1)
    assert gateway.post("/v1/events/metrics", EVENT + b" " * 700_000).status == 202
    assert gateway.post("/v1/events/metrics", EVENT + b" " * 700_000).status == 202
    assert [offsets(read(gateway, f"offset={n}"))[1] for n in range(4)] == [1, 3, 3, 4]
    assert len(read(gateway, "offset=0").body) > 2_000_000


def test_the_limit_is_bounded_by_a_setting(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--journal-page-records-max", "3")
    send(gateway, 5)
    assert len(ids(read(gateway, "limit=1000"))) == 3


@pytest.mark.parametrize(
    "query",
    ["offset=-1", "offset=x", "offset=", "limit=0", "limit=x", "wait=x", "wait=-1", "offset=1e3"],
)
def test_a_parameter_that_is_none_is_refused(gateway: Gateway, query: str) -> None:
    answer = read(gateway, query)
    assert (answer.status, answer.json()["code"]) == (400, "bad_parameter")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/journal/1", "/v1/journal/00", "/v1/journal/x", "/v1/journal/", "/v1/journal/0/",
        "/v1/journal/0/00000000000000000001.ndjson", "/v1/journal/0/ingest.lock",
        "/v1/journal/0/..%2f..%2fingest.lock", "/v1/journal/0/00000000000000000000.ndjson/",
        "/v1/journal/9/00000000000000000000.ndjson", "/v1/journal/99999999999999999999",
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(gateway: Gateway, path: str) -> None:
    assert gateway.request("GET", path).json()["code"] == "not_found"
    assert gateway.request("POST", path, b"{}").status in (404, 405)


def test_an_offset_that_retention_removed_is_410_with_the_oldest_there_is(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--segment-max", "4KiB")
    for _ in range(3):
        send(gateway, 5)
    first = listed(gateway)[0]["segments"][0]["segment"]
    (gateway.data / "journal" / "0" / first).unlink()
    answer = read(gateway, "offset=4")
    assert answer.status == 410
    problem = answer.json()
    assert (problem["code"], problem["first_offset"], problem["next_offset"]) == (
        "offset_gone", 5, 15,
    )  # fmt: skip
    assert offsets(read(gateway, "limit=2")) == (5, 7, 15)
    assert gateway.request("GET", f"/v1/journal/0/{first}").status == 404


def test_an_offset_beyond_the_end_is_told_where_the_end_is(gateway: Gateway) -> None:
    send(gateway, 2)
    answer = read(gateway, "offset=3&wait=10")
    assert (answer.status, answer.json()["code"]) == (404, "offset_ahead")
    assert answer.json()["next_offset"] == 2


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_page_is_compressed_for_who_accepts_it(gateway: Gateway, coding: str) -> None:
    send(gateway, 50)
    plain = read(gateway).body
    coded = read(gateway, **{"Accept-Encoding": coding})
    assert coded.headers["content-encoding"] == coding
    assert coded.headers["vary"] == "Accept-Encoding"
    inflate = {"gzip": gzip.decompress, "zstd": zstd.decompress}[coding]
    assert inflate(coded.body) == plain
    assert len(coded.body) < len(plain) / 5


def test_only_what_was_answered_for_is_shown_though_more_stands_in_the_file(
    gateway: Gateway,
) -> None:
    send(gateway, 2)
    path = gateway.data / "journal" / "0" / f"{0:020d}.ndjson"
    content = path.read_bytes().rstrip(b"\n") + b"\n"
    body = content[: content.index(b"\n")]  # a first record again, as the next commit
    whole = body[:-1] + mark(body[:-1], 2, 1, len(content))
    with path.open("r+b") as file:
        file.seek(len(content))
        file.write(whole)
    assert len(gateway.journal()) == 3
    assert offsets(read(gateway)) == (0, 2, 2)
    assert gateway.request("GET", f"/v1/journal/0/{path.name}").body == content
    (partition,) = listed(gateway)
    assert partition["next_offset"] == 2
    assert partition["segments"][0]["bytes"] == len(content)
    assert read(gateway, "offset=2&wait=0.05").body == b""


def test_a_page_has_no_gap_and_the_next_one_begins_behind_it(new_gateway, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    written = Written(tmp_path / "data")
    written.commit("metrics", "metrics")
    at = written.path.stat().st_size
    written.commit("metrics", "metrics")
    written.commit("metrics", "metrics")
    written.flip(at + 30)
    gateway = new_gateway()
    assert offsets(read(gateway)) == (0, 2, 6)
    assert offsets(read(gateway, "offset=2")) == (4, 6, 6)
    assert offsets(read(gateway, "offset=3&limit=1")) == (4, 5, 6)


def test_records_of_a_compressed_segment_read_like_any(new_gateway, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    written = Written(tmp_path / "data")
    for _ in range(300):
        written.commit(*["metrics"] * 10)
    plain = written.path.read_bytes()
    path = written.compress()
    gateway = new_gateway()
    send(gateway, 1)
    for offset in (0, 1500, 2995):
        page = read(gateway, f"offset={offset}&limit=5")
        assert [json.loads(line)["data"]["n"] for line in page.body.splitlines()] == list(
            range(offset, offset + 5)
        )
    assert offsets(read(gateway, "offset=2999")) == (2999, 3001, 3001)
    answer = gateway.request("GET", f"/v1/journal/0/{path.name}")
    assert answer.headers["content-type"] == "application/zstd"
    assert answer.body == path.read_bytes()
    inflated = b"".join(zstd.ZstdDecompressor().decompress(f) for f in _frames(answer.body))
    assert inflated == plain
    (segment, _) = listed(gateway)[0]["segments"]
    assert (segment["next_offset"], segment["bytes"]) == (3000, len(answer.body))


def _frames(data: bytes) -> list[bytes]:
    frames = []
    while data:
        size = zstd.get_frame_size(data)
        if data[3:4] != b"\x18":  # no skippable frame
            frames.append(data[:size])
        data = data[size:]
    return frames


# -- followers ---------------------------------------------------------


def waiting(gateway: Gateway) -> float:
    return gateway.metric("ingest_journal_followers")


def ask(gateway: Gateway, query: str, partition: int = 0) -> Client:
    client = gateway.connect()
    client.send(b"GET /v1/journal/%d?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (partition, query.encode()))
    return client


def test_a_follower_is_answered_by_the_commit_that_brings_something(gateway: Gateway) -> None:
    send(gateway, 2)
    with ask(gateway, "offset=2&wait=50") as client:
        until(lambda: waiting(gateway) == 1, "it waits")
        send(gateway, 3)
        assert offsets(client.answer()) == (2, 5, 5)
        assert client.request("GET", "/livez").status == 200
    assert waiting(gateway) == 0


def test_a_follower_is_answered_with_nothing_when_its_time_is_over(gateway: Gateway) -> None:
    answer = read(gateway, "wait=0.05")
    assert (ids(answer), offsets(answer)) == ([], (0, 0, 0))
    assert waiting(gateway) == 0


def test_the_wait_is_bounded_by_a_setting(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--journal-wait-max", "50ms")
    assert read(gateway, "wait=100000").body == b""


def test_a_head_request_does_not_wait(gateway: Gateway) -> None:
    answer = gateway.request("HEAD", "/v1/journal/0?wait=50")
    assert (answer.status, answer.headers["ingest-next-offset"]) == (200, "0")


def test_a_crowd_of_followers_is_answered_by_one_commit(gateway: Gateway) -> None:
    clients = [ask(gateway, "wait=50") for _ in range(200)]
    until(lambda: waiting(gateway) == 200, "all of them wait")
    send(gateway, 1)
    answers = [gevent.spawn(client.answer) for client in clients]
    assert {tuple(ids(answer.get())) for answer in answers} == {(gateway.journal()[0]["id"],)}
    assert waiting(gateway) == 0
    for client in clients:
        client.sock.close()


def test_followers_do_not_hold_up_a_shutdown(gateway: Gateway) -> None:
    with ask(gateway, "wait=60") as client:
        until(lambda: waiting(gateway) == 1, "it waits")
        gateway.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["connection"] == "close"
        assert client.closed()
    assert gateway.wait() == 0


def test_a_client_may_follow_all_the_way_while_events_come(gateway: Gateway) -> None:
    def follow() -> list[str]:
        seen: list[str] = []
        offset = 0
        with gateway.connect() as client:
            while len(seen) < 120:
                path = f"/v1/journal/0?offset={offset}&wait=30&limit=11"
                page = client.request("GET", path)
                seen += ids(page)
                offset = offsets(page)[1]
        return seen

    following = [gevent.spawn(follow) for _ in range(3)]
    for count in range(1, 16):
        send(gateway, count)
    expected = [event["id"] for event in gateway.journal()]
    assert [greenlet.get() for greenlet in following] == [expected] * 3


def test_earlier_requests_of_the_connection_are_answered_before_and_later_ones_behind(
    gateway: Gateway,
) -> None:
    post = b"POST /v1/events/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    post += b"Content-Length: %d\r\n\r\n%s" % (len(EVENT), EVENT)
    get = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
    with gateway.connect() as client:
        client.send(
            post + get % b"/v1/journal/0" + get % b"/livez" + get % b"/v1/journal/0?offset=9"
            + post + get % b"/v1/journal/0?offset=1&wait=20" + get % b"/v1/journal"
        )  # fmt: skip
        first = client.answer().json()["id"]
        assert ids(client.answer()) == [first]
        assert client.answer().body == b"ok\n"
        assert client.answer().status == 404
        second = client.answer().json()["id"]
        assert ids(client.answer()) == [second]
        assert client.answer().json()["partitions"][0]["next_offset"] == 2


# -- partitions of others ---------------------------------------------------------


def test_the_newest_commit_of_another_writer_counts_when_another_follows_or_time_has_passed(
    gateway: Gateway,
) -> None:
    other = Written(gateway.data)
    other.new_segment(partition=3)
    other.commit("metrics")
    other.commit("metrics", "metrics")

    def written_now() -> None:
        os.utime(other.path, (2e9, 2e9))  # as if somebody wrote to it all the time

    written_now()
    assert offsets(read(gateway, partition=3)) == (0, 1, 1)
    other.commit("metrics")
    written_now()
    assert offsets(read(gateway, partition=3)) == (0, 3, 3)
    assert listed(gateway)[1]["segments"][0]["next_offset"] == 3
    os.utime(other.path, (1e9, 1e9))
    assert offsets(read(gateway, partition=3)) == (0, 4, 4)


def test_a_partition_of_another_writer_can_be_followed(gateway: Gateway) -> None:
    other = Written(gateway.data)
    other.new_segment(partition=3)
    other.commit("metrics")
    os.utime(other.path, (1e9, 1e9))
    with ask(gateway, "offset=1&wait=50", partition=3) as client:
        until(lambda: waiting(gateway) == 1, "it waits")
        other.commit("order", "order")
        os.utime(other.path, (1e9, 1e9))
        assert offsets(client.answer()) == (1, 3, 3)


# -- on and off ---------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ((), 200),
        (("--journal-http", "off"), 404),
        (("--bind", "0.0.0.0:0"), 404),
        (("--bind", "0.0.0.0:0", "--journal-http", "on"), 200),
        (("--bind", "localhost:0"), 200),
    ],
)
def test_it_answers_only_on_a_loopback_address_unless_it_is_told_otherwise(
    new_gateway,  # type: ignore[no-untyped-def]
    flags: tuple[str, ...],
    status: int,
) -> None:
    gateway = new_gateway(*flags)
    for path in ("/v1/journal", "/v1/journal/0", f"/v1/journal/0/{0:020d}.ndjson"):
        answer = gateway.request("GET", path)
        assert answer.status == status
        if status == 404:
            assert "journal_http" in answer.json()["detail"]
    described = gateway.request("GET", "/openapi.json").json()["paths"]
    assert ("/v1/journal" in described) is (status == 200)


@pytest.mark.parametrize("field", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_on_a_loopback_address_a_proxy_gets_it_only_where_it_is_told_so(
    new_gateway,  # type: ignore[no-untyped-def]
    gateway: Gateway,
    field: str,
) -> None:
    for path in ("/v1/journal", "/v1/journal/0", f"/v1/journal/0/{0:020d}.ndjson"):
        answer = gateway.request("GET", path, headers={field: "192.0.2.1"})
        assert answer.status == 404
        assert "journal_http" in answer.json()["detail"]
        assert gateway.request("GET", path).status == 200
    if field == "Via":
        told = new_gateway("--journal-http", "on", data=gateway.data.parent / "told")
        assert told.request("GET", "/v1/journal", headers={field: "1.1 proxy"}).status == 200


def test_reading_is_counted(gateway: Gateway) -> None:
    send(gateway, 1)
    page = read(gateway)
    listed(gateway)
    gateway.request("GET", f"/v1/journal/0/{0:020d}.ndjson", headers={"Range": "bytes=0-9"})
    for kind in ("list", "page", "file"):
        assert gateway.metric(f'ingest_journal_reads_total{{kind="{kind}"}}') == 1
    assert gateway.metric('ingest_journal_read_bytes_total{kind="page"}') == len(page.body)
    assert gateway.metric('ingest_journal_read_bytes_total{kind="file"}') == 10
