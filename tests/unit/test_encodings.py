"""Content codings: what a body inflates to, where it stops, and what an answer is sent in."""

import gzip
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.encodings import (
    ANSWER_CODINGS,
    CHUNK_BYTES,
    MEMBERS_MAX,
    PIECE_BYTES,
    RATIO_FLOOR_BYTES,
    REQUEST_CODINGS,
    Bounds,
    codings_of,
    compress,
    inflate,
    negotiate,
    zstd,
)
from ingest.errors import IngestError
from ingest.representations import Document, is_current
from tests.support.codings import deflate_bomb, gzip_bomb, zstd_bomb

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
BOUNDS = Bounds(4 << 20, 100)
#: Incompressible, so that every coding of it takes more than one piece.
NOISE = random.Random(3).randbytes(5 * PIECE_BYTES)


def inflated(body: bytes, *codings: str, bounds: Bounds = BOUNDS) -> bytes:
    chunks = list(inflate(body, codings, bounds))
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    return b"".join(chunks)


def refusal(body: bytes, *codings: str, bounds: Bounds = BOUNDS) -> tuple[str, str]:
    with pytest.raises(IngestError) as caught:
        inflated(body, *codings, bounds=bounds)
    return caught.value.code, caught.value.detail


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
@given(body=st.binary(max_size=2000), repeats=st.integers(1, 200))
def test_what_was_coded_comes_back(coding: str, body: bytes, repeats: int) -> None:
    body *= repeats
    assert inflated(CODERS[coding](body), coding, bounds=Bounds(len(body), 1_000_000)) == body


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 1 << 20])
def test_long_runs_come_back_chunk_by_chunk(coding: str, size: int) -> None:
    body = b"a" * size
    assert inflated(CODERS[coding](body), coding, bounds=Bounds(size, 1_000_000)) == body


@pytest.mark.parametrize("inner", REQUEST_CODINGS)
@pytest.mark.parametrize("outer", REQUEST_CODINGS)
def test_two_codings_are_undone_in_reverse_order(inner: str, outer: str) -> None:
    assert inflated(CODERS[outer](CODERS[inner](NOISE)), inner, outer) == NOISE


# -- the ends of a body --------------------------------------------------------------------------


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
def test_a_body_that_ends_early_is_malformed_wherever_it_is_cut(coding: str) -> None:
    coded = CODERS[coding](b"some event" * 3)
    for end in range(1, len(coded)):
        assert refusal(coded[:end], coding)[0] == "malformed_encoding", end
    assert refusal(CODERS[coding](NOISE)[:-1], coding) == (
        "malformed_encoding",
        f"The body is not {coding}: it ends early.",
    )


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
@pytest.mark.parametrize("garbage", [b"x", b"\0", b"\0" * 512, b"{}", NOISE])
def test_what_stands_behind_the_end_is_malformed(coding: str, garbage: bytes) -> None:
    assert refusal(CODERS[coding](b"{}") + garbage, coding)[0] == "malformed_encoding"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_that_follow_each_other_are_one_body(coding: str) -> None:
    parts = [b"", b"a", NOISE, b"b" * 10]
    assert inflated(b"".join(map(CODERS[coding], parts)), coding) == b"".join(parts)
    assert inflated(CODERS[coding](b"a") * MEMBERS_MAX, coding) == b"a" * MEMBERS_MAX


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_are_bounded_because_each_costs_a_decoder(coding: str) -> None:
    for content in (b"", b"a"):
        code, detail = refusal(CODERS[coding](content) * (MEMBERS_MAX + 1), coding)
        assert (code, str(MEMBERS_MAX) in detail) == ("malformed_encoding", True)


def test_a_zlib_stream_has_one_end_only() -> None:
    assert refusal(zlib.compress(b"a") * 2, "deflate")[0] == "malformed_encoding"


def test_frames_to_be_skipped_are_skipped() -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    assert inflated(skipped + zstd.compress(b"a") + skipped, "zstd") == b"a"
    assert refusal(zstd.compress(b"a") + skipped[:-1], "zstd")[0] == "malformed_encoding"


