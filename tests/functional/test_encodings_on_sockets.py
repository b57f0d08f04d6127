"""Content codings on a real gateway: what comes coded is stored as if it had come plain."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.encodings import CHUNK_BYTES, zstd
from tests.support.codings import deflate_bomb, gzip_bomb, zstd_bomb
from tests.support.events import METRICS, metric
from tests.support.gateway import Answer, Gateway

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "gzip, zstd": lambda body: zstd.compress(gzip.compress(body)),
}
MIB = 1 << 20


def post(
    gateway: Gateway, path: str, body: bytes, coding: str, media: dict[str, str] = JSON
) -> Answer:
    return gateway.request("POST", path, body, {**media, "Content-Encoding": coding})


def stored(gateway: Gateway) -> list[bytes]:
    """The data members of the journal's records, byte for byte."""
    segments = sorted((gateway.data / "journal" / "0").glob("*.ndjson"))
    raw = b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in segments).lstrip()
    found = re.findall(rb'"data":(.*?)(?:,"ingestcommit":"[^"]*")?\}\n', raw)
    assert len(found) == len(raw.splitlines())
    return found


def test_every_coding_stores_the_same_bytes(gateway: Gateway) -> None:
    event = json.dumps({**METRICS["metrics"][0], "value": 0}).encode()
    body = b'{"metrics" : [%s]}' % event.replace(b": 0", b": 1.00000000000000000001")
    for coding, coder in CODERS.items():
        answer = post(gateway, "/v1/events/metrics", coder(body), coding)
        assert answer.status == 202, (coding, answer.body)
    assert stored(gateway) == [body] * len(CODERS)


@pytest.mark.parametrize("coding", CODERS)
def test_a_large_batch_inflates_in_many_steps(gateway: Gateway, coding: str) -> None:
    events = [metric(n, f"some.metric.{n * 7919}") for n in range(20_000)]
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    array = json.dumps(events).encode()
    assert len(lines) > MIB
    first = post(gateway, "/v1/events/metrics?ids=false", CODERS[coding](lines), coding, NDJSON)
    second = post(gateway, "/v1/batch/metrics?ids=false", CODERS[coding](array), coding)
    for answer in (first, second):
        assert (answer.status, answer.json()) == (202, {"accepted": 20_000, "rejected": 0})
    assert stored(gateway) == [json.dumps(event).encode() for event in [*events, *events]]


def test_a_handler_gets_the_inflated_event(new_gateway: type[Gateway], tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "metrics.py").write_text(
        "def handle(event):\n    return {'metrics': event.data['metrics'] * 2}\n"
    )
    gateway = new_gateway("--handlers", str(tmp_path / "handlers"))
    several = b"".join(json.dumps(metric(n, f"m{n * 7919}")).encode() + b"\n" for n in range(9000))
    assert len(several) > 4 * CHUNK_BYTES
    answer = post(gateway, "/v1/events/metrics?ids=false", zstd.compress(several), "zstd", NDJSON)
    assert answer.json()["accepted"] == 9000
    doubled = {"metrics": metric(5, f"m{5 * 7919}")["metrics"] * 2}
    assert json.loads(stored(gateway)[5]) == doubled


def test_coded_requests_are_pipelined_and_chunked_like_others(gateway: Gateway) -> None:
    coded = gzip.compress(json.dumps(METRICS).encode())
    head = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    sized = head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded) + coded
    chunked = (
        head + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (coded[:5], len(coded) - 5, coded[5:])
    )
    with gateway.connect() as client:
        client.send(sized + chunked + sized.replace(b"gzip", b"zstd") + sized)
        assert [client.answer().status for _ in range(4)] == [202, 202, 400, 202]


def test_a_body_that_is_not_of_its_coding_is_400_and_keeps_the_connection(
    gateway: Gateway,
) -> None:
    good = json.dumps(METRICS).encode()
    with gateway.connect() as client:
        for coding, coder in CODERS.items():
            if coding == "identity":
                continue
            headers = {**JSON, "Content-Encoding": coding}
            for body in (good, coder(good)[:-1], coder(good) + b"{}"):
                answer = client.request("POST", "/metrics", body, headers)
                assert (answer.status, answer.json()["code"]) == (400, "malformed_encoding")
            assert client.request("POST", "/metrics", b"", headers).json()["code"] == "empty_body"
            assert client.request("POST", "/metrics", coder(b"{"), headers).json()["code"] == (
                "malformed_json"
            )
            assert client.request("POST", "/metrics", coder(good), headers).status == 202
    assert len(stored(gateway)) == len(CODERS) - 1
    assert gateway.metric('ingest_events_rejected_total{reason="malformed",type="metrics"}') == 20


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip, gzip"])
def test_another_coding_is_415_before_the_body_is_sent(gateway: Gateway, coding: str) -> None:
    with gateway.connect() as client:
        client.send(
            b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\nExpect: 100-continue\r\nContent-Encoding: %b\r\n\r\n"
            % coding.encode()
        )
        answer = client.answer()
    assert (answer.status, answer.json()["code"]) == (415, "unsupported_encoding")
    assert answer.headers["accept-encoding"] == "zstd, gzip, deflate, identity"


