"""Loading a directory of schemas: what becomes a type, and every way it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.registry import FILE_MAX_BYTES, Registry, RegistryError, version_key
from ingest.type_options import Route, Sink, TypeOptions

OK: dict[str, Any] = {"type": "object"}
TEXT: dict[str, Any] = {"type": "string"}
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def write(directory: Path, files: dict[str, Any]) -> Path:
    schemas = directory / "schemas"
    schemas.mkdir(exist_ok=True)
    for name, content in files.items():
        path = schemas / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return schemas


def load(directory: Path, files: dict[str, Any]) -> Registry:
    return Registry.load(write(directory, files))


def problems(directory: Path, files: dict[str, Any]) -> list[tuple[str, str, str]]:
    """File (below the schemas directory), pointer and message of every problem."""
    schemas = write(directory, files)
    with pytest.raises(RegistryError) as caught:
        Registry.load(schemas)
    for problem in caught.value.problems:
        assert str(problem) in str(caught.value)
    return [
        (
            problem.file.removeprefix(f"{schemas}").removeprefix("/"),
            problem.pointer,
            problem.message,
        )
        for problem in caught.value.problems
    ]


def warnings(registry: Registry) -> list[tuple[str, str]]:
    return [(Path(warning.file).name, warning.pointer) for warning in registry.warnings]


# -- types and versions -------------------------------------------------------------------


def test_a_file_is_a_type_with_one_version(tmp_path: Path) -> None:
    registry = load(tmp_path, {"b.json": OK, "a.json": OK})
    assert [event_type.name for event_type in registry] == ["a", "b"]
    a = registry.types["a"]
    assert (a.version, a.path, a.schema) == ("1", Path("a.json"), OK)
    assert a.dataschema == "/v1/schemas/a?version=1"
    assert len(registry) == 2 and registry.warnings == []


def test_a_folder_is_a_type_whose_newest_version_counts(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "order/1.0.0.json": {"const": 1},
            "order/1.10.0.json": {"const": 3},
            "order/1.9.0.json": {"const": 2},
            "order/2.0.0-rc.1.json": {"const": 4},
        },
    )
    assert [each.version for each in registry.versions("order")] == [
        "1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1",
    ]  # fmt: skip
    order = registry.get("order")
    assert order is registry.types["order"] and order is not None
    assert order.dataschema == "/v1/schemas/order?version=2.0.0-rc.1"
    assert order.validator.is_valid(4)
    older = registry.get("order", "1.9.0")
    assert older is not None and older.validator.is_valid(2) and not older.validator.is_valid(4)
    assert "order" in repr(order) and "2.0.0-rc.1" in repr(order)


def test_an_unknown_type_or_version_is_none(tmp_path: Path) -> None:
    registry = load(tmp_path, {"a.json": OK})
    assert registry.get("b") is None
    assert registry.get("a", "2") is None
    assert registry.versions("b") == []


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "2", "10"],
        ["v1", "v2", "v10"],
        ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"],
        ["2025-01-31", "2025-02-01", "2026-01-01"],
        ["draft", "draft2", "draft10", "1"],
        ["1", "1.1", "2"],
    ],
)
def test_versions_are_ordered_as_people_read_them(ordered: list[str]) -> None:
    assert sorted(set(ordered), key=version_key) == ordered


@pytest.mark.parametrize("same", [("1", "1.0"), ("1.0", "v1"), ("2-rc.1", "2.0-rc.1")])
def test_two_versions_that_cannot_be_told_apart_are_a_problem(
    tmp_path: Path, same: tuple[str, str]
) -> None:
    found = problems(tmp_path, {f"a/{version}.json": OK for version in same})
    assert [message for _, _, message in found] == [
        f"is the same version as a/{min(f'{v}.json' for v in same)}"
    ]


def test_a_type_is_a_file_or_a_folder_but_not_both(tmp_path: Path) -> None:
    assert problems(tmp_path, {"a.json": OK, "a/2.json": OK}) == [
        ("a.json", "", "a has a folder, too: move it in as a version")
    ]


@pytest.mark.parametrize(
    "name", [" a.json", "a b.json", "-a.json", "é.json", "a/ 1.json", "x" * 129 + ".json"]
)
def test_a_name_that_cannot_stand_in_a_url_is_a_problem(tmp_path: Path, name: str) -> None:
    ((file, place, message),) = problems(tmp_path, {name: OK})
    assert (file, place) == (name, "")
    assert "cannot name a" in message


def test_files_that_are_no_schemas_of_types_are_passed_over(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "a.json": {"$ref": "_common/deep/part.json"},
            "_common/deep/part.json": {"type": "string"},
            "a-notes.md": b"not JSON",
            ".hidden.json": b"not JSON",
            "..2026_11_23/a.json": b"not JSON",
            "_part.json": OK,
        },
    )
    assert list(registry.types) == ["a"]


def test_a_mounted_volume_of_links_is_read(tmp_path: Path) -> None:
    schemas = write(tmp_path, {"..data_1/a.json": {"type": "string"}})
    (schemas / "..data").symlink_to("..data_1")
    (schemas / "a.json").symlink_to("..data/a.json")
    assert Registry.load(schemas).types["a"].validator.is_valid("x")


def test_a_file_too_deep_is_a_problem(tmp_path: Path) -> None:
    ((file, _, message),) = problems(tmp_path, {"a/b/1.json": OK})
    assert file == "a/b/1.json" and "neither" in message


@pytest.mark.parametrize("files", [{}, {"_common/part.json": OK}, {"README.md": b""}])
def test_no_type_at_all_is_a_problem(tmp_path: Path, files: dict[str, Any]) -> None:
    ((_, _, message),) = problems(tmp_path, files)
    assert "no event type" in message


def test_a_directory_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="does not exist"):
        Registry.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n nope}", "is not JSON: .*line 2, column 2"),
        (b'{"type":"object","type":"array"}', "twice in one object"),
        (b"[]", "not a JSON object"),
        (b"true", "not a JSON object"),
        (b"", "is not JSON"),
        (b" " * (FILE_MAX_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_holds_no_schema_is_a_problem(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        load(tmp_path, {"a.json": content})


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    schemas = write(tmp_path, {})
    (schemas / "a.json").symlink_to("gone.json")
    assert problems(tmp_path, {}) == [("a.json", "", "cannot be read: No such file or directory")]


# -- the schemas themselves ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "place", "message"),
    [
        ({"type": "strin"}, "/type", "strin"),
        ({"properties": {"a": {"minLength": -1}}}, "/properties/a/minLength", "minimum of 0"),
        ({"required": "a"}, "/required", "not of type 'array'"),
        ({"properties": {"a/b": {"enum": {}}}}, "/properties/a~1b/enum", "not of type 'array'"),
        ({"pattern": "("}, "/pattern", "not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "/patternProperties", "not a 'regex'"),
        ({"$id": "http://["}, "/$id", "uri-reference"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "/$schema", "none of the drafts"),
        ({"$schema": "https://example.com/own"}, "/$schema", "none of the drafts"),
        ({"$schema": 7}, "/$schema", "none of the drafts"),
        ({"$schema": DRAFT_7, "properties": {"a": {"type": 1}}}, "/properties/a/type", "1 is not"),
        ({"$schema": "http://json-schema.org/draft-04/schema", "exclusiveMinimum": 1},
         "/exclusiveMinimum", "boolean"),
    ],
)  # fmt: skip
def test_a_schema_that_breaks_its_draft_is_a_problem_with_its_place(
    tmp_path: Path, schema: Any, place: str, message: str
) -> None:
    found = problems(tmp_path, {"a.json": schema})
    assert place in [pointer for _, pointer, _ in found]
    assert any(message in text for _, _, text in found), found


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {
            "a.json": {"type": "strin", "minLength": -1},
            "b.json": {"$ref": "nowhere.json"},
            "c.json": b"[",
            "d.json": {"x-ingest": {"ack": "never"}},
            "_common/e.json": {"required": 1},
            "f/bad name.json": OK,
        },
    )
    assert {(file, pointer) for file, pointer, _ in found} == {
        ("a.json", "/type"), ("a.json", "/minLength"), ("b.json", "/$ref"), ("c.json", ""),
        ("d.json", "/x-ingest/ack"), ("_common/e.json", "/required"), ("f/bad name.json", ""),
    }  # fmt: skip
    assert found == sorted(found)


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
def test_a_draft_may_be_named_with_and_without_the_empty_fragment(
    tmp_path: Path, draft: str
) -> None:
    uri = f"http://json-schema.org/{draft}/schema"
    registry = load(tmp_path, {"a.json": {"$schema": uri}, "b.json": {"$schema": f"{uri}#"}})
    assert all(event_type.validator.is_valid(1) for event_type in registry)


# -- references ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "others"),
    [
        ("_common/text.json", {"_common/text.json": TEXT}),
        ("/_common/text.json", {"_common/text.json": TEXT}),
        ("_c/all.json#/$defs/text", {"_c/all.json": {"$defs": {"text": TEXT}}}),
        ("_c/all.json#text", {"_c/all.json": {"$defs": {"t": {"$anchor": "text", **TEXT}}}}),
        ("https://example.com/t", {"_t.json": {"$id": "https://example.com/t", **TEXT}}),
        ("https://example.com/t", {"_t.json": {"$defs": {"t": {"$id": "https://example.com/t",
                                                               **TEXT}}}}),
        ("other.json", {"other.json": TEXT}),
        ("_a.json", {"_a.json": {"$ref": "_b.json"}, "_b.json": TEXT}),
        ("#/x/y", {}),
    ],
)  # fmt: skip
def test_references_lead_to_files_anchors_and_identifiers(
    tmp_path: Path, reference: str, others: dict[str, Any]
) -> None:
    schema = {"properties": {"a": {"$ref": reference}}, "x": {"y": {"type": "string"}}}
    validator = load(tmp_path, {"main.json": schema, **others}).types["main"].validator
    for event, verdict in (({"a": "text"}, True), ({"a": 1}, False)):
        assert validator.is_valid(event) is verdict
        assert validator.reference_is_valid(event) is verdict


def test_a_version_reaches_the_shared_parts_above_it(tmp_path: Path) -> None:
    files = {"a/1.json": {"$ref": "../_common/p.json"}, "_common/p.json": {"type": "string"}}
    assert not load(tmp_path, files).types["a"].validator.is_valid(1)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"$ref": "missing.json"}, "/$ref"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "/$ref"),
        ({"items": {"$ref": "https://json-schema.org/no-such-thing"}}, "/items/$ref"),
        ({"$ref": "../../etc/passwd"}, "/$ref"),
        ({"$ref": "file:///etc/passwd"}, "/$ref"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "/properties/a/$ref"),
        ({"allOf": [{}, {"$ref": "#nowhere"}]}, "/allOf/1/$ref"),
        ({"$ref": "_part.json#/$defs/no"}, "/$ref"),
        ({"$dynamicRef": "#no"}, "/$dynamicRef"),
        ({"$id": "https://example.com/a", "$ref": "_part.json"}, "/$ref"),
        ({"$ref": "#/x", "x": {"items": {"$ref": "missing.json"}}}, "/$ref"),
        ({"$ref": "#/x", "x": 1}, "/$ref"),
        ({"$schema": DRAFT_7, "dependencies": {"a": {"$ref": "no.json"}}}, "/dependencies/a/$ref"),
        ({"additionalProperties": {"not": {"$ref": "no.json"}}}, "/additionalProperties/not/$ref"),
    ],
)  # fmt: skip
def test_a_reference_that_leads_nowhere_is_a_problem_and_the_network_is_not_asked(
    tmp_path: Path, schema: Any, place: str
) -> None:
    found = problems(tmp_path, {"a.json": schema, "_part.json": {}})
    assert [(file, pointer) for file, pointer, _ in found] == [("a.json", place)]


def test_a_broken_shared_part_is_reported_once_in_its_own_file(tmp_path: Path) -> None:
    files = {
        "a.json": {"$ref": "_part.json"},
        "b.json": {"$ref": "_part.json"},
        "_part.json": {"items": {"$ref": "missing.json"}},
    }
    assert [(f, p) for f, p, _ in problems(tmp_path, files)] == [("_part.json", "/items/$ref")]


def test_metaschemas_are_known_without_the_network(tmp_path: Path) -> None:
    registry = load(tmp_path, {"a.json": {"$ref": "https://json-schema.org/draft/2020-12/schema"}})
    validator = registry.types["a"].validator
    assert validator.is_valid({"type": "string"}) and not validator.is_valid({"type": 1})


def test_an_identifier_that_stands_twice_is_a_problem(tmp_path: Path) -> None:
    same = {"$id": "https://example.com/a"}
    ((file, place, message),) = problems(tmp_path, {"a.json": same, "b.json": same})
    assert (file, place) == ("b.json", "/$id")
    assert "already identifies a.json" in message
    inner = {"$defs": {"x": {"$id": "https://example.com/a"}}}
    ((file, place, _),) = problems(tmp_path, {"a.json": same, "b.json": inner})
    assert (file, place) == ("b.json", "/$defs/x/$id")
    ((_, place, message),) = problems(tmp_path, {"a.json": OK, "b.json": {"$id": "a.json"}})
    assert place == "/$id" and "file:///a.json already identifies a.json" in message


def test_an_identifier_that_repeats_the_file_name_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, {"a.json": {"$id": "a.json"}}).types["a"].validator.is_valid(1)


# -- x-ingest -----------------------------------------------------------------------------


def test_options_default_to_the_settings(tmp_path: Path) -> None:
    assert load(tmp_path, {"a.json": OK}).types["a"].options == TypeOptions()


def test_options_are_read_from_the_schema(tmp_path: Path) -> None:
    options = {
        "routes": ["POST /metrics", "PUT /legacy/metrics/"],
        "ack": "write",
        "on_reject": "drop",
        "dedupe": "none",
        "retention": "forever",
        "sink": "journal",
        "max_event_bytes": 100,
    }
    read = load(tmp_path, {"a.json": {"x-ingest": options}}).types["a"].options
    assert read == TypeOptions(
        routes=(Route("POST", "/metrics"), Route("PUT", "/legacy/metrics/")),
        ack="write",
        retention="forever",
        sink=Sink(journal=True, kafka=False),
        max_event_bytes=100,
    )
    assert str(read.routes[0]) == "POST /metrics"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("kafka", Sink(False, True)),
        (["kafka", "journal"], Sink(True, True)),
        ({"kafka": {"key": "/user/id"}}, Sink(False, True, None, "/user/id")),
        (
            ["journal", {"kafka": {"topic": "t.{type}", "key": "subject", "mode": "structured"}}],
            Sink(True, True, "t.{type}", "subject", "structured"),
        ),
    ],
)
def test_a_sink_is_a_name_or_kafka_with_what_is_otherwise_or_both(
    tmp_path: Path, given: Any, read: Sink
) -> None:
    assert load(tmp_path, {"a.json": {"x-ingest": {"sink": given}}}).types["a"].options.sink == read


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ([], ""),
        ({"acks": "fsync"}, ""),
        ({"ack": "all"}, "/ack"),
        ({"sink": "redis"}, "/sink"),
        ({"sink": []}, "/sink"),
        ({"sink": ["kafka", "kafka"]}, "/sink"),
        ({"sink": ["journal", "redis"]}, "/sink/1"),
        ({"sink": {"kafka": {}, "redis": {}}}, "/sink"),
        ({"sink": {"kafka": {"topics": "a"}}}, "/sink/kafka"),
        ({"sink": {"kafka": {"topic": "a b"}}}, "/sink/kafka/topic"),
        ({"sink": {"kafka": {"topic": ".."}}}, "/sink/kafka/topic"),
        ({"sink": {"kafka": {"key": "id"}}}, "/sink/kafka/key"),
        ({"sink": {"kafka": {"mode": "text"}}}, "/sink/kafka/mode"),
        ({"max_event_bytes": 0}, "/max_event_bytes"),
        ({"max_event_bytes": "1MiB"}, "/max_event_bytes"),
        ({"routes": "POST /a"}, "/routes"),
        ({"routes": ["POST /a", "POST /a"]}, "/routes"),
        ({"routes": ["/a"]}, "/routes/0"),
        ({"routes": ["GET /a"]}, "/routes/0"),
        ({"routes": ["POST a"]}, "/routes/0"),
        ({"routes": ["POST /a", "POST /a?b"]}, "/routes/1"),
        ({"routes": ["POST /a b"]}, "/routes/0"),
        ({"routes": ["POST /a/../b"]}, "/routes/0"),
        ({"routes": ["POST /a/."]}, "/routes/0"),
        ({"routes": ["POST //a"]}, "/routes/0"),
        ({"routes": ["POST /%41"]}, "/routes/0"),
        ({"routes": ["POST /a\n"]}, "/routes/0"),
        ({"routes": [1]}, "/routes/0"),
        ({"routes": ["POST /v1/events/b"]}, "/routes/0"),
        ({"routes": ["POST /livez"]}, "/routes/0"),
    ],
)
def test_wrong_options_are_a_problem(tmp_path: Path, options: Any, place: str) -> None:
    found = problems(tmp_path, {"a.json": {"x-ingest": options}})
    assert [(file, pointer) for file, pointer, _ in found] == [("a.json", f"/x-ingest{place}")]


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a.b/c-d_e~f", "/.well-known/x", "/..a/b"])
def test_a_route_may_be_any_plain_path(tmp_path: Path, path: str) -> None:
    registry = load(tmp_path, {"a.json": {"x-ingest": {"routes": [f"POST {path}"]}}})
    assert registry.types["a"].options.routes == (Route("POST", path),)


def test_a_route_belongs_to_one_type(tmp_path: Path) -> None:
    options = {"x-ingest": {"routes": ["POST /a", "PUT /x"]}}
    other = {"x-ingest": {"routes": ["PUT /a", "POST /a"]}}
    assert problems(tmp_path, {"a.json": options, "b.json": other}) == [
        ("b.json", "/x-ingest/routes/1", "POST /a is a route of a.json already")
    ]


def test_only_the_newest_version_has_routes(tmp_path: Path) -> None:
    options = {"x-ingest": {"routes": ["POST /a"]}}
    registry = load(tmp_path, {"a/1.json": options, "a/2.json": options, "b/1.json": options,
                               "b/2.json": OK})  # fmt: skip
    assert [event_type.options.routes for event_type in registry] == [(Route("POST", "/a"),), ()]


# -- warnings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "place", "message"),
    [
        ({"properties": {"a": {"format": "iban"}}}, "/properties/a/format", "no format 'iban'"),
        ({"$schema": DRAFT_7, "prefixItems": []}, "/prefixItems", "draft 7 has no prefixItems"),
        ({"items": {"additionalItems": False}}, "/items/additionalItems", "2020-12 has no"),
        ({"pattern": "^(?!x)"}, "/pattern", "needs backtracking"),
        ({"patternProperties": {"^(?!x)": {}}}, "/patternProperties/^(?!x)", "needs backtracking"),
        ({"pattern": "a{1,1000000}"}, "/pattern", "too large"),
        ({"pattern": "a{1,1000000}"}, "", "cannot compile"),
        ({"items": {"x-ingest": {}}}, "/items/x-ingest", "root of a type"),
        ({"type": "string", "examples": ["a", 1]}, "/examples/1", "does not match"),
    ],
)
def test_what_has_not_the_effect_it_seems_to_have_is_a_warning(
    tmp_path: Path, schema: Any, place: str, message: str
) -> None:
    registry = load(tmp_path, {"a.json": schema})
    assert any(
        warning.pointer == place and message in warning.message for warning in registry.warnings
    ), registry.warnings


def test_words_that_are_no_keywords_where_they_stand_are_no_warning(tmp_path: Path) -> None:
    schema = {
        "properties": {"format": {"type": "string"}, "$ref": {}, "pattern": {"type": "string"}},
        "enum": [{"$ref": "nowhere.json", "format": "iban"}],
        "examples": [{"$ref": "nowhere.json", "format": "iban"}],
        "x-other": {"$ref": "nowhere.json"},
        "description": "with any further annotation",
    }
    assert load(tmp_path, {"a.json": schema}).warnings == []


def test_options_in_a_shared_part_are_a_warning(tmp_path: Path) -> None:
    files = {"a.json": OK, "_p.json": {"x-ingest": {"ack": "write"}}}
    assert warnings(load(tmp_path, files)) == [("_p.json", "/x-ingest")]


# -- what is shipped ----------------------------------------------------------------------


def test_a_schema_nested_too_deep_is_a_problem_and_no_recursion_error(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text('{"properties":{"a":' * 200 + "{}" + "}}" * 200)
    with pytest.raises(RegistryError, match=r"deep\.json.*levels deep"):
        Registry.load(tmp_path)


def test_the_shipped_schemas_load_without_a_warning() -> None:
    registry = Registry.load(Path("schemas"))
    assert list(registry.types) == ["metrics", "order", "page_view"]
    assert registry.warnings == []
    assert registry.types["metrics"].options.routes == (Route("POST", "/metrics"),)