# -- what is not of the coding -------------------------------------------------------------------


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
@given(body=st.binary(min_size=1, max_size=300))
def test_any_bytes_inflate_or_are_refused(coding: str, body: bytes) -> None:
    try:
        inflated(body, coding)
    except IngestError as error:
        assert error.code in ("malformed_encoding", "inflated_too_large")


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
@given(data=st.data())
def test_a_flipped_bit_never_passes_for_something_else(coding: str, data: st.DataObject) -> None:
    content = b'{"metrics":[{"name":"a","value":1}]}' * 20
    options = {zstd.CompressionParameter.checksum_flag: 1}
    coded = zstd.compress(content, options=options) if coding == "zstd" else CODERS[coding](content)
    at = data.draw(st.integers(0, 8 * len(coded) - 1))
    damaged = bytearray(coded)
    damaged[at // 8] ^= 1 << (at % 8)
    try:
        # gzip's header has fields that say nothing about the content, so this can be right
        assert inflated(bytes(damaged), coding) == content
    except IngestError as error:
        assert error.code in ("malformed_encoding", "inflated_too_large")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", zlib.compress(b"{}")),
        ("gzip", b"{}"),
        ("deflate", gzip.compress(b"{}")),
        ("deflate", zlib.compress(b"{}", wbits=-15)),  # raw: no checksum
        ("zstd", gzip.compress(b"{}")),
    ],
)
def test_another_format_under_its_name_is_malformed(coding: str, body: bytes) -> None:
    assert refusal(body, coding)[0] == "malformed_encoding"


def test_a_stream_that_needs_a_dictionary_is_malformed() -> None:
    coder = zlib.compressobj(zdict=b"metrics")
    assert refusal(coder.compress(b"metrics") + coder.flush(), "deflate")[0] == "malformed_encoding"
    dictionary = zstd.train_dict([NOISE[n : n + 500] for n in range(0, 9000, 500)], 2000)
    coded = zstd.compress(NOISE[:999], zstd_dict=dictionary)
    assert refusal(coded, "zstd")[0] == "malformed_encoding"


def test_a_window_of_8_mib_is_taken_and_a_larger_one_is_not() -> None:
    body = NOISE * 130  # more than the window, or the encoder would choose a smaller one
    bounds = Bounds(16 << 20, 1000)
    log = zstd.CompressionParameter.window_log
    assert inflated(zstd.compress(body, options={log: 23}), "zstd", bounds=bounds) == body
    code, detail = refusal(zstd.compress(body, options={log: 24}), "zstd", bounds=bounds)
    assert code == "malformed_encoding"
    assert detail == "The body is not zstd: a window of more than 8388608 bytes."


# -- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
def test_the_bound_on_size_is_exact(coding: str) -> None:
    coded = CODERS[coding](NOISE)
    assert inflated(coded, coding, bounds=Bounds(len(NOISE), 100)) == NOISE
    short = Bounds(len(NOISE) - 1, 100)
    assert refusal(coded, coding, bounds=short)[0] == "inflated_too_large"
    assert refusal(coded, coding, bounds=short._replace(code="event_too_large"))[0] == (
        "event_too_large"
    )


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
def test_the_ratio_counts_past_the_floor_only(coding: str) -> None:
    assert inflated(CODERS[coding](bytes(RATIO_FLOOR_BYTES)), coding, bounds=Bounds(1 << 20, 1))
    code, detail = refusal(CODERS[coding](bytes(RATIO_FLOOR_BYTES + 1)), coding)
    assert (code, "100 times" in detail) == ("inflated_too_large", True)


@pytest.mark.parametrize("coding", REQUEST_CODINGS)
def test_the_ratio_is_exact(coding: str) -> None:
    body = b"".join(b'{"name":"m%06d","value":%d}' % (n, n % 7) for n in range(9000))
    coded = CODERS[coding](body)
    ratio = len(body) // len(coded)
    assert ratio >= 4
    assert refusal(coded, coding, bounds=Bounds(1 << 20, ratio))[0] == "inflated_too_large"
    assert inflated(coded, coding, bounds=Bounds(1 << 20, ratio + 1)) == body


@pytest.mark.parametrize("bomb", [gzip_bomb, deflate_bomb, zstd_bomb])
def test_a_bomb_is_left_at_the_bound(bomb: Callable[[int], bytes]) -> None:
    coding = bomb.__name__.removesuffix("_bomb")
    chunks = inflate(bomb(1 << 30), (coding,), Bounds(4 << 20, 1_000_000))
    size = 0
    with pytest.raises(IngestError, match="More than 4194304 bytes"):
        for chunk in chunks:
            size += len(chunk)
    assert size <= 4 << 20