def test_the_limits_are_those_of_what_was_inflated(new_gateway: type[Gateway]) -> None:
    gateway = new_gateway("--request-body-max", "2MiB", "--inflate-ratio-max", "20")
    noise = "".join(str(n * 7919) for n in range(400_000))
    one = json.dumps(metric(1, noise[:MIB])).encode()
    for body in (one, zstd.compress(one)):
        coding = "identity" if body is one else "zstd"
        answer = post(gateway, "/v1/events/metrics", body, coding)
        assert (answer.status, answer.json()["code"]) == (413, "event_too_large")
    answer = post(gateway, "/v1/events/metrics", zstd.compress(noise.encode() * 2), "zstd")
    assert answer.json()["detail"] == "More than 1048576 bytes when inflated."
    assert answer.json()["code"] == "event_too_large"
    lines = b"".join(json.dumps(metric(n)).encode() + b"\n" for n in range(50_000))
    assert len(lines) > 2 * MIB
    with gateway.connect() as client:
        headers = {**NDJSON, "Content-Encoding": "gzip"}
        for body in (gzip.compress(lines, 1), gzip.compress(b" " * MIB)):
            answer = client.request("POST", "/v1/events/metrics", body, headers)
            assert (answer.status, answer.json()["code"]) == (413, "inflated_too_large")
        # the stream is intact, so the connection is kept
        few = gzip.compress(lines[: lines.index(b"\n") + 1])
        assert client.request("POST", "/v1/events/metrics", few, headers).status == 202
    assert gateway.metric('ingest_errors_total{code="inflated_too_large"}') == 2


def test_bytes_are_counted_as_sent_and_as_inflated(gateway: Gateway) -> None:
    body = json.dumps(METRICS).encode()
    coded = gzip.compress(body)
    assert post(gateway, "/metrics", coded, "gzip").status == 202
    assert gateway.post("/metrics", METRICS).status == 202
    assert gateway.metric("ingest_coded_bytes_total") == len(coded)
    assert gateway.metric("ingest_inflated_bytes_total") == len(body)
    assert gateway.metric("ingest_request_bytes_total") == 2 * len(body)


# -- bombs ----------------------------------------------------------------------------------------


