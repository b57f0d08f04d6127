"""The outcome of a request with many events: ids in whatever order they become known."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ingest.batch import Batch
from ingest.errors import IngestError

ENDS = [b"%02d" % number for number in range(100)]


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["run", "each", "none"]))))
def test_ids_stand_in_the_answer_by_position_however_they_were_noted(
    parts: list[tuple[int, str]],
) -> None:
    size = sum(count for count, _ in parts)
    batch = Batch(10, size)
    expected: list[str | None] = []
    for count, how in parts:
        at = len(expected)
        if how == "run":
            batch.stored_as(at, (b"id%d-" % at, ENDS[:count]))
            expected += [f"id{at}-{end.decode()}" for end in ENDS[:count]]
        elif how == "each":
            for index in range(at, at + count):
                batch.ids[index] = b"own%d" % index
                expected.append(f"own{index}")
        else:
            batch.rejected_count += count
            expected += [None] * count
    answer = json.loads(batch.answer(list_ids=True))
    assert answer["ids"] == expected
    assert answer["accepted"] == size - expected.count(None)
    assert batch.ids == [None if one is None else one.encode() for one in expected]


def test_of_ids_noted_together_single_ones_can_be_lost() -> None:
    batch = Batch(10, 6)
    batch.stored_as(0, (b"a", ENDS[:3]))
    batch.stored_as(3, (b"b", ENDS[:3]))
    batch.not_stored({1: IngestError("sink_refused"), 4: IngestError("sink_refused")})
    answer = json.loads(batch.answer(list_ids=True))
    assert answer["ids"] == ["a00", None, "a02", "b00", None, "b02"]
    assert [error["index"] for error in answer["errors"]] == [1, 4]
    assert (answer["accepted"], answer["rejected"]) == (4, 2)