def test_what_is_between_two_codings_is_bounded_too() -> None:
    # The outer layer holds 32 MiB of frames that the inner one would skip: no output at all.
    frame = b"\x50\x2a\x4d\x18" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20)
    coder = zlib.compressobj(9, wbits=31)
    outer = b"".join(coder.compress(frame) for _ in range(32)) + coder.flush()
    assert refusal(outer, "zstd", "gzip", bounds=Bounds(4 << 20, 1_000_000)) == (
        "inflated_too_large",
        "More than 4194304 bytes when inflated.",
    )


# -- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "codings"),
    [
        ("gzip", ("gzip",)),
        ("GZip", ("gzip",)),
        ("x-gzip", ("gzip",)),
        ("deflate", ("deflate",)),
        ("zstd", ("zstd",)),
        ("identity", ()),
        ("", ()),
        (" , identity ,, gzip", ("gzip",)),
        ("gzip, zstd", ("gzip", "zstd")),
    ],
)
def test_content_encoding_names_the_codings_in_order(field: str, codings: tuple[str, ...]) -> None:
    assert codings_of(field) == codings


@pytest.mark.parametrize(
    "field",
    ["br", "compress", "x-compress", "gzip;q=1", "*", "gzip, br", "zstd, gzip, gzip", "gz ip"],
)
def test_other_codings_and_a_third_one_are_415_with_what_is_taken(field: str) -> None:
    with pytest.raises(IngestError) as caught:
        codings_of(field)
    assert caught.value.code == "unsupported_encoding"
    assert caught.value.headers == {"Accept-Encoding": "zstd, gzip, deflate, identity"}


@pytest.mark.parametrize(
    ("field", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd, gzip;q=0.9", "zstd"),
        ("zstd;q=0.8, gzip", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=0.000, zstd;q=0.001", "zstd"),
        ("*", "zstd"),
        ("*;q=0", ""),
        ("zstd;q=0, *", "gzip"),
        ("*;q=0.5, gzip", "gzip"),
        ("identity", ""),
        ("identity;q=0.5, gzip;q=0.4", ""),
        ("identity;q=0.4, gzip;q=0.5", "gzip"),
        ("identity;q=0", ""),  # there is nothing else to send, and 406 would help nobody
        ("identity;q=0, *;q=0", ""),
        ("br, deflate", ""),
        ("GZIP ; Q=0.3", "gzip"),
        ("gzip;q=2", ""),
        ("gzip;q=-1", ""),
        ("gzip;q=nan", ""),
        ("gzip;level=9", ""),
        ("gzip;q=x, zstd", "zstd"),
        (",;,q=1,;q=1", ""),
    ],
)
def test_accept_encoding_decides_with_its_weights(field: str, coding: str) -> None:
    assert negotiate(field) == coding


@given(st.text(alphabet="gzipstd*;q=01., \tx-", max_size=60))
def test_any_accept_encoding_gives_an_answer(field: str) -> None:
    assert negotiate(field) in ("", *ANSWER_CODINGS)


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ANSWER_CODINGS)
def test_an_answer_compressed_is_the_answer(coding: str) -> None:
    body = Path("schemas/order.json").read_bytes()
    coded = compress(body, coding)
    assert inflated(coded, coding) == body
    assert len(coded) < len(body) / 2


def test_each_representation_has_a_strong_tag_of_its_own() -> None:
    document = Document(b"a" * 2000, "text/plain")
    tags = [document.select(coding).tag for coding in ("", *ANSWER_CODINGS)]
    assert len(set(tags)) == 3
    assert not any(tag.startswith("W/") for tag in tags)
    assert document.select("gzip") is document.select("gzip")
    assert Document(b"b" * 2000, "text/plain").select("gzip").tag != document.select("gzip").tag


def test_a_document_that_compression_would_lengthen_stays_plain() -> None:
    document = Document(b"a", "text/plain")
    assert document.select("gzip") == document.select("")
    assert document.select("gzip").coding == ""


def test_if_none_match_is_compared_weakly() -> None:
    assert is_current('"a"', '"a"')
    assert is_current('"b", W/"a"', '"a"')
    assert is_current(" * ", '"a"')
    assert not is_current("", '"a"')
    assert not is_current('"a-gzip"', '"a"')
