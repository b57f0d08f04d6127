"""Commit marks: written, found again, and not taken for one another."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.journal.frame import Commit, Damage, Scanner, mark


def line(data: object) -> bytes:
    return b'{"data":' + json.dumps(data).encode() + b"}\n"


def segment(batches: list[list[object]], base: int = 0) -> tuple[bytes, list[Commit]]:
    """The bytes of a segment, and the commits it should be read as."""
    written = b""
    commits = []
    offset = base
    for batch in batches:
        body = b"".join(map(line, batch))[:-2]
        tail = mark(body, offset, len(batch), len(written))
        end = len(written) + len(body) + len(tail)
        commits.append(Commit(offset, len(batch), len(written), end, body))
        written += body + tail
        offset += len(batch)
    return written, commits


def scan(data: bytes, base: int = 0, step: int = 1 << 20) -> tuple[list[Commit | Damage], Scanner]:
    scanner = Scanner(base)
    found: list[Commit | Damage] = []
    for start in range(0, len(data), step):
        found += scanner.feed(data[start : start + step])
    return found, scanner


BATCHES: list[list[object]] = [[1], [{"a": "b"}, [2, 3]], ["x" * 200], [None, True, "ü"]]


def test_every_line_of_a_segment_is_json_and_the_last_of_a_commit_bears_the_mark() -> None:
    written, commits = segment(BATCHES, base=40)
    records = [json.loads(one) for one in written.splitlines()]
    assert [record["data"] for record in records] == [data for batch in BATCHES for data in batch]
    marked = [record["ingestcommit"].split(" ") for record in records if "ingestcommit" in record]
    assert [(int(m[0]), int(m[1]), int(m[2]), int(m[3])) for m in marked] == [
        (c.first, c.records, c.start, len(c.body)) for c in commits
    ]


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit as its definition has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_mark_is_what_the_page_on_the_format_says() -> None:
    assert crc32c(b"123456789") == 0xE3069283, "the check value of CRC-32C"
    body = b'{"data":1'
    numbers = b',"ingestcommit":"7 1 0 9 '
    assert mark(body, 7, 1, 0) == numbers + b'%08x"}\n' % crc32c(body + numbers)


def test_a_commit_reads_back_as_the_lines_that_were_appended() -> None:
    written, _ = segment(BATCHES)
    found, scanner = scan(written)
    commits = [item for item in found if isinstance(item, Commit)]
    assert b"".join(commit.text for commit in commits) == b"".join(
        line(data) for batch in BATCHES for data in batch
    )
    assert [one for commit in commits for one in commit.lines] == [
        line(data)[:-1] for batch in BATCHES for data in batch
    ]
    assert (scanner.position, scanner.next_offset, scanner.rest) == (len(written), 7, b"")


@given(
    st.lists(st.lists(st.text() | st.integers(), min_size=1, max_size=4), max_size=6),
    st.integers(1, 400),
    st.integers(0, 10**12),
)
def test_commits_are_found_however_the_bytes_are_cut_up(
    batches: list[list[object]], step: int, base: int
) -> None:
    written, commits = segment(batches, base)
    found, scanner = scan(written, base, step)
    assert found == commits
    assert scanner.next_offset == base + sum(map(len, batches))


FORGERIES: list[object] = [
    ',"ingestcommit":"0 1 0 9 00000000"}\n',
    {"a": 1, "ingestcommit": "0 1 0 9 00000000"},
    {"a": {"ingestcommit": "0 1 0 9 00000000"}},
    [{"ingestcommit": "0 1 0 9 00000000"}],
    '"ingestcommit":"',
]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_payload_cannot_forge_a_mark(forgery: object) -> None:
    batches: list[list[object]] = [[1], [forgery, forgery], [forgery]]
    written, commits = segment(batches)
    assert scan(written)[0] == commits
    body = line(forgery)
    found, scanner = scan(written + body)
    assert found == commits, "the forged line ends no commit"
    assert scanner.rest == body


def test_an_unfinished_end_is_the_rest_and_no_damage() -> None:
    written, commits = segment(BATCHES)
    for end in range(len(written)):
        found, scanner = scan(written[:end])
        whole = [commit for commit in commits if commit.end <= end]
        assert found == whole
        assert scanner.position + len(scanner.rest) == end


def test_any_changed_bit_costs_exactly_the_commit_it_is_in() -> None:
    written, commits = segment(BATCHES)
    for byte in range(len(written)):
        for bit in range(8):
            changed = bytearray(written)
            changed[byte] ^= 1 << bit
            found, scanner = scan(bytes(changed))
            hit = next(n for n, commit in enumerate(commits) if byte < commit.end)
            kept = [item for item in found if isinstance(item, Commit)]
            assert kept == commits[:hit] + commits[hit + 1 :], (byte, bit)
            damage = [item for item in found if isinstance(item, Damage)]
            if hit + 1 < len(commits):
                ((start, end, offset, reason),) = damage
                assert (start, end, offset) == (*commits[hit][2:4], commits[hit].first)
                # a changed quote or line feed may leave nothing that looks like a mark
                assert reason or scanner.next_offset == 7
            else:
                assert not damage and scanner.position == commits[hit].start


def test_zeros_cost_the_commits_they_cover_and_no_other() -> None:
    written, commits = segment(BATCHES)
    start, end = commits[1].start + 5, commits[2].start + 7
    found, _ = scan(written[:start] + bytes(end - start) + written[end:])
    assert [item for item in found if isinstance(item, Commit)] == [commits[0], commits[3]]
    assert [item[:3] for item in found if isinstance(item, Damage)] == [
        (commits[1].start, commits[2].end, 1)
    ]


def test_a_commit_copied_to_another_place_does_not_count() -> None:
    written, commits = segment(BATCHES)
    second = written[commits[1].start : commits[1].end]
    found, scanner = scan(written + second)
    assert found == commits
    assert scanner.rest == second and "other bytes" in scanner.reason


def test_a_commit_that_claims_bytes_of_the_one_before_does_not_count() -> None:
    written, commits = segment([[1]])
    body = written + line(2)[:-2]
    overlapping = body + mark(body, 1, 2, 0)
    found, scanner = scan(overlapping)
    assert found == commits
    assert "other bytes" in scanner.reason


def test_a_commit_with_another_offset_than_is_due_does_not_count() -> None:
    written, _ = segment(BATCHES, base=5)
    found, _ = scan(written, base=4)
    assert isinstance(found[0], Damage)
    assert "offset 5 where 4 belongs" in found[0].reason
    assert scan(written, base=100)[0] == []


def test_a_count_that_is_not_the_number_of_lines_does_not_count() -> None:
    body = b"".join(map(line, [1, 2]))[:-2]
    found, scanner = scan(body + mark(body, 0, 3, 0))
    assert found == [] and "3 records" in scanner.reason


def test_a_lost_piece_in_the_middle_makes_what_follows_stand_at_the_wrong_byte() -> None:
    written, commits = segment(BATCHES)
    shortened = written[: commits[0].end + 3] + written[commits[0].end + 4 :]
    found, scanner = scan(shortened)
    assert found == commits[:1]
    assert scanner.rest == shortened[commits[0].end :]