def peak_rss(gateway: Gateway) -> int:
    """The most memory the process ever had resident, in bytes."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


#: What one body may cost: its coded and its inflated size, each once more while they are
#: joined, and a window of 8 MiB.
def bound(gateway_body_max: int, coded: int) -> int:
    return 2 * (gateway_body_max + coded) + 9 * MIB


@pytest.mark.parametrize("bomb", [gzip_bomb, deflate_bomb, zstd_bomb])
@pytest.mark.parametrize("path", ["/v1/events/metrics", "/v1/batch/metrics"])
def test_a_bomb_of_ten_gigabytes_costs_no_more_than_the_bound(
    gateway: Gateway, bomb: Callable[[int], bytes], path: str
) -> None:
    body = bomb(10 << 30)
    coding = bomb.__name__.removesuffix("_bomb")
    assert post(gateway, path, CODERS[coding](json.dumps(METRICS).encode()), coding).status in (
        202,
        400,
    )
    before = peak_rss(gateway)
    for _ in range(3):
        answer = post(gateway, path, body, coding)
        assert answer.status == 413
        assert answer.json()["code"] in ("inflated_too_large", "event_too_large")
    assert peak_rss(gateway) - before < bound(16 * MIB, len(body))
    assert stored(gateway) == stored(gateway)[:1]


def test_many_bombs_at_a_time_cost_as_much_as_there_are_residents(
    new_gateway: type[Gateway],
) -> None:
    residents = 4
    gateway = new_gateway(
        "--pool-residents", str(residents), "--inflate-ratio-max", "1000000",
    )  # fmt: skip
    bomb = zstd_bomb(10 << 30)
    assert post(gateway, "/v1/events/metrics", zstd.compress(b"\n"), "zstd", NDJSON).status == 202
    before = peak_rss(gateway)
    with ThreadPoolExecutor(32) as threads:
        answers = list(
            threads.map(
                lambda _: post(gateway, "/v1/events/metrics", bomb, "zstd", NDJSON), range(64)
            )
        )
    assert {answer.json()["code"] for answer in answers} == {"inflated_too_large"}
    waiting = 32 * 2 * len(bomb)
    assert peak_rss(gateway) - before < residents * bound(16 * MIB, len(bomb)) + waiting


def test_bombs_for_a_type_with_a_handler_wait_for_each_other(
    new_gateway: type[Gateway], tmp_path: Path
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "metrics.py").write_text("def handle(event):\n    pass\n")
    gateway = new_gateway(
        "--handlers", str(tmp_path / "handlers"), "--inflate-ratio-max", "1000000",
    )  # fmt: skip
    bomb = zstd_bomb(10 << 30)
    before = peak_rss(gateway)
    with ThreadPoolExecutor(32) as threads:
        answers = list(
            threads.map(
                lambda _: post(gateway, "/v1/events/metrics", bomb, "zstd", NDJSON), range(64)
            )
        )
    assert {answer.json()["code"] for answer in answers} == {"inflated_too_large"}
    waiting = 32 * 2 * len(bomb)
    assert peak_rss(gateway) - before < 4 * bound(16 * MIB, len(bomb)) + waiting


# -- answers --------------------------------------------------------------------------------------

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
}
READ = ("/metrics", "/v1/schemas/order", "/openapi.json")


@pytest.mark.parametrize("coding", DECODERS)
@pytest.mark.parametrize("path", READ)
def test_large_answers_are_compressed_for_who_accepts_it(
    gateway: Gateway, path: str, coding: str
) -> None:
    plain = gateway.request("GET", path)
    answer = gateway.request("GET", path, headers={"Accept-Encoding": coding})
    assert (answer.status, answer.headers["content-encoding"]) == (200, coding)
    assert "content-encoding" not in plain.headers
    for one in (plain, answer):
        assert "Accept-Encoding" in one.headers["vary"]
        assert one.headers["content-type"] == plain.headers["content-type"]
    assert len(answer.body) < len(plain.body) / 2
    content = DECODERS[coding](answer.body)
    if path != "/metrics":  # it changes from one answer to the next
        assert content == plain.body
    head = gateway.request("HEAD", path, headers={"Accept-Encoding": coding})
    assert head.headers["content-encoding"] == coding
    assert gateway.metric(f'ingest_answers_compressed_total{{coding="{coding}"}}') == 2


def test_an_answer_goes_plain_to_who_accepts_no_coding_of_ours(gateway: Gateway) -> None:
    for field in ("br", "identity;q=0", "gzip;q=0, *;q=0", "gzip;q=none"):
        answer = gateway.request("GET", "/openapi.json", headers={"Accept-Encoding": field})
        assert (answer.status, "content-encoding" in answer.headers) == (200, False)


def test_small_answers_stay_plain(new_gateway: type[Gateway]) -> None:
    gateway = new_gateway("--compress-min", "1MiB")
    for path in READ:
        answer = gateway.request("GET", path, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in answer.headers
        assert "Accept-Encoding" in answer.headers["vary"]


def test_errors_are_never_compressed_and_never_406(gateway: Gateway) -> None:
    fields = {"Accept-Encoding": "gzip, identity;q=0", "Accept": "image/png"}
    answer = gateway.request("GET", f"/{'a' * 3000}", headers=fields)
    assert (answer.status, "content-encoding" in answer.headers) == (404, False)
    assert answer.json()["code"] == "not_found"


def test_a_tag_is_good_for_the_coding_it_came_with(gateway: Gateway) -> None:
    tags = {}
    for coding in ("", "gzip", "zstd"):
        fields = {"Accept-Encoding": coding}
        first = gateway.request("GET", "/openapi.json", headers=fields)
        tags[coding] = first.headers["etag"]
        again = gateway.request(
            "GET", "/openapi.json", headers={**fields, "If-None-Match": tags[coding]}
        )
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == tags[coding]
        assert again.headers["vary"] == "Accept-Encoding"
    assert len(set(tags.values())) == 3
    other = gateway.request(
        "GET", "/openapi.json", headers={"Accept-Encoding": "gzip", "If-None-Match": tags["zstd"]}
    )
    assert other.status == 200
