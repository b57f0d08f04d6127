"""The metrics: cells, bounded labels, and an exposition that the official parsers read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ingest.errors import CATALOGUE as ERRORS
from ingest.metrics import CATALOGUE, Metrics
from ingest.metrics_cells import CELLS_MAX, LABEL_VALUE_MAX, HistogramCell

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def samples(metrics: Metrics, accept: str | None = None) -> dict[tuple[str, frozenset], float]:
    """Every sample of the exposition by name and labels, as the format's own parser sees it."""
    body, content_type = metrics.render(accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def value(found: dict, name: str, **labels: str) -> float:
    return found[(name, frozenset(labels.items()))]


@pytest.fixture(params=[None, OPENMETRICS], ids=["text", "openmetrics"])
def accept(request: pytest.FixtureRequest) -> str | None:
    return request.param


def test_what_was_counted_is_what_the_formats_parser_reads(accept: str | None) -> None:
    metrics = Metrics()
    metrics.requests.cell("order", "202").value += 3
    metrics.pool_refused.value += 2
    metrics.hub_lag_last_seconds.value = 0.25
    metrics.info.cell("1.2.3").value = 1
    metrics.connections.set_function(lambda: 7)
    found = samples(metrics, accept)
    assert value(found, "ingest_requests_total", type="order", status="202") == 3
    assert value(found, "ingest_pool_refused_total") == 2
    assert value(found, "ingest_hub_lag_last_seconds") == 0.25
    assert value(found, "ingest_info", version="1.2.3") == 1
    assert value(found, "ingest_connections") == 7


def test_a_histogram_is_cumulative_with_inclusive_bounds(accept: str | None) -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.0001, 0.00011, 0.0002, 99.0):
        metrics.request_duration.observe(seconds)
    found = samples(metrics, accept)
    bucket = "ingest_request_duration_seconds_bucket"
    assert value(found, bucket, le="0.0001") == 2
    assert value(found, bucket, le="0.0002") == 4
    assert value(found, bucket, le="26.2144") == 4
    assert value(found, bucket, le="+Inf") == 5
    assert value(found, "ingest_request_duration_seconds_count") == 5
    assert value(found, "ingest_request_duration_seconds_sum") == pytest.approx(99.00041)


def test_a_labelled_histogram_keeps_its_labels_apart(accept: str | None) -> None:
    metrics = Metrics()
    metrics.handler_seconds.cell("a").observe(1.0)
    metrics.handler_seconds.cell("b").observe(2.0)
    metrics.handler_seconds.cell("b").observe(3.0)
    found = samples(metrics, accept)
    assert value(found, "ingest_handler_seconds_sum", type="a") == 1.0
    assert value(found, "ingest_handler_seconds_count", type="b") == 2


@given(st.lists(st.floats(min_value=-1e9, max_value=1e9), max_size=50))
def test_each_value_lands_in_the_first_bucket_that_holds_it(observed: list[float]) -> None:
    cell = HistogramCell((0.5, 1.0, 8.0))
    for number in observed:
        cell.observe(number)
    expected = [(b, sum(v <= b for v in observed)) for b in (0.5, 1.0, 8.0, math.inf)]
    assert list(cell.buckets()) == expected
    assert cell.count == len(observed)


@given(st.lists(st.integers(0, 90), max_size=50))
def test_ages_are_counted_at_once_as_one_by_one(since: list[int]) -> None:
    now = 80.0  # what is later counts as now
    one_by_one, at_once = HistogramCell((0.0, 8.0, 64.0)), HistogramCell((0.0, 8.0, 64.0))
    for moment in since:
        one_by_one.observe(now - moment)
    at_once.observe_ages(now, list(map(float, since)))
    assert at_once.counts == one_by_one.counts
    if all(moment <= now for moment in since):
        assert at_once.sum == one_by_one.sum


def test_a_clock_that_was_set_back_does_not_make_the_sum_fall() -> None:
    cell = HistogramCell((1.0,))
    cell.observe(2.0)
    cell.observe(-3600.0)
    assert (cell.sum, cell.counts) == (2.0, [1, 1])


def test_every_family_is_in_the_exposition_with_its_declared_type(accept: str | None) -> None:
    metrics = Metrics()
    body, _ = metrics.render(accept)
    parse = parse_openmetrics if accept else parse_text
    shown = {family.name: family for family in parse(body.decode())}
    for family in CATALOGUE:
        assert shown[family.name].type == family.kind, family.name
        assert shown[family.name].documentation == family.help


