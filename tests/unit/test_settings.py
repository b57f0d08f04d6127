"""One declaration behind flag, variable, file key and default; every mistake named at once."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.settings import SECTIONS, SETTINGS, Settings, SettingsError
from ingest.settings_values import format_duration, format_size, parse_duration, parse_size

BY_NAME = {setting.name: setting for setting in SETTINGS}


def resolve(file: str | None = None, env: dict[str, str] | None = None, **flags: str) -> Settings:
    return Settings.resolve(flags, env or {}, file, "ingest.yaml")


def problems(file: str | None = None, env: dict[str, str] | None = None, **flags: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        resolve(file, env, **flags)
    return [str(problem) for problem in caught.value.problems]


def test_without_any_source_every_setting_has_its_default() -> None:
    assert resolve() == Settings()
    assert resolve().origins == {}
    assert (Settings().bind, Settings().ack) == ("127.0.0.1:8080", "fsync")
    assert (Settings().event_max_bytes, Settings().request_body_max_bytes) == (1 << 20, 16 << 20)


def test_flag_goes_before_environment_before_file_before_default() -> None:
    file, env = (
        "pool_size: 2\nbacklog: 2\nerrors_max: 2",
        {
            "INGEST_POOL_SIZE": "3",
            "INGEST_BACKLOG": "3",
        },
    )
    settings = resolve(file, env, pool_size="4")
    assert (settings.pool_size, settings.backlog, settings.errors_max) == (4, 3, 2)
    assert settings.origins == {
        "pool_size": "--pool-size",
        "backlog": "INGEST_BACKLOG",
        "errors_max": "ingest.yaml:3",
    }


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_reads_its_shown_default_from_every_source(setting) -> None:  # type: ignore[no-untyped-def]
    shown = setting.show(setting.default)
    assert resolve(**{setting.name: shown}) == Settings()
    assert resolve(env={setting.env: shown}) == Settings()
    if setting.name != "config":
        assert resolve(f"{setting.name}: {shown}\n") == Settings()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_help_a_known_section_and_a_default_within_its_bounds(setting) -> None:  # type: ignore[no-untyped-def]
    assert setting.help.endswith(".")
    assert setting.section in SECTIONS
    assert setting.parse(setting.show(setting.default)) == setting.default
    assert type(setting.parse(setting.show(setting.default))) is type(setting.default)


def test_flags_and_variables_are_unique_and_flags_leave_the_unit_out() -> None:
    assert len({setting.flag for setting in SETTINGS}) == len(SETTINGS)
    assert BY_NAME["header_timeout_seconds"].flag == "--header-timeout"
    assert BY_NAME["event_max_bytes"].flag == "--event-max"
    assert BY_NAME["json_depth_max"].flag == "--json-depth-max"
    assert BY_NAME["event_max_bytes"].env == "INGEST_EVENT_MAX_BYTES"


def test_every_field_is_a_declared_setting_but_the_origins() -> None:
    names = [field.name for field in dataclasses.fields(Settings)]
    assert names == [*(setting.name for setting in SETTINGS), "origins"]


def test_bounds_hold_at_the_bound_and_not_beyond() -> None:
    assert resolve(backlog="65535").backlog == 65535
    assert problems(backlog="65536") == ["--backlog: backlog must be at most 65535, not '65536'"]
    assert resolve(backlog="1").backlog == 1
    assert problems(backlog="0") == ["--backlog: backlog must be at least 1, not '0'"]
    assert problems(segment_max_bytes="1023") == [
        "--segment-max: segment_max_bytes must be at least 1KiB, not '1023'"
    ]
    assert problems(idle_timeout_seconds="0") == [
        "--idle-timeout: idle_timeout_seconds must be at least 1ms, not '0'"
    ]


def test_all_problems_of_all_sources_are_reported_at_once() -> None:
    found = problems(
        "backlog: many\n\nbnid: x\n", {"INGEST_WORKRS": "1", "INGEST_ACK": "no"}, data=""
    )
    assert found == [
        "ingest.yaml:3: 'bnid' is no setting; did you mean bind?",
        "INGEST_WORKRS: INGEST_WORKRS names no setting; did you mean INGEST_WORKERS?",
        "ingest.yaml:1: backlog must be a whole number, not 'many'",
        "INGEST_ACK: ack must be fsync or write or remote, not 'no'",
        "--data: data must not be empty; leave it out to get the default, not ''",
    ]


def test_a_wrong_value_is_reported_even_where_a_flag_hides_it() -> None:
    assert problems("ack: no", ack="write") == [
        "ingest.yaml:1: ack must be fsync or write or remote, not 'no'"
    ]


def test_settings_that_are_right_stay_usable_beside_wrong_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        resolve("schemas: elsewhere\nbacklog: 0", {"INGEST_SCHEMAS": ""})
    assert (caught.value.usable.schemas, caught.value.usable.backlog) == ("elsewhere", 4096)
    assert "backlog must be at least 1" in str(caught.value)


def test_settings_that_cannot_stand_together_are_refused() -> None:
    assert problems("duplicate_keys: reject", json_decoder="ujson") == [
        "ingest.yaml:1: duplicate_keys reject does not go with json_decoder ujson"
    ]
    assert resolve(duplicate_keys="reject").duplicate_keys == "reject"
    assert resolve(json_decoder="ujson").json_decoder == "ujson"


def test_an_unknown_name_far_from_every_setting_gets_no_suggestion() -> None:
    assert problems("zzzzzz: 1") == ["ingest.yaml:1: 'zzzzzz' is no setting"]


# -- the environment ------------------------------------------------------------------------


def test_variables_that_kubernetes_sets_for_a_service_called_ingest_are_passed_over() -> None:
    env = {
        "INGEST_SERVICE_HOST": "10.0.0.11",
        "INGEST_SERVICE_PORT": "80",
        "INGEST_SERVICE_PORT_HTTP": "80",
        "INGEST_PORT": "tcp://10.0.0.11:80",
        "INGEST_PORT_80_TCP": "tcp://10.0.0.11:80",
        "INGEST_PORT_80_TCP_PROTO": "tcp",
        "INGEST_PORT_80_TCP_ADDR": "10.0.0.11",
        "INGEST_EDGE_SERVICE_HOST": "10.0.0.12",
        "INGEST_EDGE_PORT": "udp://10.0.0.12:80",
        "HOME": "/",
    }
    assert resolve(env=env) == Settings()


@pytest.mark.parametrize("name", ["INGEST_PORT", "INGEST_SERVICE", "INGEST_PORT_80", "INGEST_"])
def test_variables_that_only_look_like_those_of_kubernetes_are_errors(name: str) -> None:
    (problem,) = problems(env={name: "8080"})
    assert problem.startswith(f"{name}: {name} names no setting")


# -- the file -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_sets_nothing(text: str) -> None:
    assert resolve(text) == Settings()


def test_values_are_read_as_written_and_not_as_yaml_1_1_reads_them() -> None:
    settings = resolve("access_log: off\nevent_max_bytes: 1MiB\npool_size: '7'\nsource: 0x1F\n")
    assert (settings.access_log, settings.pool_size) == ("off", 7)
    assert settings.source == "0x1F"
    assert problems("header_timeout_seconds: 5:30") == [
        "ingest.yaml:1: header_timeout_seconds must be a duration such as 500ms, 10s, 5m or 1h, "
        "not '5:30'"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bind:\n", "ingest.yaml:1: bind must be one plain value"),
        ("bind: ~\n", "ingest.yaml:1: bind must be one plain value"),
        ("\nbind: [a]\n", "ingest.yaml:2: bind must be one plain value"),
        ("bind: {a: b}\n", "ingest.yaml:1: bind must be one plain value"),
        ("ack: write\nack: write\n", "ingest.yaml:2: ack stands twice, first at ingest.yaml:1"),
        ("- a\n", "ingest.yaml:1: the file must hold `name: value` lines"),
        ("just text", "ingest.yaml:1: the file must hold `name: value` lines"),
        (
            "config: other.yaml\n",
            "ingest.yaml:1: config cannot stand in the settings file itself; use --config",
        ),
        ("? [a, b]\n: c\n", "ingest.yaml:1: '?' is no setting"),
    ],
)  # fmt: skip
def test_what_is_no_plain_entry_is_named_with_its_line(text: str, expected: str) -> None:
    assert problems(text) == [expected]


@pytest.mark.parametrize("text", ["a: b: c", "a: [", "\x00", "a: 1\n---\nb: 2\n", "a: *nowhere"])
def test_what_is_not_yaml_is_said_without_a_traceback(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("ingest.yaml")
    assert "not YAML" in problem


@given(st.text(max_size=60))
def test_no_file_makes_resolving_fail_in_another_way(text: str) -> None:
    try:
        resolve(text)
    except SettingsError as error:
        assert error.problems


@given(st.sampled_from(SETTINGS), st.text(max_size=40))
def test_no_value_makes_resolving_fail_in_another_way(setting, text: str) -> None:  # type: ignore[no-untyped-def]
    try:
        settings = resolve(**{setting.name: text})
    except SettingsError as error:
        assert [problem.key for problem in error.problems] == [setting.name]
        assert all(len(str(problem)) < 400 for problem in error.problems)
    else:
        assert settings.origins == {setting.name: setting.flag}


# -- units ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64KiB", 65536),
        ("64kib", 65536),
        ("64 KiB", 65536),
        ("1MiB", 1 << 20),
        ("1GiB", 1 << 30),
        ("1TiB", 1 << 40),
        ("1.5KiB", 1536),
        ("1kB", 1000),
        ("1MB", 1_000_000),
        ("1GB", 10**9),
        ("1TB", 10**12),
        ("12B", 12),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "KiB", "1XiB", "1K", "1e3", "0x10", "1_000", "1.5", "--1", "1025TiB", "٣", "1\n"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("10", 10.0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("7d", 604800.0),
        ("366d", 366 * 86400.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "1x", "1M", "1h30m", "inf", "nan", "1e9", "367d", "1:30"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


@given(st.integers(0, 2**50))
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 366 * 86400 * 1000))
def test_durations_are_shown_as_they_are_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


def test_a_share_is_a_number_from_0_to_1() -> None:
    assert resolve(access_log_sample="1").access_log_sample == 1.0
    for text in ("1.1", "-0.1", "1%", "nan"):
        assert len(problems(access_log_sample=text)) == 1


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:8080", "[::1]:8080", "[::]:65535", "[fe80::1%eth0]:1"]
)
def test_listening_addresses_are_accepted(address: str) -> None:
    assert resolve(bind=address).bind == address


@pytest.mark.parametrize(
    "address",
    ["8080", ":8080", "host", "host:", "host:x", "host:65536", "::1:80", "[nope]:80", "[::1]",
     "http://host:80", "a b:80", "[1.2.3.4]:80"],
)  # fmt: skip
def test_what_is_no_listening_address_is_refused(address: str) -> None:
    assert len(problems(bind=address)) == 1


@pytest.mark.parametrize(
    "source", ["/ingest", "urn:a:b", "https://a.example/b?c#d", "a/b:c", "%20", "#top", "//host"]
)
def test_uri_references_are_accepted_as_source(source: str) -> None:
    assert resolve(source=source).source == source


@pytest.mark.parametrize("source", ["a b", "%zz", "a#b#c", "1a:b", ":a", "ä", '"', "a\\b"])
def test_what_is_no_uri_reference_is_refused_as_source(source: str) -> None:
    (problem,) = problems(source=source)
    assert "must be a URI-reference" in problem


def test_control_characters_and_very_long_texts_are_refused_and_not_repeated() -> None:
    (problem,) = problems(data="a\x1b[2Jb")
    assert "control characters" in problem and "\x1b" not in problem
    (problem,) = problems(data="x" * 5000)
    assert "at most 4096 characters" in problem and len(problem) < 200
