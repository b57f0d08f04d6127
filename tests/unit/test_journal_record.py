"""Lines and ids."""

import json
import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from ingest.journal.record import (
    LINE_END,
    LINE_START,
    TIME_MAX_MS,
    IdSource,
    data_of,
    head_of,
    lines_of,
    middle,
    time_text,
)

UUID7 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Clock:
    """A clock that shows what it is told to, in seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def ids_at(seconds: float, random: int = 0) -> tuple[IdSource, Clock]:
    clock = Clock(seconds)
    return IdSource(clock, lambda bits: random & ((1 << bits) - 1)), clock


def test_a_line_is_a_cloud_event_that_holds_the_producers_bytes() -> None:
    part = middle("/gate", "metrics", time_text(1_795_000_000_456), "/v1/schemas/metrics?version=1")
    line = LINE_START + b"an-id" + part + b'{"value":0.10000000000000000000001}' + LINE_END
    assert json.loads(line) == {
        "specversion": "1.0",
        "id": "an-id",
        "source": "/gate",
        "type": "metrics",
        "time": "2026-11-18T11:06:40.456Z",
        "datacontenttype": "application/json",
        "dataschema": "/v1/schemas/metrics?version=1",
        "data": {"value": 0.1},
    }
    assert line.endswith(b'"data":{"value":0.10000000000000000000001}}\n')


def test_a_traceparent_stands_before_the_data_and_only_when_given() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert f',"traceparent":"{parent}","data":'.encode() in middle("/", "t", "", "/s", parent)
    assert b"traceparent" not in middle("/", "t", "", "/s")


@given(st.text(), st.text())
def test_any_source_and_schema_are_escaped_so_that_the_head_can_be_taken_apart(
    source: str, schema: str
) -> None:
    line = LINE_START + b"i" + middle(source, "t", time_text(0), schema) + b"[1]" + LINE_END
    record = json.loads(line)
    head = head_of(line)
    assert head is not None
    assert (record["source"], record["dataschema"], record["data"]) == (source, schema, [1])
    assert (head.id, head.type, head.time) == (b"i", b"t", b"1970-01-01T00:00:00.000Z")
    assert json.loads(b'"%s"' % head.source) == source
    assert data_of(line.rstrip(b"\n")) == b"[1]"


def test_what_is_not_a_record_has_no_head_and_no_data() -> None:
    assert head_of(b'{"id":"x"}') is None
    assert data_of(b'{"id":"x"}') == b""


@given(st.integers(0, TIME_MAX_MS), st.integers(0, TIME_MAX_MS))
def test_times_sort_as_text_as_they_do_as_numbers(one: int, other: int) -> None:
    assert (one < other) == (time_text(one) < time_text(other))


def test_an_id_is_a_uuid_of_version_7_with_the_clocks_millisecond() -> None:
    source, _ = ids_at(1_795_000_000.456, random=(1 << 61) - 1)
    made = source.next()
    assert UUID7.fullmatch(made)
    parsed = uuid.UUID(made.decode())
    assert parsed.version == 7 and parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == 1_795_000_000_456 == source.ms


@given(
    st.integers(0, (1 << 61) - 1),
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0004, 0.001, 1.0, -0.001, -3600.0]), max_size=300),
)
def test_ids_grow_and_times_do_not_fall_whatever_the_clock_does(
    random: int, steps: list[float]
) -> None:
    source, clock = ids_at(1_795_000_000.0, random)
    made = [source.next()]
    times = [source.ms]
    for step in steps:
        clock.seconds += step
        made.append(source.next())
        times.append(source.ms)
    assert all(UUID7.fullmatch(one) for one in made)
    assert made == sorted(set(made))
    assert times == sorted(times)


def test_a_clock_that_goes_on_is_followed() -> None:
    source, clock = ids_at(1000.0)
    source.next()
    clock.seconds = 1000.25
    assert uuid.UUID(source.next().decode()).int >> 80 == 1_000_250 == source.ms


def test_more_ids_in_a_millisecond_than_the_low_digits_hold_still_grow() -> None:
    source, _ = ids_at(1000.0, random=7)
    made = [source.next() for _ in range(3 * 4096 + 5)]
    assert made == sorted(set(made))


def test_a_counter_that_is_used_up_borrows_from_the_next_millisecond() -> None:
    last = b"00000000-%04x-7000-8000-ffffffffffff" % 1000
    source, _ = ids_at(1.0)
    source.resume(last)
    assert source.next() > last
    assert source.ms == 1001


def test_ids_continue_after_the_last_one_of_the_journal() -> None:
    source, clock = ids_at(2000.0)
    before = source.next()
    clock.seconds = 1000.0
    restarted = IdSource(clock, lambda bits: 0)
    assert restarted.resume(before), "it lies ahead of the clock"
    after = restarted.next()
    assert after > before
    assert restarted.ms == 2_000_000
    clock.seconds = 3000.0
    assert restarted.next() > after
    assert restarted.ms == 3_000_000


def test_an_older_id_or_one_that_is_not_ours_changes_nothing() -> None:
    source, clock = ids_at(2000.0)
    before = source.next()
    clock.seconds = 500.0
    older, _ = ids_at(1000.0)
    assert not source.resume(older.next())
    assert not source.resume(b"order-17")
    assert not source.resume(b"ffffffff-ffff-7000-8000-000000000000")  # after the year 9999
    assert source.next() > before
    assert source.ms == 2_000_000


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=4), st.integers(0, (1 << 61) - 1))
def test_ids_taken_together_are_those_that_come_one_by_one(counts: list[int], bits: int) -> None:
    together, _ = ids_at(1_795_000_000.0, bits)
    one_by_one, _ = ids_at(1_795_000_000.0, bits)
    taken = [event_id for count in counts for event_id in together.take(count)]
    assert taken == [one_by_one.next() for _ in taken]
    assert taken == sorted(set(taken))
    assert together.next() > taken[-1]


def test_ids_taken_together_share_a_millisecond_even_where_the_counter_ends() -> None:
    source, _ = ids_at(1_795_000_000.0, (1 << 61) - 1)
    source._high = (1 << 36) - 1
    source._prefix = source._fixed + b"%09x" % source._high
    source.next()
    ms = source.ms
    taken = source.take(5000)
    assert source.ms == ms + 1
    assert len(set(taken)) == 5000 and taken == sorted(taken)
    assert {event_id[:13] for event_id in taken} == {taken[0][:13]}


@given(
    st.lists(st.tuples(st.integers(1, 4096), st.booleans()), min_size=1, max_size=9),
    st.integers(0, (1 << 61) - 1),
)
def test_runs_of_ids_grow_among_themselves_and_with_ids_made_one_by_one(
    counts: list[tuple[int, bool]], bits: int
) -> None:
    source, clock = ids_at(1_795_000_000.0, bits)
    made = []
    for count, later in counts:
        start, ends = source.run(count)
        assert len(ends) == count
        made += [start + end for end in ends]
        made.append(source.next())
        clock.seconds += later
    assert all(UUID7.fullmatch(one) for one in made)
    assert made == sorted(set(made))


def test_a_run_of_ids_is_of_one_millisecond_even_where_the_counter_ends() -> None:
    source, clock = ids_at(1_795_000_000.0, (1 << 61) - 1)
    source._high = (1 << 36) - 1
    source._prefix = source._fixed + b"%09x" % source._high
    before, ms = source.next(), source.ms
    start, ends = source.run(4096)
    assert (source.ms, start[:13], len(ends)) == (
        ms + 1,
        b"%08x-%04x" % divmod(ms + 1, 65536),
        4096,
    )
    assert before < start + ends[0]
    clock.seconds += 1
    assert source.run(1)[0][:13] == b"%08x-%04x" % divmod(1_795_000_001_000, 65536)


def test_lines_made_together_are_those_made_one_by_one() -> None:
    between = middle("/s", "a", time_text(0), "/v1/schemas/a?version=1")
    ids, raws = (b"7", [b"1", b"2", b"3"]), [b"{}", b"[1]", b'"x"']
    assert lines_of(ids, between, raws) == b"".join(
        LINE_START + b"7" + end + between + raw + LINE_END
        for end, raw in zip(ids[1], raws, strict=True)
    )