def test_every_family_is_documented_with_what_to_do() -> None:
    assert len({family.full_name for family in CATALOGUE}) == len(CATALOGUE) > 40
    for family in CATALOGUE:
        assert family.help.endswith("."), family.attribute
        assert len(family.remedy) > 5, family.attribute
        assert len(family.values) == len(family.labels)
        assert list(family.buckets) == sorted(set(family.buckets))
        assert bool(family.buckets) == (family.kind == "histogram")


def test_names_carry_the_base_unit_and_counters_their_suffix() -> None:
    names = {family.attribute: family.full_name for family in CATALOGUE}
    assert names["request_duration"] == "ingest_request_duration_seconds"
    assert names["request_bytes"] == "ingest_request_bytes_total"
    assert names["journal_sync_seconds"] == "ingest_journal_sync_seconds"
    assert names["pool_size"] == "ingest_pool_size"


def test_the_process_and_its_collector_are_shown_once_each(accept: str | None) -> None:
    found = samples(Metrics(), accept)
    assert value(found, "process_resident_memory_bytes") > 0
    assert value(found, "process_start_time_seconds") > 0
    assert value(found, "python_gc_collections_total", generation="0") >= 0
    assert any(name == "python_info" for name, _ in found)


def test_two_workers_metrics_do_not_share_anything() -> None:
    one, other = Metrics(), Metrics()
    one.pool_runs.value += 1
    one.requests.cell("a", "200").value += 1
    assert other.pool_runs.value == 0
    assert dict(other.requests.items()) == {}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)
def test_the_format_follows_the_accept_field(accept: str | None, expected: str) -> None:
    assert Metrics().render(accept)[1].startswith(expected)


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        'application/openmetrics-text;version="1.0.0"',
        "application/openmetrics-text;version=1.0.0.\x7f\xff",
        "application/openmetrics-text;version=1.0.0." + "a" * 5000,
        "text/plain;version=;q=",
        ";;;,,,==",
    ],
)
def test_an_odd_accept_field_is_answered_in_the_common_format(accept: str) -> None:
    _, content_type = Metrics().render(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_a_cell_is_the_same_object_every_time() -> None:
    metrics = Metrics()
    assert metrics.requests.cell("a", "200") is metrics.requests.cell("a", "200")
    assert metrics.requests.cell("a", "200") is not metrics.requests.cell("a", "202")


def test_a_closed_label_set_is_there_from_the_start_and_takes_nothing_else() -> None:
    metrics = Metrics()
    assert {key for (key,), _ in metrics.errors.items()} == set(ERRORS)
    metrics.errors.cell("made_up").value += 1
    metrics.timeouts.cell("made_up_too").value += 1
    found = samples(metrics)
    assert value(found, "ingest_errors_total", code="other") == 1
    assert value(found, "ingest_timeouts_total", kind="other") == 1
    assert value(found, "ingest_timeouts_total", kind="body") == 0


def test_a_family_stops_growing_and_counts_the_rest_as_other() -> None:
    metrics = Metrics()
    for number in range(CELLS_MAX + 500):
        metrics.events_accepted.cell(f"type-{number}").value += 1
    assert len(metrics.events_accepted.items()) == CELLS_MAX
    assert metrics.events_accepted.cell("other").value == 501
    assert metrics.events_accepted.cell("type-7").value == 1


def test_label_values_that_no_text_can_carry_do_not_break_the_scrape(accept: str | None) -> None:
    metrics = Metrics()
    metrics.events_accepted.cell("\ud800").value += 1
    metrics.events_accepted.cell('quote " slash \\ line \n é').value += 1
    metrics.events_accepted.cell("x" * 1000).value += 1
    found = samples(metrics, accept)
    name = "ingest_events_accepted_total"
    assert value(found, name, type="\\ud800") == 1
    assert value(found, name, type='quote " slash \\ line \n é') == 1
    assert value(found, name, type="x" * LABEL_VALUE_MAX) == 1


def test_a_wrong_number_of_labels_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="type"):
        Metrics().requests.cell("only-one")


def test_a_gauge_whose_function_raises_is_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()

    def broken() -> float:
        raise RuntimeError("gone")

    metrics.pool_size.set_function(broken)
    metrics.pool_in_use.value = 3
    found = samples(metrics)
    assert ("ingest_pool_size", frozenset()) not in found
    assert value(found, "ingest_pool_in_use") == 3
    assert metrics.unhandled_errors.cell("metrics").value == 1
    assert any("metrics.function_failed" in str(record.msg) for record in caplog.records)
